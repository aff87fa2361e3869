"""The shim's loop: one thread that waits for descriptors and calls who watches them.

Stands under the shim. Invariant: a fault in one handler ends its watch and nothing else.
"""

from __future__ import annotations

import select
import traceback
from collections.abc import Callable
from pathlib import Path


class Loop:
    """Over epoll."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._handlers: dict[int, Callable[[], object]] = {}
        self._running = True

    def run(self) -> None:
        """Until `stop` is called."""
        while self._running:
            for fd, _ in self._poll.poll():
                if handler := self._handlers.get(fd):
                    try:
                        handler()
                    except Exception:  # the pod must not die of a fault of ours
                        Path("shim.fault").write_text(traceback.format_exc())
                        self.forget(fd)

    def stop(self) -> None:
        """Let `run` return once what is ready has been handled."""
        self._running = False

    def watch(self, fd: int, handler: Callable[[], object]) -> None:
        """Call it whenever the descriptor is readable."""
        self._handlers[fd] = handler
        self._poll.register(fd, select.EPOLLIN)

    def forget(self, fd: int) -> None:
        """Watch it no more; before it is closed."""
        if self._handlers.pop(fd, None):
            self._poll.unregister(fd)
