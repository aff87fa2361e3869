"""What all kinds with a selector and a pod template have in common, in each kind's own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.api.errors import FieldError, StatusError, forbidden, invalid, not_supported, required
from fairlead.api.labels import check_percent
from fairlead.api.selectors import LabelSelector
from fairlead.api.validation.metadata import not_negative
from fairlead.api.validation.pod import validate_template
from fairlead.api.validation.selectors import validate_selector

MORE_THAN_ALL = "cannot be greater than status.replicas"


def validate_selected_template(spec: Mapping[str, Any], kind: str, *, said_of_pods: str = "") -> list[FieldError]:
    """A selector that is not empty and matches the template's labels; a template whose pods run for ever."""
    selector, template = spec.get("selector"), spec.get("template") or {}
    errors: list[FieldError] = []
    if selector is None:
        errors.append(required("spec.selector"))
    else:
        errors += validate_selector(selector, "spec.selector")
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            errors.append(invalid("spec.selector", selector, f"empty selector is invalid for {kind.lower()}"))
    labels = (template.get("metadata") or {}).get("labels")
    try:
        if not LabelSelector.of(selector).matches(labels):
            message = "`selector` does not match template `labels`"
            errors.append(invalid("spec.template.metadata.labels", labels, message))
    except StatusError:
        return [*errors, invalid("spec.selector", selector, "invalid label selector")]
    return errors + validate_template(template, "spec.template") + validate_lasting(template, said_of_pods or kind)


def validate_lasting(template: Mapping[str, Any], kind: str) -> list[FieldError]:
    """Pods that are started again whenever they end."""
    pod = template.get("spec") or {}
    errors: list[FieldError] = []
    if pod.get("restartPolicy") != "Always":
        errors.append(not_supported("spec.template.spec.restartPolicy", pod.get("restartPolicy") or "", ("Always",)))
    if pod.get("activeDeadlineSeconds") is not None:
        message = f"activeDeadlineSeconds in {kind} is not Supported"
        errors.append(forbidden("spec.template.spec.activeDeadlineSeconds", message))
    return errors


def validate_share(value: int | str | None, field: str) -> list[FieldError]:
    """An int or a percentage."""
    if isinstance(value, str):
        return [invalid(field, value, message) for message in check_percent(value)]
    return not_negative(value, field)


def is_some(value: int | str | None) -> bool:
    """A share that is more than nothing."""
    if isinstance(value, str):
        return not check_percent(value) and int(value[:-1]) > 0
    return bool(value)


def is_more_than_all(value: int | str | None) -> bool:
    """A percentage above 100."""
    return isinstance(value, str) and not check_percent(value) and int(value[:-1]) > 100


def validate_counts(status: Mapping[str, Any], *names: str) -> list[FieldError]:
    """Counts of a status, none negative."""
    return [error for name in names for error in not_negative(status.get(name), f"status.{name}")]


def validate_parts(status: Mapping[str, Any], *names: str) -> list[FieldError]:
    """Counts that are parts of status.replicas."""
    replicas = status.get("replicas") or 0
    return [
        invalid(f"status.{name}", status.get(name), MORE_THAN_ALL)
        for name in names
        if (status.get(name) or 0) > replicas
    ]


def validate_collisions(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[FieldError]:
    """status.collisionCount only grows."""
    collisions = (new.get("status") or {}).get("collisionCount")
    previous = (old.get("status") or {}).get("collisionCount")
    if previous is not None and (collisions is None or collisions < previous):
        return [invalid("status.collisionCount", collisions or 0, "cannot be decremented")]
    return []
