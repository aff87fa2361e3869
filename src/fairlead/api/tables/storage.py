"""The tables of PersistentVolumes, PersistentVolumeClaims and StorageClasses."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from fairlead.api.storage import capacity, class_of, is_default
from fairlead.api.tables.cells import AGE, NAME, UNSET, Column, Printer, age, name

_SHORT = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _modes(modes: Iterable[str] | None) -> str:
    there = set(modes or ())
    return ",".join(short for mode, short in _SHORT.items() if mode in there)


def _phase(obj: dict[str, Any]) -> str:
    going = (obj.get("metadata") or {}).get("deletionTimestamp")
    return "Terminating" if going else str((obj.get("status") or {}).get("phase") or "")


def _volume(obj: dict[str, Any], now: datetime) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    claim = spec.get("claimRef")
    return [
        name(obj),
        capacity(obj),
        _modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy") or "",
        _phase(obj),
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        class_of(obj),
        spec.get("volumeAttributesClassName") or UNSET,
        status.get("reason") or "",
        age(obj, now),
        spec.get("volumeMode") or UNSET,
    ]


VOLUMES = Printer(
    (
        NAME,
        Column("Capacity", "How much there is."),
        Column("Access Modes", "How it may be used."),
        Column("Reclaim Policy", "What becomes of it when its claim goes."),
        Column("Status", "Whether it is free, bound or left."),
        Column("Claim", "Whose it is."),
        Column("StorageClass", "Its class."),
        Column("VolumeAttributesClass", "The class of its attributes."),
        Column("Reason", "Why its status is what it is."),
        AGE,
        Column("VolumeMode", "A file system or a block device.", priority=1),
    ),
    _volume,
)


def _claim(obj: dict[str, Any], now: datetime) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    volume = spec.get("volumeName") or ""
    return [
        name(obj),
        _phase(obj),
        volume,
        str((status.get("capacity") or {}).get("storage") or "0") if volume else "",
        _modes(status.get("accessModes")) if volume else "",
        class_of(obj),
        spec.get("volumeAttributesClassName") or UNSET,
        age(obj, now),
        spec.get("volumeMode") or UNSET,
    ]


CLAIMS = Printer(
    (
        NAME,
        Column("Status", "Whether it has a volume."),
        Column("Volume", "The volume it has."),
        Column("Capacity", "How much there is."),
        Column("Access Modes", "How the volume may be used."),
        Column("StorageClass", "The class of volume it asks for."),
        Column("VolumeAttributesClass", "The class of attributes it asks for."),
        AGE,
        Column("VolumeMode", "A file system or a block device.", priority=1),
    ),
    _claim,
)


def _storageclass(obj: dict[str, Any], now: datetime) -> list[Any]:
    return [
        name(obj) + (" (default)" if is_default(obj) else ""),
        obj.get("provisioner") or "",
        obj.get("reclaimPolicy") or "Delete",
        obj.get("volumeBindingMode") or "Immediate",
        bool(obj.get("allowVolumeExpansion")),
        age(obj, now),
    ]


STORAGECLASSES = Printer(
    (
        NAME,
        Column("Provisioner", "What makes its volumes."),
        Column("ReclaimPolicy", "What becomes of a volume when its claim goes."),
        Column("VolumeBindingMode", "When claims get their volumes."),
        Column("AllowVolumeExpansion", "Whether claims may ask for more later.", type="boolean"),
        AGE,
    ),
    _storageclass,
)
