"""Container logs in the CRI's format: `2026-01-02T03:04:05.000000006Z stdout F the line`.

The shim writes them, the kubelet's server reads them. Invariant: `parse(render(...))` gives back time, stream and text;
a line longer than MAX_LINE is written as several entries, all but the last marked partial (P).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

MAX_LINE = 16 * 1024


class Entry(msgspec.Struct, frozen=True):
    """One entry. `time` is the text as written; `text` ends in a newline unless the entry is partial."""

    time: bytes
    stream: bytes
    text: bytes


def render_time(nanoseconds: int) -> bytes:
    """RFC3339Nano in UTC of nanoseconds since the epoch: trailing zeros of the fraction are left out, as Go does."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    tail = f"{fraction:09d}".rstrip("0")
    return f"{text}.{tail}Z".encode() if tail else f"{text}Z".encode()


def parse_time(text: bytes) -> int:
    """Nanoseconds since the epoch. ValueError if it is no RFC3339Nano time in UTC."""
    head, _, tail = text.rstrip(b"Z").partition(b".")
    seconds = int(datetime.strptime(head.decode(), "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp())
    return seconds * 1_000_000_000 + (int(tail[:9].ljust(9, b"0")) if tail else 0)


def parse(line: bytes) -> Entry:
    """One line of a log file, with or without its newline. ValueError if it is not one."""
    parts = line.rstrip(b"\n").split(b" ", 3)
    if len(parts) != 4 or parts[1] not in (b"stdout", b"stderr"):
        raise ValueError(f"not a log entry: {line[:80]!r}")
    partial = parts[2].split(b":", 1)[0] == b"P"
    return Entry(parts[0], parts[1], parts[3] if partial else parts[3] + b"\n")


class LogFile:
    """A log file that is appended to, and rotated when it passes `max_bytes`; `max_files` are kept with the current."""

    def __init__(
        self,
        path: str,
        max_bytes: int,
        max_files: int,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._path, self._max_bytes, self._max_files, self._clock = path, max_bytes, max_files, clock
        self._rest = {b"stdout": b"", b"stderr": b""}
        self._open()

    def _open(self) -> None:
        Path(self._path).parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size

    def feed(self, stream: bytes, data: bytes) -> None:
        """Take what a container wrote. An unfinished line waits for its end."""
        data = self._rest[stream] + data
        lines = data.split(b"\n")
        rest = lines.pop()
        stamp = render_time(self._clock())
        entries: list[bytes] = []
        for line in lines:
            text = line
            while len(text) > MAX_LINE:
                entries.append(b"%s %s P %s\n" % (stamp, stream, text[:MAX_LINE]))
                text = text[MAX_LINE:]
            entries.append(b"%s %s F %s\n" % (stamp, stream, text))
        while len(rest) > MAX_LINE:
            entries.append(b"%s %s P %s\n" % (stamp, stream, rest[:MAX_LINE]))
            rest = rest[MAX_LINE:]
        self._rest[stream] = rest
        self._write(b"".join(entries))

    def end(self, stream: bytes) -> None:
        """The stream is closed: its last line is complete, newline or not."""
        if rest := self._rest[stream]:
            self._rest[stream] = b""
            self._write(b"%s %s F %s\n" % (render_time(self._clock()), stream, rest))

    def close(self) -> None:
        """Write what waits and close the file."""
        self.end(b"stdout")
        self.end(b"stderr")
        os.close(self._fd)

    def _write(self, data: bytes) -> None:
        if not data:
            return
        if self._size and self._size + len(data) > self._max_bytes:
            self._rotate()
        view = memoryview(data)
        while view:
            written = os.write(self._fd, view)
            self._size += written
            view = view[written:]

    def _rotate(self) -> None:
        os.close(self._fd)
        stamp = self._clock()
        path = Path(self._path)
        path.rename(f"{self._path}.{stamp:020d}")
        rotated = sorted(p for p in path.parent.iterdir() if p.name.startswith(path.name + "."))
        for old in rotated[: max(0, len(rotated) - (self._max_files - 1))]:
            old.unlink(missing_ok=True)
        self._open()
