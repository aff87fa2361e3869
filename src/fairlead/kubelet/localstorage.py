"""How much of the node's disk and memory a pod's files may take: emptyDirs, and what its containers write.

`excess` decides, pure; `make`, `measure` and `release` act. Source: upstream's pkg/kubelet/eviction (the messages are
its) and volume/emptydir. Invariants: a directory in memory can't grow beyond its size; one on disk may for a moment,
and then the pod is evicted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from fairlead.api import quantity
from fairlead.kubelet.resources import pod_limits
from fairlead.linux import libc
from fairlead.linux import mounts as mnt

Object = dict[str, Any]
_STORAGE = "ephemeral-storage"


class Usage(msgspec.Struct, frozen=True):
    """Bytes on disk, by the name of the emptyDir and of the container (what it wrote, and its log)."""

    volumes: Mapping[str, int] = {}
    containers: Mapping[str, int] = {}


def in_memory(volume: Object) -> bool:
    """Whether an emptyDir is to be in memory."""
    return (volume.get("emptyDir") or {}).get("medium") == "Memory"


def is_limited(pod: Object) -> bool:
    """Whether the pod may exceed something that is to be measured."""
    return bool(_limited_volumes(pod)) or any(_storage_limit(c) for c in _containers(pod))


def excess(pod: Object, usage: Usage) -> str:
    """Why the pod must be evicted, in upstream's words; "" if it need not."""
    for name, limit in _limited_volumes(pod).items():
        if usage.volumes.get(name, 0) > _bytes(limit):
            return f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit}". '
    limits = {c["name"]: limit for c in _containers(pod) if (limit := _storage_limit(c))}
    total = sum(_bytes(limit) for limit in limits.values())
    taken = sum(usage.volumes.values()) + sum(usage.containers.values())
    if limits and taken > total:
        return (
            "Pod ephemeral local storage usage exceeds the total limit of containers "
            f"{quantity.canonical(str(total)) if len(limits) > 1 else next(iter(limits.values()))}. "
        )
    for name, limit in limits.items():
        if usage.containers.get(name, 0) > _bytes(limit):
            return f'Container {name} exceeded its local ephemeral storage limit "{limit}". '
    return ""


def _containers(pod: Object) -> list[Object]:
    return [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ())]


def _storage_limit(container: Object) -> str:
    found = ((container.get("resources") or {}).get("limits") or {}).get(_STORAGE)
    return str(found) if found else ""


def _limited_volumes(pod: Object) -> dict[str, str]:
    """The emptyDirs on disk with a limit, and it."""
    found = {v["name"]: (v.get("emptyDir") or {}).get("sizeLimit") for v in pod["spec"].get("volumes") or ()}
    on_disk = {v["name"] for v in pod["spec"].get("volumes") or () if not in_memory(v)}
    return {name: str(limit) for name, limit in found.items() if limit and _bytes(limit) and name in on_disk}


def _bytes(limit: Any) -> int:
    return quantity.parse(limit).value


def memory_size(pod: Object, volume: Object) -> int:
    """The size of an emptyDir in memory, in bytes: its limit, and no more than the pod may take; 0 for no limit."""
    limit = _bytes((volume.get("emptyDir") or {}).get("sizeLimit") or 0)
    bounds = [bound for bound in (limit, pod_limits(pod).memory) if bound]
    return min(bounds, default=0)


def make(directory: Path, size: int, group: int | None) -> None:
    """An emptyDir, unless it is there. With a `size`, in memory of that many bytes."""
    if directory.is_dir() and (not size or directory.is_mount()):
        return
    directory.mkdir(parents=True, exist_ok=True)
    if size:
        mnt.tmpfs(str(directory), mode=0o777, size=str(size))
    directory.chmod(0o777)
    if group is not None:
        os.chown(directory, -1, group)
        directory.chmod(0o2777)


def release(directory: Path) -> None:
    """Unmount the emptyDirs in `directory`, which is to be removed."""
    with contextlib.suppress(FileNotFoundError):
        for entry in list(directory.iterdir()):
            if entry.is_mount():
                libc.umount(str(entry))


def measure(*directories: Path) -> int:
    """Bytes that the files below take, on the file systems the directories are on. A file with several names counts
    once, one that goes meanwhile does not."""
    total = 0
    seen: set[tuple[int, int]] = set()
    for top in directories:
        for place, below, names in os.walk(top, onerror=None):
            with contextlib.suppress(OSError):
                device = os.lstat(place).st_dev
                below[:] = [b for b in below if _device(place, b) == device]
            for name in (".", *names):
                with contextlib.suppress(OSError):
                    found = os.lstat(f"{place}/{name}")
                    if (found.st_dev, found.st_ino) not in seen:
                        seen.add((found.st_dev, found.st_ino))
                        total += found.st_blocks * 512
    return total


def _device(place: str, name: str) -> int:
    try:
        return os.lstat(f"{place}/{name}").st_dev
    except OSError:
        return -1
