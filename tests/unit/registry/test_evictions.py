"""Evictions ask the pod's budget, and take what it allows before the pod goes."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.api import kinds
from fairlead.api.errors import StatusError

Object = dict[str, Any]

ALLOWED = {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 3, "desiredHealthy": 2}
NONE_LEFT = {**ALLOWED, "disruptionsAllowed": 0, "currentHealthy": 2}


async def running(cluster: Any, pod_of: Any, *, ready: bool = True) -> None:
    pod = pod_of()
    pod["metadata"]["labels"] = {"app": "web"}
    pod["spec"]["nodeName"] = "n1"
    await cluster.create(kinds.PODS, pod)
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    await cluster.patch(
        kinds.PODS, "web", lambda p: p["status"].update(phase="Running", conditions=conditions), subresource="status"
    )


async def budget(cluster: Any, status: Object, name: str = "web", **spec: Any) -> None:
    selector = {"matchLabels": {"app": "web"}}
    made = {"metadata": {"name": name}, "spec": {"minAvailable": 2, "selector": selector, **spec}}
    await cluster.create(kinds.PODDISRUPTIONBUDGETS, made)
    await cluster.patch(
        kinds.PODDISRUPTIONBUDGETS, name, lambda b: b.setdefault("status", {}).update(status), subresource="status"
    )


async def evict(cluster: Any, **more: Any) -> Any:
    return await cluster.registry.create(
        kinds.PODS, "default", {}, cluster.ctx(**more), name="web", subresource="eviction"
    )


async def test_what_the_budget_allows_is_taken(cluster: Any, pod_of: Any) -> None:
    """The number goes down and the pod's name is kept; the pod says why it goes."""
    await running(cluster, pod_of)
    await budget(cluster, ALLOWED)
    await evict(cluster)
    status = (await cluster.get(kinds.PODDISRUPTIONBUDGETS, "web"))["status"]
    assert status["disruptionsAllowed"] == 0
    assert list(status["disruptedPods"]) == ["web"]
    pod = await cluster.get(kinds.PODS, "web")
    assert pod["metadata"]["deletionTimestamp"]
    assert [c["reason"] for c in pod["status"]["conditions"] if c["type"] == "DisruptionTarget"] == [
        "EvictionByEvictionAPI"
    ]


async def test_nothing_left_is_429(cluster: Any, pod_of: Any) -> None:
    """As upstream says it, with the budget's numbers as the cause."""
    await running(cluster, pod_of)
    await budget(cluster, NONE_LEFT)
    with pytest.raises(StatusError) as caught:
        await evict(cluster)
    assert (caught.value.code, caught.value.reason) == (429, "TooManyRequests")
    assert str(caught.value) == "Cannot evict pod as it would violate the pod's disruption budget."
    assert caught.value.status["details"]["causes"] == [
        {
            "reason": "DisruptionBudget",
            "message": "The disruption budget web needs 2 healthy pods and has 2 currently",
        }
    ]
    assert "deletionTimestamp" not in (await cluster.get(kinds.PODS, "web"))["metadata"]


async def test_a_budget_nobody_has_counted_yet_refuses(cluster: Any, pod_of: Any) -> None:
    """Its status must be of its newest generation."""
    await running(cluster, pod_of)
    await budget(cluster, {**ALLOWED, "observedGeneration": 0})
    with pytest.raises(StatusError, match="disruption budget") as caught:
        await evict(cluster)
    assert caught.value.retry_after == 10


async def test_two_budgets_are_one_too_many(cluster: Any, pod_of: Any) -> None:
    """Nobody could say which one allows it."""
    await running(cluster, pod_of)
    await budget(cluster, ALLOWED)
    await budget(cluster, ALLOWED, "other")
    with pytest.raises(StatusError, match="more than one PodDisruptionBudget") as caught:
        await evict(cluster)
    assert caught.value.code == 500


@pytest.mark.parametrize(
    ("status", "spec", "goes"),
    [
        ({**NONE_LEFT, "currentHealthy": 1}, {}, False),
        (NONE_LEFT, {}, True),
        ({**NONE_LEFT, "currentHealthy": 0}, {"unhealthyPodEvictionPolicy": "AlwaysAllow"}, True),
    ],
)
async def test_a_pod_that_is_not_ready(cluster: Any, pod_of: Any, status: Object, spec: Object, goes: bool) -> None:
    """It may go if enough others are healthy, or always if the budget says so; nothing is taken."""
    await running(cluster, pod_of, ready=False)
    await budget(cluster, status, **spec)
    try:
        await evict(cluster)
    except StatusError as error:
        assert not goes, error
    else:
        assert goes
    assert "disruptedPods" not in (await cluster.get(kinds.PODDISRUPTIONBUDGETS, "web"))["status"]


async def test_a_dry_run_takes_nothing(cluster: Any, pod_of: Any) -> None:
    """Neither the number nor the pod."""
    await running(cluster, pod_of)
    await budget(cluster, ALLOWED)
    await evict(cluster, dry_run=True)
    assert (await cluster.get(kinds.PODDISRUPTIONBUDGETS, "web"))["status"]["disruptionsAllowed"] == 1
    assert "deletionTimestamp" not in (await cluster.get(kinds.PODS, "web"))["metadata"]


async def test_who_is_meant(cluster: Any, pod_of: Any) -> None:
    """An empty selector is for all pods, none at all for nobody."""
    await running(cluster, pod_of)
    await budget(cluster, NONE_LEFT, "nobody", selector=None)
    await evict(cluster, dry_run=True)
    await budget(cluster, NONE_LEFT, "all", selector={})
    with pytest.raises(StatusError, match="disruption budget"):
        await evict(cluster)
