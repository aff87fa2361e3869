"""The overlay: from the nodes and what one of them found out to tunnels, VXLAN peers, relays and routes."""

from __future__ import annotations

from msgspec.structs import replace

from fairlead.discovery.model import Node
from fairlead.discovery.reach import address_of, translated
from fairlead.podnetwork.elsewhere import Signs
from fairlead.podnetwork.overlay import Seen, plan_overlay
from fairlead.podnetwork.plan import plan
from fairlead.podnetwork.wireguard import Known, changes, parse_dump

N1 = Node("n1", ("10.0.0.1",), ("203.0.113.11",), ("10.244.0.0/24",), tunnel_key="K1", tunnel_port=51820)
N2 = Node("n2", ("10.0.0.2",), (), ("10.244.1.0/24",), tunnel_key="K2", tunnel_port=51820)
B = Node("b", ("192.168.50.3",), ("203.0.113.33",), ("10.244.2.0/24",), network="b", tunnel_key="KB", tunnel_port=4500)
C = Node("c", ("192.168.70.3",), ("203.0.113.44",), ("10.244.3.0/24",), network="c", tunnel_key="KC", tunnel_port=51820)
D = Node("d", ("192.168.50.3",), ("203.0.113.55",), ("10.244.4.0/24",), network="d", tunnel_key="KD", tunnel_port=51820)


def among(*nodes: Node) -> dict[str, Node]:
    """By name."""
    return {node.name: node for node in nodes}


def seen(alive: str = "", answering: str = "", lost: str = "") -> Seen:
    """Names, separated by spaces."""
    return Seen(frozenset(alive.split()), frozenset(answering.split()), frozenset(lost.split()))


def test_nothing_where_nobody_is_elsewhere() -> None:
    """One network, or a node that is not known: no overlay at all."""
    assert plan_overlay("n1", among(N1, N2), Seen()) == plan_overlay("x", among(N1, B), Seen())
    assert plan_overlay("n1", among(N1, N2), Seen()).paths == ()


def test_a_peer_elsewhere_gets_a_tunnel_for_its_pods_and_itself() -> None:
    """Pods and the node's own address in tunnels go in; it is spoken to at its external address and its own port."""
    overlay = plan_overlay("n1", among(N1, N2, B), seen("b", "b"))
    (peer,) = overlay.tunnels
    assert (peer.name, peer.key, peer.endpoint) == ("b", "KB", "203.0.113.33:4500")
    assert {str(network) for network in peer.networks} == {"10.244.2.0/24", "100.116.2.1/32"}
    assert str(overlay.source(4)) == "100.116.0.1"
    assert overlay.paths == (("b", "wireguard"),)


def test_the_way_is_named_by_what_works() -> None:
    """No sign yet; alive but not answering outside; lost to all; without a key."""
    nodes = among(N1, B)
    assert plan_overlay("n1", nodes, seen()).paths == (("b", "connecting"),)
    assert plan_overlay("n1", nodes, seen("b")).paths == (("b", "tunnel"),)
    assert plan_overlay("n1", nodes, seen("", "b", "b")).paths == (("b", "unreachable"),)
    mute = among(N1, replace(B, tunnel_key=""))
    assert plan_overlay("n1", mute, seen()).paths == (("b", "unreachable"),)
    assert plan_overlay("n1", mute, seen()).tunnels == ()


def test_two_that_nobody_reaches_relay_through_the_same_third() -> None:
    """Each chooses the first node that both stand with, and sends the other's pods there; the tunnel between them is
    still tried."""
    b = replace(B, paths=(("c", "tunnel"), ("d", "tunnel")))
    c = replace(C, paths=(("b", "wireguard"),))
    d = replace(D, paths=(("b", "wireguard"),))
    nodes = among(b, c, d)
    for one, other in (("c", "d"), ("d", "c")):
        overlay = plan_overlay(one, nodes, seen("b", "b", other))
        assert dict(overlay.paths)[other] == "relay b"
        carried = {peer.name: {str(n) for n in peer.networks} for peer in overlay.tunnels}
        assert carried[other] == set()
        assert nodes[other].pod_cidrs[0] in carried["b"]


def test_a_node_without_an_address_outside_is_reached_through_its_neighbor() -> None:
    """c reaches n1 and not n2: c sends n2's pods to n1, and n2 sends c's by the LAN to n1."""
    n1, c = replace(N1, paths=(("c", "tunnel"),)), replace(C, paths=(("n1", "wireguard"),))
    nodes = among(n1, N2, c)
    there = plan_overlay("c", nodes, seen("n1", "n1", "n2"))
    assert dict(there.paths) == {"n1": "wireguard", "n2": "relay n1"}
    here = plan_overlay("n2", nodes, seen("", "", "c"))
    assert dict(here.paths) == {"c": "relay n1"}
    assert {(str(r.destination), str(r.via)) for r in here.lan_routes} >= {("10.244.3.0/24", "10.0.0.1")}


def test_what_a_node_only_claims_makes_no_relay() -> None:
    """Both ends must say that they reach each other."""
    nodes = among(replace(B, paths=(("c", "tunnel"), ("d", "tunnel"))), replace(C, paths=()), D)
    assert dict(plan_overlay("d", nodes, seen("b", "b", "c")).paths)["c"] == "unreachable"


def dual(node: Node) -> Node:
    """The node, with pods of both families, and an IPv6 address of its own that only its network knows."""
    place = node.pod_cidrs[0].split(".")[2]
    return replace(
        node,
        pod_cidrs=(*node.pod_cidrs, f"fd00:10:244:{place}::/64"),
        internal_ips=(*node.internal_ips, f"fd50::{INTERFACES[node.name]}"),
    )


INTERFACES = {"n1": 11, "n2": 12, "b": 3}


def test_both_families_by_the_same_tunnel() -> None:
    """A node with IPv6 pods has an IPv6 address in tunnels, too: the last bytes are those of the other."""
    overlay = plan_overlay("n1", among(*map(dual, (N1, N2, B))), seen("b", "b"))
    assert list(map(str, overlay.sources)) == ["100.116.0.1", "fd00:10:64::6474:1"]
    (peer,) = overlay.tunnels
    inner = {"100.116.2.1/32", "fd00:10:64::6474:201/128"}
    assert {str(network) for network in peer.networks} == {"10.244.2.0/24", "fd00:10:244:2::/64", *inner}
    (plain,) = plan_overlay("n1", among(*(replace(dual(n), plain=True) for n in (N1, B))), seen("b", "b")).vxlans
    assert list(map(str, plain.inners)) == ["100.116.2.1", "fd00:10:64::6474:201"]
    assert address_of(dual(B), dual(N1), 6) == "fd00:10:64::6474:201"
    # An external address stands for an InternalIP of its own family only.
    assert address_of(replace(dual(B), tunnel_key=""), N1, 6) == ""
    assert address_of(replace(B, tunnel_key="", external_ips=("203.0.113.33", "2001:db8::33")), N1, 6) == "2001:db8::33"


def test_unencrypted_only_if_both_say_so_and_it_works() -> None:
    """VXLAN to the external address if both have encryption off and it answers; else the tunnel."""
    plain = {node.name: replace(node, plain=True) for node in (N1, B)}
    overlay = plan_overlay("n1", plain, seen("b", "b"))
    assert overlay.paths == (("b", "vxlan"),)
    (peer,) = overlay.vxlans
    assert (str(peer.remote), str(peer.inners[0])) == ("203.0.113.33", "100.116.2.1")
    assert overlay.tunnels[0].networks == frozenset()
    assert plan_overlay("n1", plain, seen("b")).paths == (("b", "tunnel"),)
    assert plan_overlay("n1", among(plain["n1"], B), seen("b", "b")).paths == (("b", "wireguard"),)


def test_plain_routes_lead_to_the_same_network_only() -> None:
    """The pod network's routes by the LAN leave out whoever is elsewhere."""
    made = plan("n1", among(N1, N2, B), ("10.244.0.0/16",))
    assert made is not None
    assert {str(route.destination) for route in made.routes} == {"10.244.1.0/24"}


def test_what_stands_for_a_node_elsewhere() -> None:
    """Its address in tunnels if both have one and encryption is on for either; else the external one."""
    assert address_of(B, N1) == "100.116.2.1"
    assert address_of(replace(B, tunnel_key=""), N1) == "203.0.113.33"
    assert address_of(replace(B, plain=True), replace(N1, plain=True)) == "203.0.113.33"
    assert address_of(replace(B, tunnel_key="", external_ips=()), N1) == ""


def test_an_endpoint_is_translated_by_the_node_it_is_on() -> None:
    """b and d have one InternalIP, and their endpoints lead to each; pods and neighbors stay as they are."""
    nodes = among(N1, N2, B, D)
    assert translated("192.168.50.3", "b", N1, nodes) == "100.116.2.1"
    assert translated("192.168.50.3", "d", N1, nodes) == "100.116.4.1"
    assert translated("192.168.50.3", "b", B, nodes) == "192.168.50.3"
    assert translated("192.168.50.3", "d", B, nodes) == "100.116.4.1"
    assert translated("10.244.2.9", "b", N1, nodes) == "10.244.2.9"
    assert translated("10.0.0.2", "n2", N1, nodes) == "10.0.0.2"
    assert translated("192.168.50.3", "gone", N1, nodes) == "192.168.50.3"


DUMP = (
    "PRIVATE\tPUBLIC\t51820\toff\n"
    "KB\t(none)\t203.0.113.33:4500\t10.244.2.0/24,100.116.2.1/32\t1700000000\t124\t180\t10\n"
    "KX\t(none)\t(none)\t(none)\t0\t0\t148\t10\n"
)


def test_the_link_is_told_what_differs_and_nothing_else() -> None:
    """A peer as it should be costs no word; one not wanted goes; one that moved by itself keeps its endpoint."""
    present = parse_dump(DUMP)
    assert present["KB"] == Known("203.0.113.33:4500", frozenset({"10.244.2.0/24", "100.116.2.1/32"}), 1700000000, 124)
    wanted = plan_overlay("n1", among(N1, B), seen("b", "b")).tunnels
    assert changes(present, wanted, {}) == ["peer", "KX", "remove"]
    roamed = {"KB": Known("203.0.113.99:7", present["KB"].networks, 1, 1)}
    assert changes(roamed, wanted, {"KB": "203.0.113.33:4500"}) == []
    # … unless the Node says another address than before.
    assert changes(roamed, wanted, {"KB": "203.0.113.1:4500"}) == ["peer", "KB", "endpoint", "203.0.113.33:4500"]


def test_a_new_peer_is_kept_alive_from_the_start() -> None:
    """Key, endpoint, keep-alive and networks; who gives a network up is named before who gets it."""
    wanted = plan_overlay("n1", among(N1, B), seen("b", "b")).tunnels
    words = changes({}, wanted, {})
    assert words == [
        *("peer", "KB", "endpoint", "203.0.113.33:4500", "persistent-keepalive", "5"),
        *("allowed-ips", "10.244.2.0/24,100.116.2.1/32"),
    ]


def test_a_peer_lives_while_bytes_come_from_it() -> None:
    """New bytes make it alive; 35 s of silence end that, and 12 s later another way is wanted."""
    signs, silent = Signs(), {"k": Known("", frozenset(), 0, 0)}
    assert signs.take(silent, 0, 1000) == (set(), set())
    assert signs.take(silent, 11, 1011) == (set(), set())
    assert signs.take(silent, 13, 1013) == (set(), {"k"})
    heard = {"k": Known("", frozenset(), 1014, 100)}
    assert signs.take(heard, 14, 1014) == ({"k"}, set())
    assert signs.take(heard, 48, 1048) == ({"k"}, set())
    assert signs.take(heard, 50, 1050) == (set(), set())
    assert signs.take(heard, 61, 1061) == (set(), {"k"})


def test_a_peer_that_only_calls_is_not_alive() -> None:
    """Its handshakes arrive and our answers don't: bytes grow, and it is lost as if it were silent."""
    signs = Signs()
    for second in range(0, 40, 2):
        alive, lost = signs.take({"k": Known("192.0.2.1:9", frozenset(), 0, 148 * second)}, second, 1000 + second)
        assert not alive
    assert lost == {"k"}


def test_a_fresh_look_at_a_living_tunnel_finds_it_alive() -> None:
    """After a restart the last handshake says so."""
    assert Signs().take({"k": Known("", frozenset(), 990, 5000)}, 7, 1000) == ({"k"}, set())
