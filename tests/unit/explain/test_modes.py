"""The rules of each of the proxy's modes, as values: one prediction, each mode's own words, the same findings."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fairlead.discovery.model import ServiceSnapshot
from fairlead.explain.evidence import Evidence, IpvsView, LinkView, NodeKernel
from fairlead.linux.iptables import Saved
from fairlead.linux.ipvs import Load
from fairlead.proxy.compile import compile_table
from fairlead.proxy.iptables.show import chains_of
from fairlead.proxy.ipvs.show import state_of
from fairlead.proxy.options import ProxyOptions
from tests.unit.explain.world import VIP, a_slice, evidence, explain, node_kernel, snapshot

replace = msgspec.structs.replace
PREDICTED = ("10.244.1.3:8080", "10.244.2.3:8080")
POLICIES = {"filter": {"INPUT": "ACCEPT", "FORWARD": "ACCEPT", "OUTPUT": "ACCEPT"}, "nat": {}, "mangle": {}}


def iptables_node(number: int, rules: ServiceSnapshot | None = None, **more: Any) -> NodeKernel:
    """A node in iptables mode."""
    options = ProxyOptions(f"n{number}")
    chains = chains_of("IPv4", options, compile_table(rules or snapshot(), options)[0])
    saved = {table: Saved(held, POLICIES[table]) for table, held in chains.items()}
    return replace(node_kernel(number), tables={}, mode="iptables", iptables={"IPv4": saved}, **more)


def ipvs_node(number: int, rules: ServiceSnapshot | None = None, weight: int = 1) -> NodeKernel:
    """A node in ipvs mode; `weight` of each destination."""
    options = ProxyOptions(f"n{number}")
    state = state_of("IPv4", options, compile_table(rules or snapshot(), options)[0])
    saved = {table: Saved(held, POLICIES[table]) for table, held in state.tables.items()}
    servers = {at: (server, dict.fromkeys(ends, Load(weight))) for at, (server, ends) in state.servers.items()}
    made = node_kernel(number)
    dummy = LinkView("kube-ipvs0", True, 1500, addresses=tuple(f"{a}/32" for a in state.addresses))
    return replace(
        made,
        tables={},
        mode="ipvs",
        iptables={"IPv4": saved},
        ipvs=IpvsView(servers, state.sets),
        links=(*made.links, dummy),
    )


MAKERS = {"iptables": iptables_node, "ipvs": ipvs_node}
BEHIND = snapshot(slices=(a_slice(("10.244.1.3", "n1"), ("10.244.2.9", "n2")),))


def world(first: NodeKernel, second: NodeKernel) -> Evidence:
    """The usual one, with these nodes."""
    return evidence(kernels={"n1": first, "n2": second})


@pytest.mark.parametrize("mode", MAKERS)
def test_each_mode_predicts_the_same(mode: str) -> None:
    """All is well, and the endpoints are those that nftables mode names."""
    report = explain(world(MAKERS[mode](1), MAKERS[mode](2)))
    assert report.works, report.verdict
    assert report.findings == ()
    assert report.endpoints == PREDICTED


def test_iptables_quotes_the_rules_that_match() -> None:
    """In iptables-save's words, from the first jump to the translation, and no rule of another Service."""
    lines = "\n".join(line for hop in explain(world(iptables_node(1), iptables_node(2))).hops for line in hop.lines)
    assert "-t nat -A PREROUTING" in lines
    assert f"-A KUBE-SERVICES -d {VIP}/32 -p tcp" in lines
    assert "-j DNAT --to-destination 10.244.2.3:8080" in lines


def test_ipvs_quotes_the_virtual_server() -> None:
    """As ipvsadm lists it, with each destination's weight and connections."""
    lines = [line for hop in explain(world(ipvs_node(1), ipvs_node(2))).hops for line in hop.lines]
    assert f"TCP {VIP}:80 rr" in lines
    assert "  -> 10.244.2.3:8080 Masq (weight 1, 0 active, 0 inactive)" in lines


@pytest.mark.parametrize("mode", MAKERS)
def test_stale_rules_are_found(mode: str) -> None:
    """Rules for an endpoint that is none any more."""
    cause = explain(world(MAKERS[mode](1, BEHIND), MAKERS[mode](2))).cause
    assert cause is not None and cause.id == "FL051"
    assert "10.244.2.9:8080" in cause.text


def _without(kernel: NodeKernel, chain: str) -> NodeKernel:
    saved = kernel.iptables["IPv4"]
    held = {table: Saved({k: v for k, v in s.chains.items() if k != chain}, s.policies) for table, s in saved.items()}
    return replace(kernel, iptables={"IPv4": held})


@pytest.mark.parametrize(
    "broken",
    [
        _without(iptables_node(1), "KUBE-SERVICES"),
        _without(iptables_node(1), "PREROUTING"),
        replace(iptables_node(1), iptables={}),
        replace(ipvs_node(1), ipvs=None),
        replace(ipvs_node(1), links=node_kernel(1).links),
        replace(ipvs_node(1), ipvs=IpvsView({}, ipvs_node(1).ipvs.sets)),  # type: ignore[union-attr]
    ],
    ids=["no chain", "no jump", "no tables", "no servers", "no link", "no server"],
)
def test_missing_rules_are_found(broken: NodeKernel) -> None:
    """What translation hangs on is not there."""
    cause = explain(world(broken, iptables_node(2))).cause
    assert cause is not None and cause.id == "FL050", cause


def test_a_destination_of_weight_0_gets_no_new_connection() -> None:
    """It stays for those that are established; for a new one there is nothing."""
    report = explain(world(ipvs_node(1, weight=0), ipvs_node(2)))
    assert report.cause is not None and report.cause.id == "FL051"


def test_a_rule_of_others_among_the_tables_is_named_with_the_command_that_removes_it() -> None:
    """The proxy's own chains are none of theirs."""
    kernel = iptables_node(1)
    saved = kernel.iptables["IPv4"]
    rule = ("-d", "10.244.2.3/32", "-p", "tcp", "-m", "tcp", "--dport", "8080", "-j", "DROP")
    chains = saved["filter"].chains | {"FORWARD": (rule, *saved["filter"].chains["FORWARD"])}
    walled = replace(kernel, iptables={"IPv4": saved | {"filter": Saved(chains, POLICIES["filter"])}})
    report = explain(world(walled, iptables_node(2)))
    assert report.cause is not None and report.cause.id == "FL052"
    assert "iptables -t filter -D FORWARD -d 10.244.2.3/32 -p tcp -m tcp --dport 8080 -j DROP" in report.cause.remedy
    assert report.partly


def test_another_modes_chains_are_another_proxys() -> None:
    """Chains KUBE-… on a node whose proxy is in nftables mode."""
    foreign = replace(node_kernel(1), iptables=iptables_node(1).iptables)
    assert "FL054" in {finding.id for finding in explain(world(foreign, node_kernel(2))).findings}
