"""Which endpoints serve: one row per rule of kube-proxy's topology."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.discovery.choose import categorize, choose
from fairlead.discovery.model import Endpoint, EndpointPort, Service, ServiceKey, ServicePort, Slice

HTTP = ServicePort("http", "TCP", 80, "http")


def ep(name: str, flags: str = "r", node: str = "here", zones: str = "", nodes: str = "") -> Endpoint:
    """Flags: r ready (and serving), s serving, t terminating."""
    return Endpoint(
        f"10.1.0.{name}",
        ready="r" in flags,
        serving="r" in flags or "s" in flags,
        terminating="t" in flags,
        node=node,
        zone_hints=tuple(zones.split()),
        node_hints=tuple(nodes.split()),
    )


def service(*endpoints: Endpoint, **fields: Any) -> Service:
    return Service(
        ServiceKey("shop", "web"),
        ports=(HTTP,),
        slices=(Slice("web-1", "IPv4", (EndpointPort("http", "TCP", 8080),), endpoints),),
        **fields,
    )


CLUSTER: dict[str, Any] = {}
INTERNAL = {"internal_local": True}
ROWS: list[tuple[str, dict[str, Any], list[Endpoint], str, str]] = [
    ("no endpoints", CLUSTER, [], "reject", ""),
    ("ready ones, wherever", CLUSTER, [ep("1"), ep("2", node="far")], "forward", "1 2"),
    ("unready ones are left out", CLUSTER, [ep("1"), ep("2", "")], "forward", "1"),
    ("none ready", CLUSTER, [ep("1", ""), ep("2", "s")], "reject", ""),
    ("terminating ones serve when none is ready", CLUSTER, [ep("1", "st"), ep("2", "t")], "forward", "1"),
    ("terminating ones do not serve beside ready ones", CLUSTER, [ep("1", "st"), ep("2")], "forward", "2"),
    ("published though not ready and terminating", CLUSTER, [ep("1", "rt")], "forward", "1"),
    ("hints for our zone", CLUSTER, [ep("1", zones="a"), ep("2", zones="b")], "forward", "1"),
    ("one ready endpoint without a hint", CLUSTER, [ep("1", zones="a"), ep("2")], "forward", "1 2"),
    ("an unready one without a hint", CLUSTER, [ep("1", zones="a"), ep("2", zones="b"), ep("3", "")], "forward", "1"),
    ("no hint for our zone", CLUSTER, [ep("1", zones="b"), ep("2", zones="c")], "forward", "1 2"),
    ("several zones in a hint", CLUSTER, [ep("1", zones="b"), ep("2", zones="c a")], "forward", "2"),
    (
        "hints for our node come before those for our zone",
        CLUSTER,
        [ep("1", zones="a", nodes="far"), ep("2", zones="b", nodes="here")],
        "forward",
        "2",
    ),
    (
        "no hint for our node: by zone",
        CLUSTER,
        [ep("1", zones="a", nodes="far"), ep("2", zones="b", nodes="farther")],
        "forward",
        "1",
    ),
    ("hints are ignored for terminating ones", CLUSTER, [ep("1", "st", zones="a"), ep("2", "st")], "forward", "1 2"),
    ("local: ready ones here", INTERNAL, [ep("1"), ep("2", node="far")], "forward", "1"),
    ("local: hints do not matter", INTERNAL, [ep("1", zones="b"), ep("2", node="far", zones="a")], "forward", "1"),
    ("local: terminating here before ready far away", INTERNAL, [ep("1", "st"), ep("2", node="far")], "forward", "1"),
    ("local: none here", INTERNAL, [ep("1", ""), ep("2", node="far")], "drop", ""),
    ("local: none here, terminating ones elsewhere", INTERNAL, [ep("2", "st", node="far")], "drop", ""),
    ("local: none anywhere", INTERNAL, [ep("1", ""), ep("2", "", node="far")], "reject", ""),
    ("the external policy is not the internal one", {"external_local": True}, [ep("2", node="far")], "forward", "2"),
]


@pytest.mark.parametrize(
    ("fields", "endpoints", "verdict", "chosen"), [row[1:] for row in ROWS], ids=[r[0] for r in ROWS]
)
def test_internal_traffic(fields: dict[str, Any], endpoints: list[Endpoint], verdict: str, chosen: str) -> None:
    """Traffic from inside on node `here` in zone `a` goes where the row says."""
    choice = choose(service(*endpoints, **fields), HTTP, "IPv4", node="here", zone="a")
    assert choice.verdict == verdict
    assert [backend.endpoint.address for backend in choice.endpoints] == [f"10.1.0.{n}" for n in chosen.split()]
    assert all(backend.port == 8080 for backend in choice.endpoints)


def test_external_traffic_has_its_own_policy() -> None:
    """externalTrafficPolicy Local drops from outside what internalTrafficPolicy Cluster forwards, and the reverse."""
    web = service(ep("1", node="far"), external_local=True)
    assert choose(web, HTTP, "IPv4", node="here", zone="", external=True).verdict == "drop"
    assert choose(web, HTTP, "IPv4", node="here", zone="").verdict == "forward"
    web = service(ep("1", node="far"), internal_local=True)
    assert choose(web, HTTP, "IPv4", node="here", zone="", external=True).verdict == "forward"


def test_the_port_is_found_by_name_and_protocol_in_each_slice() -> None:
    """A named target port may be another number in another slice; other names, protocols and families are not ours."""
    http, udp = EndpointPort("http", "TCP", 8080), EndpointPort("http", "UDP", 99)
    slices = (
        Slice("web-1", "IPv4", (http, udp), (ep("1"),)),
        Slice("web-2", "IPv4", (EndpointPort("http", "TCP", 9090),), (ep("2"),)),
        Slice("web-3", "IPv4", (EndpointPort("admin", "TCP", 1),), (ep("3"),)),
        Slice("web-4", "IPv6", (http,), (Endpoint("fd00::1"),)),
    )
    web = Service(ServiceKey("shop", "web"), slices=slices)
    four = choose(web, HTTP, "IPv4", node="here", zone="")
    assert [(backend.endpoint.address, backend.port) for backend in four.endpoints] == [
        ("10.1.0.1", 8080),
        ("10.1.0.2", 9090),
    ]
    six = choose(web, HTTP, "IPv6", node="here", zone="")
    assert [backend.endpoint.address for backend in six.endpoints] == ["fd00::1"]


def test_an_endpoint_in_two_slices_counts_once_by_its_best_condition() -> None:
    """While the controller moves an endpoint, two slices hold it: one backend, ready if either says so."""
    http = (EndpointPort("http", "TCP", 8080),)
    old, new = Slice("web-1", "IPv4", http, (ep("1", ""),)), Slice("web-2", "IPv4", http, (ep("1"), ep("2")))
    for slices in ((old, new), (new, old)):
        web = Service(ServiceKey("shop", "web"), slices=slices)
        chosen = choose(web, HTTP, "IPv4", node="here", zone="").endpoints
        assert [backend.endpoint.address for backend in chosen] == ["10.1.0.1", "10.1.0.2"]


def test_reachable_is_the_union() -> None:
    """With hints and a local policy both, what the node must know is both lists."""
    web = service(ep("1", zones="a"), ep("2", zones="b"), ep("3", node="far", zones="a"))
    found = categorize(web, HTTP, "IPv4", node="here", zone="b")
    assert [b.endpoint.address for b in found.cluster] == ["10.1.0.2"]
    assert [b.endpoint.address for b in found.local] == ["10.1.0.1", "10.1.0.2"]
    assert [b.endpoint.address for b in found.reachable] == ["10.1.0.1", "10.1.0.2"]
