"""Roles, ClusterRoles and their bindings. Source of rules and words: upstream's `pkg/apis/rbac/validation`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.api.errors import FieldError, invalid, not_supported, required
from fairlead.api.labels import check_dns1123_subdomain

Object = Mapping[str, Any]
GROUP = "rbac.authorization.k8s.io"


def validate_role(role: Object) -> list[FieldError]:
    """A Role: its rules are about resources alone."""
    return _rules(role, namespaced=True)


def validate_clusterrole(role: Object) -> list[FieldError]:
    """A ClusterRole: rules about resources or paths, and which other roles it is made of."""
    errors = _rules(role, namespaced=False)
    aggregation = role.get("aggregationRule")
    if aggregation is not None and not aggregation.get("clusterRoleSelectors"):
        what = "at least one clusterRoleSelector required if aggregationRule is non-nil"
        errors.append(required("aggregationRule.clusterRoleSelectors", what))
    return errors


def _rules(role: Object, *, namespaced: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, rule in enumerate(role.get("rules") or ()):
        at = f"rules[{index}]"
        if not rule.get("verbs"):
            errors.append(required(f"{at}.verbs", "verbs must contain at least one value"))
        paths = rule.get("nonResourceURLs")
        if paths:
            if namespaced:
                what = "namespaced rules cannot apply to non-resource URLs"
                errors.append(invalid(f"{at}.nonResourceURLs", paths, what))
            if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
                what = "rules cannot apply to both regular resources and non-resource URLs"
                errors.append(invalid(f"{at}.nonResourceURLs", paths, what))
            continue
        if not rule.get("apiGroups"):
            errors.append(required(f"{at}.apiGroups", "resource rules must supply at least one api group"))
        if not rule.get("resources"):
            errors.append(required(f"{at}.resources", "resource rules must supply at least one resource"))
    return errors


def validate_rolebinding(binding: Object) -> list[FieldError]:
    """A RoleBinding: a Role or a ClusterRole, given to subjects in one namespace."""
    return _binding(binding, ("Role", "ClusterRole"), namespaced=True)


def validate_clusterrolebinding(binding: Object) -> list[FieldError]:
    """A ClusterRoleBinding: a ClusterRole, given to subjects everywhere."""
    return _binding(binding, ("ClusterRole",), namespaced=False)


def validate_rolebinding_update(new: Object, old: Object) -> list[FieldError]:
    """As new, and still of the same role."""
    return validate_rolebinding(new) + _same_role(new, old)


def validate_clusterrolebinding_update(new: Object, old: Object) -> list[FieldError]:
    """As new, and still of the same role."""
    return validate_clusterrolebinding(new) + _same_role(new, old)


def _same_role(new: Object, old: Object) -> list[FieldError]:
    if new.get("roleRef") != old.get("roleRef"):
        return [invalid("roleRef", new.get("roleRef"), "cannot change roleRef")]
    return []


def _binding(binding: Object, kinds: tuple[str, ...], *, namespaced: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    reference = binding.get("roleRef") or {}
    if reference.get("apiGroup") != GROUP:
        errors.append(not_supported("roleRef.apiGroup", reference.get("apiGroup") or "", [GROUP]))
    if reference.get("kind") not in kinds:
        errors.append(not_supported("roleRef.kind", reference.get("kind") or "", kinds))
    if not reference.get("name"):
        errors.append(required("roleRef.name"))
    for index, subject in enumerate(binding.get("subjects") or ()):
        errors += _subject(subject, f"subjects[{index}]", namespaced=namespaced)
    return errors


def _subject(subject: Object, at: str, *, namespaced: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    name, group = subject.get("name") or "", subject.get("apiGroup") or ""
    if not name:
        errors.append(required(f"{at}.name"))
    match subject.get("kind"):
        case "ServiceAccount":
            if name:
                errors += [invalid(f"{at}.name", name, message) for message in check_dns1123_subdomain(name)]
            if group:
                errors.append(not_supported(f"{at}.apiGroup", group, [""]))
            if not namespaced and not subject.get("namespace"):
                errors.append(required(f"{at}.namespace"))
        case "User" | "Group":
            if group != GROUP:
                errors.append(not_supported(f"{at}.apiGroup", group, [GROUP]))
        case kind:
            errors.append(not_supported(f"{at}.kind", kind or "", ["ServiceAccount", "User", "Group"]))
    return errors
