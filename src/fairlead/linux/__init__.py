"""The only code that touches the kernel: netlink, namespaces, mounts, processes, nftables, conntrack.

In: typed descriptions of links, addresses, routes, rules. Out: their presence in the kernel, or an OSError that names
the object. Never: a Kubernetes object, a decision.
"""
