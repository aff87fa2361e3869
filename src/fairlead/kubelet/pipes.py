"""Pipes and terminals in the event loop: read when there is something, write when there is room.

Invariant: the descriptor belongs to the Pipe, and is closed once.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from collections.abc import Callable

_BLOCK = 32 * 1024


class Pipe:
    """One end of a pipe, or a terminal's controlling side."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = asyncio.get_running_loop()

    async def read(self) -> bytes:
        """What is there; b"" at the end."""
        while self._fd >= 0:
            try:
                return os.read(self._fd, _BLOCK)
            except BlockingIOError:
                await self._until(self._loop.add_reader, self._loop.remove_reader)
            except OSError:  # EIO: nobody holds the terminal's other side any more
                break
        return b""

    async def write(self, data: bytes) -> None:
        """All of it. BrokenPipeError if nobody reads."""
        view = memoryview(data)
        while view:
            if self._fd < 0:
                raise BrokenPipeError
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                await self._until(self._loop.add_writer, self._loop.remove_writer)

    async def _until(self, add: Callable[..., object], remove: Callable[[int], object]) -> None:
        ready = asyncio.Event()
        fd = self._fd
        add(fd, ready.set)
        try:
            await ready.wait()
        finally:
            remove(fd)

    def resize(self, columns: int, rows: int) -> None:
        """Tell a terminal its size."""
        if self._fd >= 0:
            fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close(self) -> None:
        """Done with it."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1
