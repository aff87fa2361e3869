"""The system calls that Python 3.11 does not wrap. Failures are OSError with the call's own errno.

Stands under namespaces, mounts and processes. Invariant: nothing here keeps state.
"""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *args: object, about: str = "") -> int:
    """Call `name` of libc; a negative result becomes OSError(errno, text, about)."""
    result = int(getattr(_libc, name)(*args))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), about or name)
    return result


def unshare(flags: int) -> None:
    """unshare(2): give the calling thread namespaces of its own."""
    call("unshare", ctypes.c_int(flags))


def setns(fd: int, flags: int = 0) -> None:
    """setns(2): move the calling thread into the namespace behind `fd`."""
    call("setns", ctypes.c_int(fd), ctypes.c_int(flags))


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). The target is named in the error."""
    call(
        "mount",
        source.encode() or None,
        target.encode(),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        data.encode() or None,
        about=target,
    )


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2)."""
    call("umount2", target.encode(), ctypes.c_int(flags), about=target)
