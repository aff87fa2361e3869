"""Deletes what its owners left behind: background, foreground and orphaning deletion by ownerReferences.

Upstream: pkg/controller/garbagecollector. Invariant: an object is deleted for a missing owner only after the server
itself said that this owner (by uid) is not there; an owner of a kind that is not served counts as there.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import Any

import msgspec

from fairlead.api.errors import StatusError
from fairlead.api.kinds import Resource, by_kind
from fairlead.client.rest import PropagationPolicy, is_conflict, is_gone
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import pods
from fairlead.controllers.context import FOLLOWED, LATER, Context

Object = dict[str, Any]
log = logging.getLogger("fairlead.controllers")

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
_ABSENT_REMEMBERED = 500


class Vertex(msgspec.Struct, frozen=True):
    """An object in the graph of owners."""

    resource: Resource
    namespace: str
    name: str
    uid: str
    owners: tuple[Object, ...]
    finalizers: tuple[str, ...]
    terminating: bool

    @property
    def waits_for_dependents(self) -> bool:
        return self.terminating and FOREGROUND in self.finalizers

    @property
    def orphans_dependents(self) -> bool:
        return self.terminating and ORPHAN in self.finalizers


def vertex_of(obj: Object, resource: Resource | None = None) -> Vertex | None:
    """The object's place in the graph; None for kinds that are not served. `resource`: of a custom object."""
    resource = resource or by_kind(obj.get("apiVersion", ""), obj.get("kind", ""))
    if resource is None:
        return None
    metadata = obj["metadata"]
    return Vertex(
        resource,
        metadata.get("namespace", ""),
        metadata["name"],
        metadata["uid"],
        tuple(metadata.get("ownerReferences") or ()),
        tuple(metadata.get("finalizers") or ()),
        pods.is_terminating(obj),
    )


class Graph:
    """Who depends on whom."""

    def __init__(self) -> None:
        self.vertices: dict[str, Vertex] = {}
        self._dependents: dict[str, set[str]] = {}

    def put(self, vertex: Vertex) -> Vertex | None:
        """Add or replace; returns what was there."""
        before = self.remove(vertex.uid)
        self.vertices[vertex.uid] = vertex
        for reference in vertex.owners:
            self._dependents.setdefault(reference["uid"], set()).add(vertex.uid)
        return before

    def remove(self, uid: str) -> Vertex | None:
        """Remove; returns what was there. What depends on it stays known."""
        before = self.vertices.pop(uid, None)
        if before is not None:
            for reference in before.owners:
                known = self._dependents.get(reference["uid"])
                if known is not None:
                    known.discard(uid)
                    if not known:
                        del self._dependents[reference["uid"]]
        return before

    def dependents(self, uid: str) -> list[Vertex]:
        """What names it as an owner."""
        return [self.vertices[d] for d in self._dependents.get(uid, ()) if d in self.vertices]

    def blocking(self, uid: str) -> list[Vertex]:
        """The dependents that must be gone before it may go."""
        return [
            d for d in self.dependents(uid) if any(r["uid"] == uid and r.get("blockOwnerDeletion") for r in d.owners)
        ]


class Verdict(msgspec.Struct, frozen=True):
    """What to do with an object: let go of some owners, or delete it, or nothing."""

    release: tuple[str, ...] = ()
    delete: PropagationPolicy | None = None


def judge(vertex: Vertex, solid: list[str], dangling: list[str], waiting: list[str], has_dependents: bool) -> Verdict:
    """Upstream's attemptToDeleteItem. The lists hold owners' uids: there, gone, and waiting for this to be gone."""
    if solid:
        return Verdict(release=tuple(dangling + waiting))
    if waiting and has_dependents:
        return Verdict(delete="Foreground")
    if ORPHAN in vertex.finalizers:
        return Verdict(delete="Orphan")
    return Verdict(delete="Foreground" if FOREGROUND in vertex.finalizers else "Background")


class GarbageCollector:
    """Follows every kind and cleans up."""

    def __init__(self, context: Context) -> None:
        self._client, self._customs = context.client, context.customs
        self._graph = Graph()
        self._absent: OrderedDict[str, None] = OrderedDict()  # uids of owners the server did not have
        self._queue: WorkQueue[str] = WorkQueue()
        for resource in (*FOLLOWED, *LATER):
            context.on(resource, self._on_change)
        context.customs.on(lambda resource, before, after: self._on_change(before, after, resource))

    async def run(self) -> None:
        """Until cancelled."""
        await work(self._queue, self._reconcile, "garbage", workers=8)

    def _on_change(self, before: Object | None, after: Object | None, resource: Resource | None = None) -> None:
        if before is not None and (after is None or before["metadata"]["uid"] != after["metadata"]["uid"]):
            self._on_gone(before["metadata"]["uid"])
        vertex = vertex_of(after, resource) if after is not None else None
        if vertex is None:
            return
        was = self._graph.put(vertex)
        if vertex.waits_for_dependents or vertex.orphans_dependents:
            self._queue.add(vertex.uid)
        elif vertex.owners and not vertex.terminating and (was is None or was.owners != vertex.owners):
            owner_vertices = [self._graph.vertices.get(r["uid"]) for r in vertex.owners]
            if any(
                o is None or o.waits_for_dependents or o.namespace not in {"", vertex.namespace} for o in owner_vertices
            ):
                self._queue.add(vertex.uid)
        if was is not None and was.owners != vertex.owners:
            self._wake_owners(was)

    def _on_gone(self, uid: str) -> None:
        vertex = self._graph.remove(uid)
        for dependent in self._graph.dependents(uid):
            self._queue.add(dependent.uid)
        if vertex is not None:
            self._wake_owners(vertex)

    def _wake_owners(self, vertex: Vertex) -> None:
        """An owner that waits for its dependents may be able to go now."""
        for reference in vertex.owners:
            owner = self._graph.vertices.get(reference["uid"])
            if owner is not None and owner.waits_for_dependents:
                self._queue.add(owner.uid)

    async def _reconcile(self, uid: str) -> None:
        vertex = self._graph.vertices.get(uid)
        if vertex is None:
            return
        try:
            if vertex.orphans_dependents:
                await asyncio.gather(*(self._release(d, (uid,)) for d in self._graph.dependents(uid)))
                await self._remove_finalizer(vertex, ORPHAN)
            elif vertex.waits_for_dependents:
                if not self._graph.blocking(uid):
                    await self._remove_finalizer(vertex, FOREGROUND)
                for dependent in self._graph.dependents(uid):
                    if not dependent.terminating:
                        self._queue.add(dependent.uid)
            elif not vertex.terminating and vertex.owners:
                await self._collect(vertex)
        except StatusError as error:
            if not is_gone(error):
                raise

    async def _collect(self, vertex: Vertex) -> None:
        solid: list[str] = []
        dangling: list[str] = []
        waiting: list[str] = []
        for reference in vertex.owners:
            owner = self._graph.vertices.get(reference["uid"])
            if owner is not None and owner.namespace in {"", vertex.namespace}:
                blocks = owner.waits_for_dependents and reference.get("blockOwnerDeletion")
                (waiting if blocks or owner.waits_for_dependents else solid).append(reference["uid"])
            elif owner is None and await self._exists(reference, vertex.namespace):
                solid.append(reference["uid"])
            else:
                dangling.append(reference["uid"])
        if solid and not dangling and not waiting:
            return
        dependents = self._graph.dependents(vertex.uid)
        verdict = judge(vertex, solid, dangling, waiting, bool(dependents))
        if verdict.delete is None:
            if verdict.release:
                await self._release(vertex, verdict.release)
            return
        log.debug("garbage: deleting %s %s/%s", vertex.resource.plural, vertex.namespace, vertex.name)
        try:
            await self._client.delete(
                vertex.resource,
                vertex.name,
                vertex.namespace,
                propagation_policy=verdict.delete,
                preconditions={"uid": vertex.uid},
            )
        except StatusError as error:
            if not is_conflict(error):
                raise  # on a conflict it is another object by now

    async def _exists(self, reference: Object, namespace: str) -> bool:
        """Asked of the server, unless it is known to be gone: uids are never used again."""
        uid = reference["uid"]
        if uid in self._absent:
            return False
        resource = self._customs.by_kind(reference["apiVersion"], reference["kind"])
        if resource is None:
            return True
        try:
            found = await self._client.get(resource, reference["name"], namespace if resource.namespaced else "")
        except StatusError as error:
            if not is_gone(error):
                raise
        else:
            if found["metadata"]["uid"] == uid:
                return True
        self._absent[uid] = None
        if len(self._absent) > _ABSENT_REMEMBERED:
            self._absent.popitem(last=False)
        return False

    async def _release(self, vertex: Vertex, uids: tuple[str, ...]) -> None:
        patch: Object = {"metadata": {"uid": vertex.uid, "ownerReferences": []}}
        patch["metadata"]["ownerReferences"] = [{"$patch": "delete", "uid": u} for u in uids]
        try:
            await self._client.patch(vertex.resource, vertex.name, patch, vertex.namespace, "strategic")
        except StatusError as error:
            if error.code == 415:  # custom resources know no strategic merge
                await self._release_by_merge(vertex, uids)
            elif not is_gone(error):
                raise

    async def _release_by_merge(self, vertex: Vertex, uids: tuple[str, ...]) -> None:
        live = await self._client.get(vertex.resource, vertex.name, vertex.namespace)
        metadata = live["metadata"]
        if metadata["uid"] != vertex.uid:
            return
        kept = [reference for reference in metadata.get("ownerReferences") or () if reference["uid"] not in uids]
        patch = {"metadata": {"resourceVersion": metadata["resourceVersion"], "ownerReferences": kept}}
        await self._client.patch(vertex.resource, vertex.name, patch, vertex.namespace)

    async def _remove_finalizer(self, vertex: Vertex, finalizer: str) -> None:
        live = await self._client.get(vertex.resource, vertex.name, vertex.namespace)
        metadata = live["metadata"]
        if metadata["uid"] != vertex.uid or finalizer not in (metadata.get("finalizers") or []):
            return
        kept = [f for f in metadata["finalizers"] if f != finalizer]
        patch = {"metadata": {"resourceVersion": metadata["resourceVersion"], "finalizers": kept}}
        await self._client.patch(vertex.resource, vertex.name, patch, vertex.namespace)
