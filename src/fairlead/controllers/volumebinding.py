"""Which volume a claim gets, and what becomes of volumes and claims. ◆ Pure.

Upstream: pkg/controller/volume/persistentvolume. A binding is written in two halves: the volume's `claimRef` (with the
claim's uid), then the claim's `volumeName` and the annotation that says it is complete. Invariant: a volume goes to one
claim only, and a claim that is bound never gets another volume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec

from fairlead.api import quantity
from fairlead.api.selectors import LabelSelector
from fairlead.api.storage import (
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    PROVISIONED_BY,
    SELECTED_NODE,
    STORAGE_PROVISIONER,
    capacity,
    class_of,
    is_bound,
    wanted,
)

Object = dict[str, Any]
Event = tuple[Literal["Normal", "Warning"], str, str]  # type, reason, message

NO_PROVISIONER = "kubernetes.io/no-provisioner"
_LOST = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"


class ClaimPlan(msgspec.Struct, frozen=True):
    """What to do for a claim: bind it to a volume, or write its phase; note its provisioner; tell an event."""

    bind: Object | None = None
    phase: str = ""  # empty: as it is
    provisioner: str = ""
    event: Event | None = None


class VolumePlan(msgspec.Struct, frozen=True):
    """What to do for a volume: write its phase (and why), or take its claim away; the claim to look at again."""

    phase: str = ""
    message: str = ""
    unbind: bool = False
    event: Event | None = None


def refers_to(volume: Object, claim: Object) -> bool:
    """Whether the volume is kept for that claim (by name, and by uid once it is bound)."""
    reference = volume["spec"].get("claimRef")
    metadata = claim["metadata"]
    if not reference or (reference.get("namespace"), reference.get("name")) != (
        metadata.get("namespace"),
        metadata["name"],
    ):
        return False
    return not reference.get("uid") or reference["uid"] == metadata["uid"]


def is_delayed(storage_class: Object | None) -> bool:
    """Whether claims of the class wait for a pod that uses them."""
    return storage_class is not None and storage_class.get("volumeBindingMode") == "WaitForFirstConsumer"


def mismatch(volume: Object, claim: Object) -> str:
    """Why a volume that is asked for by name can't serve the claim; empty if it can. Upstream's words."""
    if quantity.compare(capacity(volume), wanted(claim)) < 0:
        return "requested PV is too small"
    if class_of(volume) != class_of(claim):
        return "storageClassName does not match"
    if volume["spec"].get("volumeMode") != claim["spec"].get("volumeMode"):
        return "incompatible volumeMode"
    if not set(claim["spec"].get("accessModes") or ()) <= set(volume["spec"].get("accessModes") or ()):
        return "incompatible accessMode"
    return ""


def find_match(
    claim: Object,
    volumes: Iterable[Object],
    reaches: Callable[[Object], bool] = lambda _: True,
    taken: Iterable[str] = (),
    *,
    kept_only: bool = False,
) -> Object | None:
    """The smallest volume that is free and fits, or the one that is kept for the claim; None if there is none.

    `reaches`: whether a volume can be used where the pod goes. `taken`: the names of those given away meanwhile.
    `kept_only`: consider none but a volume that is kept for the claim.
    """
    selector = LabelSelector.of(claim["spec"].get("selector") or {})
    best: Object | None = None
    for volume in volumes:
        metadata = volume["metadata"]
        if metadata["name"] in taken or metadata.get("deletionTimestamp"):
            continue
        kept = refers_to(volume, claim)
        if kept and not mismatch(volume, claim):
            return volume
        if kept_only or volume["spec"].get("claimRef") or (volume.get("status") or {}).get("phase") != "Available":
            continue
        if mismatch(volume, claim) or not reaches(volume) or not selector.matches(metadata.get("labels")):
            continue
        if best is None or quantity.compare(capacity(volume), capacity(best)) < 0:
            best = volume
    return best


def plan_claim(claim: Object, volumes: Mapping[str, Object], storage_class: Object | None) -> ClaimPlan:
    """What to do for a claim. `storage_class`: the one it names, if that is there."""
    if is_bound(claim):
        return _plan_bound(claim, volumes)
    name = claim["spec"].get("volumeName")
    if name:
        return _plan_named(claim, volumes.get(name), name)
    chosen = SELECTED_NODE in (claim["metadata"].get("annotations") or {})
    delayed = is_delayed(storage_class) and not chosen
    volume = find_match(claim, volumes.values(), kept_only=delayed)
    if volume is not None:
        return ClaimPlan(bind=volume)
    provisioner = str((storage_class or {}).get("provisioner") or "")
    if delayed:
        text = "waiting for first consumer to be created before binding"
        return ClaimPlan(phase="Pending", event=("Normal", "WaitForFirstConsumer", text))
    if storage_class is not None and provisioner != NO_PROVISIONER:
        text = (
            f"Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the "
            "system administrator. If volume creation is delayed, please verify that the provisioner is running and "
            "correctly registered."
        )
        return ClaimPlan(phase="Pending", provisioner=provisioner, event=("Normal", "ExternalProvisioning", text))
    if class_of(claim) and storage_class is None:
        text = f'storageclass.storage.k8s.io "{class_of(claim)}" not found'
        return ClaimPlan(phase="Pending", event=("Warning", "ProvisioningFailed", text))
    text = "no persistent volumes available for this claim and no storage class is set"
    return ClaimPlan(phase="Pending", event=("Normal", "FailedBinding", text))


def _plan_named(claim: Object, volume: Object | None, name: str) -> ClaimPlan:
    if volume is None:
        text = f'volume "{name}" does not exist, or is not known yet'
        return ClaimPlan(phase="Pending", event=("Warning", "FailedBinding", text))
    if volume["spec"].get("claimRef") and not refers_to(volume, claim):
        text = f'volume "{name}" already bound to a different claim.'
        return ClaimPlan(phase="Pending", event=("Warning", "FailedBinding", text))
    why = mismatch(volume, claim)
    if why:
        text = f'Cannot bind to requested volume "{name}": {why}'
        return ClaimPlan(phase="Pending", event=("Warning", "VolumeMismatch", text))
    return ClaimPlan(bind=volume)


def _plan_bound(claim: Object, volumes: Mapping[str, Object]) -> ClaimPlan:
    volume = volumes.get(claim["spec"]["volumeName"])
    lost = (claim.get("status") or {}).get("phase") == "Lost"
    if volume is None:
        return ClaimPlan(phase="Lost", event=None if lost else ("Warning", "ClaimLost", _LOST))
    if volume["spec"].get("claimRef") and not refers_to(volume, claim):
        text = "Two claims are bound to the same volume, this one is bound incorrectly"
        return ClaimPlan(phase="Lost", event=None if lost else ("Warning", "ClaimMisbound", text))
    return ClaimPlan(bind=volume)


def plan_volume(volume: Object, claim: Object | None) -> VolumePlan:
    """What to do for a volume. `claim`: what its claimRef names, if that is there."""
    reference, status = volume["spec"].get("claimRef"), volume.get("status") or {}
    if not reference or not reference.get("uid"):
        return VolumePlan(phase="Available")
    if claim is not None and claim["metadata"]["uid"] != reference["uid"]:
        claim = None
    name = volume["metadata"]["name"]
    if claim is not None:
        theirs = claim["spec"].get("volumeName")
        if theirs == name:
            return VolumePlan(phase="Bound")
        if not theirs:
            return VolumePlan()
        annotations = volume["metadata"].get("annotations") or {}
        if PROVISIONED_BY not in annotations or volume["spec"].get("persistentVolumeReclaimPolicy") != "Delete":
            return VolumePlan(unbind=True)
    if status.get("phase") == "Failed":
        return VolumePlan()
    if volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete" and not provisioner_of(volume):
        text = f'error getting deleter volume plugin for volume "{name}": no deletable volume plugin matched'
        if status.get("phase") == "Released":
            return VolumePlan(phase="Failed", message=text, event=("Warning", "VolumeFailedDelete", text))
    return VolumePlan(phase="Released")


def provisioner_of(volume: Object) -> str:
    """What made the volume; empty if people did."""
    return str((volume["metadata"].get("annotations") or {}).get(PROVISIONED_BY) or "")


def bound_volume(volume: Object, claim: Object) -> Object:
    """The volume, kept for that claim."""
    metadata, reference = claim["metadata"], volume["spec"].get("claimRef")
    made = {
        "kind": "PersistentVolumeClaim",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "apiVersion": "v1",
        "resourceVersion": metadata["resourceVersion"],
    }
    if reference and reference.get("uid") == metadata["uid"]:
        return volume
    changed = {**volume, "spec": {**volume["spec"], "claimRef": made}}
    return changed if reference else _annotated(changed, {BOUND_BY_CONTROLLER: "yes"})


def unbound_volume(volume: Object) -> Object:
    """The volume, free again; if people kept it for a claim it stays so, for whichever has that name."""
    annotations = dict(volume["metadata"].get("annotations") or {})
    spec = dict(volume["spec"])
    if annotations.pop(BOUND_BY_CONTROLLER, None):
        spec.pop("claimRef", None)
    elif spec.get("claimRef"):
        spec["claimRef"] = {k: v for k, v in spec["claimRef"].items() if k not in ("uid", "resourceVersion")}
    return {**volume, "metadata": {**volume["metadata"], "annotations": annotations}, "spec": spec}


def bound_claim(claim: Object, volume: Object) -> Object:
    """The claim, with that volume."""
    notes = {BIND_COMPLETED: "yes"}
    if not claim["spec"].get("volumeName"):
        notes[BOUND_BY_CONTROLLER] = "yes"
    spec = {**claim["spec"], "volumeName": volume["metadata"]["name"]}
    if is_bound(claim):
        return claim
    return _annotated({**claim, "spec": spec}, notes)


def bound_status(claim: Object, volume: Object) -> Object:
    """The status of a claim with that volume; what was resized meanwhile stays."""
    before = claim.get("status") or {}
    if before.get("phase") == "Bound":
        return before
    spec = volume["spec"]
    return {**before, "phase": "Bound", "accessModes": spec.get("accessModes") or [], "capacity": spec["capacity"]}


def with_provisioner(claim: Object, provisioner: str) -> Object:
    """The claim, telling the provisioner that it is meant."""
    annotations = claim["metadata"].get("annotations") or {}
    return (
        claim
        if annotations.get(STORAGE_PROVISIONER) == provisioner
        else _annotated(
            claim, {STORAGE_PROVISIONER: provisioner, "volume.beta.kubernetes.io/storage-provisioner": provisioner}
        )
    )


def _annotated(obj: Object, notes: Mapping[str, str]) -> Object:
    annotations = {**(obj["metadata"].get("annotations") or {}), **notes}
    return {**obj, "metadata": {**obj["metadata"], "annotations": annotations}}
