"""The table of HorizontalPodAutoscalers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fairlead.api.autoscaling import MEMBERS, to_v2
from fairlead.api.tables.cells import AGE, NAME, NONE, UNKNOWN, UNSET, Column, Printer, age, name

_SHOWN = 2


def _metric(spec: dict[str, Any], status: dict[str, Any]) -> str:
    kind = spec.get("type") or ""
    member = MEMBERS.get(kind)
    if member is None:
        return "<unknown type>"
    source, current = spec.get(member) or {}, (status.get(member) or {}).get("current") or {}
    target = source.get("target") or {}
    by_resource = kind in ("Resource", "ContainerResource")
    label = f"{source.get('name', '')}: " if by_resource else ""
    if target.get("averageValue") is not None:
        averaged = " (avg)" if kind in ("External", "Object") else ""
        return f"{label}{current.get('averageValue', UNKNOWN)}/{target['averageValue']}{averaged}"
    if by_resource:
        percent, there = target.get("averageUtilization"), current.get("averageUtilization")
        wanted = "<auto>" if percent is None else f"{percent}%"
        return f"{label}{UNKNOWN if there is None else f'{there}%'}/{wanted}"
    return f"{current.get('value', UNKNOWN)}/{target.get('value', UNSET)}"


def _metrics(spec: dict[str, Any], status: dict[str, Any]) -> str:
    wanted, there = spec.get("metrics") or [], status.get("currentMetrics") or []
    if not wanted:
        return NONE
    shown = [_metric(m, there[i] if i < len(there) else {}) for i, m in enumerate(wanted)]
    more = f" + {len(shown) - _SHOWN} more..." if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more


def _autoscaler(obj: dict[str, Any], now: datetime) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    target = spec.get("scaleTargetRef") or {}
    least = spec.get("minReplicas")
    return [
        name(obj),
        f"{target.get('kind', '')}/{target.get('name', '')}",
        _metrics(spec, status),
        UNSET if least is None else str(least),
        spec.get("maxReplicas") or 0,
        status.get("currentReplicas") or 0,
        age(obj, now),
    ]


_COLUMNS = (
    NAME,
    Column("Reference", "What is scaled."),
    Column("Targets", "What is measured now, and what is aimed at."),
    Column("MinPods", "How many pods there are at least."),
    Column("MaxPods", "How many pods there are at most.", type="integer"),
    Column("Replicas", "How many pods there are.", type="integer"),
    AGE,
)
AUTOSCALERS = Printer(_COLUMNS, _autoscaler)
AUTOSCALERS_V1 = Printer(_COLUMNS, lambda obj, now: _autoscaler(to_v2(obj), now))
