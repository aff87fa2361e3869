"""The tables of PodDisruptionBudgets, ResourceQuotas, PriorityClasses and RuntimeClasses."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fairlead.api.tables.cells import AGE, NAME, Column, Printer, age, name


def _budget(obj: dict[str, Any], now: datetime) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    bounds = (spec.get(key) for key in ("minAvailable", "maxUnavailable"))
    shown = ["N/A" if bound is None else str(bound) for bound in bounds]
    return [name(obj), *shown, status.get("disruptionsAllowed") or 0, age(obj, now)]


PODDISRUPTIONBUDGETS = Printer(
    (
        NAME,
        Column("Min Available", "How many of the pods must stay available."),
        Column("Max Unavailable", "How many of the pods may be unavailable."),
        Column("Allowed Disruptions", "How many pods may be evicted now.", type="integer"),
        AGE,
    ),
    _budget,
)


def _quota(obj: dict[str, Any], now: datetime) -> list[Any]:
    status = obj.get("status") or {}
    used = status.get("used") or {}
    shown = [(key, f"{key}: {used.get(key, '0')}/{hard}") for key, hard in sorted((status.get("hard") or {}).items())]
    limits = [text for key, text in shown if key.startswith("limits.")]
    requests = [text for key, text in shown if not key.startswith("limits.")]
    return [name(obj), ", ".join(requests), ", ".join(limits), age(obj, now)]


RESOURCEQUOTAS = Printer(
    (
        NAME,
        Column("Request", "What is used of what may be requested and made."),
        Column("Limit", "What is used of what limits may come to."),
        AGE,
    ),
    _quota,
)


def _priority(obj: dict[str, Any], now: datetime) -> list[Any]:
    default = bool(obj.get("globalDefault"))
    return [name(obj), obj.get("value") or 0, default, age(obj, now), obj.get("preemptionPolicy") or ""]


PRIORITYCLASSES = Printer(
    (
        NAME,
        Column("Value", "The priority of pods that name it.", type="integer"),
        Column("Global-Default", "Whether pods that name none have it.", type="boolean"),
        AGE,
        Column("PreemptionPolicy", "Whether its pods may make others go."),
    ),
    _priority,
)


def _runtime(obj: dict[str, Any], now: datetime) -> list[Any]:
    return [name(obj), obj.get("handler") or "", age(obj, now)]


RUNTIMECLASSES = Printer((NAME, Column("Handler", "What runs the pods that name it."), AGE), _runtime)
