"""The heart: what every service is, and which endpoints serve traffic from here. Pure.

In: watch events of Services, EndpointSlices, Nodes, Namespaces. Out: an immutable `ServiceSnapshot`, what changed,
and answers to "which endpoints?". Proxy, DNS, environment variables, ingress and explain read the same snapshot, so
they can never disagree on what a service is.
"""
