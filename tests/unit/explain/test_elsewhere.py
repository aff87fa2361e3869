"""Nodes of different networks: the tunnel, VXLAN or relay between them, and the translation of their addresses."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import msgspec
import pytest

from fairlead.api.events import WatchEvent
from fairlead.api.kinds import NODES, SERVICES
from fairlead.api.nodenetworks import ENCRYPTION, NETWORK, PATHS, PUBLIC_KEY
from fairlead.discovery.fold import fold
from fairlead.discovery.model import ServiceSnapshot
from fairlead.explain import path
from fairlead.explain.evidence import Evidence, LinkView, NodeKernel, RouteAnswer, TunnelPeer
from fairlead.explain.question import parse_origin, parse_target
from fairlead.explain.report import Report
from fairlead.linux.iptables import Saved
from fairlead.podnetwork.plan import mac_address
from tests.unit.explain import world as plain
from tests.unit.explain.world import Object, evidence, explain

replace = msgspec.structs.replace
THERE, INNER = "203.0.113.2", {1: "100.116.1.1", 2: "100.116.2.1"}


def a_node(number: int, way: str = "wireguard", **annotations: str) -> Object:
    """n1 is on the cluster's LAN, n2 at home."""
    made = plain.a_node(number)
    made["metadata"] |= {
        "labels": {NETWORK: "home"} if number == 2 else {},
        "annotations": {PUBLIC_KEY: f"key-{number}", PATHS: json.dumps({f"n{3 - number}": way})} | annotations,
    }
    made["status"]["addresses"].append({"type": "ExternalIP", "address": f"203.0.113.{number}"})
    return made


def snapshot(*nodes: Object) -> ServiceSnapshot:
    """The usual one with these nodes."""
    return fold(plain.snapshot(), [WatchEvent("MODIFIED", NODES, node) for node in nodes], True)[0]


def peer(of: int, age: int = 40, networks: tuple[str, ...] = ()) -> TunnelPeer:
    """The other one, on the link of node `of`."""
    other = 3 - of
    carried = networks or (f"10.244.{other}.0/24", f"{INNER[other]}/32")
    return TunnelPeer("fl-wg0", f"key-{other}", f"203.0.113.{other}:51820", carried, age)


def kernel(number: int, device: str = "fl-wg0", **more: Any) -> NodeKernel:
    """A node's, with a tunnel to the other."""
    made = plain.node_kernel(number, snapshot(a_node(1), a_node(2)))
    remote = next(ip for ip, route in made.routes.items() if route.gateway)
    other = 3 - number
    routes = {ip: RouteAnswer(ip, device) for ip in (remote, INNER[other], f"10.244.{other}.3")}
    links = (*made.links, LinkView(device, True, 1420, addresses=(f"{INNER[number]}/32",)))
    return replace(made, **({"routes": made.routes | routes, "links": links, "tunnels": (peer(number),)} | more))


def world(first: NodeKernel | None = None, *nodes: Object, second: NodeKernel | None = None) -> Evidence:
    """Healthy but for what is given."""
    every = nodes or (a_node(1), a_node(2))
    kernels = {"n1": first or kernel(1), "n2": second or kernel(2)}
    return evidence(snapshot=snapshot(*every), nodes=every, kernels=kernels)


def found(report: Report) -> str:
    """The cause's identifier."""
    return report.cause.id if report.cause else ""


def test_a_tunnel_that_stands() -> None:
    """No finding; the path shows both ends of it."""
    report = explain(world())
    assert report.works, report.verdict
    assert report.findings == ()
    lines = [line for hop in report.hops for line in hop.lines]
    assert "n1: tunnel fl-wg0 to n2 at 203.0.113.2:51820, last handshake 40 s ago" in lines
    assert "n2: tunnel fl-wg0 to n1 at 203.0.113.1:51820, last handshake 40 s ago" in lines


def without(made: NodeKernel, device: str = "fl-wg0") -> tuple[LinkView, ...]:
    """The links but that one."""
    return tuple(link for link in made.links if link.name != device)


DOWN = (*without(kernel(1)), LinkView("fl-wg0", False, 1420))


@pytest.mark.parametrize(
    ("id_", "says", "seen"),
    [
        ("FL064", "is missing", world(kernel(1, links=without(kernel(1))))),
        ("FL064", "is down", world(kernel(1, links=DOWN))),
        ("FL064", "on n2 the tunnels' link", world(second=kernel(2, links=without(kernel(2))))),
        ("FL064", "n2 has no key", world(None, a_node(1), a_node(2, **{PUBLIC_KEY: ""}))),
        ("FL065", "does not know node n2", world(kernel(1, tunnels=(TunnelPeer("fl-wg0", "key-9", ""),)))),
        ("FL065", "does not send 10.244.2.3 to", world(kernel(1, tunnels=(peer(1, networks=("10.244.9.0/24",)),)))),
        ("FL065", "last handshake 400 s ago", world(kernel(1, tunnels=(peer(1, 400),)))),
        ("FL065", "never a handshake", world(kernel(1, tunnels=(peer(1, -1),)))),
        ("FL065", "neither answers", world(kernel(1), a_node(1, "unreachable"), a_node(2, "unreachable"))),
        ("FL065", "nothing came back yet", world(kernel(1), a_node(1, "connecting"), a_node(2))),
        ("FL065", "n1 says nothing of a way", world(kernel(1), a_node(1, "", **{PATHS: ""}), a_node(2))),
        ("FL070", "it goes to eth0", world(kernel(1, routes={"10.244.2.3": RouteAnswer("10.244.2.3", "eth0")}))),
    ],
)
def test_what_is_wrong_with_it(id_: str, says: str, seen: Evidence) -> None:
    """Each is the cause, with what was seen."""
    report = explain(seen)
    assert found(report) == id_, report.verdict
    assert says in report.verdict


def test_vxlan() -> None:
    """Its forwarding entry is looked at: right, missing, and leading elsewhere."""
    nodes = [a_node(n, "vxlan", **{ENCRYPTION: "off"}) for n in (1, 2)]

    def seen(*ends: str) -> Report:
        entries = [tuple(TunnelPeer("fl-vx", mac(3 - n), end) for end in ends[n - 1 : n] if end) for n in (1, 2)]
        kernels = [kernel(n, "fl-vx", tunnels=entries[n - 1]) for n in (1, 2)]
        return explain(world(kernels[0], *nodes, second=kernels[1]))

    healthy = seen("203.0.113.2", "203.0.113.1")
    assert healthy.works and not healthy.findings, healthy.verdict
    assert "has no forwarding entry for node n2" in (missing := seen("", "203.0.113.1")).verdict
    assert "sends to 203.0.113.9, not to 203.0.113.2" in (moved := seen("203.0.113.9", "203.0.113.1")).verdict
    gone = explain(world(kernel(1, "fl-vx", links=without(kernel(1))), *nodes))
    assert [found(report) for report in (missing, moved, gone)] == ["FL065", "FL065", "FL064"]


def mac(number: int) -> str:
    """The link-layer address of a node's VXLAN link."""
    return mac_address(ipaddress.ip_address(INNER[number]))


def test_a_relay() -> None:
    """By a third node's tunnel elsewhere, or through a neighbor on the LAN, which is said."""
    third = plain.a_node(3)
    third["metadata"] |= {"labels": {NETWORK: "cloud"}, "annotations": {PUBLIC_KEY: "key-3"}}
    third["spec"]["podCIDRs"] = ["10.244.3.0/24"]
    nodes = (a_node(1, "relay n3"), a_node(2, "relay n3"), third)
    by = [(TunnelPeer("fl-wg0", "key-3", "203.0.113.3:51820", (f"10.244.{3 - n}.0/24",), 9),) for n in (1, 2)]
    report = explain(world(kernel(1, tunnels=by[0]), *nodes, second=kernel(2, tunnels=by[1])))
    assert report.works and not report.findings, report.verdict
    assert "n3 relays to n2" in [line for hop in report.hops for line in hop.lines]


def dnat(address: str, to: str, chain: str) -> Object:
    """A rule as nft lists it."""
    left = {"payload": {"protocol": "ip", "field": "daddr"}}
    parts = [{"match": {"op": "==", "left": left, "right": address}}, {"dnat": {"addr": to}}]
    return {"rule": {"family": "ip", "table": "fairlead-nodes", "chain": chain, "expr": parts}}


def words(address: str, to: str) -> tuple[str, ...]:
    """A rule as iptables-save has it."""
    return ("-d", f"{address}/32", "-j", "DNAT", "--to-destination", to)


NODE_PORT = {**plain.WEB, "spec": plain.WEB["spec"] | {"type": "NodePort", "ports": [
    {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP", "nodePort": 30080}
]}}  # fmt: skip


@pytest.mark.parametrize("form", ["nftables", "iptables"])
@pytest.mark.parametrize(
    ("outer", "says"), [("100.116.2.1", ""), ("203.0.113.9", "becomes 203.0.113.9 there"), ("", "is not translated")]
)
def test_the_translation_of_a_nodes_address(form: str, outer: str, says: str) -> None:
    """Asked at the InternalIP of a node elsewhere: it must become what stands for the node."""
    more: dict[str, Any] = {}
    if outer and form == "nftables":
        more["ruleset"] = tuple(dnat("172.29.0.2", outer, chain) for chain in ("prerouting", "output"))
    elif outer:
        chains = {f"FAIRLEAD-NODES-{end}": (words("172.29.0.2", outer),) for end in ("PRE", "OUT")}
        more["iptables"] = {"IPv4": {"nat": Saved(chains, {})}}
    nodes = (a_node(1), a_node(2))
    view = fold(snapshot(*nodes), [WatchEvent("MODIFIED", SERVICES, NODE_PORT)], True)[0]
    rules = plain.node_kernel(2, view).tables
    both = {"n1": kernel(1, **more), "n2": kernel(2, tables=rules)}
    seen = evidence(snapshot=view, services=(NODE_PORT,), nodes=nodes, kernels=both)
    question = replace(
        parse_target(("svc/web",), "shop"), origin=parse_origin("pod/client", "shop"), via="nodeport", to="172.29.0.2"
    )
    report = path.explain(seen, question)
    assert found(report) == ("FL066" if says else ""), report.verdict
    assert says in report.verdict
    if not says:
        assert "n1: 172.29.0.2 of n2 is 100.116.2.1 here" in [line for hop in report.hops for line in hop.lines]


def test_an_agent_elsewhere_that_does_not_answer() -> None:
    """A warning, for packets may pass; without the right to ask there is none."""
    problem = "the agent of n2 does not answer within 5 s"
    report = explain(world(second=NodeKernel(problem=problem, silent=True)))
    assert report.works and "FL067" in report.verdict
    assert not explain(world(second=NodeKernel(problem=problem))).findings


def test_other_clusters_go_other_ways() -> None:
    """Without an agent of ours nothing is known of how nodes elsewhere are reached."""
    seen = world(kernel(1, links=without(kernel(1))))
    assert "FL064" not in [
        f.id for f in explain(replace(seen, facts=replace(seen.facts, name="", local=False))).findings
    ]
