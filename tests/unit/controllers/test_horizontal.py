"""What becomes of an autoscaler's target where nothing can be measured."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from fairlead.controllers import horizontal

Object = dict[str, Any]
NOW = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}
NO_METRICS = (
    "failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from resource "
    "metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)"
)


def hpa(*metrics: Object) -> Object:
    """Between two and five."""
    spec = {"minReplicas": 2, "maxReplicas": 5, "metrics": list(metrics or (CPU,))}
    return {"metadata": {"name": "h", "namespace": "shop", "generation": 3}, "spec": spec}


def scale(replicas: int, selector: str = "app=web") -> Object:
    return {"spec": {"replicas": replicas}, "status": {"replicas": replicas, "selector": selector}}


def conditions(status: Object) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}


@pytest.mark.parametrize(
    ("replicas", "wanted", "reason"),
    [
        (1, 2, "Current number of replicas below Spec.MinReplicas"),
        (9, 5, "Current number of replicas above Spec.MaxReplicas"),
        (2, None, ""),
        (5, None, ""),
        (0, None, ""),
    ],
)
def test_bounds_hold_without_metrics(replicas: int, wanted: int | None, reason: str) -> None:
    """Scaled to the nearest; what is off (zero) stays off."""
    decided = horizontal.decide(hpa(), scale(replicas), NOW)
    assert (decided.replicas, decided.reason) == (wanted, reason)
    assert decided.status["currentReplicas"] == replicas


def test_within_bounds_it_says_what_is_missing() -> None:
    """In a condition and two events."""
    decided = horizontal.decide(hpa(), scale(3), NOW)
    found = conditions(decided.status)
    assert found["AbleToScale"] == ("True", "SucceededGetScale")
    assert found["ScalingActive"] == ("False", "FailedGetResourceMetric")
    message = decided.status["conditions"][1]["message"]
    assert message == f"the HPA was unable to compute the replica count: {NO_METRICS}"
    first = (
        f"invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: {NO_METRICS}"
    )
    assert decided.events == [
        ("Warning", "FailedGetResourceMetric", NO_METRICS),
        ("Warning", "FailedComputeMetricsReplicas", first),
    ]
    assert decided.status["observedGeneration"] == 3


def test_zero_is_off() -> None:
    """And said to be."""
    decided = horizontal.decide(hpa(), scale(0), NOW)
    assert conditions(decided.status)["ScalingActive"] == ("False", "ScalingDisabled")


def test_a_rescale_is_noted() -> None:
    """Condition, time and event."""
    decided = horizontal.decide(hpa(), scale(1), NOW)
    told = horizontal.rescaled(decided.status, 2, decided.reason, NOW)
    assert told[1:] == (
        "SuccessfulRescale",
        "New size: 2; reason: Current number of replicas below Spec.MinReplicas",
    )
    assert conditions(decided.status)["AbleToScale"] == ("True", "SucceededRescale")
    assert decided.status["lastScaleTime"] == "2026-01-01T12:00:00Z"
    assert decided.status["desiredReplicas"] == 2


@pytest.mark.parametrize(
    ("metric", "reason", "words"),
    [
        ({"type": "Pods", "pods": {"metric": {"name": "hits"}}}, "FailedGetPodsMetric", "unable to get metric hits: "),
        (
            {
                "type": "Object",
                "object": {"metric": {"name": "m"}, "describedObject": {"kind": "Ingress", "name": "i"}},
            },
            "FailedGetObjectMetric",
            "unable to get metric m: Ingress on shop i/unable to fetch metrics from custom metrics API: no custom ",
        ),
        (
            {"type": "External", "external": {"metric": {"name": "q"}}},
            "FailedGetExternalMetric",
            "no external metrics API (external.metrics.k8s.io) registered",
        ),
    ],
)
def test_every_type_of_metric_has_its_reason(metric: Object, reason: str, words: str) -> None:
    """And names what is missing."""
    found, _, why = horizontal.unmeasured(metric, "shop")
    assert found == reason
    assert words in why
