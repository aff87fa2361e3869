"""Deployments and ReplicaSets: a selector that matches its own template and never changes, counts, the strategy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.api.errors import FieldError, forbidden, invalid, not_supported, required
from fairlead.api.validation.metadata import IMMUTABLE, not_negative
from fairlead.api.validation.templates import (
    is_more_than_all,
    is_some,
    validate_collisions,
    validate_counts,
    validate_parts,
    validate_selected_template,
    validate_share,
)


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
    """Both kinds are told of in the same words, one of each."""
    return validate_selected_template(spec, "Deployment", said_of_pods="ReplicaSet")


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
    errors = validate_share(unavailable, path)
    errors += validate_share(surge, f"{field}.rollingUpdate.maxSurge")
    if not is_some(unavailable) and not is_some(surge):
        errors.append(invalid(path, unavailable, "may not be 0 when `maxSurge` is 0"))
    if is_more_than_all(unavailable):
        errors.append(invalid(path, unavailable, "must not be greater than 100%"))
    return errors


def validate_workload_status(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[FieldError]:
    """Counts a controller reports for a Deployment or ReplicaSet: none negative, no part greater than the whole."""
    status = new.get("status") or {}
    parts = ("fullyLabeledReplicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    errors = validate_counts(status, "observedGeneration", "replicas", *parts, "unavailableReplicas", "collisionCount")
    errors += validate_parts(status, *parts)
    available = status.get("availableReplicas") or 0
    if available > (status.get("readyReplicas") or 0):
        errors.append(invalid("status.availableReplicas", available, "cannot be greater than readyReplicas"))
    return errors + validate_collisions(new, old)
