"""From a fork to a shim's loop: the pod's namespaces, and the word that they are there.

Runs in the spawner's children, PID 1 of their namespaces: `main` for a pod that is known, `wait` ahead of the next one.
Out: `ready` on the pod's socket, or why not. Invariant: neither returns to the spawner's code.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import NoReturn

import msgspec

from fairlead.kubelet import channel
from fairlead.kubelet.shim import SandboxPlan, Shim
from fairlead.kubelet.standby import NAME, Spare, close_all_but, fork_container, wait_for_task
from fairlead.linux import libc, processes


def main(plan: SandboxPlan, first: socket.socket, keep: frozenset[int]) -> NoReturn:
    """Become the pod's sandbox, and serve. `first` is connected to the agent; `keep` are descriptors to leave open."""
    try:
        processes.reset_own_signals()
        close_all_but(first.fileno(), *keep)
        os.setsid()
        _unshare(network=plan.own_network, ipc=plan.own_ipc)
        if not plan.own_pids:
            processes.adopt_own_orphans()
        _serve(plan, first, processes.PidNamespace())
    except BaseException as error:
        _refuse(first, error)


def wait(end: socket.socket, keep: frozenset[int]) -> NoReturn:
    """As `main`, for a pod with namespaces of its own that comes through `end`. Ends when `end` is closed."""
    try:
        processes.reset_own_signals()
        processes.set_own_name(NAME)
        close_all_but(end.fileno(), *keep)
        os.setsid()
        _unshare(network=True, ipc=True)
        namespace = processes.PidNamespace()
        container = fork_container(namespace)
        channel.send(end, {"event": "waiting"})
        message, fds = wait_for_task(end)
    except BaseException:  # who needs a shim forks one, and hears then what is wrong
        os._exit(1)
    first = socket.socket(fileno=fds[0])
    try:
        _serve(msgspec.convert(message["plan"], SandboxPlan), first, namespace, container)
    except BaseException as error:
        _refuse(first, error)


def _unshare(*, network: bool, ipc: bool) -> None:
    flags = libc.CLONE_NEWUTS | (libc.CLONE_NEWIPC if ipc else 0)
    libc.unshare(flags | (libc.CLONE_NEWNET if network else 0))
    if network:
        _permit_unprivileged_ports()


def _permit_unprivileged_ports() -> None:
    """What containerd sets in a pod's network: ports below 1024 and ping for everyone."""
    for key, value in (("ip_unprivileged_port_start", "0"), ("ping_group_range", "0 2147483647")):
        with contextlib.suppress(OSError):
            Path("/proc/sys/net/ipv4", key).write_text(value)


def _serve(
    plan: SandboxPlan, first: socket.socket, namespace: processes.PidNamespace, spare: Spare | None = None
) -> NoReturn:
    processes.set_own_name("fl-pod")
    socket.sethostname(plan.hostname)
    pid = os.readlink("/proc/self")  # noqa: PTH115
    Path(plan.directory, "shim.pid").write_text(pid)
    shim = Shim(plan, first, namespace, spare)
    channel.send(first, {"event": "ready", "pid": int(pid)})
    shim.run()


def _refuse(first: socket.socket, error: BaseException) -> NoReturn:
    with contextlib.suppress(OSError):
        channel.send(first, {"event": "ready", "error": f"{type(error).__name__}: {error}"})
    os._exit(1)
