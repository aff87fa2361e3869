"""Takes away all that a node's pods are, when its agent is gone: processes, control groups, mounts, files.

Invariant: what is killed is the pods' for certain; calling it again, or where nothing is, does no harm.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import sys
from pathlib import Path

from fairlead.kubelet import shim
from fairlead.kubelet.runtime import Sharing, opened, pod_marker, remembered
from fairlead.linux import libc, marked, podcgroups
from fairlead.linux import mounts as mnt

_STOP_SECONDS = 10.0


def remove_all(root_dir: Path, runtime_dir: Path) -> None:
    """End every pod of a node whose agent is gone, and remove both directories with what is mounted there."""
    pods = runtime_dir / "pods"
    killed = []
    for directory in list(pods.iterdir()) if pods.is_dir() else []:
        with contextlib.suppress(OSError):
            killed.append(_kill_shim(directory))
    for pidfd in killed:
        select.select([pidfd], [], [], _STOP_SECONDS)
        os.close(pidfd)
    clear(root_dir, runtime_dir)
    for mount in mnt.mounts(str(runtime_dir)):
        with contextlib.suppress(OSError):
            libc.umount(mount.target)
    for directory in (runtime_dir, root_dir):
        shutil.rmtree(directory, ignore_errors=True)


def clear(root_dir: Path, runtime_dir: Path) -> None:
    """Take away what a node's pods leave when their shims are killed: processes in the machine's PID namespace, and
    control groups."""
    bases = [base / "pods" for base in (root_dir, runtime_dir) if (base / "pods").is_dir()]
    for uid in {directory.name for base in bases for directory in base.iterdir()}:
        if Sharing.of(remembered(root_dir / "pods" / uid) or {"spec": {}}).pids:
            marked.kill(pod_marker(uid))
        podcgroups.remove(uid, _STOP_SECONDS)


def _kill_shim(directory: Path) -> int:
    """Kill the shim that listens in `directory`: the peer of its socket, so never a stranger with the same PID.

    Returns a descriptor that is readable once it is dead, and all that it held with it.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as end:
        with opened(directory) as fd:
            end.connect(f"/proc/self/fd/{fd}/{shim.SOCKET}")
        peer = int.from_bytes(end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)
        pidfd = os.pidfd_open(peer)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    return pidfd
