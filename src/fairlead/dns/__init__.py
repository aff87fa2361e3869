"""The cluster's DNS: messages, zones prebuilt from the snapshot, answers, forwarding.

In: a `ServiceSnapshot` and queries. Out: answers as the Kubernetes DNS specification 1.1.0 says. Never: a cache between
the watch and the answer.
"""
