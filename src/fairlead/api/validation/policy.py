"""PodDisruptionBudgets, PriorityClasses and RuntimeClasses. Source: kubernetes `pkg/apis/{policy,scheduling,node}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.api.errors import FieldError, forbidden, invalid, not_supported
from fairlead.api.labels import check_dns1123_label
from fairlead.api.validation.metadata import immutable
from fairlead.api.validation.scheduling import validate_tolerations
from fairlead.api.validation.selectors import validate_selector
from fairlead.api.validation.templates import is_more_than_all, validate_counts, validate_share

Object = Mapping[str, Any]

SYSTEM_CLASSES = {"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}
HIGHEST_PRIORITY = 1_000_000_000  # that a user may define
_POLICIES = ("AlwaysAllow", "IfHealthyBudget")
_PREEMPTION = ("Never", "PreemptLowerPriority")


def validate_poddisruptionbudget(obj: Object) -> list[FieldError]:
    """One bound, on pods that are selected."""
    spec = obj.get("spec") or {}
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    errors: list[FieldError] = []
    if least is not None and most is not None:
        errors.append(invalid("spec", dict(spec), "minAvailable and maxUnavailable cannot be both set"))
    for name, value in (("minAvailable", least), ("maxUnavailable", most)):
        errors += validate_share(value, f"spec.{name}")
        if is_more_than_all(value):
            errors.append(invalid(f"spec.{name}", value, "must not be greater than 100%"))
    errors += validate_selector(spec.get("selector"), "spec.selector")
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy is not None and policy not in _POLICIES:
        errors.append(not_supported("spec.unhealthyPodEvictionPolicy", policy, _POLICIES))
    return errors


def validate_poddisruptionbudget_status(new: Object, _: Object) -> list[FieldError]:
    """Counts, none negative."""
    names = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
    return validate_counts(new.get("status") or {}, *names)


def validate_priorityclass(obj: Object) -> list[FieldError]:
    """Users' priorities end where the system's begin."""
    name, value = (obj.get("metadata") or {}).get("name") or "", obj.get("value") or 0
    errors: list[FieldError] = []
    if name.startswith("system-"):
        if SYSTEM_CLASSES.get(name) != value or obj.get("globalDefault"):
            why = f"{name} is not a known system priority class" if name not in SYSTEM_CLASSES else "value is wrong"
            message = f"priority class names with 'system-' prefix are reserved for system use only. error: {why}"
            errors.append(forbidden("metadata.name", message))
    elif value > HIGHEST_PRIORITY:
        message = f"maximum allowed value of a user defined priority is {HIGHEST_PRIORITY}"
        errors.append(forbidden("value", message))
    policy = obj.get("preemptionPolicy")
    if policy is not None and policy not in _PREEMPTION:
        errors.append(not_supported("preemptionPolicy", policy, _PREEMPTION))
    return errors


def validate_priorityclass_update(new: Object, old: Object) -> list[FieldError]:
    """What a priority is worth is decided once."""
    errors: list[FieldError] = []
    if (new.get("value") or 0) != (old.get("value") or 0):
        errors.append(forbidden("value", "may not be changed in an update."))
    return errors + immutable(new.get("preemptionPolicy"), old.get("preemptionPolicy"), "preemptionPolicy")


def validate_runtimeclass(obj: Object) -> list[FieldError]:
    """A handler, and where it is to be had."""
    handler = obj.get("handler") or ""
    errors = [invalid("handler", handler, message) for message in check_dns1123_label(handler)]
    scheduling = obj.get("scheduling") or {}
    if scheduling.get("tolerations"):
        errors += validate_tolerations(scheduling["tolerations"], "scheduling.tolerations")
    if (obj.get("overhead") or {}).get("podFixed"):
        message = "pod overhead is not supported by fairlead: containers run as processes without one"
        errors.append(forbidden("overhead.podFixed", message))
    return errors


def validate_runtimeclass_update(new: Object, old: Object) -> list[FieldError]:
    """The handler is decided once."""
    return validate_runtimeclass(new) + immutable(new.get("handler"), old.get("handler"), "handler")
