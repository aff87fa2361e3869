"""Defaults of Deployments and ReplicaSets, and of the pod templates in them."""

from __future__ import annotations

from typing import Any

from fairlead.api.defaults.absent import child, default, default_text
from fairlead.api.defaults.sets import default_template


def default_replicaset(obj: dict[str, Any]) -> None:
    """One replica."""
    spec = child(obj, "spec")
    default(spec, "replicas", 1)
    default_template(spec)


def default_deployment(obj: dict[str, Any]) -> None:
    """One replica; a rolling update by quarters, ten old revisions, ten minutes to make progress."""
    spec = child(obj, "spec")
    default(spec, "replicas", 1)
    strategy = child(spec, "strategy")
    default_text(strategy, "type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = child(strategy, "rollingUpdate")
        default(rolling, "maxUnavailable", "25%")
        default(rolling, "maxSurge", "25%")
    default(spec, "revisionHistoryLimit", 10)
    default(spec, "progressDeadlineSeconds", 600)
    default_template(spec)
