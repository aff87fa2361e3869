"""StatefulSets, DaemonSets, ReplicationControllers and ControllerRevisions. Source: kubernetes
`pkg/apis/apps/validation` and `pkg/apis/core/validation`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.api.errors import FieldError, forbidden, invalid, not_supported, required
from fairlead.api.labels import check_dns1123_label
from fairlead.api.validation.metadata import immutable, not_negative
from fairlead.api.validation.pod import validate_template
from fairlead.api.validation.storage import validate_claim_spec
from fairlead.api.validation.templates import (
    is_more_than_all,
    is_some,
    validate_collisions,
    validate_counts,
    validate_lasting,
    validate_parts,
    validate_selected_template,
    validate_share,
)
from fairlead.api.validation.workloads import validate_selector_unchanged

Object = Mapping[str, Any]

_STATEFULSET_MAY_CHANGE = frozenset(
    {
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    }
)


def validate_statefulset(obj: Object) -> list[FieldError]:
    """A defaulted StatefulSet, beyond its metadata."""
    spec = obj.get("spec") or {}
    errors: list[FieldError] = []
    management = spec.get("podManagementPolicy")
    if management not in ("OrderedReady", "Parallel"):
        errors.append(invalid("spec.podManagementPolicy", management, "must be 'OrderedReady' or 'Parallel'"))
    errors += _validate_statefulset_strategy(spec.get("updateStrategy") or {})
    policy = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    for name in ("whenDeleted", "whenScaled"):
        if policy.get(name) not in (None, "Retain", "Delete"):
            field = f"spec.persistentVolumeClaimRetentionPolicy.{name}"
            errors.append(invalid(field, policy[name], "must be 'Retain' or 'Delete'"))
    errors += not_negative(spec.get("replicas"), "spec.replicas")
    errors += not_negative(spec.get("minReadySeconds"), "spec.minReadySeconds")
    errors += not_negative((spec.get("ordinals") or {}).get("start"), "spec.ordinals.start")
    errors += not_negative(spec.get("revisionHistoryLimit"), "spec.revisionHistoryLimit")
    claims = spec.get("volumeClaimTemplates") or ()
    for index, claim in enumerate(claims):
        errors += _validate_claim(claim, f"spec.volumeClaimTemplates[{index}]")
    return errors + validate_selected_template(with_claims(spec), "StatefulSet")


def with_claims(spec: Object) -> Object:
    """The spec with a volume in its template for each of its templates of claims, which go before others."""
    names = [(claim.get("metadata") or {}).get("name") or "" for claim in spec.get("volumeClaimTemplates") or ()]
    if not any(names):
        return spec
    template = spec.get("template") or {}
    inner = template.get("spec") or {}
    others = [volume for volume in inner.get("volumes") or () if volume.get("name") not in names]
    claimed = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in names if name]
    return {**spec, "template": {**template, "spec": {**inner, "volumes": [*others, *claimed]}}}


def _validate_claim(claim: Object, path: str) -> list[FieldError]:
    name = (claim.get("metadata") or {}).get("name") or ""
    errors = [invalid(f"{path}.metadata.name", name, message) for message in check_dns1123_label(name)] if name else []
    if not name:
        errors.append(required(f"{path}.metadata.name"))
    return errors + validate_claim_spec(claim.get("spec") or {}, f"{path}.spec")


def _validate_statefulset_strategy(strategy: Object) -> list[FieldError]:
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    if kind == "OnDelete":
        if rolling is not None:
            message = "only allowed for updateStrategy 'RollingUpdate'"
            return [invalid("spec.updateStrategy.rollingUpdate", dict(rolling), message)]
        return []
    if kind != "RollingUpdate":
        return [invalid("spec.updateStrategy", dict(strategy), "must be 'RollingUpdate' or 'OnDelete'")]
    return not_negative((rolling or {}).get("partition"), "spec.updateStrategy.rollingUpdate.partition")


def validate_statefulset_update(new: Object, old: Object) -> list[FieldError]:
    """Names, selector and volumes are decided once."""
    errors = validate_statefulset(new)
    after, before = new.get("spec") or {}, old.get("spec") or {}
    if any(after.get(k) != before.get(k) for k in after.keys() | before.keys() if k not in _STATEFULSET_MAY_CHANGE):
        message = (
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
            "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
        )
        errors.append(forbidden("spec", message))
    return errors


def validate_statefulset_status(new: Object, old: Object) -> list[FieldError]:
    """Counts a controller reports: none negative, no part greater than the whole."""
    status = new.get("status") or {}
    parts = ("readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas")
    errors = validate_counts(status, "replicas", *parts, "observedGeneration", "collisionCount")
    errors += validate_parts(status, *parts) + validate_collisions(new, old)
    available = status.get("availableReplicas") or 0
    if available > (status.get("readyReplicas") or 0):
        errors.append(invalid("status.availableReplicas", available, "cannot be greater than status.readyReplicas"))
    return errors


def validate_controllerrevision(obj: Object) -> list[FieldError]:
    """It keeps something, under a number."""
    errors = [] if obj.get("data") is not None else [required("data", "data is mandatory")]
    return errors + not_negative(obj.get("revision"), "revision")


def validate_controllerrevision_update(new: Object, old: Object) -> list[FieldError]:
    """History is not rewritten; its number may change."""
    return validate_controllerrevision(new) + immutable(new.get("data"), old.get("data"), "data")


def validate_daemonset(obj: Object) -> list[FieldError]:
    """A defaulted DaemonSet, beyond its metadata."""
    spec = obj.get("spec") or {}
    errors = validate_selected_template(spec, "DaemonSet")
    errors += not_negative(spec.get("minReadySeconds"), "spec.minReadySeconds")
    errors += _validate_daemonset_strategy(spec.get("updateStrategy") or {})
    return errors + not_negative(spec.get("revisionHistoryLimit"), "spec.revisionHistoryLimit")


def _validate_daemonset_strategy(strategy: Object) -> list[FieldError]:
    kind, rolling, field = strategy.get("type") or "", strategy.get("rollingUpdate"), "spec.updateStrategy"
    if kind == "OnDelete":
        return []
    if kind != "RollingUpdate":
        return [not_supported(f"{field}.type", kind, ("RollingUpdate", "OnDelete"))]
    if rolling is None:
        return [required(f"{field}.rollingUpdate")]
    unavailable, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
    path = f"{field}.rollingUpdate"
    errors = validate_share(unavailable, f"{path}.maxUnavailable") + validate_share(surge, f"{path}.maxSurge")
    if is_some(unavailable) and is_some(surge):
        errors.append(invalid(f"{path}.maxSurge", surge, "may not be set when maxUnavailable is non-zero"))
    if not is_some(unavailable) and not is_some(surge):
        errors.append(required(f"{path}.maxUnavailable", "cannot be 0 when maxSurge is 0"))
    for name, value in (("maxUnavailable", unavailable), ("maxSurge", surge)):
        if is_more_than_all(value):
            errors.append(invalid(f"{path}.{name}", value, "must not be greater than 100%"))
    return errors


def validate_daemonset_update(new: Object, old: Object) -> list[FieldError]:
    """The selector is decided once."""
    return validate_selector_unchanged(new, old) + validate_daemonset(new)


def validate_daemonset_status(new: Object, old: Object) -> list[FieldError]:
    """Counts a controller reports, none negative."""
    names = (
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    )
    return validate_counts(new.get("status") or {}, *names) + validate_collisions(new, old)


def validate_replicationcontroller(obj: Object) -> list[FieldError]:
    """A defaulted ReplicationController, beyond its metadata."""
    spec = obj.get("spec") or {}
    selector, template = spec.get("selector") or {}, spec.get("template")
    errors = not_negative(spec.get("minReadySeconds"), "spec.minReadySeconds")
    if not selector:
        errors.append(required("spec.selector"))
    errors += not_negative(spec.get("replicas"), "spec.replicas")
    if template is None:
        return [*errors, required("spec.template")]
    labels = (template.get("metadata") or {}).get("labels")
    if selector and any((labels or {}).get(key) != value for key, value in selector.items()):
        message = "`selector` does not match template `labels`"
        errors.append(invalid("spec.template.metadata.labels", labels, message))
    return errors + validate_template(template, "spec.template") + validate_lasting(template, "ReplicationController")


def validate_replicationcontroller_status(new: Object, old: Object) -> list[FieldError]:
    """Counts a controller reports: none negative, no part greater than the whole."""
    status = new.get("status") or {}
    parts = ("fullyLabeledReplicas", "readyReplicas", "availableReplicas")
    errors = validate_counts(status, "replicas", *parts, "observedGeneration")
    errors += validate_parts(status, *parts)
    available = status.get("availableReplicas") or 0
    if available > (status.get("readyReplicas") or 0):
        errors.append(invalid("status.availableReplicas", available, "cannot be greater than readyReplicas"))
    return errors
