"""Keeps the policy in memory as it is in the registry, and in the registry as it must be.

Three jobs: feed the index (and the graph of pods) from lists and watches; at the start, create the default roles and
bindings that are missing and complete those that lack something; aggregate ClusterRoles whenever one changes.
Invariants: before the first request is served everything stored was fed; until they are stored, the defaults hold from
memory, so that a new cluster starts no later for them; nothing an administrator added is taken away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from fairlead.api import errors
from fairlead.api.kinds import (
    CLUSTERROLEBINDINGS,
    CLUSTERROLES,
    PODS,
    ROLEBINDINGS,
    ROLES,
    Resource,
    of_object,
)
from fairlead.api.selectors import LabelSelector
from fairlead.apiserver.noderights import NodeAuthorizer, PodGraph
from fairlead.apiserver.rbac import defaults
from fairlead.apiserver.rbac.index import PolicyIndex
from fairlead.apiserver.rbac.rules import Rule, uncovered
from fairlead.registry import ListOptions, Registry, RequestContext, WatchOptions

log = logging.getLogger("fairlead.apiserver")

Object = dict[str, Any]
Key = tuple[str, str]
_POLICY = (ROLES, CLUSTERROLES, ROLEBINDINGS, CLUSTERROLEBINDINGS)
_AGAIN_SECONDS = 1.0


class Policy:
    """RBAC and the nodes' rights of one API server. `authorizer` decides; `load` before serving, `stop` after."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.index, self.graph = PolicyIndex(), PodGraph()
        self.authorizer = NodeAuthorizer(registry, self.graph, self.index)
        self._known: dict[Resource, dict[Key, Object]] = {resource: {} for resource in (*_POLICY, PODS)}
        self._aggregate = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def load(self) -> None:
        """Read what is stored, fill in the defaults, and go on following."""
        revisions = {resource: await self._list(resource) for resource in self._known}
        missing = []
        for obj in defaults.objects():
            resource = of_object(obj)
            assert resource is not None
            there = self._known[resource].get(_key(obj))
            if there is None:
                self.index.feed(resource, obj)
            if there is None or _completed(there, obj) is not None:
                missing.append((resource, obj))
        self._tasks = [
            asyncio.create_task(self._follow(resource, revision), name=f"policy {resource.plural}")
            for resource, revision in revisions.items()
        ]
        self._tasks.append(asyncio.create_task(self._store(missing), name="policy defaults"))
        self._tasks.append(asyncio.create_task(self._keep_aggregated(), name="policy aggregation"))

    async def stop(self) -> None:
        """End following."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    # ---- following
    async def _list(self, resource: Resource) -> int:
        result = await self._registry.list(resource, "", ListOptions())
        known, seen = self._known[resource], set()
        for obj in result.items:
            seen.add(_key(obj))
            self._feed(resource, obj)
        for key in known.keys() - seen:
            self._feed(resource, known[key], gone=True)
        return result.revision

    def _feed(self, resource: Resource, obj: Object, *, gone: bool = False) -> None:
        known = self._known[resource]
        if gone:
            known.pop(_key(obj), None)
        else:
            # Of a pod only the name is needed again, to notice that it is gone.
            namespace, name = _key(obj)
            kept = {"metadata": {"namespace": namespace, "name": name}} if resource == PODS else obj
            known[namespace, name] = kept
        if resource == PODS:
            self.graph.feed(obj, gone=gone)
            return
        self.index.feed(resource, obj, gone=gone)
        if resource == CLUSTERROLES:
            self._aggregate.set()

    async def _follow(self, resource: Resource, revision: int) -> None:
        while True:
            try:
                watch = self._registry.watch(resource, "", WatchOptions(resource_version=str(revision)))
                with contextlib.closing(watch):
                    async for batch in watch:
                        for event in batch:
                            if event.type in ("ADDED", "MODIFIED", "DELETED"):
                                self._feed(resource, event.object, gone=event.type == "DELETED")
            except errors.StatusError as error:
                log.warning("following %s: %s", resource.plural, error)
            await asyncio.sleep(_AGAIN_SECONDS)  # the watch was too slow, or the store is away
            with contextlib.suppress(errors.StatusError):
                revision = await self._list(resource)

    # ---- the defaults
    async def _store(self, missing: list[tuple[Resource, Object]]) -> None:
        outcomes = await asyncio.gather(*(self._store_one(*one) for one in missing), return_exceptions=True)
        for (_, obj), outcome in zip(missing, outcomes, strict=True):
            if isinstance(outcome, Exception):
                log.warning("default %s %s is not stored: %s", obj["kind"], obj["metadata"]["name"], outcome)

    async def _store_one(self, resource: Resource, wanted: Object) -> None:
        try:
            await self._registry.create(resource, "", wanted, RequestContext(field_manager="fairlead"))
            return
        except errors.StatusError as error:
            if error.reason != "AlreadyExists":
                raise

        def change(obj: Object) -> Object:
            completed = _completed(obj, wanted)
            return obj if completed is None else completed

        ctx = RequestContext(field_manager="fairlead")
        await self._registry.patch(resource, "", wanted["metadata"]["name"], change, ctx)

    # ---- aggregation
    async def _keep_aggregated(self) -> None:
        while True:
            await self._aggregate.wait()
            self._aggregate.clear()
            roles = self._known[CLUSTERROLES]
            for (_, name), role in list(roles.items()):
                if not (role.get("aggregationRule") or {}).get("clusterRoleSelectors"):
                    continue
                rules = aggregated(role, roles.values())
                if rules != (role.get("rules") or []):
                    try:
                        ctx = RequestContext(field_manager="clusterrole-aggregation-controller")
                        await self._registry.patch(CLUSTERROLES, "", name, _with_rules(rules), ctx)
                    except errors.StatusError as error:
                        log.warning("aggregating ClusterRole %s: %s", name, error)


def aggregated(role: Object, roles: Any) -> list[Object]:
    """The rules of all the roles that the role's selectors select, by name, none twice."""
    selectors = [LabelSelector.of(one) for one in role["aggregationRule"]["clusterRoleSelectors"]]
    rules: list[Object] = []
    for other in sorted(roles, key=lambda other: str(other["metadata"]["name"])):
        if other["metadata"]["name"] == role["metadata"]["name"]:
            continue
        labels = other["metadata"].get("labels") or {}
        if any(selector.matches(labels) for selector in selectors):
            rules += [rule for rule in other.get("rules") or () if rule not in rules]
    return rules


def _with_rules(rules: list[Object]) -> Callable[[Object], Object]:
    def change(obj: Object) -> Object:
        return {**obj, "rules": rules}

    return change


def _completed(there: Object, wanted: Object) -> Object | None:
    """The stored default with what it lacks; None if it lacks nothing, or says that it is not to be touched."""
    metadata = there["metadata"]
    if (metadata.get("annotations") or {}).get(defaults.AUTOUPDATE) == "false":
        return None
    changed = dict(there)
    for kind in ("labels", "annotations"):
        now = metadata.get(kind) or {}
        if not (wanted["metadata"].get(kind) or {}).items() <= now.items():
            metadata = {**metadata, kind: {**now, **wanted["metadata"][kind]}}
            changed["metadata"] = metadata
    if wanted["kind"] == "ClusterRole" and not wanted.get("aggregationRule"):
        rules = list(there.get("rules") or ())
        owned = [Rule.of(rule) for rule in rules]
        lacking = [rule for rule in wanted["rules"] if uncovered(owned, [rule])]
        if lacking:
            changed["rules"] = rules + lacking
    elif wanted["kind"] == "ClusterRoleBinding":
        subjects = list(there.get("subjects") or ())
        lacking = [subject for subject in wanted.get("subjects") or () if subject not in subjects]
        if lacking:
            changed["subjects"] = subjects + lacking
    return None if changed == there else changed


def _key(obj: Object) -> Key:
    return (obj["metadata"].get("namespace") or "", obj["metadata"]["name"])
