"""Load balancers' addresses: never given twice, and answered for by one node, whatever happens in whatever order."""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fairlead.announce.claims import Claims
from fairlead.announce.election import rank
from fairlead.announce.frames import Beat, parse_arp, parse_beat, parse_solicitation, render_beat
from fairlead.api.addresspool import parse_pool
from fairlead.controllers.loadbalancer_plan import Ledger, Refusal, Supply, Wish, assign

POOL = parse_pool("192.0.2.0/30,2001:db8::/127")
ADDRESSES = [ipaddress.ip_address(a) for a in ("192.0.2.0", "192.0.2.1", "192.0.2.3", "192.0.2.9", "2001:db8::1")]
WISHES = st.builds(
    Wish,
    name=st.sampled_from("abcdef"),
    since=st.sampled_from("123"),
    versions=st.sampled_from([(4,), (6,), (4, 6)]),
    all_versions=st.booleans(),
    addresses=st.lists(st.sampled_from(ADDRESSES), max_size=1).map(tuple),
    share=st.sampled_from(["", "", "k"]),
    local=st.booleans(),
    ports=st.frozensets(st.sampled_from([("TCP", 80), ("TCP", 443), ("UDP", 80)]), min_size=1),
)
STEPS = st.lists(st.tuples(st.sampled_from("abcdef"), st.one_of(st.none(), WISHES)), max_size=30)


@given(STEPS, st.sampled_from([{}, {ADDRESSES[1]: "node n1"}]))
def test_an_address_is_given_once(steps: list[tuple[str, Wish | None]], reserved: dict[Any, str]) -> None:
    """Services come, change and go: who is at an address with another agreed to share it; nobody has what is not in the
    pool or is a node's; who is refused is refused although it holds nothing that fits; asking again changes nothing."""
    ledger = Ledger()
    held: dict[str, tuple[Wish, tuple[Any, ...]]] = {}
    for uid, wish in steps:
        if wish is None:
            ledger.drop(uid)
            held.pop(uid, None)
            continue
        ledger.put(uid, wish, ledger.held_by(uid))
        given_now = assign(uid, wish, Supply(POOL, ledger, reserved))
        addresses = () if isinstance(given_now, Refusal) else given_now
        ledger.put(uid, wish, addresses)
        held[uid] = (wish, addresses)
        if addresses:
            assert assign(uid, wish, Supply(POOL, ledger, reserved)) == addresses
            assert {a.version for a in addresses} <= set(wish.versions)
            assert not wish.all_versions or len(addresses) == len(wish.versions)
            for address in addresses:
                assert address in POOL and address not in reserved
                for other in ledger.others_at(address, uid):
                    assert wish.share == other.share != ""
                    assert not wish.ports & other.ports
                    assert wish.local == other.local


NODES = ("n1", "n2", "n3", "n4")
VIPS = [ipaddress.ip_address(f"192.0.2.{n}") for n in range(1, 5)]
RANKINGS = {vip: rank(vip, NODES) for vip in VIPS}
PATIENCE, BEAT = 1.0, 0.2


@given(st.lists(st.tuples(st.sampled_from(NODES), st.floats(0.05, 3)), max_size=8))
def test_one_node_answers(changes: list[tuple[str, float]]) -> None:
    """Nodes die and come back at any time, and every beat is heard by who lives: when all has been quiet for a while,
    each address is with the first of its ranking that lives."""
    claims = {node: Claims(node, PATIENCE) for node in NODES}
    alive = set(NODES)
    now = 0.0
    due = now
    plan = [*changes, ("", PATIENCE * 5)]
    for node, pause in plan:
        if node in alive and len(alive) > 1:
            alive.discard(node)
        elif node:
            alive.add(node)
            claims[node] = Claims(node, PATIENCE)
        end = now + pause
        while due < end:
            now = due
            owned = {node: claims[node].decide(RANKINGS, now)[0] for node in sorted(alive)}
            for sender, addresses in owned.items():
                for listener in alive - {sender}:
                    if addresses:
                        claims[listener].heard(sender, addresses, now)
            due += BEAT
        now = end
    owners = {vip: [node for node in sorted(alive) if vip in claims[node].decide(RANKINGS, now)[0]] for vip in VIPS}
    assert owners == {vip: [next(n for n in RANKINGS[vip] if n in alive)] for vip in VIPS}


@given(st.text(max_size=63), st.integers(0, 2**64 - 1), st.lists(st.ip_addresses(), max_size=20), st.booleans())
def test_a_beat_comes_back(node: str, counter: int, addresses: list[Any], leaving: bool) -> None:
    """parse(render(x)) == x."""
    beat = Beat(node, counter, tuple(addresses), leaving)
    assert parse_beat(render_beat(beat, b"\x02" * 6, b"k" * 32), b"k" * 32) == beat


@given(st.binary(max_size=200))
def test_any_frame_is_taken(frame: bytes) -> None:
    """Whatever is on the LAN, nothing is raised."""
    parse_arp(frame)
    parse_solicitation(frame)
    assert parse_beat(frame, b"k" * 32) is None
