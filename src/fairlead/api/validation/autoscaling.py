"""HorizontalPodAutoscalers: bounds, a target, metrics to aim at, and how fast.

Source: upstream's `pkg/apis/autoscaling/validation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fairlead.api import autoscaling
from fairlead.api.errors import FieldError, forbidden, invalid, not_supported, required
from fairlead.api.labels import check_path_segment
from fairlead.api.quantity import QuantityError, parse
from fairlead.api.validation.metadata import NOT_POSITIVE, not_negative

Object = Mapping[str, Any]

_LONGEST_PERIOD, _LONGEST_WINDOW = 1800, 3600
_POLICY_TYPES = ("Percent", "Pods")
_CHOICES = ("Disabled", "Max", "Min")
_TARGETS = ("Utilization", "Value", "AverageValue")


def validate_autoscaler(obj: Object, old: Object | None = None) -> list[FieldError]:
    """A defaulted one of v2, beyond its metadata."""
    spec = obj.get("spec") or {}
    least, most = spec.get("minReplicas"), spec.get("maxReplicas") or 0
    errors: list[FieldError] = []
    if least is not None and least < 1:
        errors.append(invalid("spec.minReplicas", least, "must be greater than or equal to 1"))
    if most < 1:
        errors.append(invalid("spec.maxReplicas", most, "must be greater than 0"))
    if least is not None and most < least:
        errors.append(invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`"))
    target = spec.get("scaleTargetRef") or {}
    errors += _reference(target, "spec.scaleTargetRef")
    if old is None or (old.get("spec") or {}).get("scaleTargetRef") != target:
        errors += _version(target, "spec.scaleTargetRef")
    for index, metric in enumerate(spec.get("metrics") or ()):
        errors += _metric(metric, f"spec.metrics[{index}]")
    for name in ("scaleUp", "scaleDown"):
        rules = (spec.get("behavior") or {}).get(name)
        if rules is not None:
            errors += _rules(rules, f"spec.behavior.{name}")
    return errors


def validate_autoscaler_v1(obj: Object, old: Object | None = None) -> list[FieldError]:
    """One of v1, by what it means in v2."""
    return validate_autoscaler(autoscaling.to_v2(dict(obj)), autoscaling.to_v2(dict(old)) if old is not None else None)


def validate_autoscaler_status(new: Object, _: Object) -> list[FieldError]:
    """Counts, none negative."""
    status = new.get("status") or {}
    names = ("currentReplicas", "desiredReplicas")
    return [error for name in names for error in not_negative(status.get(name), f"status.{name}")]


def _reference(reference: Object, path: str) -> Iterator[FieldError]:
    for name in ("kind", "name"):
        value = reference.get(name) or ""
        if not value:
            yield required(f"{path}.{name}")
        else:
            yield from (invalid(f"{path}.{name}", value, message) for message in check_path_segment(value))


def _version(reference: Object, path: str) -> Iterator[FieldError]:
    version = reference.get("apiVersion") or ""
    if version.count("/") > 1:
        yield invalid(f"{path}.apiVersion", version, f"unexpected GroupVersion string: {version}")
    elif "/" not in version and reference.get("kind") != "ReplicationController":
        yield invalid(f"{path}.apiVersion", version, "apiVersion must specify API group")


def _metric(metric: Object, path: str) -> Iterator[FieldError]:
    kind = metric.get("type") or ""
    if not kind:
        yield required(f"{path}.type", "must specify a metric source type")
    if kind not in autoscaling.MEMBERS:
        yield not_supported(f"{path}.type", kind, tuple(autoscaling.MEMBERS))
        return
    member = autoscaling.MEMBERS[kind]
    given = [name for name in autoscaling.MEMBERS.values() if metric.get(name) is not None]
    if member in given:
        yield from _SOURCES[kind](metric[member], f"{path}.{member}")
    else:
        yield required(f"{path}.{member}", "must populate information for the given metric source")
    for other in given:
        if other != member:
            yield forbidden(f"{path}.{other}", "must populate the given metric source only")


def _target(target: Object, path: str) -> Iterator[FieldError]:
    kind = target.get("type") or ""
    if not kind:
        yield required(f"{path}.type", "must specify a metric target type")
    if kind not in _TARGETS:
        yield invalid(f"{path}.type", kind, "must be either Utilization, Value, or AverageValue")
    for name in ("value", "averageValue"):
        if target.get(name) is not None and not _is_positive(target[name]):
            yield invalid(f"{path}.{name}", target[name], "must be positive")
    percent = target.get("averageUtilization")
    if percent is not None and percent < 1:
        yield invalid(f"{path}.averageUtilization", percent, "must be greater than 0")


def _is_positive(value: Any) -> bool:
    try:
        return parse(value).nano > 0
    except QuantityError:
        return False


def _resource(source: Object, path: str) -> Iterator[FieldError]:
    if not source.get("name"):
        yield required(f"{path}.name", "must specify a resource name")
    target = source.get("target") or {}
    yield from _target(target, f"{path}.target")
    percent, value = target.get("averageUtilization"), target.get("averageValue")
    if percent is None and value is None:
        text = "must set either a target raw value or a target utilization"
        yield required(f"{path}.target.averageUtilization", text)
    if percent is not None and value is not None:
        text = "may not set both a target raw value and a target utilization"
        yield forbidden(f"{path}.target.averageValue", text)


def _container_resource(source: Object, path: str) -> Iterator[FieldError]:
    yield from _resource(source, path)
    if not source.get("container"):
        yield required(f"{path}.container", "must specify a container")


def _identifier(source: Object, path: str) -> Iterator[FieldError]:
    name = (source.get("metric") or {}).get("name") or ""
    if not name:
        yield required(f"{path}.metric.name", "must specify a metric name")
    else:
        yield from (invalid(f"{path}.metric.name", name, message) for message in check_path_segment(name))


def _pods(source: Object, path: str) -> Iterator[FieldError]:
    yield from _identifier(source, path)
    target = source.get("target") or {}
    yield from _target(target, f"{path}.target")
    if target.get("averageValue") is None or not _is_positive(target["averageValue"]):
        yield required(f"{path}.target.averageValue", "must specify a positive target averageValue")


def _object(source: Object, path: str) -> Iterator[FieldError]:
    yield from _reference(source.get("describedObject") or {}, f"{path}.describedObject")
    yield from _identifier(source, path)
    yield from _one_value(source, path, "must set either a target value or averageValue", "value and averageValue")


def _external(source: Object, path: str) -> Iterator[FieldError]:
    yield from _identifier(source, path)
    missing = "must set either a target value for metric or a per-pod target"
    yield from _one_value(source, path, missing, "value for metric and a per-pod target")


def _one_value(source: Object, path: str, missing: str, both: str) -> Iterator[FieldError]:
    target = source.get("target") or {}
    yield from _target(target, f"{path}.target")
    given = [name for name in ("value", "averageValue") if target.get(name) is not None]
    if not given:
        yield required(f"{path}.target.averageValue", missing)
    if len(given) == 2:
        yield forbidden(f"{path}.target.value", f"may not set both a target {both}")


_SOURCES = {
    "Resource": _resource,
    "ContainerResource": _container_resource,
    "Pods": _pods,
    "Object": _object,
    "External": _external,
}


def _rules(rules: Object, path: str) -> Iterator[FieldError]:
    window = rules.get("stabilizationWindowSeconds")
    if window is not None and window < 0:
        yield invalid(f"{path}.stabilizationWindowSeconds", window, "must be greater than or equal to zero")
    if window is not None and window > _LONGEST_WINDOW:
        yield invalid(f"{path}.stabilizationWindowSeconds", window, f"must be less than or equal to {_LONGEST_WINDOW}")
    choice = rules.get("selectPolicy")
    if choice is not None and choice not in _CHOICES:
        yield not_supported(f"{path}.selectPolicy", choice, _CHOICES)
    policies = rules.get("policies") or ()
    if not policies:
        yield required(f"{path}.policies", "must specify at least one Policy")
    for index, policy in enumerate(policies):
        yield from _policy(policy, f"{path}.policies[{index}]")
    tolerance = rules.get("tolerance")
    if tolerance is not None and not (_is_positive(tolerance) or parse(tolerance).nano == 0):
        yield invalid(f"{path}.tolerance", tolerance, "must be greater or equal to zero")


def _policy(policy: Object, path: str) -> Iterator[FieldError]:
    if policy.get("type") not in _POLICY_TYPES:
        yield not_supported(f"{path}.type", policy.get("type") or "", _POLICY_TYPES)
    for name in ("value", "periodSeconds"):
        if (policy.get(name) or 0) <= 0:
            yield invalid(f"{path}.{name}", policy.get(name) or 0, NOT_POSITIVE)
    if (policy.get("periodSeconds") or 0) > _LONGEST_PERIOD:
        text = f"must be less than or equal to {_LONGEST_PERIOD}"
        yield invalid(f"{path}.periodSeconds", policy["periodSeconds"], text)
