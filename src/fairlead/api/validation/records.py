"""Events, Leases and reviews: small kinds without a story of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.api import kinds
from fairlead.api.errors import FieldError, invalid, required
from fairlead.api.kinds import Resource
from fairlead.api.labels import check_qualified_name
from fairlead.api.validation.metadata import immutable

_EVENT_TYPES = ("Normal", "Warning")
_CLUSTER_EVENTS = "default"
_FIXED_V1 = (
    "reportingController",
    "reportingInstance",
    "action",
    "reason",
    "regarding",
    "related",
    "note",
    "type",
    "eventTime",
)


def validate_event(resource: Resource, obj: Mapping[str, Any]) -> list[FieldError]:
    """An Event in either of its two forms; the newer one asks for more."""
    namespace = (obj.get("metadata") or {}).get("namespace") or ""
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    errors: list[FieldError] = []
    about_namespace = about.get("namespace") or ""
    fits = about_namespace == namespace if about_namespace else namespace in ("", _CLUSTER_EVENTS)
    if not fits:
        errors.append(invalid("involvedObject.namespace", about_namespace, "does not match event.namespace"))
    series = obj.get("series")
    if series is not None:
        if (series.get("count") or 0) < 2:
            errors.append(invalid("series.count", series.get("count") or 0, "should be at least 2"))
        if not series.get("lastObservedTime"):
            errors.append(required("series.lastObservedTime"))
    if resource == kinds.EVENTS_V1:
        errors += _validate_event_v1(obj)
    return errors


def _validate_event_v1(obj: Mapping[str, Any]) -> list[FieldError]:
    errors: list[FieldError] = []
    if not obj.get("eventTime"):
        errors.append(required("eventTime"))
    controller = obj.get("reportingController") or ""
    if not controller:
        errors.append(required("reportingController"))
    else:
        errors += [invalid("reportingController", controller, message) for message in check_qualified_name(controller)]
    for key in ("reportingInstance", "action", "reason"):
        value = obj.get(key) or ""
        if not value:
            errors.append(required(key))
        elif len(value) > 128:
            errors.append(invalid(key, value, "can have at most 128 characters"))
    note = obj.get("note") or ""
    if len(note.encode()) > 1024:
        errors.append(invalid("note", note, "can have at most 1024 bytes"))
    kind = obj.get("type") or ""
    if kind not in _EVENT_TYPES:
        errors.append(invalid("type", "", f"has invalid value: {kind}"))
    return errors


def validate_event_update(resource: Resource, new: Mapping[str, Any], old: Mapping[str, Any]) -> list[FieldError]:
    """What an Event of the newer form says happened cannot be rewritten; its series may grow."""
    errors = validate_event(resource, new)
    if resource == kinds.EVENTS_V1:
        for key in _FIXED_V1:
            if key in new or key in old:
                errors += immutable(new.get(key), old.get(key), key)
    return errors


def validate_lease(obj: Mapping[str, Any]) -> list[FieldError]:
    """How long a lease lasts, how often it changed hands."""
    spec = obj.get("spec") or {}
    errors: list[FieldError] = []
    duration, transitions, strategy = (
        spec.get("leaseDurationSeconds"),
        spec.get("leaseTransitions"),
        spec.get("strategy"),
    )
    if duration is not None and duration <= 0:
        errors.append(invalid("spec.leaseDurationSeconds", duration, "must be greater than 0"))
    if transitions is not None and transitions < 0:
        errors.append(invalid("spec.leaseTransitions", transitions, "must be greater than or equal to 0"))
    if strategy:
        errors += [invalid("spec.strategy", strategy, message) for message in check_qualified_name(strategy)]
    if spec.get("preferredHolder") and not strategy:
        message = "may only be specified if `strategy` is defined"
        errors.append(FieldError("FieldValueForbidden", "spec.preferredHolder", None, message))
    return errors


def validate_review(resource: Resource, obj: Mapping[str, Any]) -> list[FieldError]:
    """A question to the server; it has no name and asks one thing."""
    spec = obj.get("spec") or {}
    errors: list[FieldError] = []
    if resource == kinds.SELF_SUBJECT_ACCESS_REVIEWS:
        of_resource, of_path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
        if of_resource is not None and of_path is not None:
            message = "cannot be specified in combination with resourceAttributes"
            errors.append(invalid("spec.nonResourceAttributes", dict(of_path), message))
        if of_resource is None and of_path is None:
            message = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
            errors.append(invalid("spec.resourceAttributes", None, message))
    if resource == kinds.SELF_SUBJECT_RULES_REVIEWS and not spec.get("namespace"):
        errors.append(required("spec.namespace", "must not be empty"))
    return errors
