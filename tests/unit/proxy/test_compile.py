"""From snapshot to service table: what is served where, recompiled only where something changed."""

from __future__ import annotations

import pytest
from immutables import Map
from msgspec.structs import replace

from fairlead.discovery.model import (
    Changes,
    Endpoint,
    EndpointPort,
    Node,
    Service,
    ServiceKey,
    ServicePort,
    ServiceSnapshot,
    Slice,
)
from fairlead.proxy.compile import compile_table, settle, standpoint
from fairlead.proxy.conntrack import fronts
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.table import Target

OPTIONS = ProxyOptions("n1")


def service(name: str, *endpoints: Endpoint, vip: str = "10.96.0.5") -> Service:
    ports = (ServicePort("http", "TCP", 80, "web"),)
    slices = (Slice(f"{name}-1", "IPv4", (EndpointPort("http", "TCP", 8080),), endpoints),)
    return Service(ServiceKey("shop", name), cluster_ips=(vip,), ports=ports, slices=slices)


def snapshot(*services: Service, zone: str = "", ips: tuple[str, ...] = ("192.0.2.1",)) -> ServiceSnapshot:
    return ServiceSnapshot(Map({s.key: s for s in services}), Map({"n1": Node("n1", ips, zone=zone)}), synced=True)


def test_only_changed_services_are_compiled() -> None:
    """Entries of services that are not among the changes are the very same objects."""
    a, b = service("a", Endpoint("10.244.1.2")), service("b", Endpoint("10.244.1.3"), vip="10.96.0.6")
    before, _ = compile_table(snapshot(a, b), OPTIONS)
    b2 = service("b", Endpoint("10.244.1.4"), vip="10.96.0.6")
    after, changed = compile_table(snapshot(a, b2), OPTIONS, before, Changes(frozenset([b.key])))
    assert changed == {b.key}
    assert after.services[a.key] is before.services[a.key]
    assert after.services[b.key][0].targets == (Target("10.244.1.4", 8080, local=True),)


def test_a_deleted_service_leaves_nothing() -> None:
    """A Service that is gone is named as changed and has no entries."""
    a = service("a", Endpoint("10.244.1.2"))
    before, _ = compile_table(snapshot(a), OPTIONS)
    after, changed = compile_table(snapshot(), OPTIONS, before, Changes(frozenset([a.key])))
    assert (dict(after.services), changed) == ({}, {a.key})


def test_a_change_without_consequence_here_changes_nothing() -> None:
    """An endpoint that is not ready anyway does not concern the proxy."""
    before, _ = compile_table(snapshot(service("a", Endpoint("10.244.1.2"))), OPTIONS)
    more = service("a", Endpoint("10.244.1.2"), Endpoint("10.244.1.3", ready=False, serving=False))
    after, changed = compile_table(snapshot(more), OPTIONS, before, Changes(frozenset([more.key])))
    assert changed == frozenset()
    assert after == before


def test_a_change_of_this_node_recompiles_all() -> None:
    """A node that learns its zone chooses other endpoints."""
    near = Endpoint("10.244.1.2", zone="z1", zone_hints=("z1",))
    far = Endpoint("10.244.2.2", zone="z2", zone_hints=("z2",))
    a = service("a", near, far)
    before, _ = compile_table(snapshot(a), OPTIONS)
    assert len(before.services[a.key][0].targets) == 2
    after, changed = compile_table(snapshot(a, zone="z1"), OPTIONS, before, Changes(nodes=frozenset(["n1"])))
    assert changed == {a.key}
    assert [t.address for t in after.services[a.key][0].targets] == ["10.244.1.2"]


def test_node_addresses() -> None:
    """Node ports are served at the node's first address of each family, or where the options say."""
    ips = ("192.0.2.1", "192.0.2.9", "2001:db8::1")
    assert compile_table(snapshot(ips=ips), OPTIONS)[0].node.addresses == ("192.0.2.1", "2001:db8::1")
    given = ProxyOptions("n1", node_port_addresses=("192.0.2.9",))
    assert compile_table(snapshot(ips=ips), given)[0].node.addresses == ("192.0.2.9",)
    assert compile_table(snapshot(), ProxyOptions("n7"))[0].node.addresses == ()


def test_a_named_port_may_have_several_numbers() -> None:
    """Slices of one Service with different numbers for a named port all count."""
    slices = tuple(
        Slice(f"s{n}", "IPv4", (EndpointPort("http", "TCP", n),), (Endpoint("10.244.1.2"),)) for n in (8080, 9090)
    )
    ports = (ServicePort("http", "TCP", 80, "web"),)
    s = Service(ServiceKey("shop", "a"), cluster_ips=("10.96.0.5",), ports=ports, slices=slices)
    table, _ = compile_table(snapshot(s), OPTIONS)
    assert {(t.address, t.port) for t in table.services[s.key][0].targets} == {
        ("10.244.1.2", 8080),
        ("10.244.1.2", 9090),
    }


@pytest.mark.parametrize(
    ("before", "wanted", "after"),
    [
        ("abc", "abc", "abc"),
        ("abc", "cab", "abc"),
        ("abc", "abcd", "abcd"),
        ("abcd", "bcd", "dbc"),
        ("abc", "xbc", "xbc"),
        ("abc", "ab", "ab"),
        ("abc", "xy", "xy"),
        ("ab", "xyz", "xyz"),
        ("abcde", "ce", "ec"),
        ("", "ab", "ab"),
        ("ab", "", ""),
    ],
)
def test_slots(before: str, wanted: str, after: str) -> None:
    """Who stays keeps its slot; a hole is filled by a newcomer, else from the end."""

    def targets(names: str) -> tuple[Target, ...]:
        return tuple(Target(name, 80) for name in names)

    assert settle(targets(before), targets(wanted)) == targets(after)


ELSEWHERE = {
    "n1": Node("n1", ("192.0.2.1",), pod_cidrs=("10.244.0.0/24",), tunnel_key="k1"),
    "n2": Node("n2", ("192.0.2.2",), pod_cidrs=("10.244.1.0/24",), tunnel_key="k2"),
    "b": Node("b", ("192.168.50.3",), pod_cidrs=("10.244.2.0/24",), tunnel_key="kb", network="b"),
    "d": Node("d", ("192.168.50.3",), ("203.0.113.55",), ("10.244.3.0/24",), network="d"),
}


def test_an_endpoint_at_a_node_elsewhere_is_led_to_what_stands_for_it() -> None:
    """By the node it is on, since two may have one address; pods, neighbors, and this node itself stay as they are."""
    endpoints = (
        Endpoint("192.168.50.3", node="b"),
        Endpoint("192.168.50.3", node="d"),
        Endpoint("10.244.2.9", node="b"),
        Endpoint("192.0.2.2", node="n2"),
        Endpoint("192.0.2.1", node="n1"),
    )
    shop = service("a", *endpoints)
    state = ServiceSnapshot(Map({shop.key: shop}), Map(ELSEWHERE), synced=True)
    table, _ = compile_table(state, ProxyOptions("n1"))
    addresses = {target.address for target in table.services[shop.key][0].targets}
    assert addresses == {"100.116.2.1", "203.0.113.55", "10.244.2.9", "192.0.2.2", "192.0.2.1"}


def test_node_ports_are_served_to_nodes_elsewhere_at_the_address_in_tunnels() -> None:
    """Beside the primary address; only where there are nodes elsewhere."""
    table, _ = compile_table(ServiceSnapshot(nodes=Map(ELSEWHERE), synced=True), ProxyOptions("n1"))
    assert table.node.addresses == ("192.0.2.1", "100.116.0.1")
    near = Map({name: ELSEWHERE[name] for name in ("n1", "n2")})
    table, _ = compile_table(ServiceSnapshot(nodes=near, synced=True), ProxyOptions("n1"))
    assert table.node.addresses == ("192.0.2.1",)


def test_a_node_elsewhere_that_gets_another_address_changes_the_services_it_serves() -> None:
    """Also if nothing but that Node changed."""
    shop = service("a", Endpoint("192.168.50.3", node="d"))
    state = ServiceSnapshot(Map({shop.key: shop}), Map(ELSEWHERE), synced=True)
    before, _ = compile_table(state, ProxyOptions("n1"))
    moved = Map({**ELSEWHERE, "d": replace(ELSEWHERE["d"], external_ips=("203.0.113.56",))})
    after, changed = compile_table(
        replace(state, nodes=moved), ProxyOptions("n1"), before, Changes(nodes=frozenset("d"))
    )
    assert changed == {shop.key}
    assert after.services[shop.key][0].targets[0].address == "203.0.113.56"


def test_the_api_server_is_where_a_node_elsewhere_reaches_it() -> None:
    """Its endpoint belongs to no node; address and port are replaced."""
    api = service("kubernetes", Endpoint("10.0.0.2"))
    options = ProxyOptions("b", endpoints_elsewhere=((("10.0.0.2", 8080), ("203.0.113.2", 443)),))
    table, _ = compile_table(ServiceSnapshot(Map({api.key: api}), Map(ELSEWHERE), synced=True), options)
    assert table.services[api.key][0].targets == (Target("203.0.113.2", 443, local=True),)


def test_flows_to_a_node_elsewhere_are_known_by_where_they_go() -> None:
    """What stands for the endpoint's node serves; its InternalIP would make every flow look stale."""
    ports = (ServicePort("dns", "UDP", 53, "dns"),)
    slices = (Slice("a-1", "IPv4", (EndpointPort("dns", "UDP", 53),), (Endpoint("192.168.50.3", node="b"),)),)
    shop = Service(ServiceKey("shop", "a"), cluster_ips=("10.96.0.5",), ports=ports, slices=slices)
    state = ServiceSnapshot(Map({shop.key: shop}), Map(ELSEWHERE), synced=True)
    (served,) = fronts(shop, (), standpoint(ProxyOptions("n1"), state)).values()
    assert served.endpoints == {("100.116.2.1", 53)}
