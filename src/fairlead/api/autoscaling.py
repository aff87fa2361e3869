"""HorizontalPodAutoscalers in two forms: `autoscaling/v2`, in which they are kept, and `autoscaling/v1`.

Pure. What v1 has no field for it carries in annotations, as upstream's does. Invariant: `to_v2(to_v1(h))` is `h`, but
for the order of its metrics (the target for CPU comes first).
Source: upstream's `pkg/apis/autoscaling/v1/conversion.go` and `pkg/apis/autoscaling/annotations.go`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from fairlead.api import fields
from fairlead.api.errors import bad_request
from fairlead.api.kinds import HORIZONTALPODAUTOSCALERS, HORIZONTALPODAUTOSCALERS_V1

Object = dict[str, Any]

DEFAULT_UTILIZATION = 80
_PREFIX = "autoscaling.alpha.kubernetes.io/"
_METRICS, _CURRENT = f"{_PREFIX}metrics", f"{_PREFIX}current-metrics"
_CONDITIONS, _BEHAVIOR = f"{_PREFIX}conditions", f"{_PREFIX}behavior"
_CARRIED = (_METRICS, _CURRENT, _CONDITIONS, _BEHAVIOR)
MEMBERS = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}
"""The type of a metric → the member that describes it."""


def default_metrics() -> list[Object]:
    """What is aimed at where nothing is said."""
    return [_cpu("target", "Utilization", DEFAULT_UTILIZATION)]


def _cpu(part: str, kind: str, percent: int) -> Object:
    value: Object = {"averageUtilization": percent}
    if kind:
        value["type"] = kind
    return {"type": "Resource", "resource": {"name": "cpu", part: value}}


def to_v1(hpa: Object) -> Object:
    """The v1 form of a v2 object."""
    metadata, spec, status = dict(hpa.get("metadata") or {}), dict(hpa.get("spec") or {}), dict(hpa.get("status") or {})
    annotations = dict(metadata.get("annotations") or {})
    metrics = list(spec.pop("metrics", None) or ())
    cpu = next((m for m in metrics if _percent_of_cpu(m, "target") is not None), None)
    if cpu is not None:
        spec["targetCPUUtilizationPercentage"] = _percent_of_cpu(cpu, "target")
        metrics.remove(cpu)
    _carry(annotations, _METRICS, [_flat(metric, "target") for metric in metrics])
    current = status.pop("currentMetrics", None) or ()
    percent = next((p for m in current if (p := _percent_of_cpu(m, "current")) is not None), None)
    if percent is not None:
        status["currentCPUUtilizationPercentage"] = percent
    _carry(annotations, _CURRENT, [_flat(metric, "current") for metric in current])
    _carry(annotations, _CONDITIONS, status.pop("conditions", None))
    _carry(annotations, _BEHAVIOR, _renamed(spec.pop("behavior", None), str.upper))
    if annotations:
        metadata["annotations"] = annotations
    head = {"kind": HORIZONTALPODAUTOSCALERS_V1.kind, "apiVersion": HORIZONTALPODAUTOSCALERS_V1.api_version}
    return _made(hpa, head, metadata, spec, status)


def to_v2(hpa: Object) -> Object:
    """The v2 form of a v1 object. StatusError 400 if its annotations hold what v2 has no place for."""
    metadata, spec, status = dict(hpa.get("metadata") or {}), dict(hpa.get("spec") or {}), dict(hpa.get("status") or {})
    annotations = dict(metadata.get("annotations") or {})
    carried = {name: _read(name, annotations.pop(name)) for name in _CARRIED if name in annotations}
    percent, current = (
        spec.pop("targetCPUUtilizationPercentage", None),
        status.pop("currentCPUUtilizationPercentage", None),
    )
    metrics = [] if percent is None else [_cpu("target", "Utilization", percent)]
    metrics += [_deep(metric, "target") for metric in _objects(carried, _METRICS)]
    spec["metrics"] = metrics or default_metrics()
    if _CURRENT in carried:
        status["currentMetrics"] = [_deep(metric, "current") for metric in _objects(carried, _CURRENT)]
    elif current is not None:
        status["currentMetrics"] = [_cpu("current", "", current)]
    if _CONDITIONS in carried:
        status["conditions"] = carried[_CONDITIONS]
    if _BEHAVIOR in carried:
        spec["behavior"] = _renamed(carried[_BEHAVIOR], str.lower)
    if annotations:
        metadata["annotations"] = annotations
    else:
        metadata.pop("annotations", None)
    head = {"kind": HORIZONTALPODAUTOSCALERS.kind, "apiVersion": HORIZONTALPODAUTOSCALERS.api_version}
    made = _made(hpa, head, metadata, spec, status)
    return fields.check(HORIZONTALPODAUTOSCALERS, made).object if carried else made


def _made(hpa: Object, head: Object, metadata: Object, spec: Object, status: Object) -> Object:
    made = {**head, "metadata": metadata}
    for name, value in (("spec", spec), ("status", status)):
        if value or name in hpa:
            made[name] = value
    return made


def _carry(annotations: Object, name: str, value: Any) -> None:
    if value:
        annotations[name] = orjson.dumps(value).decode()


def _read(name: str, text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"metadata.annotations[{name}]: {error}") from None


def _objects(carried: Object, name: str) -> list[Object]:
    found = carried.get(name) or []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise bad_request(f"metadata.annotations[{name}]: must be a list of objects")
    return found


def _renamed(value: Any, first: Callable[[str], str]) -> Any:
    """With another case of the first letter of each key: v1 carries Go's names there."""
    if isinstance(value, dict):
        return {
            first(key[:1]) + key[1:]: _renamed(member, first) for key, member in value.items() if member is not None
        }
    return [_renamed(item, first) for item in value] if isinstance(value, list) else value


def _percent_of_cpu(metric: Object, part: str) -> int | None:
    source = metric.get("resource") or {}
    if metric.get("type") != "Resource" or source.get("name") != "cpu":
        return None
    percent: int | None = (source.get(part) or {}).get("averageUtilization")
    return percent


def _names(kind: str, part: str) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """v1's flat names of a metric of that type → where v2 has them; and those of its value, by what v2 calls them."""
    if kind in ("Resource", "ContainerResource"):
        plain: dict[str, tuple[str, ...]] = {"name": ("name",)}
        if kind == "ContainerResource":
            plain["container"] = ("container",)
        return plain, {"averageUtilization": f"{part}AverageUtilization", "averageValue": f"{part}AverageValue"}
    selector = "metricSelector" if kind == "External" else "selector"
    plain = {"metricName": ("metric", "name"), selector: ("metric", "selector")}
    if kind == "Pods":
        return plain, {"averageValue": f"{part}AverageValue"}
    if kind == "External":
        return plain, {"value": f"{part}Value", "averageValue": f"{part}AverageValue"}
    return plain | {"target": ("describedObject",)}, {"value": f"{part}Value", "averageValue": "averageValue"}


def _flat(metric: Object, part: str) -> Object:
    """A metric as v1 writes it into an annotation."""
    kind = metric.get("type") or ""
    member = MEMBERS.get(kind, "")
    source = metric.get(member) or {}
    plain, values = _names(kind, part)
    flat: Object = {}
    for name, path in plain.items():
        value: Any = source
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        if value is not None:
            flat[name] = value
    given = source.get(part) or {}
    flat |= {name: given[key] for key, name in values.items() if key in given}
    return {"type": kind, member: flat}


def _deep(metric: Object, part: str) -> Object:
    """A metric as v2 has it."""
    kind = metric.get("type")
    member = MEMBERS.get(kind or "", "") if isinstance(kind, str) else ""
    flat = metric.get(member)
    if not member or not isinstance(flat, dict):
        return {"type": kind}
    plain, values = _names(str(kind), part)
    source: Object = {}
    for name, path in plain.items():
        if flat.get(name) is not None:
            inner = source
            for step in path[:-1]:
                inner = inner.setdefault(step, {})
            inner[path[-1]] = flat[name]
    value = {key: flat[name] for key, name in values.items() if flat.get(name) is not None}
    if part == "target":
        types = {"averageUtilization": "Utilization", "averageValue": "AverageValue", "value": "Value"}
        value["type"] = next((name for key, name in types.items() if key in value), "")
    source[part] = value
    return {"type": kind, member: source}
