"""Deployments and ReplicaSets: a selector that matches its own template and never changes, counts, the strategy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.api.errors import FieldError, StatusError, forbidden, invalid, not_supported, required
from fairlead.api.labels import check_percent
from fairlead.api.selectors import LabelSelector
from fairlead.api.validation.metadata import IMMUTABLE, not_negative
from fairlead.api.validation.pod import validate_template
from fairlead.api.validation.selectors import validate_selector

_MORE_THAN_ALL = "cannot be greater than status.replicas"


def validate_replicaset(obj: Mapping[str, Any]) -> list[FieldError]:
    """A defaulted ReplicaSet, beyond its metadata."""
    spec = obj.get("spec") or {}
    errors = not_negative(spec.get("replicas"), "spec.replicas")
    errors += not_negative(spec.get("minReadySeconds"), "spec.minReadySeconds")
    return errors + _validate_selector_and_template(spec)


def validate_deployment(obj: Mapping[str, Any]) -> list[FieldError]:
    """A defaulted Deployment, beyond its metadata."""
    spec = obj.get("spec") or {}
    errors = not_negative(spec.get("replicas"), "spec.replicas")
    errors += _validate_selector_and_template(spec)
    errors += _validate_strategy(spec.get("strategy") or {})
    ready, deadline = spec.get("minReadySeconds") or 0, spec.get("progressDeadlineSeconds")
    errors += not_negative(ready, "spec.minReadySeconds")
    errors += not_negative(spec.get("revisionHistoryLimit"), "spec.revisionHistoryLimit")
    errors += not_negative(deadline, "spec.progressDeadlineSeconds")
    if deadline is not None and deadline <= ready:
        errors.append(invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
    return errors


def validate_selector_unchanged(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[FieldError]:
    """The pods that belong to a workload are decided once."""
    selector, before = (new.get("spec") or {}).get("selector"), (old.get("spec") or {}).get("selector")
    return [] if selector == before else [invalid("spec.selector", selector, IMMUTABLE)]


def _validate_selector_and_template(spec: Mapping[str, Any]) -> list[FieldError]:
    selector, template = spec.get("selector"), spec.get("template") or {}
    errors: list[FieldError] = []
    if selector is None:
        errors.append(required("spec.selector"))
    else:
        errors += validate_selector(selector, "spec.selector")
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            errors.append(invalid("spec.selector", selector, "empty selector is invalid for deployment"))
    labels = (template.get("metadata") or {}).get("labels")
    try:
        if not LabelSelector.of(selector).matches(labels):
            message = "`selector` does not match template `labels`"
            errors.append(invalid("spec.template.metadata.labels", labels, message))
    except StatusError:
        return [*errors, invalid("spec.selector", selector, "invalid label selector")]
    errors += validate_template(template, "spec.template")
    pod = template.get("spec") or {}
    if pod.get("restartPolicy") != "Always":
        errors.append(not_supported("spec.template.spec.restartPolicy", pod.get("restartPolicy") or "", ("Always",)))
    if pod.get("activeDeadlineSeconds") is not None:
        message = "activeDeadlineSeconds in ReplicaSet is not Supported"
        errors.append(forbidden("spec.template.spec.activeDeadlineSeconds", message))
    return errors


def _validate_strategy(strategy: Mapping[str, Any]) -> list[FieldError]:
    kind, rolling, field = strategy.get("type"), strategy.get("rollingUpdate"), "spec.strategy"
    if kind == "Recreate":
        if rolling is not None:
            message = "may not be specified when strategy `type` is 'Recreate'"
            return [forbidden(f"{field}.rollingUpdate", message)]
        return []
    if kind != "RollingUpdate":
        return [not_supported(field, dict(strategy), ("Recreate", "RollingUpdate"))]
    if rolling is None:
        return [required(f"{field}.rollingUpdate", "this should be defaulted and never be nil")]
    unavailable, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
    path = f"{field}.rollingUpdate.maxUnavailable"
    errors = _validate_share(unavailable, path)
    errors += _validate_share(surge, f"{field}.rollingUpdate.maxSurge")
    if not _share(unavailable) and not _share(surge):
        errors.append(invalid(path, unavailable, "may not be 0 when `maxSurge` is 0"))
    if isinstance(unavailable, str) and _share(unavailable) > 100:
        errors.append(invalid(path, unavailable, "must not be greater than 100%"))
    return errors


def _validate_share(value: int | str | None, field: str) -> list[FieldError]:
    if isinstance(value, str):
        return [invalid(field, value, message) for message in check_percent(value)]
    return not_negative(value, field)


def _share(value: int | str | None) -> int:
    if isinstance(value, str):
        return int(value[:-1]) if not check_percent(value) else 0
    return value or 0


def validate_workload_status(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[FieldError]:
    """Counts a controller reports for a Deployment or ReplicaSet: none negative, no part greater than the whole."""
    status, before = new.get("status") or {}, old.get("status") or {}
    errors: list[FieldError] = []
    for key in (
        "observedGeneration",
        "replicas",
        "fullyLabeledReplicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "collisionCount",
    ):
        errors += not_negative(status.get(key), f"status.{key}")
    replicas, ready = status.get("replicas") or 0, status.get("readyReplicas") or 0
    for key in ("fullyLabeledReplicas", "updatedReplicas", "readyReplicas", "availableReplicas"):
        count = status.get(key) or 0
        if count > replicas:
            errors.append(invalid(f"status.{key}", count, _MORE_THAN_ALL))
    available = status.get("availableReplicas") or 0
    if available > ready:
        errors.append(invalid("status.availableReplicas", available, "cannot be greater than readyReplicas"))
    collisions, previous = status.get("collisionCount"), before.get("collisionCount")
    if previous is not None and (collisions is None or collisions < previous):
        errors.append(invalid("status.collisionCount", collisions or 0, "cannot be decremented"))
    return errors
