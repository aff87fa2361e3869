"""Makes the volumes of the class `standard`: directories, one for each claim, on the machine of the node it is for.

Runs beside the controllers, as an external provisioner does beside upstream's. The nodes of `fairlead up` are on one
machine, this one, so a directory can be used from each of them, in every access mode; on a node that joined it is made
and removed by a pod there. Pods follow by the volume's node affinity. How much is written is not limited. Invariants: a
directory is made before its volume and goes before it; nothing outside of a machine's directory for volumes is ever
removed.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import shutil
from pathlib import Path
from typing import Any

import msgspec

from fairlead.api import nodenetworks, quantity
from fairlead.api.errors import StatusError
from fairlead.api.kinds import NODES, PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, STORAGECLASSES
from fairlead.api.storage import (
    PROVISIONED_BY,
    SELECTED_NODE,
    STORAGE_PROVISIONER,
    capacity,
    class_of,
    is_bound,
    wanted,
)
from fairlead.client import Client, Watched
from fairlead.client.events import EventRecorder
from fairlead.client.informer import Informer
from fairlead.client.rest import is_gone
from fairlead.client.workqueue import WorkQueue, work
from fairlead.cluster import errands

Object = dict[str, Any]

log = logging.getLogger("fairlead.cluster")

NAME = "fairlead.dev/host-directory"
FINALIZER = "external-provisioner.volume.kubernetes.io/finalizer"
_HOSTNAME = "kubernetes.io/hostname"
_SOON, _LATER = 0.2, 5.0  # s until an errand is looked at again, is tried again


def is_asked(claim: Object, storage_class: Object | None) -> bool:
    """Whether a claim waits for a volume of ours, and may have it now. Pure."""
    if storage_class is None or storage_class.get("provisioner") != NAME or claim["spec"].get("volumeName"):
        return False
    annotations = claim["metadata"].get("annotations") or {}
    if annotations.get(STORAGE_PROVISIONER) != NAME or claim["metadata"].get("deletionTimestamp"):
        return False
    return storage_class.get("volumeBindingMode") != "WaitForFirstConsumer" or bool(annotations.get(SELECTED_NODE))


def refusal(claim: Object, storage_class: Object) -> str:
    """Why there can't be a directory for the claim; empty if there can. Pure."""
    if claim["spec"].get("selector"):
        return "claim Selector is not supported"
    if claim["spec"].get("volumeMode") == "Block":
        return "block volumes are not supported: a directory is a file system"
    unknown = sorted(storage_class.get("parameters") or ())
    return (
        f"unknown parameters of StorageClass {storage_class['metadata']['name']}: {', '.join(unknown)}"
        if unknown
        else ""
    )


class Place(msgspec.Struct, frozen=True):
    """Where volumes are: the machine's directory for them, and the label of the nodes that reach it. `joined`: the node
    whose machine it is; empty for this machine."""

    root: Path
    label: tuple[str, str]
    joined: str = ""


def place_on(node: Object | None, cluster: str, root: Path) -> Place | None:
    """Where a volume goes whose first pod is on that node; None: the node does not say. Without a node it is this
    machine, where the cluster's own nodes are. Pure."""
    if node is None or (node["metadata"].get("labels") or {}).get(nodenetworks.MACHINE) == cluster:
        return Place(root, (nodenetworks.MACHINE, cluster))
    name, there = node["metadata"]["name"], nodenetworks.annotation(node, nodenetworks.VOLUMES)
    return Place(Path(there), (_HOSTNAME, name), name) if there.startswith("/") else None


def volume_for(claim: Object, storage_class: Object, directory: Path, label: tuple[str, str]) -> Object:
    """The volume, kept for the claim, for nodes with that label. Pure."""
    metadata, spec = claim["metadata"], claim["spec"]
    reference = {
        "kind": "PersistentVolumeClaim",
        "apiVersion": "v1",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "resourceVersion": metadata["resourceVersion"],
    }
    options = storage_class.get("mountOptions")
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": f"pvc-{metadata['uid']}",
            "annotations": {PROVISIONED_BY: NAME},
            "finalizers": [FINALIZER],
        },
        "spec": {
            "accessModes": spec["accessModes"],
            "capacity": {"storage": wanted(claim)},
            "claimRef": reference,
            "hostPath": {"path": str(directory), "type": "Directory"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [_is(*label)]}]}},
            "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy") or "Delete",
            "storageClassName": class_of(claim),
            "volumeMode": spec.get("volumeMode") or "Filesystem",
            **({"mountOptions": options} if options else {}),
        },
    }


def is_over(volume: Object) -> bool:
    """Whether a volume of ours has nobody any more and its directory is to go, or it is let go with it kept. Pure."""
    metadata, phase = volume["metadata"], (volume.get("status") or {}).get("phase")
    if (metadata.get("annotations") or {}).get(PROVISIONED_BY) != NAME or phase == "Bound":
        return False
    deletes = volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
    return (deletes and phase in ("Released", "Failed")) or bool(metadata.get("deletionTimestamp"))


def host_of(volume: Object) -> str:
    """The node that joined on whose machine the directory is; empty: this one. Pure."""
    terms = ((volume["spec"].get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms") or ()
    names = [e["values"][0] for term in terms for e in term.get("matchExpressions") or () if e.get("key") == _HOSTNAME]
    return str(names[0]) if names else ""


def _is(key: str, value: str) -> Object:
    return {"key": key, "operator": "In", "values": [value]}


class Provisioner:
    """Serves claims and volumes until cancelled. Keys are `namespace/name` of claims and `/name` of volumes."""

    def __init__(self, client: Client, cluster: str, directory: Path) -> None:
        self._client, self._cluster, self._directory = client, cluster, directory
        watched = (PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, STORAGECLASSES)
        self._informer = Informer(client, *(Watched(resource) for resource in watched))
        self._claims, self._volumes, self._classes = (self._informer.cache(resource) for resource in watched)
        self._recorder = EventRecorder(client, NAME)
        self._queue: WorkQueue[str] = WorkQueue()
        self._begun: set[str] = set()  # the UIDs of claims whose directory is being made
        self._emptied: set[str] = set()  # the names of volumes whose directory is gone; the cache may not show it yet
        self._informer.on(PERSISTENTVOLUMECLAIMS, self._on_claim)
        self._informer.on(PERSISTENTVOLUMES, self._on_volume)
        self._informer.on(STORAGECLASSES, self._on_class)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._informer.run(), name="provisioner-informer")
            await self._informer.synced.wait()
            await self._recorder.start()
            try:
                await work(self._queue, self._reconcile, "provisioner")
            finally:
                await self._recorder.stop()

    def _on_claim(self, before: Object | None, after: Object | None) -> None:
        if after is not None:
            self._queue.add(f"{after['metadata']['namespace']}/{after['metadata']['name']}")

    def _on_volume(self, before: Object | None, after: Object | None) -> None:
        if after is not None:
            self._queue.add(f"/{after['metadata']['name']}")
        elif before is not None:
            self._emptied.discard(before["metadata"]["name"])

    def _on_class(self, before: Object | None, after: Object | None) -> None:
        for claim in self._claims:
            self._on_claim(None, claim)

    async def _reconcile(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        if namespace:
            claim = self._claims.get(name, namespace)
            if claim is not None:
                await self._serve(claim)
        elif (volume := self._volumes.get(name)) is not None and is_over(volume):
            await self._end(volume)

    async def _node(self, name: str) -> Object | None:
        try:
            return await self._client.get(NODES, name)
        except StatusError as error:
            if is_gone(error):
                return None
            raise

    async def _there(self, key: str, errand: errands.Errand) -> bool:
        """Whether it is done on the node; if not, `key` is looked at again."""
        outcome = await errands.run(self._client, errand)
        if outcome != "done":
            self._queue.add_after(key, _SOON if outcome == "underway" else _LATER)
        if outcome == "failed":
            log.warning("%s on node %s failed; trying again", shlex.join(errand.command), errand.node)
        return outcome == "done"

    async def _serve(self, claim: Object) -> None:
        storage_class = self._classes.get(class_of(claim))
        if is_bound(claim):
            await self._grow(claim)
        elif storage_class is not None and is_asked(claim, storage_class):
            await self._provision(claim, storage_class)

    async def _provision(self, claim: Object, storage_class: Object) -> None:
        metadata = claim["metadata"]
        name = f"{metadata['namespace']}/{metadata['name']}"
        if self._volumes.get(f"pvc-{metadata['uid']}") is not None:
            return
        why, mode = refusal(claim, storage_class), storage_class["metadata"]["name"]
        if why:
            text = f'failed to provision volume with StorageClass "{mode}": {why}'
            self._recorder.event(claim, "Warning", "ProvisioningFailed", text)
            return
        chosen = (metadata.get("annotations") or {}).get(SELECTED_NODE) or ""
        node = await self._node(chosen) if chosen else None
        if chosen and node is None:
            return  # the scheduler takes its choice back, and the claim comes again
        place = place_on(node, self._cluster, self._directory)
        if place is None:
            text = f"node {chosen} does not say where volumes are kept there (annotation {nodenetworks.VOLUMES})"
            self._recorder.event(claim, "Warning", "ProvisioningFailed", text)
            return
        if metadata["uid"] not in self._begun:
            self._begun.add(metadata["uid"])
            text = f'External provisioner is provisioning volume for claim "{name}"'
            self._recorder.event(claim, "Normal", "Provisioning", text)
        directory = place.root / f"pvc-{metadata['uid']}_{metadata['namespace']}_{metadata['name']}"
        if not place.joined:
            await asyncio.to_thread(_make, directory)
        elif not await self._there(name, _making(metadata["uid"], place, directory.name)):
            return
        volume = volume_for(claim, storage_class, directory, place.label)
        try:
            await self._client.create(PERSISTENTVOLUMES, volume)
        except StatusError as error:
            if error.reason == "AlreadyExists":
                return
            text = f'failed to provision volume with StorageClass "{mode}": {error}'
            self._recorder.event(claim, "Warning", "ProvisioningFailed", text)
            raise
        self._begun.discard(metadata["uid"])
        text = f"Successfully provisioned volume {volume['metadata']['name']}"
        self._recorder.event(claim, "Normal", "ProvisioningSucceeded", text)

    async def _grow(self, claim: Object) -> None:
        """A directory has whatever room it is said to have."""
        volume = self._volumes.get(claim["spec"]["volumeName"])
        if volume is None or (volume["metadata"].get("annotations") or {}).get(PROVISIONED_BY) != NAME:
            return
        room = wanted(claim)
        if quantity.compare(room, capacity(volume)) > 0:
            spec = {**volume["spec"], "capacity": {"storage": room}}
            await self._client.update(PERSISTENTVOLUMES, {**volume, "spec": spec})
        status = claim.get("status") or {}
        there = (status.get("capacity") or {}).get("storage")
        if status.get("phase") == "Bound" and there and quantity.compare(room, there) > 0:
            status = {**status, "capacity": {"storage": room}}
            await self._client.update_status(PERSISTENTVOLUMECLAIMS, {**claim, "status": status})
            self._recorder.event(claim, "Normal", "VolumeResizeSuccessful", "Resize volume succeeded")

    async def _end(self, volume: Object) -> None:
        """The directory first; then nothing of ours keeps the volume."""
        metadata, path = volume["metadata"], Path((volume["spec"].get("hostPath") or {}).get("path") or "/")
        name = metadata["name"]
        if volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete" and name not in self._emptied:
            if path.parent == self._directory:
                await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
            removing = await self._removal(volume, path)
            if removing is not None and not await self._there(f"/{name}", removing):
                return
            self._emptied.add(name)
        rest = [one for one in metadata.get("finalizers") or () if one != FINALIZER]
        try:
            if rest != metadata.get("finalizers"):
                let_go = {**volume, "metadata": {**metadata, "finalizers": rest}}
                await self._client.update(PERSISTENTVOLUMES, let_go)
            if not metadata.get("deletionTimestamp"):
                await self._client.delete(PERSISTENTVOLUMES, name)
        except StatusError as error:
            if not is_gone(error):
                raise

    async def _removal(self, volume: Object, path: Path) -> errands.Errand | None:
        """What is to be done on the node that joined whose machine has the directory; None if it left: then it took
        the directory along."""
        host = host_of(volume)
        node = await self._node(host) if host else None
        place = place_on(node, self._cluster, self._directory) if node is not None else None
        if place is None or not place.joined or path.parent != place.root:
            return None
        name = f"remove-{volume['metadata']['name']}"
        return errands.Errand(name, place.joined, str(place.root), ("rm", "-rf", "--", path.name))


def _making(uid: str, place: Place, name: str) -> errands.Errand:
    return errands.Errand(f"make-pvc-{uid}", place.joined, str(place.root), ("mkdir", "-p", "-m", "777", "--", name))


def _make(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o777)  # whoever the pod's processes are
