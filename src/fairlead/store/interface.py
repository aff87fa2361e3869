"""What every store offers, and its law.

One logical log. A commit takes the next revision, and all its operations carry that one revision. Whoever watches sees
every commit after the asked-for revision exactly once, in order, and only after it is durable. One contract suite
(tests/contract/test_store.py) holds every implementation to this.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Literal, Protocol

import msgspec


class Record(msgspec.Struct, frozen=True, dict=True):
    """A key's value at one moment. `modified` is the revision of the commit that wrote it.

    `dict=True` lets a reader hang on it what it has read out of the value.
    """

    key: str
    value: bytes
    created: int
    modified: int


class Put(msgspec.Struct, frozen=True):
    """Write a value. `expected`: the `modified` the key must have now; 0: it must not exist; None: whatever."""

    key: str
    value: bytes
    expected: int | None = None


class Delete(msgspec.Struct, frozen=True):
    """Remove a key, which must exist. `expected` as in `Put`."""

    key: str
    expected: int | None = None


class Require(msgspec.Struct, frozen=True):
    """Change nothing, but fail the commit unless the key is at `expected` (0: absent)."""

    key: str
    expected: int


Operation = Put | Delete | Require


class Event(msgspec.Struct, frozen=True, dict=True):
    """One operation of one commit, as watchers see it.

    `record` is the record after a PUT; for DELETE its key with the last value and `modified` = the deleting revision.
    `previous` is the record before, None when the key was created. `dict=True` lets a reader hang its encoded form on
    the event, so that all watchers share the bytes.
    """

    type: Literal["PUT", "DELETE"]
    record: Record
    previous: Record | None
    revision: int


class Page(msgspec.Struct, frozen=True):
    """A list at one revision, in key order. `remaining` counts the records after the last one given."""

    records: list[Record]
    revision: int
    remaining: int


class CompareFailed(Exception):
    """A commit's expectation did not hold: nothing was written. `current` is the record there now, or None."""

    def __init__(self, key: str, current: Record | None) -> None:
        super().__init__(f"{key} is at revision {current.modified if current else 0}, not at the expected one")
        self.key, self.current = key, current


class Compacted(Exception):
    """The asked-for revision is no longer kept. `oldest` is the oldest that is."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"revisions before {oldest} are compacted")
        self.oldest = oldest


class FutureRevision(Exception):
    """The asked-for revision has not happened yet. `current` is the newest."""

    def __init__(self, current: int) -> None:
        super().__init__(f"the store is at revision {current}")
        self.current = current


class WatcherTooSlow(Exception):
    """The watcher's queue was full; it was dropped, alone, and must list and watch anew."""


class StoreClosed(Exception):
    """The store was closed while the call was under way."""


class StoreFailed(Exception):
    """A write could not be made durable (a full or failing disk, a server that is away). The message says what to do.

    Nothing was written, or, where the message says so, that is not known.
    """


class StoreCorrupt(Exception):
    """The store's file can't be read. The message names the file, what is wrong with it, and the way out."""


class Watch(Protocol):
    """An open watch: iterate it for batches of events; close it when done.

    A batch is never empty and holds whole commits. Raises `WatcherTooSlow`, `Compacted` or `StoreClosed` when it ends
    by itself.
    """

    def __aiter__(self) -> AsyncIterator[Sequence[Event]]: ...

    async def __anext__(self) -> Sequence[Event]: ...

    @property
    def progress(self) -> int:
        """The newest revision up to which everything this watch is about was given out."""
        ...

    def close(self) -> None: ...


class Store(Protocol):
    """A revisioned log of objects. Revisions start at 1; an empty store is at revision 1.

    Revisions only grow, also over a crash: one that was seen is never given to another commit. All methods are called
    from the event loop's thread.
    """

    @property
    def revision(self) -> int:
        """The newest durable revision."""
        ...

    @property
    def oldest(self) -> int:
        """The oldest revision that `list` and `watch` still accept."""
        ...

    async def catch_up(self) -> None:
        """Return once this view has everything that anyone was told of before the call.

        A store of one process always has. One that several processes share may lag behind the others' writes until
        this was called. Raises StoreFailed when that can't be found out.
        """
        ...

    async def get(self, key: str) -> Record | None:
        """The record at the newest revision of this view."""
        ...

    async def list(self, prefix: str, *, revision: int = 0, after: str = "", limit: int = 0) -> Page:
        """Records whose key starts with `prefix` and is greater than `after`, at `revision` (0: the newest).

        `limit` 0 means all. Raises Compacted or FutureRevision.
        """
        ...

    async def commit(self, *operations: Operation) -> int:
        """All or nothing; returns the commit's revision once durable.

        Keys must differ (ValueError). Without a Put or Delete in it nothing is written and the newest revision is
        returned. Raises CompareFailed, StoreFailed. If the caller is cancelled, the commit may still happen.
        """
        ...

    def watch(self, prefix: str, since: int) -> Watch:
        """Every commit with a revision greater than `since`. Raises Compacted or FutureRevision, at once."""
        ...

    async def compact(self, revision: int) -> None:
        """Forget what is needed only for revisions before `revision`. Raises FutureRevision."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, release the files. Open watches end with StoreClosed."""
        ...
