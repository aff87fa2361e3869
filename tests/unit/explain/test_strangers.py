"""What rules of others do to a packet."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.explain.strangers import Packet, Ruleset

PACKET = Packet("10.244.0.3", "10.244.1.4", "tcp", 8080, iif="fl0", oif="eth0")


def listing(*expressions: dict[str, Any], policy: str = "accept", hook: str = "forward") -> list[dict[str, Any]]:
    """One chain of a stranger with one rule."""
    chain = {"family": "ip", "table": "wall", "name": "c", "hook": hook, "prio": 0, "policy": policy, "type": "filter"}
    rule = {"family": "ip", "table": "wall", "chain": "c", "handle": 7, "expr": list(expressions)}
    return [{"chain": chain}, {"rule": rule}]


def match(left: dict[str, Any], right: Any, op: str = "==") -> dict[str, Any]:
    """A match in nft's JSON."""
    return {"match": {"op": op, "left": left, "right": right}}


DADDR = {"payload": {"protocol": "ip", "field": "daddr"}}
DPORT = {"payload": {"protocol": "tcp", "field": "dport"}}
UDP_DPORT = {"payload": {"protocol": "udp", "field": "dport"}}
DROP = {"drop": None}


@pytest.mark.parametrize(
    ("rule", "dropped"),
    [
        ((DROP,), True),
        ((match(DADDR, "10.244.1.4"), DROP), True),
        ((match(DADDR, "10.244.1.5"), DROP), False),
        ((match(DADDR, {"prefix": {"addr": "10.244.0.0", "len": 16}}), DROP), True),
        ((match(DADDR, {"set": ["10.0.0.1", "10.244.1.4"]}), DROP), True),
        ((match(DADDR, "10.244.1.4", "!="), DROP), False),
        ((match(DPORT, 8080), DROP), True),
        ((match(DPORT, {"range": [8000, 9000]}), DROP), True),
        ((match(UDP_DPORT, 8080), DROP), False),
        ((match({"meta": {"key": "iifname"}}, "fl*"), DROP), True),
        ((match({"ct": {"key": "state"}}, ["established", "related"], "in"), {"accept": None}), False),
        ((match(DADDR, "@blocked"), DROP), False),
        (({"counter": {"packets": 1}}, {"reject": None}), True),
    ],
)
def test_a_rule_drops_what_it_matches_and_nothing_else(rule: tuple[dict[str, Any], ...], dropped: bool) -> None:
    """Addresses, prefixes, sets, ports, links, states; what cannot be worked out is no certain drop."""
    found = Ruleset(listing(*rule)).meet("forward", PACKET)
    assert (found is not None) == dropped
    if found is not None:
        assert found.where == "ip wall c handle 7"


def test_a_set_that_was_not_read_leaves_a_doubt() -> None:
    """A drop by a named set is possible, not certain."""
    ruleset = Ruleset(listing(match(DADDR, "@blocked"), DROP))
    assert ruleset.meet("forward", PACKET) is None
    assert [doubt.rule for doubt in ruleset.doubts] == ["ip daddr @blocked drop"]


def test_a_policy_drops_what_no_rule_accepts() -> None:
    """The chain's policy counts, unless a rule lets the packet pass."""
    assert Ruleset(listing(policy="drop")).meet("forward", PACKET)
    assert Ruleset(listing(match(DPORT, 8080), {"accept": None}, policy="drop")).meet("forward", PACKET) is None


def test_jumps_are_followed() -> None:
    """A drop in a chain that is jumped to."""
    rules = listing({"jump": {"target": "inner"}})
    rules.append({"chain": {"family": "ip", "table": "wall", "name": "inner"}})
    rules.append({"rule": {"family": "ip", "table": "wall", "chain": "inner", "handle": 9, "expr": [DROP]}})
    found = Ruleset(rules).meet("forward", PACKET)
    assert found is not None
    assert found.where == "ip wall inner handle 9"


def test_own_tables_are_no_strangers() -> None:
    """The proxy's own drops are judged elsewhere."""
    rules = listing(DROP)
    for entry in rules:
        next(iter(entry.values()))["table"] = "fairlead"
    assert Ruleset(rules).meet("forward", PACKET) is None


def test_only_what_comes_before_translation() -> None:
    """A priority bounds which chains are met."""
    ruleset = Ruleset(listing(DROP, hook="prerouting"))
    assert ruleset.meet("prerouting", PACKET, before=-100) is None
    assert ruleset.meet("prerouting", PACKET, after=-100) is not None
