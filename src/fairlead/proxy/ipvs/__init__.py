"""The ipvs backend: service table → virtual servers, addresses of a dummy link, IP sets and a few rules → diff → apply.

In: entries of the service table. Out: virtual servers, the link kube-ipvs0, sets and chains KUBE-…. Never: a virtual
server at an address that is no Service's and not in the ranges excluded from its care.
"""
