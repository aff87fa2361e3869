"""From a forked child of the shim to a container of an image, by an OCI runtime (crun).

Runs in the pod's namespaces, with descriptors 0, 1, 2 that are to be the container's. Makes the root (an overlay) and
starts the runtime in a mount namespace that ends with this process: nothing of it is left to clean up. The container's
first process becomes the shim's own child when the runtime has gone. Invariant: it reports the container's PID (in the
pod's PID namespace), or why there is none; it never returns to the shim's code.
"""

# Between a fork and the program, a path is a string and a call is a system call: objects would cost milliseconds.
# ruff: noqa: PTH103, PTH110, PTH118, PTH123

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import NoReturn

import orjson

from fairlead.kubelet.ocispec import OCIPlan
from fairlead.linux import libc, processes
from fairlead.linux import mounts as mnt

_FAILED = 128


def start(plan: OCIPlan, report: int, join_group: Callable[[], None] | None, target: int = 0) -> NoReturn:
    """Create and start, in the PID namespace of the process `target` if that is not 0. `report`, a socket, gets with a
    terminal the line `tty` and its descriptor, then `pid <n>`; or the failure."""
    try:
        if join_group is not None:  # what the runtime starts is in it, too
            join_group()
        _create(plan, report, target)
        os._exit(0)
    except _Refused as refused:
        message = str(refused)
    except OSError as error:
        message = f"{(error.strerror or str(error)).lower()}: {error.filename or ''}"
    except BaseException as error:
        message = f"{type(error).__name__}: {error}"
    os.write(report, " ".join(message.split()).encode(errors="replace")[:4000])
    os._exit(_FAILED)


class _Refused(Exception):
    """The runtime's own words."""


def _create(plan: OCIPlan, report: int, target: int) -> None:
    processes.reset_own_signals()
    mnt.private_namespace()
    libc.mount("proc", "/proc", "proc", libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC)  # the runtime looks PIDs up
    _show_one_cgroup_version()
    root = os.path.join(plan.bundle, "rootfs")
    for directory in (root, plan.state, plan.upper, plan.work):
        os.makedirs(directory, exist_ok=True)
    if target:
        plan.config["linux"]["namespaces"].append({"type": "pid", "path": f"/proc/{target}/ns/pid"})
    mnt.stack(plan.layers, plan.upper, plan.work, root)
    with open(os.path.join(plan.bundle, "config.json"), "wb") as file:
        file.write(orjson.dumps(plan.config))
    pid_file = os.path.join(plan.bundle, "pid")
    flags = ["--bundle", plan.bundle, "--pid-file", pid_file]
    if not plan.config["process"]["terminal"]:
        _run(plan, *flags)
    else:
        os.chdir(plan.bundle)  # a Unix address holds 107 bytes
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("tty.sock")
            listener.listen(1)
            _run(plan, *flags, "--console-socket", "tty.sock")
            end, _ = listener.accept()
        _, fds, _, _ = socket.recv_fds(end, 4096, 1)
        with socket.socket(fileno=os.dup(report)) as reporter:
            socket.send_fds(reporter, [b"tty\n"], fds)
    with open(pid_file, encoding="ascii") as file:
        pid = int(file.read())
    os.write(report, b"pid %d\n" % pid)


def _show_one_cgroup_version() -> None:
    """A hierarchy of version 1 beside one of version 2 is refused by the runtime. The kernel takes ten milliseconds for
    a mount of its own, so where there is one already it is that."""
    if os.path.exists("/sys/fs/cgroup/cgroup.procs"):
        return
    with contextlib.suppress(OSError):
        if os.path.exists("/sys/fs/cgroup/unified/cgroup.procs"):
            mnt.bind("/sys/fs/cgroup/unified", "/sys/fs/cgroup")
        else:
            libc.mount("cgroup2", "/sys/fs/cgroup", "cgroup2")


def _run(plan: OCIPlan, *flags: str) -> None:
    """Have the runtime create and start the container, and leave. Its complaints go into a file, for descriptor 2 is
    the container's."""
    log = os.path.join(plan.bundle, "runtime.log")
    command = [plan.runtime, "--root", plan.state, "--cgroup-manager", "disabled", "--log", log, "--log-format", "json"]
    pid = os.posix_spawn(
        plan.runtime, [*command, "run", "--detach", *flags, plan.id], {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    )
    status = os.waitpid(pid, 0)[1]
    if status:
        raise _Refused(_complaint(log) or f"{plan.runtime} run ended with status {status}")


def _complaint(log: str) -> str:
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
        return str(orjson.loads(lines[-1])["msg"])
    except (OSError, IndexError, KeyError, orjson.JSONDecodeError):
        return ""
