"""How traffic comes in: Ingress and Gateway API, served by HAProxy.

In: watch events of Ingresses, IngressClasses, Gateways, their routes and Secrets, and the ServiceSnapshot that proxy
and DNS read too. Out: a route table (pure values), the configuration, maps and servers of an HAProxy, statuses and
Events. Never: an endpoint or certificate change by way of a reload, or an object's fault felt by another object.
"""
