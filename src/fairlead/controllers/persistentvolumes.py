"""Brings claims and volumes together: acts on what `volumebinding` decides.

Upstream: pkg/controller/volume/persistentvolume. Making and deleting volumes is the provisioners' work. Invariant:
every write carries the version it was decided on, and nothing is decided before the cache holds what was written here;
so no volume is given away twice.
"""

from __future__ import annotations

from typing import Any

from fairlead.api.errors import StatusError
from fairlead.api.kinds import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, STORAGECLASSES, Resource
from fairlead.api.storage import class_of, default_class, is_bound, names_a_class
from fairlead.client.rest import is_gone
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import pods, volumebinding
from fairlead.controllers.context import Context
from fairlead.controllers.expectations import Written
from fairlead.controllers.podcontrol import key_of

Object = dict[str, Any]

_ALL = "all"


class PersistentVolumeController:
    """One worker over both kinds: keys are `namespace/name` of claims and `/name` of volumes."""

    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._claims, self._volumes = context.cache(PERSISTENTVOLUMECLAIMS), context.cache(PERSISTENTVOLUMES)
        self._classes = context.cache(STORAGECLASSES)
        self._recorder = context.recorder("persistentvolume-controller")
        self._queue: WorkQueue[str] = WorkQueue()
        self._written = Written()
        self._deferred: set[str] = set()
        context.on(PERSISTENTVOLUMECLAIMS, self._on_claim)
        context.on(PERSISTENTVOLUMES, self._on_volume)
        context.on(STORAGECLASSES, self._on_class)

    async def run(self) -> None:
        """Until cancelled."""
        for claim in self._claims:
            self._queue.add(key_of(claim))
        for volume in self._volumes:
            self._queue.add(_volume_key(volume))
        await work(self._queue, self._reconcile, "persistentvolumes", workers=1)

    # -- what happens ----------------------------------------------------------------------------------------------

    def _on_claim(self, before: Object | None, after: Object | None) -> None:
        claim = after or before or {}
        self._see(claim, after is None)
        if after is not None:
            self._queue.add(key_of(after))
        volume = (claim.get("spec") or {}).get("volumeName")
        if volume:
            self._queue.add(f"/{volume}")
        elif after is None:
            for other in self._volumes:
                if volumebinding.refers_to(other, claim):
                    self._queue.add(_volume_key(other))

    def _on_volume(self, before: Object | None, after: Object | None) -> None:
        volume = after or before or {}
        self._see(volume, after is None)
        if after is not None:
            self._queue.add(_volume_key(after))
        reference = volume["spec"].get("claimRef")
        if reference:
            self._queue.add(f"{reference.get('namespace')}/{reference.get('name')}")
        else:
            self._queue_unbound(class_of(volume))

    def _on_class(self, before: Object | None, after: Object | None) -> None:
        self._queue_unbound((after or before or {})["metadata"]["name"])

    def _queue_unbound(self, name: str) -> None:
        """Claims that the class, or a volume of it, may help."""
        for claim in self._claims:
            if not is_bound(claim) and (class_of(claim) == name or not names_a_class(claim)):
                self._queue.add(key_of(claim))

    def _see(self, obj: Object, deleted: bool) -> None:
        metadata = obj["metadata"]
        self._written.saw(_ALL, metadata["uid"], metadata["resourceVersion"], deleted)
        if self._deferred and self._written.current(_ALL):
            for key in self._deferred:
                self._queue.add(key)
            self._deferred.clear()

    # -- one claim or volume ---------------------------------------------------------------------------------------

    async def _reconcile(self, key: str) -> None:
        if not self._written.current(_ALL):
            self._deferred.add(key)
            return
        namespace, _, name = key.partition("/")
        if namespace:
            claim = self._claims.get(name, namespace)
            if claim is not None:
                await self._serve_claim(claim)
        elif (volume := self._volumes.get(name)) is not None:
            await self._serve_volume(volume)

    async def _serve_claim(self, claim: Object) -> None:
        if not is_bound(claim) and not names_a_class(claim) and not claim["spec"].get("volumeName"):
            name = default_class(self._classes)
            if name:  # it came before there was one
                claim = {**claim, "spec": {**claim["spec"], "storageClassName": name}}
                await self._update(PERSISTENTVOLUMECLAIMS, claim)
                return
        volumes = {v["metadata"]["name"]: v for v in self._volumes}
        if pods.is_terminating(claim) and not is_bound(claim):
            return
        decided = volumebinding.plan_claim(claim, volumes, self._classes.get(class_of(claim)))
        if decided.bind is not None:
            await self._bind(claim, decided.bind)
            return
        if decided.event is not None:
            self._recorder.event(claim, *decided.event)
        if decided.provisioner:
            told = volumebinding.with_provisioner(claim, decided.provisioner)
            if told is not claim:
                claim = await self._update(PERSISTENTVOLUMECLAIMS, told)
        if decided.phase and (claim.get("status") or {}).get("phase") != decided.phase:
            await self._update_status(
                PERSISTENTVOLUMECLAIMS, claim, {**(claim.get("status") or {}), "phase": decided.phase}
            )

    async def _bind(self, claim: Object, volume: Object) -> None:
        """The volume first: whoever has its claimRef has it."""
        kept = volumebinding.bound_volume(volume, claim)
        if kept is not volume:
            kept = await self._update(PERSISTENTVOLUMES, kept)
        if (kept.get("status") or {}).get("phase") != "Bound":
            kept = await self._update_status(PERSISTENTVOLUMES, kept, {"phase": "Bound"})
        has = volumebinding.bound_claim(claim, kept)
        if has is not claim:
            has = await self._update(PERSISTENTVOLUMECLAIMS, has)
        status = volumebinding.bound_status(has, kept)
        if status != has.get("status"):
            await self._update_status(PERSISTENTVOLUMECLAIMS, has, status)

    async def _serve_volume(self, volume: Object) -> None:
        reference = volume["spec"].get("claimRef") or {}
        claim = self._claims.get(reference.get("name") or "", reference.get("namespace") or "")
        decided = volumebinding.plan_volume(volume, claim)
        before = (volume.get("status") or {}).get("phase")
        if decided.phase == "Released" != before and await self._is_claimed(reference):
            return
        if decided.event is not None:
            self._recorder.event(volume, *decided.event)
        if decided.unbind:
            await self._update(PERSISTENTVOLUMES, volumebinding.unbound_volume(volume))
        elif decided.phase and before != decided.phase:
            status = {"phase": decided.phase, **({"message": decided.message} if decided.message else {})}
            await self._update_status(PERSISTENTVOLUMES, volume, status)

    async def _is_claimed(self, reference: Object) -> bool:
        """Whether the claim is there after all: the cache may lack the newest."""
        try:
            found = await self._client.get(PERSISTENTVOLUMECLAIMS, reference["name"], reference["namespace"])
        except StatusError as error:
            if is_gone(error):
                return False
            raise
        return bool(found["metadata"]["uid"] == reference["uid"])

    async def _update(self, resource: Resource, obj: Object) -> Object:
        return self._note(resource, await self._client.update(resource, obj))

    async def _update_status(self, resource: Resource, obj: Object, status: Object) -> Object:
        return self._note(resource, await self._client.update_status(resource, {**obj, "status": status}))

    def _note(self, resource: Resource, obj: Object) -> Object:
        metadata = obj["metadata"]
        there = self._context.cache(resource).get(metadata["name"], metadata.get("namespace", ""))
        version = there["metadata"]["resourceVersion"] if there is not None else ""
        self._written.wrote(_ALL, metadata["uid"], metadata["resourceVersion"], version)
        return obj


def _volume_key(volume: Object) -> str:
    return f"/{volume['metadata']['name']}"
