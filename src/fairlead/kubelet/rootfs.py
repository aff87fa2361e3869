"""The root file system of a `fairlead/host` container: the machine's own, read-only, with the container's mounts in it.

Runs in the container's first process, after it has its PID namespace and before it becomes the program. The new root is
a small tmpfs in which every entry of `/` is bound read-only; /tmp, /run, /dev, /proc and /sys are the container's own.
A mount point that the machine does not have is made: at the top in the tmpfs, deeper by an overlay of the one directory
that lacks it. Invariants: nothing of this is seen outside the container's mount namespace; when `build` returns, the
machine's files can be written only through volumes; masked directories are empty.
"""

# Between a fork and the program, a path is a string and a call is a system call: objects would cost milliseconds.
# ruff: noqa: PTH101, PTH102, PTH103, PTH106, PTH110, PTH112, PTH115, PTH116, PTH120, PTH211

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from fairlead.linux import libc
from fairlead.linux import mounts as mnt

_OLD = "/.old-root"
_SCRATCH = "/.scratch"
_OWN = frozenset({"proc", "sys", "dev", "run", "tmp"})
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
# What container runtimes hide and lock (OCI runtime spec, default of moby and containerd).
MASKED = (
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
)
LOCKED = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class Bind(msgspec.Struct, frozen=True):
    """A file or directory of the machine shown at `target` in the container. `source` is absolute and has no symbolic
    links: they would be followed in the wrong root."""

    source: str
    target: str
    read_only: bool = False


def hidden(directories: Iterable[str]) -> tuple[Bind, ...]:
    """Binds for those of the machine's directories that a container's own /tmp or /run would hide, each once."""
    found = {
        path
        for path in map(os.path.realpath, directories)
        if path.startswith(("/tmp/", "/run/")) and os.path.isdir(path)
    }
    return tuple(Bind(path, path, read_only=True) for path in sorted(found))


class RootPlan(msgspec.Struct, frozen=True):
    """What the root shall be. `staging` is an existing empty directory to build it at; `masked` are the machine's
    directories and files that the container must not read; `shm` is the pod's /dev/shm."""

    staging: str
    binds: tuple[Bind, ...] = ()
    masked: tuple[str, ...] = ()
    shm: str = ""
    privileged: bool = False
    read_only_root: bool = False


def build(plan: RootPlan) -> None:
    """Make the plan this process's root. The process must be alone in its thread group."""
    mnt.private_namespace()
    mnt.tmpfs(plan.staging)
    _skeleton(plan.staging)
    os.mkdir(plan.staging + _OLD)
    mnt.change_root(plan.staging, _OLD)
    os.umask(0)
    _own_directories(plan)
    os.mkdir(_SCRATCH)
    mnt.tmpfs(_SCRATCH)
    grafts = _Grafts()
    _mask(plan.masked)
    for bind in sorted(plan.binds, key=lambda b: b.target.rstrip("/").count("/")):
        source = _OLD + bind.source
        target = grafts.mount_point(bind.target, directory=os.path.isdir(source))
        mnt.bind(source, target, recursive=True, read_only=bind.read_only)
    grafts.freeze()
    for path in (_SCRATCH, _OLD):
        libc.umount(path)
        os.rmdir(path)
    if plan.read_only_root:
        for path in ("/run", "/tmp"):
            mnt.make_read_only(path)
    mnt.make_read_only("/")
    os.umask(0o022)


def _skeleton(root: str) -> None:
    """Every entry of `/`, but for those that are made anew, bound into `root` read-only with what is mounted below."""
    with os.scandir("/") as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            place = f"{root}/{entry.name}"
            if entry.name in _OWN or entry.name == _OLD.strip("/"):
                continue
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), place)
                continue
            if entry.is_dir():
                os.mkdir(place)
            elif entry.is_file():
                Path(place).touch()
            else:
                continue
            mnt.bind(entry.path, place, recursive=True, read_only=True)


def _own_directories(plan: RootPlan) -> None:
    for name in _OWN:
        os.mkdir(f"/{name}")
    mnt.tmpfs("/run")
    os.mkdir("/run/lock", 0o1777)
    mnt.tmpfs("/tmp", mode=0o1777)
    libc.mount("proc", "/proc", "proc", libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC)
    try:
        libc.mount("sysfs", "/sys", "sysfs", libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC | libc.MS_RDONLY)
    except PermissionError:  # a user namespace that does not own the network namespace
        mnt.bind(_OLD + "/sys", "/sys", recursive=True, read_only=True)
    _devices(plan.shm)
    if plan.privileged:
        return
    for path in LOCKED:
        if os.path.exists(path):
            mnt.bind(path, path, recursive=True, read_only=True)
    _mask(MASKED)


def _devices(shm: str) -> None:
    mnt.tmpfs("/dev", flags=libc.MS_NOSUID, size="64k")
    for name, (major, minor) in _DEVICES.items():
        path = f"/dev/{name}"
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(major, minor))
        except PermissionError:  # a user namespace: show the machine's own
            Path(path).touch()
            mnt.bind(_OLD + path, path, read_only=True)
    for name, to in _DEVICE_LINKS.items():
        os.symlink(to, f"/dev/{name}")
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(f"/dev/{name}")
    quiet = libc.MS_NOSUID | libc.MS_NOEXEC
    try:
        libc.mount("devpts", "/dev/pts", "devpts", quiet, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    except OSError as error:
        if error.errno != errno.EINVAL:  # gid 5 is not mapped in a user namespace
            raise
        libc.mount("devpts", "/dev/pts", "devpts", quiet, "newinstance,ptmxmode=0666,mode=0620")
    if shm:
        mnt.bind(_OLD + shm, "/dev/shm")
    else:
        mnt.tmpfs("/dev/shm", mode=0o1777, size="64m")
    libc.mount("mqueue", "/dev/mqueue", "mqueue", quiet | libc.MS_NODEV)


def _mask(paths: Sequence[str]) -> None:
    """Cover directories with an empty one and files with /dev/null. What is not there needs no cover."""
    for path in paths:
        if os.path.isdir(path):
            libc.mount("tmpfs", path, "tmpfs", libc.MS_RDONLY | libc.MS_NOSUID, "size=0,mode=755")
        elif os.path.exists(path):
            mnt.bind("/dev/null", path)


class _Grafts:
    """Makes mount points where the machine has none, by an overlay over the deepest directory that is there."""

    def __init__(self) -> None:
        self._made: list[str] = []

    def mount_point(self, target: str, *, directory: bool) -> str:
        """An existing directory or file for `target`, with symbolic links followed within the new root."""
        path = os.path.realpath(target)
        if os.path.lexists(path):
            if os.path.isdir(path) != directory:
                kind = "a directory on a file" if directory else "a file on a directory"
                raise OSError(errno.ENOTDIR, f"can't mount {kind}", target)
            return path
        try:
            self._make(path, directory)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.ENOENT, errno.EPERM):
                raise
            self._graft(path)
            self._make(path, directory)
        return path

    def freeze(self) -> None:
        """No more mount points: what was made is read-only like the rest."""
        for path in self._made:
            mnt.make_read_only(path)

    @staticmethod
    def _make(path: str, directory: bool) -> None:
        os.makedirs(path if directory else os.path.dirname(path), 0o755, exist_ok=True)
        if not directory:
            Path(path).touch(0o644)

    def _graft(self, path: str) -> None:
        parent = os.path.dirname(path)
        while not os.path.isdir(parent):
            parent = os.path.dirname(parent)
        before = mnt.mounts(parent)
        upper, work = f"{_SCRATCH}/{len(self._made)}/upper", f"{_SCRATCH}/{len(self._made)}/work"
        for made in (upper, work):
            os.makedirs(made)
        found = os.stat(parent)
        os.chmod(upper, stat.S_IMODE(found.st_mode))
        os.chown(upper, found.st_uid, found.st_gid)
        # An overlay shows one file system: what was mounted below is carried over.
        inner = [m.target for m in before if m.target != parent]
        carried = []
        for number, place in enumerate(inner):
            shelter = f"{_SCRATCH}/{len(self._made)}/{number}"
            if os.path.isdir(place):
                os.mkdir(shelter)
            else:
                Path(shelter).touch()
            mnt.bind(place, shelter)
            carried.append((shelter, place))
        mnt.overlay(parent, upper, work, parent)
        for shelter, place in carried:
            libc.mount(shelter, place, flags=libc.MS_MOVE)
        self._made.append(parent)
