"""The Kubernetes API over HTTPS: routes, content negotiation, watch framing, authentication, discovery, OpenAPI.

In: requests of kubectl and every other client. Out: objects, tables, event streams, and errors as `Status` bodies.
Never: a decision about an object (that is the registry's) or a private way around the registry.
"""
