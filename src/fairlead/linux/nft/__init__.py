"""nftables over netlink: tables, chains, rules, sets and maps as typed values, written and read back.

In: objects and transactions (`objects`, `transaction`). Out: their presence in the kernel, in one atomic batch; what a
table holds; notice of what others change. Never: a Service, a decision, a table that was not named.
"""
