"""The tables of ReplicaSets and Deployments."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fairlead.api.tables.cells import AGE, NAME, Column, Printer, age, containers, name, selector

_TEMPLATE_COLUMNS = (
    Column("Containers", "The names of the template's containers.", 1),
    Column("Images", "The images of the template's containers.", 1),
    Column("Selector", "The labels of the pods that belong to it.", 1),
)


def _replicaset(replicaset: dict[str, Any], now: datetime) -> list[Any]:
    spec, status = replicaset.get("spec") or {}, replicaset.get("status") or {}
    return [
        name(replicaset),
        spec.get("replicas") or 0,
        status.get("replicas") or 0,
        status.get("readyReplicas") or 0,
        age(replicaset, now),
        *containers(spec.get("template")),
        selector(spec.get("selector")),
    ]


def _deployment(deployment: dict[str, Any], now: datetime) -> list[Any]:
    spec, status = deployment.get("spec") or {}, deployment.get("status") or {}
    return [
        name(deployment),
        f"{status.get('readyReplicas') or 0}/{spec.get('replicas') or 0}",
        status.get("updatedReplicas") or 0,
        status.get("availableReplicas") or 0,
        age(deployment, now),
        *containers(spec.get("template")),
        selector(spec.get("selector")),
    ]


REPLICASETS = Printer(
    (
        NAME,
        Column("Desired", "How many pods there should be.", type="integer"),
        Column("Current", "How many pods there are.", type="integer"),
        Column("Ready", "How many pods are ready.", type="integer"),
        AGE,
        *_TEMPLATE_COLUMNS,
    ),
    _replicaset,
)
DEPLOYMENTS = Printer(
    (
        NAME,
        Column("Ready", "How many of the wanted pods are ready."),
        Column("Up-to-date", "How many pods are of the present template."),
        Column("Available", "How many pods have been ready long enough."),
        AGE,
        *_TEMPLATE_COLUMNS,
    ),
    _deployment,
)
