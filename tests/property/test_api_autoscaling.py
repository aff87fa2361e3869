"""HorizontalPodAutoscalers of v2 lose nothing on their way through v1."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fairlead.api import autoscaling

names = st.sampled_from(["cpu", "memory", "hits"])
amounts = st.sampled_from(["1", "500m", "2Gi"])
selectors = st.sampled_from([None, {"matchLabels": {"a": "b"}}])
reference = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "main"}


def _identifier(draw: Any) -> dict[str, Any]:
    selector = draw(selectors)
    return {"name": draw(names), **({"selector": selector} if selector else {})}


@st.composite
def metrics(draw: Any, part: str) -> dict[str, Any]:
    """One of any type, with one value."""
    kind = draw(st.sampled_from(sorted(autoscaling.MEMBERS)))
    keys = {"Pods": ["averageValue"], "Object": ["value", "averageValue"], "External": ["value", "averageValue"]}
    key = draw(st.sampled_from(keys.get(kind, ["averageUtilization", "averageValue"])))
    value = {key: draw(st.integers(1, 99)) if key == "averageUtilization" else draw(amounts)}
    if part == "target":
        value["type"] = {"averageUtilization": "Utilization", "averageValue": "AverageValue", "value": "Value"}[key]
    if kind in ("Resource", "ContainerResource"):
        source = {"name": draw(names), part: value}
        if kind == "ContainerResource":
            source["container"] = "c"
    else:
        source = {"metric": _identifier(draw), part: value}
        if kind == "Object":
            source["describedObject"] = reference
    return {"type": kind, autoscaling.MEMBERS[kind]: source}


@st.composite
def autoscalers(draw: Any) -> dict[str, Any]:
    """Of v2, as they are stored."""
    spec: dict[str, Any] = {"maxReplicas": 3, "minReplicas": 1, "scaleTargetRef": reference}
    spec["metrics"] = draw(st.lists(metrics("target"), min_size=1, max_size=3))
    if draw(st.booleans()):
        spec["behavior"] = {"scaleUp": {"selectPolicy": "Max", "policies": [{"type": "Pods", "value": 1}]}}
    status: dict[str, Any] = {"currentReplicas": 1}
    current = draw(st.lists(metrics("current"), max_size=2))
    if current:
        status["currentMetrics"] = current
    head = {"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v2"}
    return {**head, "metadata": {"name": "h", "annotations": {"mine": "x"}}, "spec": spec, "status": status}


@given(autoscalers())
def test_through_v1_and_back(hpa: dict[str, Any]) -> None:
    """to_v2(to_v1(h)) is h, with the target for CPU first; and the other way round nothing changes either."""
    old = autoscaling.to_v1(hpa)
    back = autoscaling.to_v2(old)
    expected, there = hpa["spec"].pop("metrics"), back["spec"].pop("metrics")
    assert back == hpa
    assert sorted(map(repr, map(_ordered, there))) == sorted(map(repr, map(_ordered, expected)))
    back["spec"]["metrics"] = there
    assert autoscaling.to_v1(back) == old


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value)}
    return value
