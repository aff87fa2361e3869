"""Defaults of HorizontalPodAutoscalers. Source: upstream's `pkg/apis/autoscaling/v{1,2}/defaults.go`."""

from __future__ import annotations

from typing import Any

from fairlead.api.autoscaling import default_metrics
from fairlead.api.defaults.absent import child, default

_PERIOD_SECONDS = 15


def default_autoscaler_v1(obj: dict[str, Any]) -> None:
    """At least one pod. (What it aims at by default is said where it becomes one of v2.)"""
    default(child(obj, "spec"), "minReplicas", 1)


def default_autoscaler(obj: dict[str, Any]) -> None:
    """At least one pod, a use of CPU to aim at, and what a behavior leaves out."""
    spec = child(obj, "spec")
    default(spec, "minReplicas", 1)
    if not spec.get("metrics"):
        spec["metrics"] = default_metrics()
    behavior = spec.get("behavior")
    if behavior is None:
        return
    percent = {"type": "Percent", "value": 100, "periodSeconds": _PERIOD_SECONDS}
    up, down = child(behavior, "scaleUp"), child(behavior, "scaleDown")
    default(up, "stabilizationWindowSeconds", 0)
    for rules, policies in (
        (up, [{"type": "Pods", "value": 4, "periodSeconds": _PERIOD_SECONDS}, percent]),
        (down, [dict(percent)]),
    ):
        default(rules, "selectPolicy", "Max")
        default(rules, "policies", policies)
