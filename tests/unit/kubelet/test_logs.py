"""Log files: what the shim writes and what `kubectl logs` reads of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairlead.kubelet.crilog import MAX_LINE, LogFile, parse, parse_time, render_time
from fairlead.kubelet.logs import LogOptions, read


def test_entries_are_whole_lines_of_one_stream(tmp_path: Path) -> None:
    """A line that comes in pieces waits for its end; the last needs no newline; streams do not mix."""
    log = LogFile(str(tmp_path / "0.log"), 10**6, 5, clock=lambda: 1_500_000_000_000_000_000)
    log.feed(b"stdout", b"one\ntw")
    log.feed(b"stderr", b"bad\n")
    log.feed(b"stdout", b"o\nend")
    log.close()
    assert (tmp_path / "0.log").read_bytes() == (
        b"2017-07-14T02:40:00Z stdout F one\n2017-07-14T02:40:00Z stderr F bad\n"
        b"2017-07-14T02:40:00Z stdout F two\n2017-07-14T02:40:00Z stdout F end\n"
    )


def test_long_lines_are_partial_entries(tmp_path: Path) -> None:
    """16 KiB each, all but the last marked P."""
    log = LogFile(str(tmp_path / "0.log"), 10**6, 5)
    log.feed(b"stdout", b"x" * (2 * MAX_LINE + 5) + b"\n")
    log.close()
    lines = (tmp_path / "0.log").read_bytes().splitlines()
    assert [line.split(b" ")[2] for line in lines] == [b"P", b"P", b"F"]
    assert b"".join(parse(line).text for line in lines) == b"x" * (2 * MAX_LINE + 5) + b"\n"


def test_rotation_keeps_the_newest(tmp_path: Path) -> None:
    """By size; max_files with the current one."""
    log = LogFile(str(tmp_path / "0.log"), 200, 3)
    for n in range(50):
        log.feed(b"stdout", b"line %d\n" % n)
    log.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3
    assert all(f.stat().st_size <= 200 for f in files)
    assert (tmp_path / "0.log").read_bytes().endswith(b"line 49\n")


@pytest.mark.parametrize("nanoseconds", [0, 1, 1_500_000_000_000_000_000, 1_500_000_000_120_000_000, 17 * 10**17 + 9])
def test_times(nanoseconds: int) -> None:
    """parse_time(render_time(t)) == t."""
    assert parse_time(render_time(nanoseconds)) == nanoseconds


async def collect(path: Path, **options: object) -> bytes:
    blocks = read(path, LogOptions(**options), lambda: True)  # type: ignore[arg-type]
    return b"".join([block async for block in blocks])


@pytest.mark.parametrize("tail", [-1, 0, 1, 2, 5, 4999, 5000, 6000])
async def test_tail_counts_lines(tmp_path: Path, tail: int) -> None:
    """The last n, however far back they are; partial entries belong to their line."""
    log = LogFile(str(tmp_path / "0.log"), 10**9, 5)
    texts = [f"line {n} " + "x" * (20_000 if n == 4_998 else 10) for n in range(5000)]
    log.feed(b"stdout", "".join(t + "\n" for t in texts).encode())
    log.close()
    expected = texts if tail < 0 else texts[len(texts) - min(tail, len(texts)) :]
    assert (await collect(tmp_path / "0.log", tail=tail)).decode().splitlines() == expected


async def test_bytes_are_limited_and_times_shown(tmp_path: Path) -> None:
    """limitBytes cuts anywhere; timestamps precede each entry; since leaves the older out."""
    stamps = iter([10**18, 2 * 10**18])
    log = LogFile(str(tmp_path / "0.log"), 10**9, 5, clock=lambda: next(stamps))
    log.feed(b"stdout", b"one\n")
    log.feed(b"stdout", b"two\n")
    log.close()
    assert await collect(tmp_path / "0.log", limit_bytes=6) == b"one\ntw"
    assert await collect(tmp_path / "0.log", timestamps=True, tail=1) == b"2033-05-18T03:33:20Z two\n"
    assert await collect(tmp_path / "0.log", since=10**18 + 1) == b"two\n"
