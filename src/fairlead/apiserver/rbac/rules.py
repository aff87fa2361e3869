"""What one rule of a Role allows, and whether some rules cover others. Pure.

Source: upstream's `rbac/v1` helpers and `component-helpers/auth/rbac/validation`. Invariant: `uncovered(rules, rules)`
is empty; a request a set of rules allows is allowed by every set that covers it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

import msgspec

Object = Mapping[str, Any]
ALL = "*"


class Rule(msgspec.Struct, frozen=True):
    """A PolicyRule, ready to be asked."""

    verbs: frozenset[str]
    groups: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    paths: frozenset[str] = frozenset()

    @classmethod
    def of(cls, rule: Object) -> Rule:
        """From a decoded PolicyRule."""
        return cls(
            frozenset(rule.get("verbs") or ()),
            frozenset(rule.get("apiGroups") or ()),
            frozenset(rule.get("resources") or ()),
            frozenset(rule.get("resourceNames") or ()),
            frozenset(rule.get("nonResourceURLs") or ()),
        )

    def allows(self, verb: str, group: str, resource: str, subresource: str, name: str) -> bool:
        """Whether it allows the verb on that resource (its subresource, if one is given)."""
        if ALL not in self.verbs and verb not in self.verbs:
            return False
        if ALL not in self.groups and group not in self.groups:
            return False
        if ALL not in self.resources:
            whole = f"{resource}/{subresource}" if subresource else resource
            if whole not in self.resources and not (subresource and f"*/{subresource}" in self.resources):
                return False
        return not self.names or name in self.names

    def allows_path(self, verb: str, path: str) -> bool:
        """Whether it allows the verb on a path that is no resource."""
        if ALL not in self.verbs and verb not in self.verbs:
            return False
        return any(path_covers(pattern, path) for pattern in self.paths)


def path_covers(pattern: str, path: str) -> bool:
    """`*`, the path itself, or a prefix of it ending in `*`."""
    return pattern in (ALL, path) or (pattern.endswith(ALL) and path.startswith(pattern.rstrip(ALL)))


def uncovered(owned: Iterable[Rule], wanted: Iterable[Object]) -> list[Object]:
    """The single permissions of `wanted` that no rule of `owned` covers: of one verb, group, resource and name each."""
    have = list(owned)
    missing: list[Object] = []
    for rule in wanted:
        for single in _singles(rule):
            asked = Rule.of(single)
            if not any(_covers(one, asked) for one in have):
                missing.append(single)
    return missing


def _singles(rule: Object) -> Iterable[dict[str, list[str]]]:
    verbs = rule.get("verbs") or ()
    names = rule.get("resourceNames") or ()
    for group, resource, verb in product(rule.get("apiGroups") or (), rule.get("resources") or (), verbs):
        for name in names or ("",):
            single = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
            yield {**single, "resourceNames": [name]} if names else single
    for path, verb in product(rule.get("nonResourceURLs") or (), verbs):
        yield {"nonResourceURLs": [path], "verbs": [verb]}


def _covers(owner: Rule, single: Rule) -> bool:
    if ALL not in owner.verbs and not single.verbs <= owner.verbs:
        return False
    if single.paths:
        (path,) = single.paths
        return any(path_covers(pattern, path) for pattern in owner.paths)
    if not owner.resources:
        return False
    if ALL not in owner.groups and not single.groups <= owner.groups:
        return False
    if ALL not in owner.resources:
        (resource,) = single.resources
        sub = resource.partition("/")[2]
        if resource not in owner.resources and not (sub and f"*/{sub}" in owner.resources):
            return False
    return not owner.names or (bool(single.names) and single.names <= owner.names)


def compact(rules: Iterable[Object]) -> list[dict[str, list[str]]]:
    """Single permissions that differ in their verb alone, as one rule."""
    merged: dict[tuple[tuple[str, ...], ...], dict[str, list[str]]] = {}
    for rule in rules:
        kept = {key: list(value) for key, value in rule.items() if key != "verbs"}
        key = tuple((name, *values) for name, values in sorted(kept.items()))
        into = merged.setdefault(key, {**kept, "verbs": []})
        into["verbs"] += [verb for verb in rule.get("verbs") or () if verb not in into["verbs"]]
    return list(merged.values())


def render(rule: Object) -> str:
    """A rule as messages show it: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`."""
    parts = []
    for key, shown in (
        ("apiGroups", "APIGroups"),
        ("resources", "Resources"),
        ("nonResourceURLs", "NonResourceURLs"),
        ("resourceNames", "ResourceNames"),
        ("verbs", "Verbs"),
    ):
        if rule.get(key):
            values = " ".join(f'"{value}"' for value in rule[key])
            parts.append(f"{shown}:[{values}]")
    return "{" + ", ".join(parts) + "}"
