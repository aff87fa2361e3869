"""Which objects a quota is about: its scopes, all of which must hold. They know pods only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fairlead.api.defaults import qos_class

Object = Mapping[str, Any]

TERMINATING, NOT_TERMINATING = "Terminating", "NotTerminating"
BEST_EFFORT, NOT_BEST_EFFORT = "BestEffort", "NotBestEffort"
PRIORITY_CLASS, CROSS_NAMESPACE = "PriorityClass", "CrossNamespacePodAffinity"
POD_SCOPES = (TERMINATING, NOT_TERMINATING, BEST_EFFORT, NOT_BEST_EFFORT, PRIORITY_CLASS, CROSS_NAMESPACE)


def requirements(spec: Object) -> list[Object]:
    """What a quota's `scopes` and `scopeSelector` ask together."""
    plain = [{"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or ()]
    return [*plain, *((spec.get("scopeSelector") or {}).get("matchExpressions") or ())]


def matches(spec: Object, pod: Object) -> bool:
    """Whether a pod is in all scopes of a quota."""
    return all(_holds(requirement, pod) for requirement in requirements(spec))


def _holds(requirement: Object, pod: Object) -> bool:
    scope, spec = requirement.get("scopeName"), pod.get("spec") or {}
    if scope in (TERMINATING, NOT_TERMINATING):
        ends = spec.get("activeDeadlineSeconds") is not None
        return ends is (scope == TERMINATING)
    if scope in (BEST_EFFORT, NOT_BEST_EFFORT):
        asks_nothing = qos_class(dict(pod)) == "BestEffort"
        return asks_nothing is (scope == BEST_EFFORT)
    if scope == PRIORITY_CLASS:
        return _selects(requirement, spec.get("priorityClassName") or "")
    return scope == CROSS_NAMESPACE and any(_reaches_out(term) for term in _affinity_terms(spec))


def _selects(requirement: Object, name: str) -> bool:
    operator, values = requirement.get("operator"), requirement.get("values") or ()
    if operator == "In":
        return bool(name) and name in values
    if operator == "NotIn":
        return not name or name not in values
    return bool(name) == (operator == "Exists")


def _affinity_terms(spec: Object) -> Iterator[Object]:
    for kind in ("podAffinity", "podAntiAffinity"):
        rules = (spec.get("affinity") or {}).get(kind) or {}
        yield from rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        for preferred in rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ():
            yield preferred.get("podAffinityTerm") or {}


def _reaches_out(term: Object) -> bool:
    return bool(term.get("namespaces")) or term.get("namespaceSelector") is not None
