"""What both stores keep in memory: the current records in key order, and the recent events.

Stands under memory.py and sqlite.py; touched by the event loop's thread only. Invariant: `State` is the result of every
event published so far, and `History` holds every event with a revision greater than its `start`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Sequence

from fairlead.store.interface import CompareFailed, Delete, Event, Operation, Page, Put, Record

MAX_OPERATIONS = 1000
"""Operations in one commit, at most."""


def decide(operations: Sequence[Operation], revision: int, current: Callable[[str], Record | None]) -> list[Event]:
    """The events that a commit at `revision` would make of `current`. Raises CompareFailed; ValueError for misuse."""
    if len(operations) > MAX_OPERATIONS:
        raise ValueError(f"a commit has at most {MAX_OPERATIONS} operations, not {len(operations)}")
    if len({operation.key for operation in operations}) != len(operations):
        raise ValueError("the keys of a commit's operations must differ")
    events: list[Event] = []
    for operation in operations:
        key, expected = operation.key, operation.expected
        before = current(key)
        if expected is not None and expected != (before.modified if before else 0):
            raise CompareFailed(key, before)
        if isinstance(operation, Put):
            record = Record(key, operation.value, before.created if before else revision, revision)
            events.append(Event("PUT", record, before, revision))
        elif isinstance(operation, Delete):
            if before is None:
                raise CompareFailed(key, None)
            events.append(Event("DELETE", Record(key, before.value, before.created, revision), before, revision))
    return events


def prefix_end(prefix: str) -> str:
    """The smallest text greater than everything that starts with `prefix`, which is not empty.

    Surrogates are skipped: they can't be written as UTF-8, which SQLite compares.
    """
    last = ord(prefix[-1])
    if last == 0x10FFFF:
        return prefix_end(prefix[:-1]) if prefix[:-1] else chr(last) * 2
    return prefix[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)


class State:
    """The current records."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._records = {record.key: record for record in records}
        self._keys = sorted(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def get(self, key: str) -> Record | None:
        """The record at that key."""
        return self._records.get(key)

    def apply(self, event: Event) -> None:
        """Take one event in."""
        record = event.record
        if event.type == "PUT":
            if record.key not in self._records:
                insort(self._keys, record.key)
            self._records[record.key] = record
        elif self._records.pop(record.key, None) is not None:
            del self._keys[bisect_left(self._keys, record.key)]

    def page(self, prefix: str, after: str, limit: int, revision: int) -> Page:
        """Records below `prefix` and past `after`, in order."""
        keys = self._keys
        low = bisect_left(keys, prefix) if after < prefix else bisect_right(keys, after)
        high = bisect_left(keys, prefix_end(prefix), low) if prefix else len(keys)
        end = min(high, low + limit) if limit else high
        return Page([self._records[key] for key in keys[low:end]], revision, max(0, high - end))

    def page_before(self, events: Iterable[Event], prefix: str, after: str, limit: int, revision: int) -> Page:
        """As `page`, but as it was before `events` (newest first) happened."""
        undone: dict[str, Record | None] = {}
        for event in events:
            if event.record.key.startswith(prefix):
                undone[event.record.key] = event.previous
        now = self.page(prefix, after, 0, revision)
        records = {record.key: record for record in now.records}
        for key, record in undone.items():
            if key <= after:
                continue
            if record is None:
                records.pop(key, None)
            else:
                records[key] = record
        ordered = [records[key] for key in sorted(records)]
        chosen = ordered[:limit] if limit else ordered
        return Page(chosen, revision, len(ordered) - len(chosen))


class History:
    """Recent events in order. `limit` bounds how many are kept (0: all, until compaction)."""

    def __init__(self, start: int, limit: int = 0) -> None:
        self.start, self._limit = start, limit
        self._events: list[Event] = []

    def append(self, events: Sequence[Event]) -> None:
        """Add whole commits. Trims by halves, so that it costs nothing on average."""
        self._events.extend(events)
        if self._limit and len(self._events) > 2 * self._limit:
            self.forget(self._events[-self._limit - 1].revision)

    def forget(self, revision: int) -> None:
        """Drop events up to and including `revision`."""
        if revision > self.start:
            del self._events[: self._index(revision)]
            self.start = revision

    def since(self, revision: int, prefix: str) -> list[Event]:
        """Events after `revision`, which is not before `start`, below `prefix`."""
        return [event for event in self._events[self._index(revision) :] if event.record.key.startswith(prefix)]

    def newest_first(self, revision: int) -> Iterable[Event]:
        """Events after `revision`, backwards."""
        return reversed(self._events[self._index(revision) :])

    def _index(self, revision: int) -> int:
        return bisect_right(self._events, revision, key=lambda event: event.revision)
