"""Between the wire and the store: one strategy per kind (prepare → default → validate → allocate), generic verbs.

In: objects as dicts and a request's intent. Out: stored objects, watch events, or a `StatusError`. Never: HTTP.
"""
