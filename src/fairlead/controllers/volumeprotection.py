"""Lets claims and volumes go that were deleted, once nothing uses them; and makes the claims of ephemeral volumes.

Upstream: pkg/controller/volume/{pvcprotection,pvprotection,ephemeral}. Invariant: a claim keeps its finalizer while
there is a pod on a node that uses it (the server is asked before it goes), a volume while it is bound.
"""

from __future__ import annotations

from typing import Any

from fairlead.api.errors import StatusError
from fairlead.api.kinds import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS, Resource
from fairlead.api.storage import CLAIM_IN_USE, VOLUME_IN_USE, claims_of, ephemeral_claim, is_of_pod
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers import owners, pods
from fairlead.controllers.context import Context
from fairlead.controllers.podcontrol import key_of

Object = dict[str, Any]

_BY_CLAIM = "claim"


def claim_keys(pod: Object) -> list[str]:
    """The claims a pod uses, as `namespace/name`."""
    return [f"{pod['metadata']['namespace']}/{name}" for name, _ in claims_of(pod)]


def uses(pod: Object, claim: Object) -> bool:
    """Whether a pod keeps a claim from going: it is on a node."""
    return bool(pods.node_name(pod)) and key_of(claim) in claim_keys(pod)


class VolumeProtectionController:
    """Takes finalizers away when it is time."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._claims, self._volumes = context.cache(PERSISTENTVOLUMECLAIMS), context.cache(PERSISTENTVOLUMES)
        self._pods = context.cache(PODS)
        self._pods.add_index(_BY_CLAIM, claim_keys)
        self._queue: WorkQueue[str] = WorkQueue()  # `namespace/name` of claims, `/name` of volumes
        context.on(PERSISTENTVOLUMECLAIMS, self._on_claim)
        context.on(PERSISTENTVOLUMES, self._on_volume)
        context.on(PODS, self._on_pod)

    async def run(self) -> None:
        """Until cancelled."""
        for claim in self._claims:
            self._on_claim(None, claim)
        for volume in self._volumes:
            self._on_volume(None, volume)
        await work(self._queue, self._reconcile, "volumeprotection")

    def _on_claim(self, before: Object | None, after: Object | None) -> None:
        if after is not None and pods.is_terminating(after):
            self._queue.add(key_of(after))

    def _on_volume(self, before: Object | None, after: Object | None) -> None:
        if after is not None and pods.is_terminating(after):
            self._queue.add(f"/{after['metadata']['name']}")

    def _on_pod(self, before: Object | None, after: Object | None) -> None:
        if before is not None and after is None:
            for key in claim_keys(before):
                self._queue.add(key)

    async def _reconcile(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        if not namespace:
            volume = self._volumes.get(name)
            if volume is not None and (volume.get("status") or {}).get("phase") != "Bound":
                await self._let_go(PERSISTENTVOLUMES, volume, VOLUME_IN_USE)
            return
        claim = self._claims.get(name, namespace)
        if claim is None or not pods.is_terminating(claim) or CLAIM_IN_USE not in _finalizers(claim):
            return
        if any(uses(pod, claim) for pod in self._pods.by_index(_BY_CLAIM, key)):
            return
        there = (await self._client.list(PODS, namespace))["items"]  # the cache may lack the newest
        if not any(uses(pod, claim) for pod in there):
            await self._let_go(PERSISTENTVOLUMECLAIMS, claim, CLAIM_IN_USE)

    async def _let_go(self, resource: Resource, obj: Object, finalizer: str) -> None:
        finalizers = _finalizers(obj)
        if pods.is_terminating(obj) and finalizer in finalizers:
            rest = [name for name in finalizers if name != finalizer]
            await self._client.update(resource, {**obj, "metadata": {**obj["metadata"], "finalizers": rest}})


def _finalizers(obj: Object) -> list[str]:
    return list(obj["metadata"].get("finalizers") or ())


def claim_for(pod: Object, volume: Object) -> Object:
    """The claim of an ephemeral volume, which goes with its pod."""
    template = volume["ephemeral"]["volumeClaimTemplate"]
    given = template.get("metadata") or {}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            **{part: given[part] for part in ("labels", "annotations") if given.get(part)},
            "name": ephemeral_claim(pod, volume),
            "namespace": pod["metadata"]["namespace"],
            "ownerReferences": [owners.controller_reference(pod, PODS)],
        },
        "spec": template["spec"],
    }


class EphemeralVolumeController:
    """Makes a claim for every ephemeral volume of a pod."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._pods, self._claims = context.cache(PODS), context.cache(PERSISTENTVOLUMECLAIMS)
        self._recorder = context.recorder("ephemeral_volume")
        self._queue: WorkQueue[str] = WorkQueue()
        context.on(PODS, self._on_pod)
        context.on(PERSISTENTVOLUMECLAIMS, self._on_claim)

    async def run(self) -> None:
        """Until cancelled."""
        for pod in self._pods:
            self._on_pod(None, pod)
        await work(self._queue, self._reconcile, "ephemeralvolumes")

    def _on_pod(self, before: Object | None, after: Object | None) -> None:
        if after is not None and before is None and any(own for _, own in claims_of(after)):
            self._queue.add(key_of(after))

    def _on_claim(self, before: Object | None, after: Object | None) -> None:
        """One that went is made again, for whichever pod has the name by now."""
        owner = owners.controller_of(before) if before is not None and after is None else None
        if owner is not None and before is not None and owner["kind"] == PODS.kind:
            self._queue.add(f"{before['metadata']['namespace']}/{owner['name']}")

    async def _reconcile(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        pod = self._pods.get(name, namespace)
        if pod is None or pods.is_terminating(pod) or pods.is_finished(pod):
            return
        for volume in pod["spec"].get("volumes") or ():
            if volume.get("ephemeral"):
                await self._make(pod, volume)

    async def _make(self, pod: Object, volume: Object) -> None:
        claim = claim_for(pod, volume)
        there = self._claims.get(claim["metadata"]["name"], claim["metadata"]["namespace"])
        if there is not None:
            if not is_of_pod(there, pod):
                text = f"PVC {key_of(there)} was not created for pod {key_of(pod)} (pod is not owner)"
                self._recorder.event(pod, "Warning", "EphemeralVolumeConflict", text)
            return
        try:
            await self._client.create(PERSISTENTVOLUMECLAIMS, claim)
        except StatusError as error:
            if error.reason != "AlreadyExists":
                self._recorder.event(pod, "Warning", "FailedCreate", f"PVC creation failed: {error}")
                raise
