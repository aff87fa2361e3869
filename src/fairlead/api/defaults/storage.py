"""Defaults of PersistentVolumes, PersistentVolumeClaims and StorageClasses.

Source: upstream's `pkg/apis/core/v1` and `pkg/apis/storage/v1`.
"""

from __future__ import annotations

from typing import Any

from fairlead.api.defaults.absent import canonical_quantities, child, default, default_text


def default_volume(obj: dict[str, Any]) -> None:
    """Kept when its claim goes; a file system; pending."""
    spec = child(obj, "spec")
    default_text(spec, "persistentVolumeReclaimPolicy", "Retain")
    default_text(spec, "volumeMode", "Filesystem")
    canonical_quantities(spec.get("capacity"))
    if spec.get("hostPath") is not None:
        default(spec["hostPath"], "type", "")
    default_text(child(obj, "status"), "phase", "Pending")


def default_claim(obj: dict[str, Any]) -> None:
    """A file system; pending."""
    default_claim_spec(child(obj, "spec"))
    status = child(obj, "status")
    default_text(status, "phase", "Pending")
    canonical_quantities(status.get("capacity"))


def default_claim_spec(spec: dict[str, Any]) -> None:
    """What claims and templates of claims share."""
    default_text(spec, "volumeMode", "Filesystem")
    resources = child(spec, "resources")
    canonical_quantities(resources.get("requests"))
    canonical_quantities(resources.get("limits"))


def default_claim_template(obj: dict[str, Any]) -> None:
    """A claim that a StatefulSet makes for each of its pods."""
    default_text(obj, "apiVersion", "v1")
    default_text(obj, "kind", "PersistentVolumeClaim")
    default_claim(obj)


def default_storageclass(obj: dict[str, Any]) -> None:
    """What was made for a claim goes with it; bound at once."""
    default_text(obj, "reclaimPolicy", "Delete")
    default_text(obj, "volumeBindingMode", "Immediate")
