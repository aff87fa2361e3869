"""Progress while a command works: a spinner on a terminal, a line per step in a pipe."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, TextIO


class Progress:
    """Says each step and how long it took, on `stream`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._label = ""
        self._since = 0.0
        self._status: Any = None

    def __enter__(self) -> Progress:
        if self._stream.isatty():
            from rich.console import Console

            self._status = Console(file=self._stream).status("")
            self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: TracebackType | BaseException | None) -> None:
        self._close("✗" if kind else "✓")
        if self._status is not None:
            self._status.stop()

    def step(self, label: str) -> None:
        """The step before is done; this one begins."""
        self._close("✓")
        self._label, self._since = label, time.monotonic()
        if self._status is not None:
            self._status.update(label)

    def _close(self, mark: str) -> None:
        if self._label:
            line = f" {mark} {self._label} ({(time.monotonic() - self._since) * 1000:.0f} ms)"
            if self._status is not None:
                self._status.console.print(line, highlight=False)
            else:
                print(line, file=self._stream, flush=True)
        self._label = ""
