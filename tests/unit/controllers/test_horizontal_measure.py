"""How many pods a measure asks for, and how fast an autoscaler gets there."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import pytest

from fairlead.controllers import horizontal
from fairlead.controllers.horizontal import Seen
from fairlead.controllers.horizontal_measure import Measure, Sample, Unmeasurable, propose, samples
from fairlead.controllers.horizontal_pace import Past, down_limit, pace, up_limit
from tests.unit.controllers.test_horizontal import conditions, scale

Object = dict[str, Any]
NOW = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
LONG_AGO = "2026-01-01T10:00:00Z"
WINDOW = datetime.timedelta(seconds=15)


def pod(name: str, *, phase: str = "Running", ready: str = "True", request: str = "1000m", **more: str) -> Object:
    resources = {"requests": {"cpu": request}} if request else {}
    changed = more.get("changed", LONG_AGO)
    return {
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "resources": resources}]},
        "status": {
            "phase": phase,
            "startTime": more.get("start", LONG_AGO),
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": changed}],
        },
    }


def pods(count: int, **more: str) -> list[Object]:
    return [pod(f"p{i}", **more) for i in range(count)]


def used(*milli: int | None) -> dict[str, Sample]:
    return {f"p{i}": Sample(one, NOW, WINDOW) for i, one in enumerate(milli) if one is not None}


@pytest.mark.parametrize(
    ("levels", "target", "current", "wanted"),
    [
        ((300, 500, 700), 30, 3, 5),  # 50 % used, 30 % wanted
        ((100, 300, 500, 250, 250), 50, 5, 3),
        ((1010, 1030, 1020), 100, 3, 3),  # within a tenth
        ((1090,), 100, 1, 1),
        ((1110,), 100, 1, 2),
        ((900, 900), 100, 2, 2),
        ((890, 890), 100, 2, 2),  # nine tenths, and a bit: still two pods
        ((0, 0, 0), 50, 3, 0),  # the bounds say no
        ((300, None, 700), 30, 3, 4),  # one is not measured: idle, when there is to be more
        ((100, None, 100), 50, 3, 3),  # and fully used, when there is to be less
        ((600, None, 600), 50, 3, 3),  # and if that turns the answer, nothing is done
    ],
)
def test_a_share_of_what_is_requested(levels: Sequence[int | None], target: int, current: int, wanted: int) -> None:
    """In percent of a processor here."""
    assert propose(current, pods(len(levels)), used(*levels), Measure("cpu", "", target), NOW).replicas == wanted


@pytest.mark.parametrize(
    ("levels", "target", "wanted"),
    [((20_000, 10_000, 30_000), 10_000, 6), ((12_000, 12_000, 12_000), 40_000, 1), ((20_000, None, 30_000), 20_000, 3)],
)
def test_an_average_of_each_pod(levels: Sequence[int | None], target: int, wanted: int) -> None:
    """Needs no requests."""
    measure = Measure("memory", "", None, target)
    assert propose(3, pods(3, request=""), used(*levels), measure, NOW).replicas == wanted


SOON = "2026-01-01T11:59:00Z"


@pytest.mark.parametrize(
    ("last", "level", "wanted"),
    [
        ({"phase": "Pending"}, None, 5),  # it will take work, too: 37 % of four
        ({"ready": "False", "start": SOON, "changed": SOON}, 2000, 5),  # its start is no work
        ({"start": SOON, "changed": "2026-01-01T11:59:50Z"}, 2000, 5),  # its figure is from before it was ready
        ({"start": SOON, "changed": "2026-01-01T11:59:10Z"}, 300, 6),  # ready for long enough
        ({"ready": "False", "changed": "2026-01-01T10:00:10Z"}, 2000, 5),  # never was ready
        ({"ready": "False", "changed": "2026-01-01T11:00:00Z"}, 300, 6),  # was, and works
        ({"phase": "Failed"}, 2000, 5),
    ],
)
def test_a_pod_that_is_not_ready(last: Object, level: int | None, wanted: int) -> None:
    """Three pods use half of what they ask for, 30 % is wanted; the fourth is another matter."""
    own = [*pods(3), pod("p3", **last)]
    assert propose(4, own, used(300, 500, 700, level), Measure("cpu", "", 30), NOW).replicas == wanted


@pytest.mark.parametrize(
    ("own", "level", "why"),
    [
        ([], (), "no pods returned by selector while calculating replica count"),
        (pods(1, phase="Pending"), (1,), "did not receive metrics for targeted pods (pods might be unready)"),
        (pods(1, request=""), (1,), "missing request for cpu in container main of Pod p0"),
    ],
)
def test_what_keeps_it_from_being_said(own: list[Object], level: tuple[int, ...], why: str) -> None:
    """Upstream's words."""
    with pytest.raises(Unmeasurable, match=why.replace("(", r"\(").replace(")", r"\)")):
        propose(1, own, used(*level), Measure("cpu", "", 50), NOW)


def test_samples_are_sums_of_containers() -> None:
    """Of all, or of one; a pod that lacks a figure is left out."""
    item: Object = {"metadata": {"name": "p0"}, "timestamp": "2026-01-01T12:00:00Z", "window": "15.5s"}
    item["containers"] = [{"name": "a", "usage": {"cpu": "250000000n"}}, {"name": "b", "usage": {"cpu": "1"}}]
    found = samples([item], "cpu", "")["p0"]
    assert (found.milli, found.window.total_seconds()) == (1250, 15.5)
    assert samples([item], "cpu", "b")["p0"].milli == 1000
    assert samples([item], "cpu", "c") == {}
    assert samples([item], "memory", "") == {}


def hpa(behavior: Object | None = None, metrics: Sequence[Object] = (), most: int = 20) -> Object:
    spec: Object = {"minReplicas": 1, "maxReplicas": most, "metrics": list(metrics)}
    if behavior is not None:
        spec["behavior"] = behavior
    return {"metadata": {"name": "h", "namespace": "shop"}, "spec": spec}


def test_up_at_once_down_after_five_minutes() -> None:
    """The highest that was recommended meanwhile holds."""
    past, plain = Past(), hpa()
    assert pace(plain, 2, 4, past, 0.0).replicas == 4
    held = pace(plain, 4, 1, past, 60.0)
    assert held.replicas == 4
    assert held.said[0][1] == "ScaleDownStabilized"
    assert pace(plain, 4, 2, past, 200.0).replicas == 4
    assert pace(plain, 4, 1, past, 301.0).replicas == 2
    assert pace(plain, 2, 1, past, 510.0).replicas == 1


def test_a_controller_that_starts_takes_nothing_away() -> None:
    """It does not know what was recommended before."""
    past = Past()
    assert pace(hpa(), 9, 1, past, 1000.0).replicas == 9
    assert pace(hpa(), 9, 1, past, 1301.0).replicas == 1


@pytest.mark.parametrize(
    ("current", "wanted", "most", "replicas", "reason"),
    [
        (1, 30, 20, 4, "ScaleUpLimit"),
        (5, 30, 20, 10, "ScaleUpLimit"),
        (5, 30, 8, 8, "TooManyReplicas"),
        (5, 7, 8, 7, "DesiredWithinRange"),
        (1, 0, 8, 1, "TooFewReplicas"),
    ],
)
def test_bounds_and_the_plain_pace(current: int, wanted: int, most: int, replicas: int, reason: str) -> None:
    """To double, or to four."""
    found = pace(hpa(most=most), current, wanted, Past([(0.0, 0)]), 1000.0)
    assert (found.replicas, found.said[-1][1]) == (replicas, reason)


def rules(*policies: tuple[str, int, int], select: str = "Max") -> Object:
    listed = [{"type": kind, "value": value, "periodSeconds": period} for kind, value, period in policies]
    return {"policies": listed, "selectPolicy": select}


def test_policies_of_a_behavior() -> None:
    """The change that leaves most room, or least; what was done in the period counts."""
    both = (("Pods", 4, 60), ("Percent", 50, 60))
    assert up_limit(rules(*both), 20, [], 100.0) == 30
    assert up_limit(rules(*both, select="Min"), 20, [], 100.0) == 24
    assert up_limit(rules(("Percent", 10, 60)), 5, [], 100.0) == 6
    assert up_limit(rules(("Pods", 4, 60)), 13, [(50.0, 3)], 100.0) == 14
    assert up_limit(rules(("Pods", 4, 60)), 13, [(30.0, 3)], 100.0) == 17
    assert up_limit({"selectPolicy": "Disabled"}, 7, [], 100.0) == 7
    assert down_limit(rules(*both), 20, [], 100.0) == 10
    assert down_limit(rules(*both, select="Min"), 20, [], 100.0) == 16
    assert down_limit(rules(("Pods", 4, 60)), 17, [(50.0, -3)], 100.0) == 16
    assert down_limit({"selectPolicy": "Disabled"}, 7, [], 100.0) == 7


def test_a_behavior_paces() -> None:
    """Two pods a minute down, without waiting; up only after what held for a minute."""
    wanted = {
        "scaleDown": {"stabilizationWindowSeconds": 0, **rules(("Pods", 2, 60))},
        "scaleUp": {"stabilizationWindowSeconds": 60, **rules(("Percent", 100, 15))},
    }
    past, paced = Past(), hpa(wanted)
    found = pace(paced, 10, 1, past, 0.0)
    assert (found.replicas, found.said[-1][1]) == (8, "ScaleDownLimit")
    past.scaled(0.0, -2)
    assert pace(paced, 8, 1, past, 15.0).replicas == 8
    assert pace(paced, 8, 1, past, 61.0).replicas == 6
    held = pace(paced, 6, 12, past, 70.0)
    assert (held.replicas, held.said[0][1]) == (6, "ScaleUpStabilized")
    assert pace(paced, 6, 12, past, 122.0).replicas == 12


def metrics(*milli: int) -> list[Object]:
    return [
        {
            "metadata": {"name": f"p{i}"},
            "timestamp": "2026-01-01T12:00:00Z",
            "window": "15s",
            "containers": [{"name": "main", "usage": {"cpu": f"{one}m", "memory": "64Mi"}}],
        }
        for i, one in enumerate(milli)
    ]


CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}
MEMORY = {
    "type": "Resource",
    "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "60Mi"}},
}
HITS = {"type": "Pods", "pods": {"metric": {"name": "hits"}, "target": {"averageValue": "1"}}}


def test_an_autoscaler_scales_by_what_is_used() -> None:
    """By the metric that asks for most; the status says what was seen."""
    decided = horizontal.decide(hpa(metrics=[CPU, MEMORY]), scale(2), NOW, Seen(pods(2), metrics(900, 900)))
    assert decided.replicas == 4
    assert decided.reason == "cpu resource utilization (percentage of request) above target"
    found = conditions(decided.status)
    assert found["ScalingActive"] == ("True", "ValidMetricFound")
    assert found["ScalingLimited"] == ("False", "DesiredWithinRange")
    assert decided.status["currentMetrics"] == [
        {
            "type": "Resource",
            "resource": {"name": "cpu", "current": {"averageUtilization": 90, "averageValue": "900m"}},
        },
        {"type": "Resource", "resource": {"name": "memory", "current": {"averageValue": "67108864"}}},
    ]
    assert decided.events == []


def test_a_metric_that_cannot_be_had_only_keeps_pods() -> None:
    """More are made by what is known; none is taken away."""
    more = horizontal.decide(hpa(metrics=[CPU, HITS]), scale(2), NOW, Seen(pods(2), metrics(900, 900)))
    assert more.replicas == 4
    assert [event[1] for event in more.events] == ["FailedGetPodsMetric"]
    less = horizontal.decide(hpa(metrics=[CPU, HITS]), scale(2), NOW, Seen(pods(2), metrics(10, 10)))
    assert less.replicas is None
    assert conditions(less.status)["ScalingActive"] == ("False", "FailedGetPodsMetric")


def test_no_figures_yet() -> None:
    """Upstream's words."""
    decided = horizontal.decide(hpa(metrics=[CPU]), scale(2), NOW, Seen(pods(2), []))
    assert decided.replicas is None
    assert "no metrics returned from resource metrics API" in decided.events[0][2]
