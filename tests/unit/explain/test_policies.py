"""NetworkPolicies: what a set of them allows, by the API's own rules, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.explain.evidence import Facts
from fairlead.explain.policies import Connection, Party, denying
from tests.unit.explain.world import PODS, a_pod, evidence, explain

CLIENT, SERVER = (
    a_pod("client", "n1", "10.244.1.2", {"app": "client"}),
    a_pod("web", "n1", "10.244.1.3", {"app": "web"}),
)
SERVER["spec"]["containers"][0]["ports"] = [{"name": "http", "containerPort": 8080}]
SPACES = {"shop": {"team": "a"}, "other": {"team": "b"}}


def policy(name: str = "wall", **spec: Any) -> dict[str, Any]:
    """A policy for the pods app=web."""
    whole = {"podSelector": {"matchLabels": {"app": "web"}}} | spec
    return {"metadata": {"name": name, "namespace": "shop"}, "spec": whole}


def peers(*peer: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A policy with one rule."""
    return policy(ingress=[{"from": list(peer), **more}])


SAME = {"podSelector": {"matchLabels": {"app": "client"}}}


@pytest.mark.parametrize(
    ("policies", "denied"),
    [
        ([], False),
        ([policy()], True),
        ([policy(ingress=[{}])], False),
        ([policy(podSelector={"matchLabels": {"app": "db"}})], False),
        ([policy(policyTypes=["Egress"])], False),
        ([peers(SAME)], False),
        (
            [peers({"podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["client"]}]}})],
            True,
        ),
        ([peers({"namespaceSelector": {"matchLabels": {"team": "a"}}})], False),
        ([peers({"namespaceSelector": {"matchLabels": {"team": "b"}}})], True),
        ([peers({"namespaceSelector": {}, **SAME})], False),
        ([peers({"ipBlock": {"cidr": "10.244.0.0/16"}})], False),
        ([peers({"ipBlock": {"cidr": "10.244.0.0/16", "except": ["10.244.1.0/24"]}})], True),
        ([peers(SAME, ports=[{"port": 8080}])], False),
        ([peers(SAME, ports=[{"port": "http"}])], False),
        ([peers(SAME, ports=[{"port": 8000, "endPort": 9000}])], False),
        ([peers(SAME, ports=[{"port": 80}, {"port": 8080, "protocol": "UDP"}])], True),
        ([policy(), policy("hole", ingress=[{}])], False),
        ([policy(podSelector={"matchLabels": {"app": "client"}}, policyTypes=["Egress"])], True),
        ([policy(podSelector={"matchLabels": {"app": "client"}}, egress=[{"to": [{"podSelector": {}}]}])], False),
    ],
)
def test_what_policies_allow(policies: list[dict[str, Any]], denied: bool) -> None:
    """One connection, from a pod to a pod of the same namespace, port 8080."""
    connection = Connection(Party("10.244.1.2", CLIENT), Party("10.244.1.3", SERVER), 8080, "TCP")
    assert bool(denying(policies, connection, SPACES)) is denied


def test_the_direction_and_the_policies_are_named() -> None:
    """Of ingress those that select the endpoint, in order."""
    connection = Connection(Party("10.244.1.2", CLIENT), Party("10.244.1.3", SERVER), 8080, "TCP")
    assert denying([policy("b"), policy("a")], connection, SPACES) == ("ingress", ["a", "b"])


PLUGIN = {"metadata": {"name": "calico-node-x", "namespace": "kube-system", "uid": "x"}, "spec": {}, "status": {}}


@pytest.mark.parametrize(
    ("facts", "pods", "finding", "works"),
    [
        (Facts("lab", local=True), PODS, "FL096", True),
        (Facts(proxy_mode="nftables"), PODS, "FL098", True),
        (Facts(proxy_mode="nftables"), (*PODS, PLUGIN), "FL098", False),
    ],
    ids=["our own cluster", "another", "another with a plugin"],
)
def test_a_denial_is_a_cause_only_where_policies_are_enforced(
    facts: Facts, pods: tuple[Any, ...], finding: str, works: bool
) -> None:
    """In a cluster of our own it is a warning that nobody enforces them; elsewhere it depends on who is seen."""
    report = explain(evidence(facts=facts, pods=pods, policies=(policy(),)))
    assert finding in {f.id for f in report.findings}
    assert report.works is works, report.verdict
