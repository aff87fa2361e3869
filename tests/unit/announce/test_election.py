"""Which nodes may answer for an address, and which does, as tables over time."""

from __future__ import annotations

import ipaddress
import math
from pathlib import Path
from typing import Any

import pytest

from fairlead.announce.claims import Claims
from fairlead.announce.election import rank, rankings
from fairlead.announce.lans import answered_anyway, fitting
from fairlead.discovery.model import (
    Endpoint,
    EndpointPort,
    LoadBalancerAddress,
    Node,
    Service,
    ServiceKey,
    ServicePort,
    Slice,
)
from fairlead.linux.links import Link

VIP, OTHER = ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("192.0.2.2")
POOL = {VIP, OTHER}
CLASSES = ("", "fairlead.dev/lan")
NODES = [Node(name, ready=True) for name in ("n1", "n2", "n3")]


def balanced(*endpoints: Endpoint, **more: Any) -> Service:
    made = {
        "key": ServiceKey("shop", "web"),
        "type": "LoadBalancer",
        "ports": (ServicePort("http", "TCP", 80, 8080),),
        "load_balancer": (LoadBalancerAddress(str(VIP)),),
        "slices": (Slice("web", "IPv4", (EndpointPort("http", "TCP", 8080),), endpoints),),
    }
    return Service(**{**made, **more})


def at(node: str, **conditions: bool) -> Endpoint:
    return Endpoint(f"10.0.0.{node[1:]}", node=node, **conditions)


ENDING = {"ready": False, "serving": True, "terminating": True}
ABLE: dict[str, tuple[list[Service], list[Node], set[str] | None]] = {
    "every node, with policy Cluster": ([balanced()], NODES, {"n1", "n2", "n3"}),
    "those with an endpoint, with Local": ([balanced(at("n1"), at("n3"), external_local=True)], NODES, {"n1", "n3"}),
    "an endpoint that is not ready does not count": (
        [balanced(at("n1", ready=False), at("n2"), external_local=True)],
        NODES,
        {"n2"},
    ),
    "one that serves while it ends does not while another is ready": (
        [balanced(at("n1", **ENDING), at("n2"), external_local=True)],
        NODES,
        {"n2"},
    ),
    "it does when it is the last": ([balanced(at("n1", **ENDING), external_local=True)], NODES, {"n1"}),
    "nobody, with Local and no endpoint": ([balanced(external_local=True)], NODES, set()),
    "none that is not ready": ([balanced()], [NODES[0], Node("n2")], {"n1"}),
    "all, if none is": ([balanced()], [Node("n1"), Node("n2")], {"n1", "n2"}),
    "none that leaves or is excluded": (
        [balanced()],
        [NODES[0], Node("n2", ready=True, leaving=True), Node("n3", ready=True, no_balancer=True)],
        {"n1"},
    ),
    "those who can for each, where an address is shared": (
        [
            balanced(at("n1"), at("n2"), external_local=True),
            balanced(at("n2"), at("n3"), external_local=True, key=ServiceKey("shop", "b")),
        ],
        NODES,
        {"n2"},
    ),
    "our class": ([balanced(load_balancer_class="fairlead.dev/lan")], NODES, {"n1", "n2", "n3"}),
    "not another class": ([balanced(load_balancer_class="example.com/lb")], NODES, None),
    "not what a balancer serves itself": (
        [balanced(load_balancer=(LoadBalancerAddress(str(VIP), proxied=True),))],
        NODES,
        None,
    ),
    "not what is not in the pool": ([balanced(load_balancer=(LoadBalancerAddress("198.51.100.1"),))], NODES, None),
    "not another type": ([balanced(type="NodePort")], NODES, None),
}


@pytest.mark.parametrize(("services", "nodes", "able"), ABLE.values(), ids=ABLE)
def test_who_may_answer(services: list[Service], nodes: list[Node], able: set[str] | None) -> None:
    """By policy, readiness, labels, class and pool; None: the address is not ours to announce."""
    found = rankings(services, nodes, POOL, CLASSES)
    assert {address: set(ranking) for address, ranking in found.items()} == ({} if able is None else {VIP: able})


def test_a_ranking_moves_only_what_it_must() -> None:
    """A node that goes takes its addresses with it and moves no other; addresses are spread over the nodes."""
    addresses = [ipaddress.ip_address("198.51.100.0") + n for n in range(200)]
    before = {address: rank(address, ("n1", "n2", "n3")) for address in addresses}
    after = {address: rank(address, ("n1", "n3")) for address in addresses}
    for address in addresses:
        assert after[address] == tuple(node for node in before[address] if node != "n2")
    owners = [ranking[0] for ranking in before.values()]
    assert all(owners.count(node) > 30 for node in ("n1", "n2", "n3"))


RANKS = {VIP: ("n1", "n2", "n3")}


def mine(claims: Claims, now: float, ranks: Any = None) -> bool:
    return VIP in claims.decide(RANKS if ranks is None else ranks, now)[0]


def test_the_first_has_it_at_once() -> None:
    """It asks nobody; there is nothing to wait for."""
    assert Claims("n1", 1.0).decide(RANKS, 5.0) == (frozenset({VIP}), math.inf)


def test_the_second_waits_for_the_first() -> None:
    """As long as the first is heard; then, and not before the patience is over, the second has it."""
    claims = Claims("n2", 1.0)
    assert claims.decide(RANKS, 5.0) == (frozenset(), 6.0)
    claims.heard("n1", [VIP], 5.9)
    assert claims.decide(RANKS, 6.0) == (frozenset(), 6.9)
    assert not mine(claims, 6.8)
    assert mine(claims, 6.9)


def test_the_first_comes_back() -> None:
    """As soon as it is heard to claim the address, it has it again."""
    claims = Claims("n2", 1.0)
    claims.decide(RANKS, 0.0)
    assert mine(claims, 1.0)
    claims.heard("n1", [VIP], 1.5)
    assert not mine(claims, 1.5)


def test_the_third_gives_each_its_time() -> None:
    """A second that is gone, too, costs the patience once more."""
    claims = Claims("n3", 1.0)
    claims.decide(RANKS, 0.0)
    assert claims.decide(RANKS, 1.0) == (frozenset(), 2.0)
    assert mine(claims, 2.0)


def test_a_silent_node_is_passed_over_at_once() -> None:
    """Who said nothing when it should have is not waited for at the next address, until it is heard."""
    claims = Claims("n2", 1.0)
    claims.decide(RANKS, 0.0)
    claims.decide(RANKS, 1.0)
    both = {**RANKS, OTHER: ("n1", "n2")}
    assert claims.decide(both, 1.0)[0] == {VIP, OTHER}
    claims.heard("n1", [VIP], 1.1)
    assert claims.decide(both, 1.1)[0] == set()


def test_a_node_that_lives_may_lack_one_address() -> None:
    """Who is heard, but does not claim this address (it is not on this LAN), is passed over for it alone."""
    claims = Claims("n2", 1.0)
    both = {**RANKS, OTHER: ("n1", "n2")}
    for tick in range(5):
        claims.heard("n1", [VIP], tick / 2)
        claims.decide(both, tick / 2)
    assert claims.decide(both, 2.0)[0] == {OTHER}


def test_who_leaves_is_not_waited_for() -> None:
    """The next one has it at once; and the one who left, when it is back."""
    claims = Claims("n2", 1.0)
    claims.heard("n1", [VIP], 0.0)
    claims.left("n1")
    assert mine(claims, 0.1)
    claims.heard("n1", [VIP], 0.2)
    assert not mine(claims, 0.2)


def test_a_node_newly_first_gets_its_time() -> None:
    """That it claimed the address long ago does not count against it."""
    claims = Claims("n2", 1.0)
    claims.heard("n1", [VIP], 0.0)
    claims.decide(RANKS, 0.0)
    claims.decide({VIP: ("n2",)}, 0.5)
    claims.decide({VIP: ("n2",)}, 5.0)
    assert claims.decide(RANKS, 5.1) == (frozenset(), 6.1)


def test_whose_link() -> None:
    """That in whose network the address is; else that of the node's own address."""
    lan, pods = Link(1, "eth0", "02:00:00:00:00:01", 1500, True), Link(2, "fl0", "02:00:00:00:00:02", 1500, True)
    networks = {lan: [ipaddress.ip_interface("192.0.2.11/24")], pods: [ipaddress.ip_interface("10.244.0.1/24")]}
    home = (ipaddress.ip_address("192.0.2.11"),)
    assert fitting(VIP, networks, home) == (lan,)
    assert fitting(ipaddress.ip_address("198.51.100.1"), networks, home) == (lan,)
    assert fitting(ipaddress.ip_address("198.51.100.1"), networks, ()) == ()
    holder = Link(3, "kube-ipvs0", "02:00:00:00:00:03", 1500, True)
    assert fitting(VIP, {holder: [ipaddress.ip_interface(VIP)], **networks}, home) == (lan,)


class Held:
    """Links that have one address."""

    def all_addresses(self) -> Any:
        return {7: {ipaddress.ip_interface(VIP)}}


@pytest.mark.parametrize(("ignore", "warned"), [("0", [VIP]), ("1", []), ("2", [])])
def test_addresses_that_the_kernel_answers_for(tmp_path: Path, ignore: str, warned: list[Any]) -> None:
    """What is on a link is answered for by the kernel, unless arp_ignore forbids it."""
    (tmp_path / "net/ipv4/conf/all").mkdir(parents=True)
    (tmp_path / "net/ipv4/conf/all/arp_ignore").write_text(f"{ignore}\n")
    links: Any = Held()
    assert answered_anyway(links, [VIP, OTHER], tmp_path) == warned
