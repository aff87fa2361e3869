"""What volumes, claims and classes say of each other.

Pure. Invariant: an object's class is read here alone: from its spec, or from the annotation that was there before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Object = Mapping[str, Any]

CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
CLAIM_IN_USE = "kubernetes.io/pvc-protection"  # the finalizers of what must not go while it is used
VOLUME_IN_USE = "kubernetes.io/pv-protection"
BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
STORAGE_PROVISIONER = "volume.kubernetes.io/storage-provisioner"
_OLD_DEFAULT_CLASS = "storageclass.beta.kubernetes.io/is-default-class"

_NOT_SOURCES = frozenset(
    {
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    }
)


def class_of(obj: Object) -> str:
    """The name of a claim's or volume's class; empty if it has none."""
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    return str(annotations.get(CLASS_ANNOTATION) or (obj.get("spec") or {}).get("storageClassName") or "")


def sources_of(spec: Object) -> list[str]:
    """What a volume's spec says it is: one, if it is sound."""
    return [key for key, value in spec.items() if key not in _NOT_SOURCES and value is not None]


def names_a_class(claim: Object) -> bool:
    """Whether a claim says which class it wants, be it none."""
    annotations = (claim.get("metadata") or {}).get("annotations") or {}
    return CLASS_ANNOTATION in annotations or (claim.get("spec") or {}).get("storageClassName") is not None


def wanted(claim: Object) -> str:
    """How much room a claim asks for."""
    requests = ((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}
    return str(requests.get("storage") or "0")


def capacity(volume: Object) -> str:
    """How much room a volume has."""
    return str(((volume.get("spec") or {}).get("capacity") or {}).get("storage") or "0")


def claims_of(pod: Object) -> list[tuple[str, bool]]:
    """The claims a pod's volumes are of, and whether each is the pod's own (of an ephemeral volume)."""
    found: list[tuple[str, bool]] = []
    for volume in (pod.get("spec") or {}).get("volumes") or ():
        if volume.get("persistentVolumeClaim") is not None:
            found.append((str(volume["persistentVolumeClaim"].get("claimName") or ""), False))
        elif volume.get("ephemeral") is not None:
            found.append((ephemeral_claim(pod, volume), True))
    return found


def ephemeral_claim(pod: Object, volume: Object) -> str:
    """The name of the claim that is made for an ephemeral volume."""
    return f"{pod['metadata']['name']}-{volume['name']}"


def is_of_pod(claim: Object, pod: Object) -> bool:
    """Whether a claim was made for that very pod."""
    owners = (claim.get("metadata") or {}).get("ownerReferences") or ()
    return any(owner.get("controller") and owner.get("uid") == pod["metadata"]["uid"] for owner in owners)


def is_bound(claim: Object) -> bool:
    """Whether a claim has its volume for good."""
    annotations = (claim.get("metadata") or {}).get("annotations") or {}
    return bool((claim.get("spec") or {}).get("volumeName")) and BIND_COMPLETED in annotations


def is_default(storage_class: Object) -> bool:
    """Whether claims that name no class get this one."""
    annotations = (storage_class.get("metadata") or {}).get("annotations") or {}
    return "true" in (annotations.get(DEFAULT_CLASS), annotations.get(_OLD_DEFAULT_CLASS))


def default_class(classes: Iterable[Object]) -> str:
    """The default class: of several the newest, of the same age the first by name; empty if there is none."""
    found = sorted((c for c in classes if is_default(c)), key=lambda c: str(c["metadata"]["name"]))
    newest = max(found, key=lambda c: str(c["metadata"].get("creationTimestamp") or ""), default=None)
    return str(newest["metadata"]["name"]) if newest is not None else ""
