"""Processes known by a mount in their root: what a container leaves when its first process was not its namespace's.

Stands on /proc as the caller sees it. In: a part of the path that a mount shows (mountinfo's fourth field), which only
the container's own processes have. Invariant: whoever has no such mount is never signalled, however PIDs were used
again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

_STEP = 0.005


def pids(marker: str) -> list[int]:
    """The processes that have a mount of a path with `marker` in it, as the caller's PID namespace numbers them."""
    level = len(_numbers("self")) - 1
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if not name.isdigit():
            continue
        try:
            shown = Path("/proc", name, "mountinfo").read_bytes()
        except OSError:  # gone, or a zombie
            continue
        if marker.encode() in shown and len(numbers := _numbers(name)) > level:
            found.append(numbers[level])
    return found


def kill(marker: str, seconds: float = 2.0) -> bool:
    """SIGKILL them until none is left but the caller; False if some were after that time."""
    deadline = time.monotonic() + seconds
    while left := [pid for pid in pids(marker) if pid != os.getpid()]:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return False
        time.sleep(_STEP)
    return True


def _numbers(process: str) -> list[int]:
    """A process's PIDs, from the namespace /proc shows down to its own."""
    with contextlib.suppress(OSError):
        for line in Path("/proc", process, "status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return [int(number) for number in line.split()[1:]]
    return []
