"""How many pods a PodDisruptionBudget lets go."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from fairlead.api import times
from fairlead.controllers import disruption

Object = dict[str, Any]
NOW = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)


def pod(name: str, *, ready: bool = True, owner: str = "d") -> Object:
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {"metadata": {"name": name, "owner": owner}, "status": {"phase": "Running", "conditions": conditions}}


def budget(status: Object | None = None, **spec: Any) -> Object:
    return {"metadata": {"name": "b", "generation": 2}, "spec": {"selector": {}, **spec}, "status": status or {}}


def scale_of(wanted: int) -> Any:
    return lambda p: (p["metadata"]["owner"], wanted)


@pytest.mark.parametrize(
    ("spec", "pods", "numbers"),
    [
        ({"minAvailable": 2}, (3, 3), (3, 2, 1)),
        ({"minAvailable": 3}, (3, 3), (3, 3, 0)),
        ({"minAvailable": "50%"}, (4, 4), (4, 2, 2)),
        ({"minAvailable": "50%"}, (3, 3), (3, 2, 1)),
        ({"maxUnavailable": 1}, (3, 3), (3, 2, 1)),
        ({"maxUnavailable": 1}, (2, 3), (3, 2, 0)),
        ({"maxUnavailable": "30%"}, (10, 10), (10, 7, 3)),
        ({"maxUnavailable": 0}, (3, 3), (3, 3, 0)),
        ({"minAvailable": 0}, (0, 0), (0, 0, 0)),
    ],
)
def test_the_numbers(spec: Object, pods: tuple[int, int], numbers: tuple[int, int, int]) -> None:
    """Percentages are of what the owners want, rounded up."""
    (there, wanted), (expected, desired, allowed) = pods, numbers
    decided = disruption.plan(budget(**spec), [pod(str(n)) for n in range(there)], scale_of(wanted), NOW)
    status = decided.status
    assert (status["expectedPods"], status["desiredHealthy"]) == (expected, desired)
    assert (status["currentHealthy"], status["disruptionsAllowed"]) == (there, allowed)
    assert status["conditions"][0]["status"] == ("True" if allowed else "False")


def test_an_allowed_eviction_counts_as_done() -> None:
    """Until two minutes have passed, or the pod goes."""
    at = times.render(NOW - datetime.timedelta(seconds=30))
    there = [pod("a"), pod("b"), pod("c")]
    decided = disruption.plan(budget({"disruptedPods": {"a": at, "x": at}}, minAvailable=1), there, scale_of(3), NOW)
    assert (decided.status["currentHealthy"], decided.status["disruptedPods"]) == (2, {"a": at})
    assert decided.again_in == pytest.approx(90)
    old = times.render(NOW - datetime.timedelta(seconds=121))
    decided = disruption.plan(budget({"disruptedPods": {"a": old}}, minAvailable=1), there, scale_of(3), NOW)
    assert (decided.status["currentHealthy"], "disruptedPods" in decided.status) == (3, False)


def test_pods_without_an_owner_are_told_of() -> None:
    """Nobody says how many of them there should be."""
    decided = disruption.plan(budget(maxUnavailable=1), [pod("a")], lambda _: ("", 0), NOW)
    assert [reason for reason, _ in decided.events] == ["UnmanagedPods"]
    assert decided.status["disruptionsAllowed"] == 0
