"""For the scheduler: what pods' claims let it do, and giving those that wait their volumes once a node is chosen.

Stands between the scheduler and `podvolumes`. Upstream: pkg/scheduler/framework/plugins/volumebinding (Reserve and
PreBind). Invariant: a volume that was chosen for a claim counts as taken at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fairlead.api.kinds import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, STORAGECLASSES
from fairlead.api.storage import SELECTED_NODE, claims_of, is_bound
from fairlead.controllers import pods, podvolumes, volumebinding
from fairlead.controllers.context import Context

Object = dict[str, Any]

PATIENCE_SECONDS = 600.0  # for claims to be bound after a node was chosen, as upstream


class ClaimBinding:
    """Made by the scheduler; `retry` is called when a claim, volume or class changed that pods may wait for."""

    def __init__(self, context: Context, retry: Callable[[], None]) -> None:
        self._context, self._client, self._retry = context, context.client, retry
        self._claims, self._volumes = context.cache(PERSISTENTVOLUMECLAIMS), context.cache(PERSISTENTVOLUMES)
        self._classes = context.cache(STORAGECLASSES)
        self._changed = asyncio.Event()
        for resource in (PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, STORAGECLASSES):
            context.on(resource, self._on_change)

    @property
    def synced(self) -> bool:
        """Whether the claims there are, are known."""
        return self._context.later.synced.is_set()

    async def wait_until_synced(self) -> None:
        """Then `retry` is called."""
        await self._context.later.synced.wait()
        self._retry()

    def _on_change(self, before: Object | None, after: Object | None) -> None:
        self.wake()
        self._retry()

    def wake(self) -> None:
        """Something changed that `bind` may wait for."""
        self._changed.set()
        self._changed = asyncio.Event()

    def of(self, pod: Object, placed: Iterable[Object]) -> podvolumes.PodVolumes:
        """What the pod's claims ask of its place. `placed`: the pods that have one."""
        namespace = pod["metadata"]["namespace"]
        storage = podvolumes.Storage(
            claim=lambda name: self._claims.get(name, namespace),
            volumes={v["metadata"]["name"]: v for v in self._volumes},
            storage_class=lambda name: self._classes.get(name) if name else None,
            in_use=lambda name: any(_uses(other, name, pod) for other in placed),
        )
        return podvolumes.of_pod(pod, storage)

    async def bind(self, choices: Sequence[podvolumes.Choice], node: str, going: Callable[[], bool]) -> bool:
        """Give the claims their volumes, or have them made, and wait until they are bound. False if `going` said that
        nobody wants them any more. Raises StatusError (a conflict: others were quicker), TimeoutError."""
        for choice in choices:
            if choice.volume is not None:
                kept = volumebinding.bound_volume(choice.volume, choice.claim)
                if kept is not choice.volume:
                    await self._client.update(PERSISTENTVOLUMES, kept)
            elif (choice.claim["metadata"].get("annotations") or {}).get(SELECTED_NODE) != node:
                metadata = choice.claim["metadata"]
                patch = {"metadata": {"uid": metadata["uid"], "annotations": {SELECTED_NODE: node}}}
                await self._client.patch(PERSISTENTVOLUMECLAIMS, metadata["name"], patch, metadata["namespace"])
        async with asyncio.timeout(PATIENCE_SECONDS):
            while going():
                if all(self._has_volume(choice.claim) for choice in choices):
                    return True
                await self._changed.wait()
        return False

    def _has_volume(self, claim: Object) -> bool:
        metadata = claim["metadata"]
        now = self._claims.get(metadata["name"], metadata["namespace"])
        return now is not None and now["metadata"]["uid"] == metadata["uid"] and is_bound(now)


def _uses(other: Object, claim: str, pod: Object) -> bool:
    """Whether another pod of the namespace uses the claim."""
    there, here = other["metadata"], pod["metadata"]
    if there["uid"] == here["uid"] or there["namespace"] != here["namespace"] or pods.is_finished(other):
        return False
    return any(name == claim for name, _ in claims_of(other))
