"""The nftables backend: service table → desired objects → diff → one transaction.

In: entries of the service table. Out: the table `fairlead` in the families ip and ip6. Never: another table.
"""
