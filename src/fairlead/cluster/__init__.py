"""A whole cluster on one machine: certificates, namespaces, processes, state, add-ons.

In: a cluster's description. Out: running processes and a kubeconfig; after `down`, nothing. Never: anything on the
machine's own network but one veth pair and the routes to it.
"""
