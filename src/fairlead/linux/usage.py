"""What processes use of the machine: processor time and memory, read from proc(5).

By processes, not by control groups: those are made only where something is limited, and are not writable everywhere.
A process that ended counts with the parent that waited for it. Memory is what is a process's own: its files' pages
belong to whoever maps them, and to the cache.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Usage(msgspec.Struct, frozen=True):
    """`cpu`: nanoseconds so far; `memory`: bytes now."""

    cpu: int = 0
    memory: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.cpu + other.cpu, self.memory + other.memory)


def parse_stat(text: str) -> int:
    """Processor time of a process and of its children that ended, in nanoseconds. The name, which may hold anything,
    ends with the last parenthesis."""
    fields = text.rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) * _TICK


def parse_statm(text: str) -> int:
    """Bytes of memory of a process's own."""
    _, resident, shared, *_ = map(int, text.split())
    return max(0, resident - shared) * _PAGE


def family(pid: int) -> list[int]:
    """A process and all that descend from it; those that end meanwhile may be missing."""
    found, left = [], [pid]
    while left:
        one = left.pop()
        found.append(one)
        try:
            for task in os.listdir(f"/proc/{one}/task"):  # noqa: PTH208 - a string is all that is needed, thousands of times
                left += map(int, Path(f"/proc/{one}/task/{task}/children").read_text().split())
        except OSError:
            continue
    return found


def of(pids: Iterable[int]) -> Usage:
    """What these processes use together; nothing, of those that are gone."""
    total = Usage()
    for pid in pids:
        try:
            total += Usage(
                parse_stat(Path(f"/proc/{pid}/stat").read_text()), parse_statm(Path(f"/proc/{pid}/statm").read_text())
            )
        except OSError:
            continue
    return total


def own() -> Usage:
    """What this process alone uses, without its children."""
    spent = os.times()
    return Usage(int((spent.user + spent.system) * 1e9), parse_statm(Path("/proc/self/statm").read_text()))
