"""Namespaces and Nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fairlead.api.addresses import check_cidr, family
from fairlead.api.errors import FieldError, duplicate, forbidden, invalid, not_supported, required
from fairlead.api.labels import check_label_value, check_qualified_name
from fairlead.api.validation.metadata import validate_finalizers
from fairlead.api.validation.resources import validate_amount

TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")

_CIDR_ONCE = 'node updates may not change podCIDR except from "" to valid'


def validate_namespace(obj: Mapping[str, Any]) -> list[FieldError]:
    """The finalizers of a Namespace's own."""
    finalizers = (obj.get("spec") or {}).get("finalizers") or ()
    return validate_finalizers(finalizers, "spec.finalizers", indexed=False)


def validate_namespace_status(new: Mapping[str, Any]) -> list[FieldError]:
    """The phase and the deletion tell the same story."""
    phase = (new.get("status") or {}).get("phase") or ""
    if (new.get("metadata") or {}).get("deletionTimestamp"):
        if phase != "Terminating":
            return [invalid("status.Phase", phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")]
    elif phase != "Active":
        return [invalid("status.Phase", phase, "may only be 'Active' if `deletionTimestamp` is empty")]
    return []


def validate_taint_effect(effect: str, field: str) -> list[FieldError]:
    """What a taint does to pods that do not tolerate it."""
    if not effect:
        return [required(field)]
    return [] if effect in TAINT_EFFECTS else [not_supported(field, effect, TAINT_EFFECTS)]


def _validate_taints(taints: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    # Upstream gives these paths below metadata.
    errors: list[FieldError] = []
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(taints):
        field = f"metadata.taints[{index}]"
        key, value, effect = taint.get("key") or "", taint.get("value") or "", taint.get("effect") or ""
        errors += [invalid(f"{field}.key", key, message) for message in check_qualified_name(key)]
        messages = check_label_value(value)
        if messages:
            errors.append(invalid(f"{field}.value", value, ";".join(messages)))
        errors += validate_taint_effect(effect, f"{field}.effect")
        if (key, effect) in seen:
            detail = "taints must be unique by key and effect pair"
            errors.append(FieldError("FieldValueDuplicate", field, dict(taint), detail))
        seen.add((key, effect))
    return errors


def _validate_status(obj: Mapping[str, Any]) -> list[FieldError]:
    errors: list[FieldError] = []
    status = obj.get("status") or {}
    for part in ("capacity", "allocatable"):
        for name, value in (status.get(part) or {}).items():
            errors += validate_amount(name, value, f"status.{part}.{name}")[1]
    return errors


def validate_node(obj: Mapping[str, Any]) -> list[FieldError]:
    """Taints, resources and pod networks of a new Node."""
    spec = obj.get("spec") or {}
    errors = _validate_taints(spec.get("taints") or ()) + _validate_status(obj)
    networks = spec.get("podCIDRs") or ()
    for index, network in enumerate(networks):
        errors += check_cidr(f"spec.podCIDRs[{index}]", network)
    if len(networks) > 1:
        families = [family(network.partition("/")[0]) for network in networks]
        if len(networks) > 2 or len(set(families)) < 2:
            message = "may specify no more than one CIDR for each IP family"
            errors.append(invalid("spec.podCIDRs", list(networks), message))
        errors += [
            duplicate(f"spec.podCIDRs[{index}]", network)
            for index, network in enumerate(networks)
            if network in networks[:index]
        ]
    return errors


def validate_node_update(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[FieldError]:
    """The pod network and the provider's name of a Node are set once; the rest may change."""
    spec, old_spec = new.get("spec") or {}, old.get("spec") or {}
    errors = _validate_status(new)
    addresses = (new.get("status") or {}).get("addresses") or ()
    errors += [
        duplicate(f"status.addresses[{index}]", dict(address))
        for index, address in enumerate(addresses)
        if address in addresses[:index]
    ]
    networks, old_networks = list(spec.get("podCIDRs") or ()), list(old_spec.get("podCIDRs") or ())
    if old_networks and networks != old_networks:
        errors.append(forbidden("spec.podCIDRs", _CIDR_ONCE))
    elif not old_networks:
        for index, network in enumerate(networks):
            errors += check_cidr(f"spec.podCIDRs[{index}]", network)
    provider = old_spec.get("providerID")
    if provider and provider != spec.get("providerID"):
        message = 'node updates may not change providerID except from "" to valid'
        errors.append(forbidden("spec.providerID", message))
    errors += _validate_taints(spec.get("taints") or ())
    if (spec.get("externalID") or "") != (old_spec.get("externalID") or ""):
        errors.append(forbidden("spec.externalID", "may not be updated"))
    return errors
