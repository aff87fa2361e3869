"""A shim's children: their descriptors, and what became of them.

Stands under the shim. Invariant: a descriptor made here is closed on exec unless it is made the child's 0, 1 or 2.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from fairlead.kubelet.container import ContainerPlan
from fairlead.kubelet.crilog import LogFile


class Process:
    """A started child: its descriptors and what became of it. `directory` is the attempt's; "" for an exec."""

    def __init__(self, pid: int, plan: ContainerPlan, directory: str) -> None:
        self.pid, self.plan, self.directory = pid, plan, directory
        self.pidfd = os.pidfd_open(pid)
        self.started = time.time_ns()
        self.machine_pid = 0
        self.outputs: dict[int, bytes] = {}
        self.stdin = -1
        self.terminal = -1
        self.log: LogFile | None = None
        self.attached: list[tuple[int, int]] = []
        self.failure = ""
        self.finish_report: Callable[[], object] | None = None
        self.after_exit: Callable[[], object] | None = None
        self.on_started: Callable[[], object] | None = None
        self.exit: dict[str, Any] | None = None


class Outer(msgspec.Struct):
    """The shim's ends of a container's streams."""

    outputs: dict[int, bytes]
    stdin: int = -1


def streams(plan: ContainerPlan) -> tuple[list[int], Outer]:
    """Descriptors for the child's 0, 1, 2, and our ends. With a terminal, none yet: it is made in the container."""
    if plan.tty:
        return nulls(3), Outer({})
    stdin, write = os.pipe() if plan.stdin else (*nulls(1), -1)
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    return [stdin, out_write, err_write], Outer({out_read: b"stdout", err_read: b"stderr"}, stdin=write)


def marker(directory: str) -> str:
    """What of an attempt's directory every process of it has mounted."""
    return "/".join(directory.split("/")[-5:]) + "/termination-log"


def nulls(count: int) -> list[int]:
    return [os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC) for _ in range(count)]


def redirect(fds: list[int]) -> None:
    """Make `fds` the process's 0, 1 and 2, inherited by what it runs."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in fds]
    for number, fd in enumerate(high):
        os.dup2(fd, number)
        os.close(fd)


def shell_code(status: int) -> int:
    """A wait status as a shell says it: 128 + signal for the killed."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the file; a reader sees the old or the new, never half of one."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(data)
    fresh.rename(path)
