"""Gateway API: GatewayClasses, Gateways and their routes, for the same route table and data plane as Ingresses. ◆ Pure.

In: the objects, as the API gives them; the snapshot's Services; Secrets by way of `pem_of`. Out: frontends, the
statuses that the specification demands, and the Services that Gateways are reached by. Never: a route by which an
object reaches into a namespace that did not grant it.
"""
