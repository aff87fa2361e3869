"""Empties a namespace that is being deleted, then lets it go.

Upstream: pkg/controller/namespace/deletion. Invariant: the finalizer is removed only after the server itself said that
nothing is left.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from fairlead.api import times
from fairlead.api.errors import StatusError
from fairlead.api.kinds import NAMESPACES, RESOURCES, TWINS, Resource
from fairlead.client.rest import is_conflict, is_gone
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import pods
from fairlead.controllers.context import FOLLOWED, LATER, Context

Object = dict[str, Any]

FINALIZER = "kubernetes"
CONTENTS: tuple[Resource, ...] = tuple(r for r in RESOURCES if r.namespaced and r.stored and r not in TWINS)
_LOOK_AGAIN = 1.0  # s; what is followed says itself when it goes


def conditions(
    namespace: Object,
    remaining: Mapping[str, int],
    finalizers: Mapping[str, int],
    failure: str,
    now: datetime.datetime,
) -> list[Object]:
    """The status conditions, in upstream's words. `remaining`: objects by group and plural; `finalizers`: by name."""
    left = ", ".join(f"{name} has {number} resource instances" for name, number in sorted(remaining.items()))
    held = ", ".join(f"{name} in {number} resource instances" for name, number in sorted(finalizers.items()))
    said = [
        ("NamespaceDeletionDiscoveryFailure", "", "ResourcesDiscovered", "All resources successfully discovered"),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            "",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            failure,
            "ContentDeletionFailed" if failure else "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            f"Some resources are remaining: {left}" if left else "",
            "SomeResourcesRemain" if left else "ContentRemoved",
            "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            f"Some content in the namespace has finalizers remaining: {held}" if held else "",
            "SomeFinalizersRemain" if held else "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ]
    result = list((namespace.get("status") or {}).get("conditions") or [])
    for kind, trouble, reason, fine in said:
        new = {
            "type": kind,
            "status": "True" if trouble else "False",
            "reason": reason,
            "message": trouble or fine,
            "lastTransitionTime": times.render(now),
        }
        before = next((c for c in result if c["type"] == kind), None)
        if before is None:
            result.append(new)
        elif (before["status"], before.get("message")) != (new["status"], new["message"]):
            if before["status"] == new["status"]:
                new["lastTransitionTime"] = before["lastTransitionTime"]
            result = [new if c is before else c for c in result]
    return result


class NamespaceController:
    """Ends namespaces."""

    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._namespaces = context.cache(NAMESPACES)
        self._queue: WorkQueue[str] = WorkQueue()
        context.informer.on(NAMESPACES, self._on_namespace)
        for resource in (*FOLLOWED, *LATER):
            if resource.namespaced:
                context.on(resource, self._on_content)
        context.customs.on(lambda resource, before, after: self._on_content(before, after))

    async def run(self) -> None:
        """Until cancelled."""
        await work(self._queue, self._reconcile, "namespace")

    def _on_namespace(self, before: Object | None, after: Object | None) -> None:
        if after is not None and pods.is_terminating(after):
            self._queue.add(after["metadata"]["name"])

    def _on_content(self, before: Object | None, after: Object | None) -> None:
        if after is None and before is not None:
            namespace = self._namespaces.get(before["metadata"].get("namespace", ""))
            if namespace is not None and pods.is_terminating(namespace):
                self._queue.add(namespace["metadata"]["name"])

    async def _reconcile(self, name: str) -> None:
        namespace = self._namespaces.get(name)
        if namespace is None or not pods.is_terminating(namespace):
            return
        if FINALIZER not in (namespace["spec"].get("finalizers") or []):
            return
        remaining: dict[str, int] = {}
        finalizers: dict[str, int] = {}
        failure = ""
        customs = (resource for resource in self._context.customs.resources if resource.namespaced)
        for resource in (*CONTENTS, *customs):
            try:
                for obj in await self._emptied(resource, name):
                    remaining[resource.group_plural] = remaining.get(resource.group_plural, 0) + 1
                    for finalizer in obj["metadata"].get("finalizers") or []:
                        finalizers[finalizer] = finalizers.get(finalizer, 0) + 1
            except StatusError as error:
                failure = f"Failed to delete all resource types, 1 remaining: {error}"
                remaining.setdefault(resource.group_plural, 1)
        try:
            await self._conclude(namespace, remaining, finalizers, failure)
        except StatusError as error:
            if is_conflict(error):
                self._queue.add_after(name, 0.01)
            elif not is_gone(error):
                raise
        if failure:
            raise StatusError(500, "InternalError", failure)

    async def _emptied(self, resource: Resource, namespace: str) -> list[Object]:
        """Delete everything of a kind; what is left, which was asked of the server."""
        found: list[Object] = (await self._client.list(resource, namespace))["items"]
        if not found:
            return found
        if any(not pods.is_terminating(obj) for obj in found):
            await self._client.delete_collection(resource, namespace, propagation_policy="Background")
            found = (await self._client.list(resource, namespace))["items"]
        return found

    async def _conclude(
        self, namespace: Object, remaining: Mapping[str, int], finalizers: Mapping[str, int], failure: str
    ) -> None:
        name = namespace["metadata"]["name"]
        if remaining:
            said = conditions(namespace, remaining, finalizers, failure, self._context.now())
            status = {**(namespace.get("status") or {}), "phase": "Terminating", "conditions": said}
            if status != namespace.get("status"):
                await self._client.update_status(NAMESPACES, {**namespace, "status": status})
            self._queue.add_after(name, _LOOK_AGAIN)
            return
        kept = [f for f in namespace["spec"]["finalizers"] if f != FINALIZER]
        final = {**namespace, "spec": {**namespace["spec"], "finalizers": kept}}
        await self._client.update(NAMESPACES, final, subresource="finalize")
