"""Named network namespaces, in the place and manner of ip-netns(8), so that `ip netns exec` works on them.

Stands on libc. Invariant: the calling thread is back in its own namespace when a call returns; a name that exists is a
live namespace, never a leftover file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from fairlead.linux import libc

DIRECTORY = Path("/run/netns")
T = TypeVar("T")


def path(name: str) -> Path:
    """Where a named namespace lives."""
    return DIRECTORY / name


def exists(name: str) -> bool:
    """Whether `name` is a live namespace: a file on nsfs, not the file it would be mounted on."""
    try:
        return path(name).stat().st_dev != DIRECTORY.stat().st_dev
    except FileNotFoundError:
        return False


def create(name: str) -> None:
    """Make the namespace, with its loopback down. Raises FileExistsError if it is there."""
    _prepare_directory()
    target = path(name)
    if exists(name):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    target.touch(mode=0o444)

    def enter_and_bind() -> None:
        libc.unshare(libc.CLONE_NEWNET)
        libc.mount("/proc/thread-self/ns/net", str(target), flags=libc.MS_BIND)

    try:
        _on_thread(enter_and_bind)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def delete(name: str) -> None:
    """Take the name away; the kernel frees the namespace when nothing uses it. Deleting what is gone is fine."""
    target = path(name)
    with contextlib.suppress(OSError):
        libc.umount(str(target))
    target.unlink(missing_ok=True)


def names(prefix: str = "") -> list[str]:
    """The named namespaces that start with `prefix`, sorted."""
    try:
        return sorted(p.name for p in DIRECTORY.iterdir() if p.name.startswith(prefix))
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def entered(target: Path | str | int) -> Iterator[None]:
    """Run the block inside a network namespace: a path or an open descriptor. This thread only.

    For short, synchronous work (opening sockets, writing sysctls): never await inside.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fd = target if isinstance(target, int) else os.open(target, os.O_RDONLY | os.O_CLOEXEC)
        try:
            libc.setns(fd, libc.CLONE_NEWNET)
        finally:
            if not isinstance(target, int):
                os.close(fd)
        try:
            yield
        finally:
            libc.setns(home, libc.CLONE_NEWNET)
    finally:
        os.close(home)


def _prepare_directory() -> None:
    """As ip-netns does: a shared mount, so that a namespace's name is seen in every mount namespace."""
    DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        libc.mount("", str(DIRECTORY), flags=libc.MS_SHARED | libc.MS_REC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        libc.mount(str(DIRECTORY), str(DIRECTORY), flags=libc.MS_BIND | libc.MS_REC)
        libc.mount("", str(DIRECTORY), flags=libc.MS_SHARED | libc.MS_REC)


def _on_thread(work: Callable[[], T]) -> T:
    """Do `work` on a thread of its own, whose namespaces die with it."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="fairlead-namespace")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
