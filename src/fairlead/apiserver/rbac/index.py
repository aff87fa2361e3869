"""All Roles and bindings in memory, and the decisions made of them.

Between `upkeep`, which feeds it, and the server, which asks. Invariants: what is not granted is denied; feeding is
incremental and its order does not matter; a decision never waits for anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from fairlead.api import errors
from fairlead.api.kinds import CLUSTERROLEBINDINGS, CLUSTERROLES, ROLEBINDINGS, ROLES, Resource
from fairlead.apiserver.authorization import Attributes, Decision
from fairlead.apiserver.rbac.rules import Rule, compact, render, uncovered
from fairlead.registry import User

Object = dict[str, Any]
Subject = tuple[str, str]  # ("User" or "Group", name); a ServiceAccount is the user it is known as
Key = tuple[str, str]  # (namespace, name)

MASTERS = "system:masters"
_REMEMBERED = 8192
_ACCOUNT = "system:serviceaccount:"


class Grant(msgspec.Struct, frozen=True):
    """A binding, as one subject sees it. `namespace` is empty for a ClusterRoleBinding."""

    namespace: str
    binding: str
    role_kind: str
    role: str
    subject: str  # as messages name it

    @property
    def role_key(self) -> Key:
        """Where its rules are."""
        return ("" if self.role_kind == "ClusterRole" else self.namespace, self.role)

    def __str__(self) -> str:
        if self.namespace:
            return f'RoleBinding "{self.binding}/{self.namespace}" of {self.role_kind} "{self.role}" to {self.subject}'
        return f'ClusterRoleBinding "{self.binding}" of {self.role_kind} "{self.role}" to {self.subject}'


class PolicyIndex:
    """The authorizer. `feed` it every Role and binding, then ask."""

    def __init__(self) -> None:
        self._rules: dict[Key, tuple[Rule, ...]] = {}
        self._written: dict[Key, list[Object]] = {}  # the same, as they were written
        self._bindings: dict[Key, list[tuple[Subject, Grant]]] = {}
        self._cluster: dict[Subject, list[Grant]] = {}
        self._namespaced: dict[tuple[str, Subject], list[Grant]] = {}
        self._decided: dict[tuple[Any, ...], Decision] = {}

    # ---- feeding
    def feed(self, resource: Resource, obj: Object, *, gone: bool = False) -> None:
        """A Role, ClusterRole, RoleBinding or ClusterRoleBinding as it is now, or that it is gone."""
        metadata = obj["metadata"]
        key = (metadata.get("namespace") or "", metadata["name"])
        self._decided.clear()
        if resource in (ROLES, CLUSTERROLES):
            self._rules.pop(key, None)
            self._written.pop(key, None)
            if not gone:
                written = obj.get("rules") or []
                self._rules[key], self._written[key] = tuple(map(Rule.of, written)), written
        elif resource in (ROLEBINDINGS, CLUSTERROLEBINDINGS):
            for subject, grant in self._bindings.pop(key, ()):
                self._place(subject, grant.namespace).remove(grant)
            if not gone:
                made = list(_grants(key, obj))
                self._bindings[key] = made
                for subject, grant in made:
                    self._place(subject, grant.namespace).append(grant)

    def _place(self, subject: Subject, namespace: str) -> list[Grant]:
        if namespace:
            return self._namespaced.setdefault((namespace, subject), [])
        return self._cluster.setdefault(subject, [])

    # ---- asking
    async def authorize(self, attributes: Attributes) -> Decision:
        """See Authorizer."""
        return self.decide(attributes)

    def decide(self, attributes: Attributes) -> Decision:
        """Whether the user may; at once."""
        if MASTERS in attributes.user.groups:
            return Decision(True)
        user, *rest = msgspec.structs.astuple(attributes)
        key = (user.name, user.groups, *rest)
        known = self._decided.get(key)
        if known is None:
            if len(self._decided) >= _REMEMBERED:
                self._decided.clear()
            known = self._decided[key] = self._decide(attributes)
        return known

    def _decide(self, asked: Attributes) -> Decision:
        missing = []
        for grant in self._grants_of(asked.user, asked.namespace):
            rules = self._rules.get(grant.role_key)
            if rules is None:
                kind = "clusterrole" if grant.role_kind == "ClusterRole" else "role"
                missing.append(f'{kind}.rbac.authorization.k8s.io "{grant.role}" not found')
                continue
            for rule in rules:
                if asked.path:
                    allowed = not grant.namespace and rule.allows_path(asked.verb, asked.path)
                else:
                    allowed = rule.allows(asked.verb, asked.group, asked.plural, asked.subresource, asked.name)
                if allowed:
                    return Decision(True, f"RBAC: allowed by {grant}")
        if missing:
            text = missing[0] if len(missing) == 1 else f"[{', '.join(missing)}]"
            return Decision(False, f"RBAC: {text}")
        return Decision(False)

    def _grants_of(self, user: User, namespace: str) -> Iterator[Grant]:
        subjects = [("User", user.name), *(("Group", group) for group in user.groups)]
        for subject in subjects:
            yield from self._cluster.get(subject, ())
        if namespace:
            for subject in subjects:
                yield from self._namespaced.get((namespace, subject), ())

    async def rules_for(self, user: User, namespace: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """See Authorizer."""
        resources, paths = [], []
        if MASTERS in user.groups:
            resources.append({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})
            paths.append({"verbs": ["*"], "nonResourceURLs": ["*"]})
        for grant in self._grants_of(user, namespace):
            for rule in self._written.get(grant.role_key, ()):
                if rule.get("resources"):
                    kept = ("verbs", "apiGroups", "resources", "resourceNames")
                    resources.append({key: rule[key] for key in kept if rule.get(key)})
                elif rule.get("nonResourceURLs") and not grant.namespace:
                    paths.append({"verbs": rule["verbs"], "nonResourceURLs": rule["nonResourceURLs"]})
        return resources, paths

    # ---- granting to others
    def check_grant(self, resource: Resource, new: Object, old: Object | None, user: User) -> None:
        """Nobody gives what they don't have: raises 403, in upstream's words, unless the user holds every permission
        that `new` (a Role or a binding) grants, or may `escalate` (`bind`) it."""
        metadata = new["metadata"]
        namespace, name = metadata.get("namespace") or "", metadata.get("name") or ""
        if MASTERS in user.groups:
            return
        if resource in (ROLES, CLUSTERROLES):
            granted = list(new.get("rules") or ())
            if old is not None and granted == (old.get("rules") or []) and not _aggregates_more(new, old):
                return
            verb, plural, role = "escalate", resource.plural, name
            if new.get("aggregationRule") is not None and _aggregates_more(new, old):
                granted.append({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})
                granted.append({"verbs": ["*"], "nonResourceURLs": ["*"]})
        else:
            if old is not None and all(new.get(key) == old.get(key) for key in ("subjects", "roleRef")):
                return
            reference = new.get("roleRef") or {}
            kind, role = reference.get("kind"), reference.get("name") or ""
            verb, plural = "bind", "clusterroles" if kind == "ClusterRole" else "roles"
            written = self._written.get(("" if kind == "ClusterRole" else namespace, role))
            if written is None:
                if self.decide(Attributes(user, verb, resource.group, "v1", plural, "", namespace, role)).allowed:
                    return
                raise errors.not_found(plural, resource.group, role)
            granted = list(written)
        if self.decide(Attributes(user, verb, resource.group, "v1", plural, "", namespace, role)).allowed:
            return
        owned = [r for grant in self._grants_of(user, namespace) for r in self._rules.get(grant.role_key, ())]
        missing = sorted({render(rule) for rule in compact(uncovered(owned, granted))})
        if missing:
            groups = " ".join(f'"{group}"' for group in user.groups)
            raise errors.access_forbidden(
                f'{resource.group_plural} "{name}" is forbidden: user "{user.name}" (groups=[{groups}]) is attempting '
                "to grant RBAC permissions not currently held:\n" + "\n".join(missing),
                resource.plural,
                resource.group,
                name,
            )


def _aggregates_more(new: Mapping[str, Any], old: Mapping[str, Any] | None) -> bool:
    return new.get("aggregationRule") is not None and new.get("aggregationRule") != (old or {}).get("aggregationRule")


def _grants(key: Key, binding: Object) -> Iterator[tuple[Subject, Grant]]:
    namespace, name = key
    reference = binding.get("roleRef") or {}
    kind, role = reference.get("kind") or "", reference.get("name") or ""
    for subject in binding.get("subjects") or ():
        if subject.get("kind") == "ServiceAccount":
            home = subject.get("namespace") or namespace
            seen: Subject = ("User", f"{_ACCOUNT}{home}:{subject['name']}")
            shown = f'ServiceAccount "{subject["name"]}/{home}"'
        else:
            seen = (subject["kind"], subject["name"])
            shown = f'{subject["kind"]} "{subject["name"]}"'
        yield seen, Grant(namespace, name, kind, role, shown)
