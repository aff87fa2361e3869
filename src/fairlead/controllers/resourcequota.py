"""ResourceQuotas: what is used of them.

The API server charges a quota in the commit that creates an object; here it is counted anew when the quota changes, and
when something that counts goes. Upstream: pkg/controller/resourcequota. Invariant: the objects are listed after the
quota was read, and the count is written only if the quota is still the same: a creation in between, which would have
changed it, is never forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from fairlead.api import kinds, quota
from fairlead.api.errors import StatusError
from fairlead.api.kinds import CUSTOMRESOURCEDEFINITIONS, PODS, RESOURCEQUOTAS, Resource
from fairlead.client.rest import is_gone
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import pods
from fairlead.controllers.context import FOLLOWED, LATER, Context
from fairlead.controllers.podcontrol import key_of
from fairlead.controllers.replicaset import same_status

Object = dict[str, Any]

_RESYNC_SECONDS = 300.0  # upstream's; for kinds that nobody follows


def countable(served: Iterable[Resource]) -> list[Resource]:
    """The kinds whose objects can be counted, each once however many versions there are."""
    return list({r.group_plural: r for r in served if r.stored and r.namespaced}.values())


def frees(resource: Resource, before: Object | None, after: Object | None) -> bool:
    """Whether a change can leave less in use than before."""
    if after is None or before is None:
        return after is None
    if resource == PODS:
        return pods.is_finished(after) != pods.is_finished(before)
    return quota.measured_on_update(resource) and before.get("spec") != after.get("spec")


class ResourceQuotaController:
    """Keeps the status of every ResourceQuota."""

    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._quotas = context.cache(RESOURCEQUOTAS)
        self._queue: WorkQueue[str] = WorkQueue()
        context.on(RESOURCEQUOTAS, self._on_quota)
        context.on(CUSTOMRESOURCEDEFINITIONS, self._on_definition)
        for resource in (*FOLLOWED, *LATER):
            if resource.namespaced:
                context.on(resource, partial(self._on_change, resource))
        context.customs.on(self._on_change)

    async def run(self) -> None:
        """Until cancelled."""
        for known in self._quotas:
            self._queue.add(key_of(known))
        await work(self._queue, self._reconcile, "resourcequota")

    def _on_quota(self, before: Object | None, after: Object | None) -> None:
        if after is not None and (before is None or before.get("spec") != after.get("spec")):
            self._queue.add(key_of(after))

    def _on_definition(self, before: Object | None, after: Object | None) -> None:
        """Objects that could not be counted before may be now."""
        for known in self._quotas:
            self._queue.add(key_of(known))

    def _on_change(self, resource: Resource, before: Object | None, after: Object | None) -> None:
        if not len(self._quotas) or not frees(resource, before, after):
            return
        namespace = (after or before or {})["metadata"].get("namespace", "")
        for known in self._quotas.list(namespace) if namespace else ():
            if any(quota.counts_for(resource, name) for name in (known.get("spec") or {}).get("hard") or ()):
                self._queue.add(key_of(known))

    async def _reconcile(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        try:
            current = await self._client.get(RESOURCEQUOTAS, name, namespace)
        except StatusError as error:
            if is_gone(error):
                return
            raise
        hard = (current.get("spec") or {}).get("hard") or {}
        used: dict[str, str] = {}
        for resource in countable((*kinds.RESOURCES, *self._context.customs.resources)):
            if any(quota.counts_for(resource, limited) for limited in hard):
                there = await self._objects(resource, namespace)
                used |= quota.render(quota.counted(current, resource, there, self._context.now()))
        status = {"hard": hard, "used": dict(sorted(used.items()))}
        if not same_status(current.get("status"), status):
            await self._client.update_status(RESOURCEQUOTAS, {**current, "status": status})
        self._queue.add_after(key, _RESYNC_SECONDS)

    async def _objects(self, resource: Resource, namespace: str) -> list[Object]:
        """The objects, or of kinds that are only counted as many empty ones."""
        if resource == PODS or quota.measured_on_update(resource):
            return list((await self._client.list(resource, namespace))["items"])
        async for page in self._client.pages(resource, namespace, limit=1):
            return [{}] * (len(page["items"]) + (page["metadata"].get("remainingItemCount") or 0))
        return []
