"""Mounts: the table of them, bind mounts, read-only trees, overlays, a new root.

Stands on libc, under the kubelet's root file systems. Invariant: every call acts on the calling process's own mount
namespace; who must not disturb the machine calls `private_namespace` first.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from collections.abc import Sequence

import msgspec

from fairlead.linux import libc

_SYS_MOUNT_SETATTR = 442  # one number on every architecture since Linux 5.12
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "armv7l": 218, "i686": 217, "s390x": 217}
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 0x1
_KEPT = {"nosuid": libc.MS_NOSUID, "nodev": libc.MS_NODEV, "noexec": libc.MS_NOEXEC, "ro": libc.MS_RDONLY}
_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(msgspec.Struct, frozen=True):
    """One line of /proc/self/mountinfo (proc(5)). `options` are the mount's own, not the file system's."""

    id: int
    parent: int
    root: str
    target: str
    options: tuple[str, ...]
    kind: str
    source: str


def parse_mountinfo(text: str) -> list[Mount]:
    """The mounts, in the kernel's order: a later one on the same target covers an earlier one."""
    found = []
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        fields, tail = left.split(" "), right.split(" ")
        if not separator or len(fields) < 6 or len(tail) < 2:
            continue
        found.append(
            Mount(
                id=int(fields[0]),
                parent=int(fields[1]),
                root=_unescape(fields[3]),
                target=_unescape(fields[4]),
                options=tuple(fields[5].split(",")),
                kind=tail[0],
                source=_unescape(tail[1]),
            )
        )
    return found


def mounts(below: str = "/") -> list[Mount]:
    """This process's mounts at `below` or under it."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
        table = parse_mountinfo(file.read())
    prefix = below.rstrip("/") + "/"
    return [m for m in table if m.target == below or m.target.startswith(prefix)]


def private_namespace() -> None:
    """A mount namespace of our own, from which nothing spreads back."""
    libc.unshare(libc.CLONE_NEWNS)
    libc.mount("", "/", flags=libc.MS_REC | libc.MS_PRIVATE)


def bind(source: str, target: str, *, recursive: bool = False, read_only: bool = False) -> None:
    """Show `source` at `target`; read-only applies to everything mounted below as well."""
    libc.mount(source, target, flags=libc.MS_BIND | (libc.MS_REC if recursive else 0))
    if read_only:
        make_read_only(target, recursive=recursive)


def tmpfs(target: str, *, mode: int = 0o755, size: str = "", flags: int = libc.MS_NOSUID | libc.MS_NODEV) -> None:
    """An empty file system in memory. `size` as in tmpfs(5)."""
    libc.mount("tmpfs", target, "tmpfs", flags, f"mode={mode:o}" + (f",size={size}" if size else ""))


def overlay(lower: str, upper: str, work: str, target: str) -> None:
    """What is in `upper` over what is in `lower`, at `target`."""
    for path in (lower, upper, work):
        if any(c in path for c in ",:\\"):
            raise OSError(errno.EINVAL, "the path has a character that overlayfs options can't carry", path)
    libc.mount("overlay", target, "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work}")


def stack(layers: Sequence[str], upper: str, work: str, target: str) -> None:
    """Layers over each other, the lowest first, and `upper` over them all for what is written, at `target`.

    Names relative to the layers' common directory keep the options within a page, however many layers there are.
    """
    lowers = list(reversed(layers)) or [upper]
    common = os.path.dirname(lowers[0])  # noqa: PTH120
    if all(os.path.dirname(lower) == common for lower in lowers):  # noqa: PTH120
        os.chdir(common)
        lowers = [os.path.basename(lower) for lower in lowers]  # noqa: PTH119
    for path in (*lowers, upper, work):
        if any(c in path for c in ",:\\"):
            raise OSError(errno.EINVAL, "the path has a character that overlayfs options can't carry", path)
    libc.mount("overlay", target, "overlay", 0, f"lowerdir={':'.join(lowers)},upperdir={upper},workdir={work}")


def make_read_only(target: str, *, recursive: bool = False) -> None:
    """Refuse writes through the mount at `target`, and with `recursive` through every mount below it."""
    try:
        _mount_setattr(target, recursive)
        return
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
    for mount in mounts(target):
        if recursive or mount.target == target:
            kept = sum(_KEPT[option] for option in mount.options if option in _KEPT)
            flags = libc.MS_REMOUNT | libc.MS_BIND | libc.MS_RDONLY | kept
            libc.mount("", mount.target, flags=flags)


def change_root(new_root: str, put_old: str) -> None:
    """pivot_root(2): `new_root` (a mount) becomes `/`; what was `/` is found at `put_old`, a path within it."""
    old = new_root.rstrip("/") + "/" + put_old.strip("/")
    number = _SYS_PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, "pivot_root is not known for this architecture", os.uname().machine)
    libc.call(
        "syscall", ctypes.c_long(number), os.fsencode(new_root), os.fsencode(old), about=f"pivot_root to {new_root}"
    )
    os.chdir("/")


class _MountAttr(ctypes.Structure):
    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


def _mount_setattr(target: str, recursive: bool) -> None:
    attributes = _MountAttr(attr_set=_MOUNT_ATTR_RDONLY)
    libc.call(
        "syscall",
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        os.fsencode(target),
        ctypes.c_uint(_AT_RECURSIVE if recursive else 0),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
        about=target,
    )


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text) if "\\" in text else text
