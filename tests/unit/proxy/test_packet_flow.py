"""Where packets go, as tables: `source, protocol, destination → endpoints, masquerade`; with the rules on failure."""

from __future__ import annotations

import pytest
from immutables import Map
from msgspec.structs import replace

from fairlead.discovery.model import Endpoint, EndpointPort, Node, Service, ServicePort, ServiceSnapshot, Slice
from fairlead.proxy.compile import compile_table
from fairlead.proxy.iptables.layout import chain_name
from fairlead.proxy.iptables.trace import trace as iptables_trace
from fairlead.proxy.nftables import show as nftables
from fairlead.proxy.nftables.trace import Outcome, Packet, trace
from fairlead.proxy.options import ProxyOptions
from tests.unit.proxy.flows import (
    HERE,
    HERE2,
    LOCAL,
    NODE_IP,
    OPTIONS,
    OUTSIDE,
    THERE,
    VIP,
    VIP6,
    check,
    service,
    state,
)


def test_cluster_ip() -> None:
    """Pods reach every endpoint with their own address, itself masqueraded; who is no pod is masqueraded."""
    check(
        state(service(HERE, THERE)),
        """
        10.244.1.2 TCP 10.96.0.5:80 → 10.244.1.2:8080+masquerade 10.244.2.2:8080
        10.244.1.9 TCP 10.96.0.5:80 → 10.244.1.2:8080 10.244.2.2:8080
        10.244.1.9 UDP 10.96.0.5:53 → 10.244.1.2:5353 10.244.2.2:5353
        10.244.2.2 TCP 10.96.0.5:80 → 10.244.1.2:8080 10.244.2.2:8080
        node       TCP 10.96.0.5:80 → 10.244.1.2:8080+masquerade 10.244.2.2:8080+masquerade
        outside    TCP 10.96.0.5:80 → 10.244.1.2:8080+masquerade 10.244.2.2:8080+masquerade
        """,
    )


def test_what_is_no_service() -> None:
    """A wrong port of a live cluster IP is refused, an unallocated cluster IP dropped, all else left alone."""
    check(
        state(service(HERE)),
        """
        nftables 10.244.1.9 TCP 10.96.0.5:81    → reset
        nftables 10.244.1.9 UDP 10.96.0.5:80    → reject
        nftables node       SCTP 10.96.0.5:80   → reject
        nftables 10.244.1.9 TCP 10.96.0.99:80   → drop
        nftables node       TCP 10.96.0.99:80   → drop
        iptables 10.244.1.9 TCP 10.96.0.5:81    → pass
        iptables 10.244.1.9 TCP 10.96.0.99:80   → pass
        outside    TCP 192.0.2.1:22    → pass
        node       TCP 192.0.2.1:22    → pass
        10.244.1.9 TCP 10.244.2.2:8080 → pass
        10.244.1.9 TCP 198.51.100.7:80 → pass
        """,
    )


def test_what_is_in_a_service_cidr_of_the_api() -> None:
    """Ranges come from ServiceCIDRs as well as from the options: nobody's address in one of them is dropped."""
    web = service(HERE)
    node = Node("n1", (NODE_IP,), pod_cidrs=("10.244.1.0/24",))
    ranges = Map({"more": ("172.20.0.0/24", "fd00:20::/112")})
    seen = ServiceSnapshot(Map({web.key: web}), Map({"n1": node}), synced=True, service_cidrs=ranges)
    rules = nftables.state_of("IPv4", OPTIONS, compile_table(seen, OPTIONS)[0])
    for to, verdict in (("172.20.0.7", "drop"), ("10.96.0.77", "drop"), ("172.20.1.7", "pass"), (VIP, "forward")):
        assert {o.verdict for o in trace(rules, Packet(HERE, to, "TCP", 80), LOCAL)} == {verdict}, to


def test_node_port() -> None:
    """Node ports are masqueraded from everywhere; on 127.0.0.1 and on other nodes' addresses they are not served."""
    check(
        state(service(HERE, THERE)),
        """
        outside    TCP 192.0.2.1:30080 → 10.244.1.2:8080+masquerade 10.244.2.2:8080+masquerade
        10.244.1.9 UDP 192.0.2.1:30053 → 10.244.1.2:5353+masquerade 10.244.2.2:5353+masquerade
        node       TCP 192.0.2.1:30080 → 10.244.1.2:8080+masquerade 10.244.2.2:8080+masquerade
        outside    UDP 192.0.2.1:30080 → pass
        node       TCP 127.0.0.1:30080 → pass
        10.244.1.9 TCP 192.0.2.2:30080 → pass
        """,
    )


def test_without_endpoints() -> None:
    """No endpoint anywhere: refused, TCP by a reset, at the cluster IP and at the node port."""
    check(
        state(service()),
        """
        10.244.1.9 TCP 10.96.0.5:80    → reset
        10.244.1.9 UDP 10.96.0.5:53    → reject
        node       TCP 10.96.0.5:80    → reset
        outside    TCP 10.96.0.5:80    → reset
        outside    TCP 192.0.2.1:30080 → reset
        outside    UDP 192.0.2.1:30053 → reject
        node       TCP 192.0.2.1:30080 → reset
        """,
    )


def test_external_policy_local() -> None:
    """Local: from outside only local endpoints, source kept; pods and the node reach all, the node masqueraded."""
    check(
        state(service(HERE, THERE, external_local=True)),
        """
        outside    TCP 192.0.2.1:30080 → 10.244.1.2:8080
        10.244.1.9 TCP 192.0.2.1:30080 → 10.244.1.2:8080 10.244.2.2:8080
        node       TCP 192.0.2.1:30080 → 10.244.1.2:8080+masquerade 10.244.2.2:8080+masquerade
        10.244.1.9 TCP 10.96.0.5:80    → 10.244.1.2:8080 10.244.2.2:8080
        """,
    )


def test_external_policy_local_without_local_endpoints() -> None:
    """Endpoints only elsewhere: outside is dropped, not refused; the short cut still leads there."""
    check(
        state(service(THERE, external_local=True)),
        """
        outside    TCP 192.0.2.1:30080 → drop
        outside    UDP 192.0.2.1:30053 → drop
        10.244.1.9 TCP 192.0.2.1:30080 → 10.244.2.2:8080
        node       TCP 192.0.2.1:30080 → 10.244.2.2:8080+masquerade
        outside    TCP 10.96.0.5:80    → 10.244.2.2:8080+masquerade
        """,
    )


def test_external_policy_local_without_any_endpoint() -> None:
    """No endpoint anywhere is a refusal also under Local."""
    check(
        state(service(external_local=True)),
        """
        outside    TCP 192.0.2.1:30080 → reset
        10.244.1.9 TCP 192.0.2.1:30080 → reset
        """,
    )


def test_internal_policy_local() -> None:
    """internalTrafficPolicy Local: the cluster IP leads to local endpoints or drops; node ports are not concerned."""
    check(
        state(service(HERE, THERE, internal_local=True)),
        """
        10.244.1.9 TCP 10.96.0.5:80    → 10.244.1.2:8080
        outside    TCP 192.0.2.1:30080 → 10.244.1.2:8080+masquerade 10.244.2.2:8080+masquerade
        """,
    )
    check(
        state(service(THERE, internal_local=True)),
        """
        10.244.1.9 TCP 10.96.0.5:80    → drop
        outside    TCP 192.0.2.1:30080 → 10.244.2.2:8080+masquerade
        """,
    )


def test_affinity() -> None:
    """A new client may get any endpoint; one that is known gets its own, by the cluster IP and by the node port."""
    table = state(service(HERE, THERE, affinity_seconds=60))
    rows = """
        10.244.1.9 TCP 10.96.0.5:80    → 10.244.1.2:8080 10.244.2.2:8080
        10.244.1.2 TCP 10.96.0.5:80    → 10.244.1.2:8080+masquerade 10.244.2.2:8080
        outside    TCP 192.0.2.1:30080 → 10.244.1.2:8080+masquerade 10.244.2.2:8080+masquerade
        """
    check(table, rows)
    known = {f"clients-shop/web/http-{THERE}/8080": {OUTSIDE}}
    recent = {chain_name("KUBE-SEP-", "shop/web:http", "TCP", f"{THERE}:8080"): {OUTSIDE}}
    for destination, port in ((VIP, 80), (NODE_IP, 30080)):
        packet = Packet(OUTSIDE, destination, "TCP", port)
        assert trace(table.nft, packet, LOCAL, known) == {Outcome("forward", THERE, 8080, True)}
        assert iptables_trace(table.iptables, packet, LOCAL, recent) == {Outcome("forward", THERE, 8080, True)}


def test_affinity_draws_evenly() -> None:
    """Each of n endpoints is drawn with probability 1/n: the draws are 1/n, 1/(n-1) … 1."""
    table = state(service(HERE, HERE2, THERE, affinity_seconds=60))
    rules = table.nft.chains["affinity-shop/web/http"].rules
    draws = [e.modulus for r in rules for e in r.expressions if type(e).__name__ == "Numgen"]
    assert draws == [3, 2]


def with_endpoints(*endpoints: Endpoint, **fields: object) -> Service:
    """The Service with these endpoints, whatever their conditions and hints."""
    ports = (EndpointPort("http", "TCP", 8080), EndpointPort("dns", "UDP", 5353))
    return service(slices=(Slice("web-1", "IPv4", ports, endpoints),), **fields)


def test_endpoints_that_terminate() -> None:
    """Ready endpoints only; if there are none, those that terminate and still serve. So under the policy Local, among
    those of this node."""
    ready, ending = Endpoint(THERE, node="n2"), Endpoint(HERE, False, True, True, node="n1")
    gone = Endpoint(HERE2, False, False, True, node="n1")
    check(state(with_endpoints(ready, ending, gone)), f"{HERE2} TCP {VIP}:80 → {THERE}:8080")
    check(
        state(with_endpoints(ending, gone)),
        f"""
        {HERE2} TCP {VIP}:80 → {HERE}:8080
        outside TCP {NODE_IP}:30080 → {HERE}:8080+masquerade
        """,
    )
    check(
        state(with_endpoints(ready, ending, gone, internal_local=True, external_local=True)),
        f"""
        {HERE2} TCP {VIP}:80 → {HERE}:8080
        outside TCP {NODE_IP}:30080 → {HERE}:8080
        """,
    )
    check(
        state(with_endpoints(ready, gone, internal_local=True, external_local=True)),
        f"""
        {HERE2} TCP {VIP}:80 → drop
        outside TCP {NODE_IP}:30080 → drop
        """,
    )
    check(state(with_endpoints(gone)), f"{HERE2} TCP {VIP}:80 → reset")


def test_topology() -> None:
    """Hints narrow the policy Cluster if every ready endpoint has them and one is for here: for this node before this
    zone. One endpoint without a hint turns that off; so does a zone or node that nobody is for."""
    far = Endpoint("10.244.2.9", node="n9", zone_hints=("z9",), node_hints=("n9",))
    zone = Endpoint(THERE, node="n2", zone_hints=("z1",), node_hints=("n2",))
    near = Endpoint(HERE, node="n1", zone_hints=("z1",), node_hints=("n1",))
    plain = Endpoint(HERE2, node="n1")

    def rules(*endpoints: Endpoint, **fields: object) -> set[str]:
        web = with_endpoints(*endpoints, **fields)
        node = Node("n1", (NODE_IP,), pod_cidrs=("10.244.1.0/24",), zone="z1")
        seen = ServiceSnapshot(Map({web.key: web}), Map({"n1": node}), synced=True)
        held = nftables.state_of("IPv4", OPTIONS, compile_table(seen, OPTIONS)[0])
        return {o.destination for o in trace(held, Packet(HERE2, VIP, "TCP", 80, link="cni0"), LOCAL)}

    without_nodes = [replace(endpoint, node_hints=()) for endpoint in (far, zone, near)]
    assert rules(far, zone, near) == {HERE}
    assert rules(*without_nodes) == {THERE, HERE}
    assert rules(far, zone) == {THERE}
    assert rules(far, zone, near, plain) == {"10.244.2.9", THERE, HERE, HERE2}
    assert rules(far) == {"10.244.2.9"}
    assert rules(far, zone, near, internal_local=True) == {HERE}


def test_sctp() -> None:
    """SCTP goes the same ways, and is refused by ICMP."""
    ports = (ServicePort("s", "SCTP", 132, 132, 30132),)
    slices = (Slice("web-1", "IPv4", (EndpointPort("s", "SCTP", 132),), (Endpoint(HERE, node="n1"),)),)
    check(
        state(service(ports=ports, slices=slices), service(name="none", vips=("10.96.0.6",), ports=ports, slices=())),
        f"""
        {HERE2} SCTP {VIP}:132 → {HERE}:132
        outside SCTP {NODE_IP}:30132 → {HERE}:132+masquerade
        {HERE2} SCTP 10.96.0.6:132 → reject
        nftables {HERE2} TCP {VIP}:132 → reset
        iptables {HERE2} TCP {VIP}:132 → pass
        nftables {HERE2} SCTP {VIP}:9 → reject
        """,
    )


def test_a_client_that_is_its_own_endpoint() -> None:
    """Hairpin: masqueraded, whatever way it took; nobody else is."""
    check(
        state(service(HERE, external_ips=("203.0.113.9",), external_local=True)),
        f"""
        {HERE} TCP {VIP}:80 → {HERE}:8080+masquerade
        {HERE2} TCP {VIP}:80 → {HERE}:8080
        {HERE} TCP 203.0.113.9:80 → {HERE}:8080+masquerade
        {HERE} TCP {NODE_IP}:30080 → {HERE}:8080+masquerade
        """,
    )


def test_not_ready_but_published() -> None:
    """publishNotReadyAddresses: the slices say ready (the controller's doing), and that is all that counts."""
    check(state(with_endpoints(Endpoint(HERE, ready=True, serving=False))), f"{HERE2} TCP {VIP}:80 → {HERE}:8080")


def test_many_endpoints() -> None:
    """A Service with more endpoints than the standing class has slots gets a larger class chain, shared."""
    addresses = [f"10.244.2.{i}" for i in range(1, 41)]
    table = state(service(*addresses), service(*addresses, name="other", vips=("10.96.0.6",)))
    outcomes = trace(table.nft, Packet(HERE, VIP, "TCP", 80))
    assert {o.destination for o in outcomes} == set(addresses)
    assert "class-64" in table.nft.chains


def test_masquerade_all_and_none() -> None:
    """masquerade_all hides pods too; without cluster_cidrs only node ports and hairpins are masqueraded."""
    check(
        state(service(THERE), options=ProxyOptions("n1", masquerade_all=True)),
        "10.244.1.9 TCP 10.96.0.5:80 → 10.244.2.2:8080+masquerade",
    )
    check(
        state(service(THERE), options=ProxyOptions("n1", cluster_cidrs=())),
        """
        outside TCP 10.96.0.5:80    → 10.244.2.2:8080
        outside TCP 192.0.2.1:30080 → 10.244.2.2:8080+masquerade
        """,
    )


def test_ipv6() -> None:
    """The same rules in family ip6, for the cluster IP of that family."""
    options = ProxyOptions("n1", cluster_cidrs=("10.244.0.0/16", "fd00:244::/56"), service_cidrs=("fd00:96::/108",))
    endpoints = (Endpoint("fd00:244::2", node="n1"), Endpoint("fd00:244:0:1::2", node="n2"))
    slices = (Slice("web-6", "IPv6", (EndpointPort("http", "TCP", 8080),), endpoints),)
    dual = service(vips=(VIP, VIP6), slices=slices)
    check(
        state(dual, options=options, family="IPv6"),
        """
        fd00:244::9 TCP [fd00:96::5]:80      → [fd00:244:0:1::2]:8080 [fd00:244::2]:8080
        fd00:244::2 TCP [fd00:96::5]:80      → [fd00:244:0:1::2]:8080 [fd00:244::2]:8080+masquerade
        outside6    TCP [2001:db8::1]:30080  → [fd00:244:0:1::2]:8080+masquerade [fd00:244::2]:8080+masquerade
        fd00:244::9 UDP [fd00:96::5]:53      → reject
        nftables fd00:244::9 TCP [fd00:96::99]:80 → drop
        """.replace("[fd00:244:0:1::2]", "fd00:244:0:1::2").replace("[fd00:244::2]", "fd00:244::2"),
    )
    check(state(dual, options=options), "10.244.1.9 TCP 10.96.0.5:80 → reset")


@pytest.mark.parametrize(
    "fields", [{"headless": True, "vips": ()}, {"ignored_by_proxy": True}, {"type": "ExternalName"}]
)
def test_services_that_are_not_proxied(fields: dict[str, object]) -> None:
    """Headless Services, those with a service-proxy-name, and ExternalNames leave no rule."""
    table = state(service(HERE, **fields))  # type: ignore[arg-type]
    assert table == state()
