"""Silent nodes, taints, evictions, and the ranges nodes get."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from fairlead.api import times
from fairlead.controllers import nodelifecycle, podgc
from fairlead.controllers.nodeaddresses import next_range

Object = dict[str, Any]
NOW = datetime.datetime(2026, 1, 1, 12, 0, 0, tzinfo=datetime.UTC)
AT = times.render(NOW)


def node(ready: str | None, **spec: Any) -> Object:
    conditions = [] if ready is None else [{"type": "Ready", "status": ready, "lastHeartbeatTime": "h"}]
    return {
        "metadata": {"name": "n1", "creationTimestamp": "c"},
        "spec": spec,
        "status": {"conditions": conditions},
    }


def test_a_silent_node_is_unknown() -> None:
    """Every condition becomes Unknown, once; one that was never there says so."""
    status = nodelifecycle.silenced(node("True"), NOW)
    assert status is not None
    by_type = {c["type"]: c for c in status["conditions"]}
    assert by_type["Ready"] == {
        "type": "Ready",
        "status": "Unknown",
        "reason": "NodeStatusUnknown",
        "message": "Kubelet stopped posting node status.",
        "lastHeartbeatTime": "h",
        "lastTransitionTime": AT,
    }
    assert by_type["MemoryPressure"]["reason"] == "NodeStatusNeverUpdated"
    assert nodelifecycle.silenced({**node("True"), "status": status}, NOW) is None


def keys(taints: list[Object] | None) -> list[str] | None:
    return None if taints is None else [f"{t['key'].rpartition('/')[2]}:{t['effect']}" for t in taints]


OTHER = {"key": "mine", "effect": "NoExecute"}
NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
TAINTS = [
    (node("True"), None),
    (node("False"), ["not-ready:NoSchedule", "not-ready:NoExecute"]),
    (node(None), ["not-ready:NoSchedule", "not-ready:NoExecute"]),
    (node("Unknown"), ["unreachable:NoSchedule", "unreachable:NoExecute"]),
    (node("True", taints=[NOT_READY, OTHER]), ["mine:NoExecute"]),
    (node("Unknown", taints=[NOT_READY, OTHER]), ["mine:NoExecute", "unreachable:NoSchedule", "unreachable:NoExecute"]),
    (node("True", unschedulable=True), ["unschedulable:NoSchedule"]),
    (node("False", taints=[NOT_READY, {**NOT_READY, "effect": "NoExecute"}]), None),
]


@pytest.mark.parametrize(("given", "expected"), TAINTS)
def test_taints(given: Object, expected: list[str] | None) -> None:
    """The node's state asks for its taints; others' taints stay; what is right is not written."""
    assert keys(nodelifecycle.taints(given, NOW)) == expected


def test_a_node_is_given_up_in_its_turn() -> None:
    """Later: not yet, but not less than it was; not: taken back."""
    silent, given_up = node("Unknown"), node("Unknown", taints=nodelifecycle.taints(node("Unknown"), NOW))
    assert keys(nodelifecycle.taints(silent, NOW, "later")) == ["unreachable:NoSchedule"]
    assert nodelifecycle.taints(given_up, NOW, "later") is None
    assert keys(nodelifecycle.taints(given_up, NOW, "not")) == ["unreachable:NoSchedule"]
    assert nodelifecycle.is_given_up(given_up)
    assert not nodelifecycle.is_given_up(silent)


def test_pods_of_a_silent_node_are_not_ready() -> None:
    """Ready becomes False, other conditions stay; a pod that is not ready is left alone."""
    conditions = [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}]
    status = nodelifecycle.unready({"status": {"phase": "Running", "conditions": conditions}}, NOW)
    assert status is not None
    assert [(c["type"], c["status"]) for c in status["conditions"]] == [("Ready", "False"), ("PodScheduled", "True")]
    assert nodelifecycle.unready({"status": status}, NOW) is None


def tolerating(**toleration: Any) -> list[Object]:
    return [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", **toleration}]


EVICTIONS = [
    ([], "node.kubernetes.io/unreachable", 300),
    ([], "mine", 0),
    (tolerating(tolerationSeconds=20), "node.kubernetes.io/unreachable", 20),
    (tolerating(tolerationSeconds=-5), "node.kubernetes.io/unreachable", 0),
    (tolerating(), "node.kubernetes.io/unreachable", None),
    ([{"operator": "Exists"}], "mine", None),
    ([*tolerating(tolerationSeconds=20), *tolerating(tolerationSeconds=10)], "node.kubernetes.io/unreachable", 10),
]


@pytest.mark.parametrize(("tolerations", "key", "seconds"), EVICTIONS)
def test_evictions(tolerations: list[Object], key: str, seconds: int | None) -> None:
    """At once without a toleration, after its seconds with one, never without a limit; 300 s for our own taints."""
    taints = [{"key": key, "effect": "NoExecute", "timeAdded": AT}, {"key": "x", "effect": "NoSchedule"}]
    at = nodelifecycle.evict_at({"spec": {"tolerations": tolerations}}, taints, 300)
    assert at == (None if seconds is None else NOW + datetime.timedelta(seconds=seconds))
    assert nodelifecycle.evict_at({"spec": {}}, [], 300) is None


RANGES = [
    ([], "10.244.0.0/24"),
    (["10.244.0.0/24", "10.244.2.0/24"], "10.244.1.0/24"),
    (["10.244.0.0/23"], "10.244.2.0/24"),
    (["192.168.0.0/24", "fd00::/64"], "10.244.0.0/24"),
    ([f"10.244.{i}.0/24" for i in range(256)], ""),
]


@pytest.mark.parametrize(("taken", "expected"), RANGES)
def test_ranges(taken: list[str], expected: str) -> None:
    """The first free one; of any size taken; none if all are."""
    assert next_range("10.244.0.0/16", 24, taken) == expected


def test_finished_pods_beyond_the_limit() -> None:
    """The oldest go; no limit keeps all."""
    pods = [{"metadata": {"name": n, "creationTimestamp": n}} for n in "cab"]
    assert [p["metadata"]["name"] for p in podgc.surplus(pods, 1)] == ["a", "b"]
    assert podgc.surplus(pods, 3) == [] and podgc.surplus(pods, 0) == []
