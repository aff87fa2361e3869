"""Reading container logs as `kubectl logs` asks for them.

Source: upstream's pkg/kubelet/kuberuntime/logs. The follower is woken by inotify, not by a clock. Invariant: what is
sent is a contiguous part of the log, whole entries only (but for limitBytes).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import msgspec

from fairlead.kubelet import crilog
from fairlead.linux import libc

_BLOCK = 64 * 1024
_IN_MODIFY = 0x2
_IN_MOVE_SELF = 0x800
_IN_CLOEXEC = 0o2000000
_IN_NONBLOCK = 0o4000
_IDLE_CHECK = 1.0  # for an end that comes without a write


class LogOptions(msgspec.Struct, frozen=True):
    """PodLogOptions. `since` is nanoseconds since the epoch; -1 means no limit."""

    follow: bool = False
    tail: int = -1
    since: int = 0
    timestamps: bool = False
    limit_bytes: int = -1


async def read(path: Path, options: LogOptions, ended: Callable[[], bool]) -> AsyncGenerator[bytes]:
    """The log's text in blocks of whole lines. `ended` says whether the container is over, so that following may stop.

    Raises FileNotFoundError.
    """
    budget = options.limit_bytes
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.lseek(fd, _tail_offset(fd, options.tail) if options.tail >= 0 else 0, os.SEEK_SET)
        pending = b""
        with _Watch(path) as watch:
            while True:
                over = ended()  # asked before reading: what is written before the end is read after it
                data = os.read(fd, _BLOCK)
                whole, newline, pending = (pending + data).rpartition(b"\n")
                if block := _render(whole.split(b"\n"), options) if newline else b"":
                    if budget >= 0:
                        block = block[:budget]
                        budget -= len(block)
                    yield block
                    if budget == 0:
                        return
                if data:
                    continue
                if _rotated(path, fd):
                    os.close(fd)
                    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                    watch.renew()
                    continue
                if not options.follow or over:
                    return
                await watch.wait()
    finally:
        os.close(fd)


def _rotated(path: Path, fd: int) -> bool:
    """Whether another file has the name, and the one we read is read to its end."""
    try:
        if path.stat().st_ino == os.fstat(fd).st_ino:
            return False
    except FileNotFoundError:
        return False
    return os.fstat(fd).st_size <= os.lseek(fd, 0, os.SEEK_CUR)


def _render(lines: list[bytes], options: LogOptions) -> bytes:
    parts = []
    for line in lines:
        try:
            entry = crilog.parse(line)
            if options.since and crilog.parse_time(entry.time) < options.since:
                continue
        except ValueError:
            continue
        parts.append(entry.time + b" " + entry.text if options.timestamps else entry.text)
    return b"".join(parts)


def _tail_offset(fd: int, count: int) -> int:
    """Where the last `count` lines begin. A partial entry belongs to the line that it begins."""
    position = size = os.fstat(fd).st_size
    if count == 0:
        return size
    step, data = _BLOCK, b""
    while True:
        start = max(0, position - step)
        data = os.pread(fd, position - start, start) + data
        position, step = start, step * 2
        lines = data.split(b"\n")[:-1]
        offset = position + sum(len(line) + 1 for line in lines)
        found = 0
        for line in reversed(lines):
            if line.split(b" ", 3)[2:3] == [b"F"]:
                found += 1
                if found > count:
                    return offset
            offset -= len(line) + 1
        if position == 0:
            return 0


class _Watch:
    """Waits for a file to change, by inotify(7)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = libc.call("inotify_init1", ctypes.c_int(_IN_CLOEXEC | _IN_NONBLOCK))
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> _Watch:
        self.renew()
        self._loop.add_reader(self._fd, self._read)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def renew(self) -> None:
        """Watch the file that has the name now."""
        events = ctypes.c_uint32(_IN_MODIFY | _IN_MOVE_SELF)
        libc.call("inotify_add_watch", ctypes.c_int(self._fd), os.fsencode(self._path), events)

    def _read(self) -> None:
        try:
            os.read(self._fd, 4096)
        except BlockingIOError:
            return
        self._changed.set()

    async def wait(self) -> None:
        """Until the file was written or moved, or a moment has passed."""
        try:
            async with asyncio.timeout(_IDLE_CHECK):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()
