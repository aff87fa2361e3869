"""Control groups, version 2, for one purpose: to end everything a cluster ever started, at once and for certain.

Stands on the file system the kernel shows. Where no cgroup2 is mounted for writing (some containers), callers do
without, and find processes by the files they hold open.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

_TOP = "fairlead"
_DEADLINE = 10.0


def root() -> Path | None:
    """Where cgroup2 is mounted, if it is and may be written."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(",") and os.access(target, os.W_OK):
            return Path(target)
    return None


def path(name: str) -> Path | None:
    """Where the group fairlead/<name> is, or would be; None where there is no place for groups."""
    top = root()
    return top / _TOP / name if top is not None else None


def join(name: str) -> bool:
    """Put the calling process, and all it will start, into the group fairlead/<name>. False where that can't be.

    `<name>/<part>` is a group inside of that, and ends with it.
    """
    group = path(name)
    if group is None:
        return False
    try:
        group.mkdir(parents=True, exist_ok=True)
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError:
        return False
    return True


def kill(name: str) -> bool:
    """SIGKILL every process of the group fairlead/<name>, wait until it is empty, and remove it.

    False where there is no such group; then nothing was killed.
    """
    group = path(name)
    if group is None or not group.exists():
        return False
    deadline = time.monotonic() + _DEADLINE
    while "populated 1" in (group / "cgroup.events").read_text():
        _kill_all(group)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes in {group} do not die")
        time.sleep(0.005)
    for directory, _, _ in os.walk(group, topdown=False):
        Path(directory).rmdir()
    with contextlib.suppress(OSError):  # other clusters are there
        group.parent.rmdir()
    return True


def _kill_all(group: Path) -> None:
    switch = group / "cgroup.kill"
    if switch.exists():
        switch.write_text("1")
        return
    for procs in group.rglob("cgroup.procs"):  # Linux before 5.14
        for pid in procs.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
