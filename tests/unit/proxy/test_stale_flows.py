"""Which flows are stale, by comparison with the services as they are."""

from __future__ import annotations

import socket

from immutables import Map

from fairlead.discovery.model import Endpoint, EndpointPort, Service, ServiceKey, ServicePort, Slice
from fairlead.linux.conntrack import Flow, Tuple
from fairlead.proxy.conntrack import Front, Serving, all_fronts, clean, clean_lost, fronts, is_stale, suspicious
from fairlead.proxy.table import Forwarding, ServiceTable, Target

VIP, CLIENT, NODE_IP = "10.96.0.10", "10.244.1.9", "192.0.2.1"
OLD, NEW = "10.244.1.2", "10.244.2.2"
CIDRS = ("10.96.0.0/16",)


def flow(destination: str, port: int, answers: str, answers_port: int = 5353) -> Flow:
    original = Tuple(socket.AF_INET, 17, CLIENT, 5555, destination, port)
    return Flow(original, Tuple(socket.AF_INET, 17, answers, answers_port, CLIENT, 5555))


def dns(*endpoints: Endpoint, node_port: int = 0) -> Service:
    ports = (ServicePort("dns", "UDP", 53, 5353, node_port), ServicePort("tcp", "TCP", 53, 5353))
    slices = (Slice("dns-1", "IPv4", (EndpointPort("dns", "UDP", 5353),), endpoints),)
    return Service(ServiceKey("kube-system", "dns"), cluster_ips=(VIP,), ports=ports, slices=slices)


def test_a_flow_to_an_endpoint_that_left_is_stale() -> None:
    """Flows to endpoints that serve, ready or terminating, go on; to others not."""
    known = fronts(dns(Endpoint(NEW, ready=False, serving=True, terminating=True)), (NODE_IP,))
    assert not is_stale(flow(VIP, 53, NEW), known)
    assert is_stale(flow(VIP, 53, OLD), known)
    assert is_stale(flow(VIP, 53, VIP, 53), known)  # begun when nothing translated it


def test_without_endpoints_only_translated_flows_are_stale() -> None:
    """Scaled to zero: what still goes to the last endpoint ends; what was never translated is left."""
    known = fronts(dns(), ())
    assert is_stale(flow(VIP, 53, OLD), known)
    assert not is_stale(flow(VIP, 53, VIP, 53), known)


def test_flows_of_nobodys_service_are_left() -> None:
    """Other addresses and other ports are not touched; a cluster IP of no Service any more is."""
    known = fronts(dns(Endpoint(NEW)), ())
    assert not is_stale(flow("192.0.2.77", 53, OLD), known, CIDRS)
    assert not is_stale(flow("198.51.100.1", 53, "198.51.100.1", 53), known, CIDRS)
    assert is_stale(flow("10.96.0.77", 53, OLD), known, CIDRS)
    assert not is_stale(flow("10.96.0.77", 53, "10.96.0.77", 53), known, CIDRS)


def test_node_ports_are_fronts_on_the_nodes_addresses() -> None:
    """A flow to a node port is judged like one to the cluster IP."""
    known = fronts(dns(Endpoint(NEW), node_port=30053), (NODE_IP,))
    assert is_stale(flow(NODE_IP, 30053, OLD), known)
    assert not is_stale(flow(NODE_IP, 30053, NEW), known)
    assert not is_stale(flow(NODE_IP, 30054, OLD), known)


def test_what_must_be_looked_at_after_a_change() -> None:
    """A loss, a first endpoint, a new or a vanished front; not one endpoint more."""
    one, both, none = (fronts(dns(*e), ()) for e in ((Endpoint(OLD),), (Endpoint(OLD), Endpoint(NEW)), ()))
    front = Front(VIP, 53)
    assert suspicious(one, both) == {}
    assert suspicious(both, one) == {front: one[front]}
    assert suspicious(none, one) == {front: one[front]}
    assert suspicious({}, one) == {front: one[front]}
    assert suspicious(one, {}) == {front: Serving(frozenset())}


class Kernel:
    def __init__(self, *held: Flow) -> None:
        self.held, self.asked = list(held), []

    def flows(self, family: int, protocol: int, destination: str = "") -> list[Flow]:
        self.asked.append(destination)
        return [f for f in self.held if destination in ("", f.original.destination)]

    def delete(self, flow: Flow) -> bool:
        self.held.remove(flow)
        return True

    def close(self) -> None:
        pass


def test_only_the_addresses_in_question_are_asked_for() -> None:
    """After a change the kernel lists flows of its addresses; at start all."""
    stale, good = flow(VIP, 53, OLD), flow(VIP, 53, NEW)
    lost = flow("10.96.0.77", 53, OLD)
    kernel = Kernel(stale, good, lost)
    service = dns(Endpoint(NEW))
    assert clean(kernel, fronts(service, ()), ("IPv4",), None) == 1
    assert (kernel.held, kernel.asked) == ([good, lost], [VIP])
    assert clean(kernel, all_fronts(Map({service.key: service}), ()), ("IPv4",), CIDRS) == 1
    assert (kernel.held, kernel.asked) == ([good], [VIP, ""])


class Unanswered:
    """A kernel with these connections that nobody answered."""

    def __init__(self, *flows: Flow) -> None:
        self.held = list(flows)

    def unanswered(self, family: int, protocol: int) -> list[Flow]:
        assert protocol == socket.IPPROTO_TCP
        return [flow for flow in self.held if flow.original.family == family]

    def flows(self, *_: object) -> list[Flow]:
        return []

    def delete(self, flow: Flow) -> bool:
        self.held.remove(flow)
        return True

    def close(self) -> None:
        pass


def test_connections_begun_without_rules_are_lost() -> None:
    """To a virtual IP with endpoints, and not translated: forgotten. Translated ones, those to a virtual IP that nobody
    serves, or that is not for everybody, and strangers' are left."""
    lost, led = flow(VIP, 80, VIP, 80), flow(VIP, 80, NEW)
    unserved, guarded, strange = (
        flow("10.96.0.6", 80, "10.96.0.6", 80),
        flow("10.96.0.7", 80, "10.96.0.7", 80),
        flow("192.0.2.9", 80, "192.0.2.9", 80),
    )
    target = (Target(NEW, 5353),)
    entries = (
        Forwarding("IPv4", VIP, "TCP", 80, "", "forward", target),
        Forwarding("IPv4", "10.96.0.6", "TCP", 80, "", "reject"),
        Forwarding("IPv4", "10.96.0.7", "TCP", 80, "", "forward", target, allowed=("10.0.0.0/8",)),
    )
    kernel = Unanswered(lost, led, unserved, guarded, strange)
    assert clean_lost(kernel, ServiceTable(Map({ServiceKey("a", "b"): entries})), ("IPv4", "IPv6")) == 1
    assert kernel.held == [led, unserved, guarded, strange]
