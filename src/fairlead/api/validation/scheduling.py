"""What decides where a pod may run: affinity, tolerations, spreading, gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fairlead.api.errors import FieldError, duplicate, forbidden, invalid, not_supported, required
from fairlead.api.labels import (
    check_dns1123_label,
    check_dns1123_subdomain,
    check_label_value,
    check_qualified_name,
)
from fairlead.api.validation.cluster import validate_taint_effect
from fairlead.api.validation.metadata import NOT_POSITIVE
from fairlead.api.validation.selectors import validate_selector

_REQUIRED, _PREFERRED = (
    "requiredDuringSchedulingIgnoredDuringExecution",
    "preferredDuringSchedulingIgnoredDuringExecution",
)
_BAD_OPERATOR = "not a valid selector operator"


def validate_affinity(affinity: Mapping[str, Any], field: str) -> list[FieldError]:
    """Attraction to nodes, and to or from other pods."""
    errors: list[FieldError] = []
    node = affinity.get("nodeAffinity") or {}
    path = f"{field}.nodeAffinity"
    if node.get(_REQUIRED) is not None:
        errors += validate_node_selector(node[_REQUIRED], f"{path}.{_REQUIRED}")
    for index, preference in enumerate(node.get(_PREFERRED) or ()):
        where = f"{path}.{_PREFERRED}[{index}]"
        errors += _validate_weight(preference, where)
        errors += _validate_node_term(preference.get("preference") or {}, f"{where}.preference", strict=False)
    for kind in ("podAffinity", "podAntiAffinity"):
        pods = affinity.get(kind) or {}
        for index, term in enumerate(pods.get(_REQUIRED) or ()):
            errors += _validate_pod_term(term, f"{field}.{kind}.{_REQUIRED}[{index}]")
        for index, weighted in enumerate(pods.get(_PREFERRED) or ()):
            where = f"{field}.{kind}.{_PREFERRED}[{index}]"
            errors += _validate_weight(weighted, where)
            errors += _validate_pod_term(weighted.get("podAffinityTerm") or {}, f"{where}.podAffinityTerm")
    return errors


def validate_node_selector(selector: Mapping[str, Any], field: str) -> list[FieldError]:
    """Terms of which a node must meet one."""
    terms, where = selector.get("nodeSelectorTerms") or (), f"{field}.nodeSelectorTerms"
    errors = [] if terms else [required(where, "must have at least one node selector term")]
    for index, term in enumerate(terms):
        errors += _validate_node_term(term, f"{where}[{index}]", strict=True)
    return errors


def _validate_weight(term: Mapping[str, Any], field: str) -> list[FieldError]:
    weight = term.get("weight") or 0
    return [] if 1 <= weight <= 100 else [invalid(f"{field}.weight", weight, "must be in the range 1-100")]


def _validate_node_term(term: Mapping[str, Any], field: str, *, strict: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, expression in enumerate(term.get("matchExpressions") or ()):
        errors += _validate_node_expression(expression, f"{field}.matchExpressions[{index}]", strict=strict)
    for index, expression in enumerate(term.get("matchFields") or ()):
        path = f"{field}.matchFields[{index}]"
        key, operator, values = _parts(expression)
        if operator not in ("In", "NotIn"):
            errors.append(invalid(f"{path}.operator", operator, _BAD_OPERATOR))
        elif len(values) != 1:
            message = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            errors.append(required(f"{path}.values", message))
        if key != "metadata.name":
            errors.append(invalid(f"{path}.key", key, "not a valid field selector key"))
        else:
            errors += [
                invalid(f"{path}.values[{place}]", value, message)
                for place, value in enumerate(values)
                for message in check_dns1123_subdomain(value)
            ]
    return errors


def _parts(expression: Mapping[str, Any]) -> tuple[str, str, Sequence[str]]:
    return expression.get("key") or "", expression.get("operator") or "", expression.get("values") or ()


def _validate_node_expression(expression: Mapping[str, Any], field: str, *, strict: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    key, operator, values = _parts(expression)
    if operator in ("In", "NotIn"):
        if not values:
            errors.append(required(f"{field}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            message = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            errors.append(forbidden(f"{field}.values", message))
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            message = "must be specified single value when `operator` is 'Lt' or 'Gt'"
            errors.append(required(f"{field}.values", message))
    else:
        errors.append(invalid(f"{field}.operator", operator, _BAD_OPERATOR))
    errors += [invalid(f"{field}.key", key, message) for message in check_qualified_name(key)]
    if strict:
        errors += [
            invalid(f"{field}.values[{place}]", value, message)
            for place, value in enumerate(values)
            for message in check_label_value(value)
        ]
    return errors


def _validate_pod_term(term: Mapping[str, Any], field: str) -> list[FieldError]:
    errors = validate_selector(term.get("labelSelector"), f"{field}.labelSelector")
    errors += validate_selector(term.get("namespaceSelector"), f"{field}.namespaceSelector")
    for name in term.get("namespaces") or ():
        errors += [invalid(f"{field}.namespace", name, message) for message in check_dns1123_label(name)]
    match, mismatch = term.get("matchLabelKeys") or (), term.get("mismatchLabelKeys") or ()
    for key, names in (("matchLabelKeys", match), ("mismatchLabelKeys", mismatch)):
        if names and term.get("labelSelector") is None:
            errors.append(forbidden(f"{field}.{key}", "must not be specified when labelSelector is not set"))
            continue
        errors += [
            invalid(f"{field}.{key}[{index}]", name, message)
            for index, name in enumerate(names)
            for message in check_qualified_name(name)
        ]
    errors += [
        invalid(f"{field}.matchLabelKeys[{index}]", name, "exists in both matchLabelKeys and mismatchLabelKeys")
        for index, name in enumerate(match)
        if name in mismatch
    ]
    topology = term.get("topologyKey") or ""
    if not topology:
        errors.append(required(f"{field}.topologyKey", "can not be empty"))
    return errors + [invalid(f"{field}.topologyKey", topology, message) for message in check_qualified_name(topology)]


def validate_tolerations(tolerations: Sequence[Mapping[str, Any]], field: str) -> list[FieldError]:
    """Which taints the pod puts up with."""
    errors: list[FieldError] = []
    for index, toleration in enumerate(tolerations):
        path = f"{field}[{index}]"
        key, operator = toleration.get("key") or "", toleration.get("operator") or ""
        value, effect = toleration.get("value") or "", toleration.get("effect") or ""
        if key:
            errors += [invalid(f"{path}.key", key, message) for message in check_qualified_name(key)]
        elif operator != "Exists":
            message = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            errors.append(invalid(f"{path}.operator", operator, message))
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            message = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            errors.append(invalid(f"{path}.effect", effect, message))
        if operator in ("", "Equal"):
            messages = check_label_value(value)
            if messages:
                errors.append(invalid(f"{path}.operator", value, ";".join(messages)))
        elif operator == "Exists":
            if value:
                message = "value must be empty when `operator` is 'Exists'"
                errors.append(invalid(f"{path}.operator", value, message))
        else:
            errors.append(not_supported(f"{path}.operator", operator, ("Equal", "Exists")))
        if effect:
            errors += validate_taint_effect(effect, f"{path}.effect")
    return errors


def validate_spread(constraints: Sequence[Mapping[str, Any]], field: str) -> list[FieldError]:
    """How evenly pods spread over zones and the like."""
    errors: list[FieldError] = []
    seen: set[tuple[str, str]] = set()
    for index, constraint in enumerate(constraints):
        path = f"{field}[{index}]"
        skew, topology = constraint.get("maxSkew") or 0, constraint.get("topologyKey") or ""
        action, domains = constraint.get("whenUnsatisfiable") or "", constraint.get("minDomains")
        if skew <= 0:
            errors.append(invalid(f"{path}.maxSkew", skew, NOT_POSITIVE))
        if not topology:
            errors.append(required(f"{path}.topologyKey", "can not be empty"))
        if action not in ("DoNotSchedule", "ScheduleAnyway"):
            errors.append(not_supported(f"{path}.whenUnsatisfiable", action, ("DoNotSchedule", "ScheduleAnyway")))
        if (topology, action) in seen:
            errors.append(duplicate(f"{path}.{{topologyKey, whenUnsatisfiable}}", f"{{{topology}, {action}}}"))
        seen.add((topology, action))
        if domains is not None:
            if domains <= 0:
                errors.append(invalid(f"{path}.minDomains", domains, NOT_POSITIVE))
            if action != "DoNotSchedule":
                message = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
                errors.append(invalid(f"{path}.minDomains", domains, message))
        for key in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if constraint.get(key) not in (None, "Honor", "Ignore"):
                errors.append(not_supported(f"{path}.{key}", constraint[key], ("Honor", "Ignore")))
        selector = constraint.get("labelSelector")
        keys = constraint.get("matchLabelKeys") or ()
        if keys and selector is None:
            errors.append(forbidden(f"{path}.matchLabelKeys", "must not be specified when labelSelector is not set"))
        for place, key in enumerate(keys):
            where = f"{path}.matchLabelKeys[{place}]"
            errors += [invalid(where, key, message) for message in check_qualified_name(key)]
            if selector and key in (selector.get("matchLabels") or {}):
                errors.append(invalid(where, key, "exists in both matchLabelKeys and labelSelector"))
        errors += validate_selector(selector, f"{path}.labelSelector")
    return errors


def validate_gates(gates: Sequence[Mapping[str, Any]], field: str) -> list[FieldError]:
    """What must be lifted before the pod is scheduled."""
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, gate in enumerate(gates):
        name = gate.get("name") or ""
        errors += [invalid(f"{field}[{index}]", name, message) for message in check_qualified_name(name)]
        if name in seen:
            errors.append(duplicate(f"{field}[{index}]", name))
        seen.add(name)
    return errors
