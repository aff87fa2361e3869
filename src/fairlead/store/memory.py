"""The store in memory: the twin of sqlite.py for tests and throw-away clusters.

Invariant: behaves as the SQLite store in everything the contract suite can see, and forgets all when closed.
"""

from __future__ import annotations

from fairlead.store.interface import (
    Compacted,
    FutureRevision,
    Operation,
    Page,
    Record,
    StoreClosed,
)
from fairlead.store.state import History, State, decide
from fairlead.store.watchers import QueuedWatch, Watchers


class MemoryStore:
    """A `Store` without a file. `queue_limit`: how many events may wait for one watcher."""

    def __init__(self, *, queue_limit: int = 10_000) -> None:
        self._state = State()
        self._history = History(start=1)
        self._watchers = Watchers(queue_limit, revision=1)
        self._revision = self._oldest = 1
        self._closed = False

    @property
    def revision(self) -> int:
        """The newest revision."""
        return self._revision

    @property
    def oldest(self) -> int:
        """The oldest revision still listed and watched from."""
        return self._oldest

    async def catch_up(self) -> None:
        """As `Store.catch_up`: nobody else writes here."""
        self._check_open()

    async def get(self, key: str) -> Record | None:
        """The record at the newest revision."""
        self._check_open()
        return self._state.get(key)

    async def list(self, prefix: str, *, revision: int = 0, after: str = "", limit: int = 0) -> Page:
        """As `Store.list`."""
        self._check_open()
        self._check_revision(revision or self._revision)
        if revision in {0, self._revision}:
            return self._state.page(prefix, after, limit, self._revision)
        return self._state.page_before(self._history.newest_first(revision), prefix, after, limit, revision)

    async def commit(self, *operations: Operation) -> int:
        """As `Store.commit`."""
        self._check_open()
        events = decide(operations, self._revision + 1, self._state.get)
        if events:
            self._revision += 1
            for event in events:
                self._state.apply(event)
            self._history.append(events)
            self._watchers.publish(events)
        return self._revision

    def watch(self, prefix: str, since: int) -> QueuedWatch:
        """As `Store.watch`."""
        self._check_open()
        self._check_revision(since)
        return self._watchers.add(prefix, since, self._history.since(since, prefix))

    async def compact(self, revision: int) -> None:
        """As `Store.compact`."""
        self._check_open()
        if revision > self._revision:
            raise FutureRevision(self._revision)
        if revision > self._oldest:
            self._oldest = revision
            self._history.forget(revision)

    async def close(self) -> None:
        """As `Store.close`."""
        self._closed = True
        self._watchers.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed("the store was closed")

    def _check_revision(self, revision: int) -> None:
        if revision < self._oldest:
            raise Compacted(self._oldest)
        if revision > self._revision:
            raise FutureRevision(self._revision)
