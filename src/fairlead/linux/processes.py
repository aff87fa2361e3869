"""Processes: forks into PID namespaces, capabilities, users, signals.

Stands on libc, under the kubelet's runtime. Invariant: a function that changes the calling process says so in its
name; whoever forks here is single-threaded.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from fairlead.linux import libc

CAPABILITIES: tuple[str, ...] = (
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
)
"""capabilities(7), without CAP_; the index is the kernel's number."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522


def parse_capabilities(status: str, field: str = "CapEff") -> frozenset[str]:
    """The set named `field` in the text of /proc/<pid>/status."""
    for line in status.splitlines():
        key, _, value = line.partition(":")
        if key == field:
            bits = int(value.strip(), 16)
            return frozenset(name for number, name in enumerate(CAPABILITIES) if bits >> number & 1)
    return frozenset()


def missing_capabilities(needed: Iterable[str]) -> list[str]:
    """Those of `needed` this process does not have, sorted."""
    return sorted(set(needed) - parse_capabilities(Path("/proc/self/status").read_text()))


class Forked(NamedTuple):
    """What fork(2) gave: the child's PID (0 in the child), and there the descriptors that fork handlers made.

    Those must stay open: libuv, once a loop of its was made, closes the descriptors it remembers in every forked child
    and makes new ones, so a number that was closed and used again would be closed under its new owner.
    """

    pid: int
    made: frozenset[int] = frozenset()


def fork() -> Forked:
    """fork(2)."""
    before = _descriptors()
    pid = os.fork()
    if pid:
        return Forked(pid)
    return Forked(0, frozenset(fd for fd, what in _descriptors().items() if before.get(fd) != what))


class PidNamespace:
    """The process's own PID namespace, and forks into new and other ones."""

    def __init__(self) -> None:
        self._home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def fork_new(self) -> Forked:
        """Fork with the child as PID 1 of a new namespace.

        When that child dies the kernel kills everything in its namespace and in those below.
        """
        libc.unshare(libc.CLONE_NEWPID)
        return self._fork()

    def fork_into(self, pidfd: int) -> Forked:
        """Fork with the child in the PID namespace of the process behind `pidfd`."""
        libc.setns(pidfd, libc.CLONE_NEWPID)
        return self._fork()

    def _fork(self) -> Forked:
        forked = None
        try:
            forked = fork()
            return forked
        finally:
            if forked is None or forked.pid:
                libc.setns(self._home, libc.CLONE_NEWPID)


def set_own_name(name: str) -> None:
    """The name in `ps` and /proc/self/comm; at most 15 bytes are kept."""
    libc.call("prctl", ctypes.c_int(_PR_SET_NAME), name.encode()[:15], about="prctl(PR_SET_NAME)")


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent dies. Forgotten when credentials change."""
    libc.call("prctl", ctypes.c_int(_PR_SET_PDEATHSIG), ctypes.c_ulong(number), about="prctl(PR_SET_PDEATHSIG)")


def adopt_own_orphans() -> None:
    """Have what this process's descendants leave become its children, as it does for PID 1 of a namespace."""
    libc.call("prctl", ctypes.c_int(_PR_SET_CHILD_SUBREAPER), ctypes.c_ulong(1), about="prctl(PR_SET_CHILD_SUBREAPER)")


def forbid_own_new_privileges() -> None:
    """No program run from here gains privileges from set-user-ID bits or file capabilities."""
    arguments = [ctypes.c_ulong(n) for n in (1, 0, 0, 0)]
    libc.call("prctl", ctypes.c_int(_PR_SET_NO_NEW_PRIVS), *arguments, about="prctl(PR_SET_NO_NEW_PRIVS)")


class _CapabilityHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapabilityData(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def limit_own_capabilities(keep: Collection[str]) -> None:
    """Keep those of `keep` we have; drop all others from every set, the bounding set too, so that no exec regains any.

    A name that is not in CAPABILITIES is a KeyError: check input before.
    """
    numbers = {name: number for number, name in enumerate(CAPABILITIES)}
    kept = {numbers[name] for name in keep}
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    permitted = parse_capabilities(Path("/proc/self/status").read_text(), "CapPrm")
    for number in range(last + 1):
        if number not in kept:
            libc.call("prctl", ctypes.c_int(_PR_CAPBSET_DROP), ctypes.c_ulong(number), about="prctl(PR_CAPBSET_DROP)")
    bits = sum(1 << number for number in kept if CAPABILITIES[number] in permitted)
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    data = (_CapabilityData * 2)(
        _CapabilityData(bits & 0xFFFFFFFF, bits & 0xFFFFFFFF, 0), _CapabilityData(bits >> 32, bits >> 32, 0)
    )
    libc.call("capset", ctypes.byref(header), ctypes.byref(data), about="capset")


def become(uid: int, gid: int, groups: Collection[int] = ()) -> None:
    """Give up the present user for good."""
    os.setgroups(sorted(set(groups)))
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def reset_own_signals() -> None:
    """Default actions and nothing blocked, as a new program expects."""
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            try:
                signal.signal(number, signal.SIG_DFL)
            except (OSError, ValueError):
                continue  # reserved by the C library
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def close_own_descriptors(keep: Collection[int]) -> None:
    """Close every descriptor that is not in `keep`."""
    start = 0
    for fd in sorted(keep):
        if fd > start:
            os.closerange(start, fd)
        start = max(start, fd + 1)
    os.closerange(start, max(2, start, *_descriptors()) + 1)


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with contextlib.suppress(OSError):  # the listing's own
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
    return found
