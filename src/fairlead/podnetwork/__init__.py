"""How packets get from pod to pod: a pure plan (links, addresses, routes, translations) and its application.

In: the node's own description and its peers'. Out: a bridge per node, a veth pair and an address per pod, routes
between nodes, NAT on the way out. Never: a rule about a Service (that is the proxy's).
"""
