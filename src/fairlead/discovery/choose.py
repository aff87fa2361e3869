"""Which endpoints serve this port, for traffic from here? Pure.

The one place where traffic policies, topology hints and the fallback to terminating endpoints are decided, by the rules
of kube-proxy (pkg/proxy/topology.go; KEP-1669, KEP-2086, KEP-2433, KEP-3015, KEP-4444). Stands between the snapshot and
the proxy, explain and the services proxy. Invariant: the order of endpoints depends only on which endpoints there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from fairlead.discovery.model import Endpoint, EndpointPort, Service, ServicePort

Verdict = Literal["forward", "reject", "drop"]


class Backend(NamedTuple):
    """An endpoint, with the port number on it. `backend.endpoint.address`, `backend.port`."""

    endpoint: Endpoint
    port: int


class Choice(NamedTuple):
    """The answer for one kind of traffic.

    `forward`: to one of `endpoints`, which are not empty. `reject`: no endpoint anywhere would do, the client is told
    (ICMP port unreachable, TCP reset). `drop`: endpoints exist, but the policy Local leaves none on this node.
    """

    endpoints: tuple[Backend, ...]
    verdict: Verdict


class Categories(NamedTuple):
    """All that kube-proxy works out for one port.

    `cluster`: for the policy Cluster, topology taken into account. `local`: for the policy Local.
    `anywhere`: some endpoint of the cluster, on this node or not, is ready, or serving while it terminates.
    """

    cluster: tuple[Backend, ...]
    local: tuple[Backend, ...]
    anywhere: bool

    @property
    def reachable(self) -> tuple[Backend, ...]:
        """The union of `cluster` and `local`, in order."""
        if not self.local or self.local == self.cluster:
            return self.cluster
        return tuple(sorted({*self.cluster, *self.local}, key=_order))


def choose(
    service: Service, port: ServicePort, ip_family: str, *, node: str, zone: str, external: bool = False
) -> Choice:
    """Where traffic goes that arrives on the node `node` (in zone `zone`, "" if it has none) for this port.

    `ip_family` is IPv4 or IPv6: that of the address the traffic was sent to. `external`: the traffic came to a node
    port, an external IP or a load balancer's IP, so externalTrafficPolicy decides; otherwise internalTrafficPolicy.
    kube-proxy's short cuts (pods and the node itself reach a Local external address by the policy Cluster) are the
    proxy's to make, with `categorize`.
    """
    categories = categorize(service, port, ip_family, node=node, zone=zone)
    if service.external_local if external else service.internal_local:
        if categories.local:
            return Choice(categories.local, "forward")
        return Choice((), "drop" if categories.anywhere else "reject")
    return Choice(categories.cluster, "forward") if categories.cluster else Choice((), "reject")


def categorize(service: Service, port: ServicePort, ip_family: str, *, node: str, zone: str) -> Categories:
    """The endpoints for either policy on the node `node`; see `Categories`."""
    return categorize_backends(backends(service, port, ip_family), node=node, zone=zone)


def categorize_backends(candidates: tuple[Backend, ...], *, node: str, zone: str) -> Categories:
    """As `categorize`, of `backends(…)` worked out before."""
    ready = [backend for backend in candidates if backend.endpoint.ready]
    fallback = [
        backend
        for backend in candidates
        if backend.endpoint.serving and backend.endpoint.terminating and not backend.endpoint.ready
    ]
    local = [backend for backend in ready if backend.endpoint.node == node]
    if not local:
        local = [backend for backend in fallback if backend.endpoint.node == node]
    cluster = _preferred(ready, node, zone) if ready else fallback
    return Categories(tuple(cluster), tuple(local) if node else (), bool(cluster))


def _preferred(ready: list[Backend], node: str, zone: str) -> list[Backend]:
    """The ready endpoints hinted for this node, else for this zone, else all. Hints count only if *every* ready
    endpoint has one of that sort and one of them is ours."""
    if all(backend.endpoint.node_hints for backend in ready):
        ours = [backend for backend in ready if node in backend.endpoint.node_hints]
        if ours:
            return ours
    if all(backend.endpoint.zone_hints for backend in ready):
        ours = [backend for backend in ready if zone in backend.endpoint.zone_hints]
        if ours:
            return ours
    return ready


def backends(service: Service, port: ServicePort, ip_family: str) -> tuple[Backend, ...]:
    """Every endpoint of that family with a port of this port's name and protocol, whatever its conditions, in order.

    The target port is each slice's own, so a named target port may have several numbers. An address and port that
    several slices hold (for a moment, while the controller moves it) counts once, by its best condition. On two nodes
    it is two endpoints: nodes in different networks may have one address.
    """
    found: dict[tuple[str, int, str], Backend] = {}
    for entry in service.slices:
        if entry.address_type != ip_family:
            continue
        for number in _numbers(entry.ports, port):
            for endpoint in entry.endpoints:
                identity = (endpoint.address, number, endpoint.node)
                known = found.get(identity)
                if known is None or _rank(endpoint) > _rank(known.endpoint):
                    found[identity] = Backend(endpoint, number)
    return tuple(found[identity] for identity in sorted(found))


def _numbers(ports: Iterable[EndpointPort], port: ServicePort) -> list[int]:
    return [entry.port for entry in ports if entry.name == port.name and entry.protocol == port.protocol]


def _rank(endpoint: Endpoint) -> int:
    if endpoint.ready:
        return 2
    return 1 if endpoint.serving and endpoint.terminating else 0


def _order(backend: Backend) -> tuple[str, int, str]:
    return backend.endpoint.address, backend.port, backend.endpoint.node
