"""What a container may use: a control group of its own in its pod's, version 2 where that has the controllers, else 1.

Stands on the file systems the kernel shows. A container for which nothing is said has no group. Source: upstream's
pkg/kubelet/cm (helpers_linux.go). Invariant: whoever joins is limited before it does anything else; a group is removed
when its last process is dead, by its name alone.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from pathlib import Path

import msgspec

_TOP = "fairlead-pods"
_STEP = 0.005
_PERIOD = 100_000  # microseconds, upstream's cpuCFSQuotaPeriod
_SHARES, _FEWEST_SHARES, _MOST_SHARES = 1024, 2, 262_144  # of a core; the kernel's bounds
_CONTROLLERS = ("memory", "cpu")


class Limits(msgspec.Struct, frozen=True):
    """`memory` in bytes, `cpu` in cores; 0 is no limit. `request` is the share of the cores, in cores, that it has when
    they are wanted by more than there are of them; 0: what is left."""

    memory: int = 0
    cpu: float = 0.0
    request: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.memory or self.cpu or self.request)

    def of(self, controller: str) -> bool:
        """Whether it says something to that controller."""
        return bool(self.memory if controller == "memory" else self.cpu or self.request)


_NONE = Limits()


class Hierarchy(msgspec.Struct, frozen=True):
    """A controller's tree: where it is, and which version's files it has."""

    root: Path
    unified: bool


@functools.cache
def hierarchies() -> dict[str, Hierarchy]:
    """By controller; what this kernel, or this container, does not let us limit is left out."""
    found: dict[str, Hierarchy] = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, options, *_ = line.split()
        if "rw" not in options.split(",") or not os.access(target, os.W_OK):
            continue
        for controller in _CONTROLLERS:
            if kind == "cgroup" and controller in options.split(","):
                found[controller] = Hierarchy(Path(target), False)
            elif kind == "cgroup2" and controller in _read(Path(target, "cgroup.controllers")).split():
                found[controller] = Hierarchy(Path(target), True)
    return found


def join(name: str, limits: Limits, pod: Limits = _NONE) -> None:
    """Make the group (`pod/container`) in one for the pod, and put the calling process into it. Raises OSError."""
    for controller in _CONTROLLERS:
        hierarchy = hierarchies().get(controller)
        if hierarchy is None or not (limits.of(controller) or pod.of(controller)):
            continue
        group = hierarchy.root / _TOP / name
        group.mkdir(parents=True, exist_ok=True)
        if hierarchy.unified:
            for above in (hierarchy.root, hierarchy.root / _TOP, group.parent):
                (above / "cgroup.subtree_control").write_text(f"+{controller}")
        for place, wanted in ((group.parent, pod), (group, limits)):
            for file, value in _settings(controller, wanted, hierarchy.unified).items():
                (place / file).write_text(value)
        (group / "cgroup.procs").write_text("0")


def follow(name: str) -> None:
    """Put the calling process into the group, if there is one."""
    for directory in _directories(name):
        if directory.is_dir():
            (directory / "cgroup.procs").write_text("0")


def out_of_memory(name: str) -> bool:
    """Whether the kernel killed a process of the group because of its limit."""
    for directory in _directories(name):
        for file in ("memory.events", "memory.oom_control"):
            for line in _read(directory / file).splitlines():
                key, _, count = line.partition(" ")
                if key == "oom_kill" and count != "0":
                    return True
    return False


def remove(name: str, patience: float = 0.0) -> None:
    """The group is not needed any more. A pod's name removes those of its containers. The kernel may call it busy for a
    moment after its last process was seen dead: with `patience`, in seconds, that is waited for."""
    deadline = time.monotonic() + patience
    _remove(name)
    while any(directory.is_dir() for directory in _directories(name)) and time.monotonic() < deadline:
        time.sleep(_STEP)
        _remove(name)


def _remove(name: str) -> None:
    for directory in _directories(name):
        for group in (*(directory.iterdir() if directory.is_dir() else ()), directory):
            if group.is_dir():
                with contextlib.suppress(OSError):  # busy: the pod's end removes it
                    group.rmdir()
        for above in (directory.parent, directory.parent.parent):
            if _TOP in (above.name, above.parent.name):
                with contextlib.suppress(OSError):  # others are there
                    above.rmdir()


def _directories(name: str) -> list[Path]:
    return list(dict.fromkeys(hierarchy.root / _TOP / name for hierarchy in hierarchies().values()))


def _settings(controller: str, limits: Limits, unified: bool) -> dict[str, str]:
    if controller == "memory":
        return {"memory.max" if unified else "memory.limit_in_bytes": str(limits.memory)} if limits.memory else {}
    found: dict[str, str] = {}
    if limits.cpu:
        quota = str(max(1000, int(limits.cpu * _PERIOD)))
        if unified:
            found["cpu.max"] = f"{quota} {_PERIOD}"
        else:
            found |= {"cpu.cfs_period_us": str(_PERIOD), "cpu.cfs_quota_us": quota}
    shares = min(_MOST_SHARES, max(_FEWEST_SHARES, int(limits.request * _SHARES)))
    if unified:  # the mapping of KEP-2254
        found["cpu.weight"] = str(1 + (shares - _FEWEST_SHARES) * 9999 // (_MOST_SHARES - _FEWEST_SHARES))
    else:
        found["cpu.shares"] = str(shares)
    return found


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
