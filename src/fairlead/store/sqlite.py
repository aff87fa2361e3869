"""The default store: SQLite in WAL mode with synchronous=FULL, one writer thread, group commit.

Commits are queued to the writer thread, which decides them one after another against the newest state, writes all that
wait in one transaction (one fsync), and only then hands them back to the event loop, which updates the state in memory,
answers the callers and wakes the watchers. A commit whose expectation fails, fails alone. Reads come from memory; only
revisions older than the ring of recent events are read from the file, in a thread of their own.
Invariant: what a caller or a watcher was told is durable; what is durable is told in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

import msgspec

from fairlead.store.interface import (
    Compacted,
    Event,
    FutureRevision,
    Operation,
    Page,
    Record,
    StoreClosed,
    StoreFailed,
)
from fairlead.store.sqlite_log import SQLiteLog, StoreLock
from fairlead.store.state import History, State, decide
from fairlead.store.watchers import Backlog, QueuedWatch, Watchers

log = logging.getLogger("fairlead.store")

T = TypeVar("T")

MAX_BATCH = 512
"""Commits in one transaction, at most: keeps one fsync's batch in bounds."""

_BACKLOG_CHUNK = 2000


class _Commit(msgspec.Struct, eq=False):
    operations: Sequence[Operation]
    answer: asyncio.Future[int]


class _Compact(msgspec.Struct, eq=False):
    revision: int
    answer: asyncio.Future[int]


class _Outcome(msgspec.Struct, eq=False):
    """What became of one commit: its events, or why not. `revision` is what its caller is told."""

    answer: asyncio.Future[int]
    revision: int
    events: list[Event]
    failure: Exception | None = None


class _Compacted(msgspec.Struct, eq=False):
    """What became of a compaction."""

    answer: asyncio.Future[int]
    revision: int
    failure: Exception | None = None


class _Writer(threading.Thread):
    """The one thread that writes. Owns `head`: the state as the file has it."""

    def __init__(
        self,
        file: SQLiteLog,
        head: dict[str, Record],
        revision: int,
        publish: Callable[[Sequence[_Outcome | _Compacted]], None],
    ) -> None:
        super().__init__(name="store-writer", daemon=True)
        self.queue: SimpleQueue[_Commit | _Compact | None] = SimpleQueue()
        self._file, self._head, self._revision = file, head, revision
        self._publish = publish
        self._broken: str = ""
        self._sweep: tuple[int, int] | None = None  # cursor, compacted revision

    def run(self) -> None:
        closing = False
        while not closing:
            batch: list[_Commit] = []
            compactions: list[_Compact] = []
            for request in self._take():
                if request is None:
                    closing = True
                elif isinstance(request, _Commit):
                    batch.append(request)
                else:
                    compactions.append(request)
            if batch:
                self._publish(self._write(batch))
            for compaction in compactions:
                self._begin_compaction(compaction)
            if self._sweep is not None and not closing:
                self._sweep_some()
        self._file.close()

    def _take(self) -> list[_Commit | _Compact | None]:
        """What waits, at least one unless there is sweeping to do."""
        requests: list[_Commit | _Compact | None] = []
        with contextlib.suppress(Empty):
            requests.append(self.queue.get(block=self._sweep is None))
            while len(requests) < MAX_BATCH and requests[-1] is not None:
                requests.append(self.queue.get_nowait())
        return requests

    def _write(self, batch: list[_Commit]) -> list[_Outcome]:
        """Decide and write a batch: all that hold are durable when this returns."""
        if self._broken:
            return [_Outcome(commit.answer, 0, [], StoreFailed(self._broken)) for commit in batch]
        changed: dict[str, Record | None] = {}
        revision = self._revision

        def current(key: str) -> Record | None:
            return changed[key] if key in changed else self._head.get(key)

        outcomes: list[_Outcome] = []
        for commit in batch:
            try:
                events = decide(commit.operations, revision + 1, current)
            except Exception as refusal:
                outcomes.append(_Outcome(commit.answer, revision, [], refusal))
                continue
            if events:
                revision += 1
                for event in events:
                    changed[event.record.key] = event.record if event.type == "PUT" else None
            outcomes.append(_Outcome(commit.answer, revision, events))
        if revision == self._revision:
            return outcomes
        try:
            self._file.append(outcome.events for outcome in outcomes if outcome.events)
        except (sqlite3.Error, OSError, OverflowError, ValueError) as error:
            failure = StoreFailed(self._after_failure(error))
            return [_Outcome(outcome.answer, 0, [], failure) for outcome in outcomes]
        self._revision = revision
        for key, record in changed.items():
            if record is None:
                self._head.pop(key, None)
            else:
                self._head[key] = record
        return outcomes

    def _after_failure(self, error: Exception) -> str:
        """Words for a failed write; if it can't be shown that it left nothing, no further write is taken."""
        text = f"could not write to the store {self._file.path}: {error}; check the disk's space and health"
        log.error("%s", text)
        try:
            clean = self._file.newest_revision() == self._revision
        except sqlite3.Error:
            clean = False
        if not clean:
            self._broken = text + ", then start again"
            log.error("the store %s takes no further writes until it is opened anew", self._file.path)
        return text

    def _begin_compaction(self, compaction: _Compact) -> None:
        failure: Exception | None = None
        try:
            self._file.mark_compacted(compaction.revision, self._revision)
            self._sweep = (0, compaction.revision)
        except sqlite3.Error as error:
            failure = StoreFailed(self._after_failure(error))
        self._publish([_Compacted(compaction.answer, compaction.revision, failure)])

    def _sweep_some(self) -> None:
        if self._sweep is None:
            return
        cursor, compacted = self._sweep
        try:
            following = self._file.sweep(cursor, compacted)
        except sqlite3.Error as error:
            log.warning("compaction of the store %s stopped, the next one goes on: %s", self._file.path, error)
            following = None
        self._sweep = None if following is None else (following, compacted)


class SQLiteStore:
    """A `Store` in one file (and its `-wal`, `-shm` and `.lock`). Open with `SQLiteStore.open`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        file: SQLiteLog,
        reader: SQLiteLog,
        lock: StoreLock,
        *,
        history: int,
        queue_limit: int,
    ) -> None:
        records, self._revision, self._oldest = file.load()
        self._loop = loop
        self._state = State(records)
        self._history = History(start=self._revision, limit=history)
        self._watchers = Watchers(queue_limit, self._revision)
        self._reader, self._lock = reader, lock
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._closed = False
        self._writer = _Writer(file, {r.key: r for r in records}, self._revision, self._on_loop)
        self._writer.start()

    @classmethod
    async def open(cls, path: str | Path, *, history: int = 10_000, queue_limit: int = 10_000) -> SQLiteStore:
        """Open or make the store at `path`, for this process alone.

        `history`: recent events kept in memory; `queue_limit`: events that may wait for one watcher. Raises
        StoreCorrupt, whatever keeps the file from being used.
        """
        loop = asyncio.get_running_loop()

        def blocking() -> SQLiteStore:
            lock = StoreLock(Path(path))
            try:
                file = SQLiteLog.open(Path(path))
                try:
                    reader = SQLiteLog.open_reader(Path(path))
                    return cls(loop, file, reader, lock, history=history, queue_limit=queue_limit)
                except BaseException:
                    file.close()
                    raise
            except BaseException:
                lock.release()
                raise

        return await loop.run_in_executor(None, blocking)

    @property
    def revision(self) -> int:
        """The newest durable revision."""
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
        """As `Store.list`. Old revisions come from the ring of recent events, or from the file."""
        self._check_open()
        self._check_revision(revision or self._revision)
        if revision in {0, self._revision}:
            return self._state.page(prefix, after, limit, self._revision)
        if revision >= self._history.start:
            return self._state.page_before(self._history.newest_first(revision), prefix, after, limit, revision)
        return await self._read(lambda: self._reader.page(prefix, after, limit, revision))

    async def commit(self, *operations: Operation) -> int:
        """As `Store.commit`."""
        self._check_open()
        answer: asyncio.Future[int] = self._loop.create_future()
        self._writer.queue.put(_Commit(operations, answer))
        return await answer

    def watch(self, prefix: str, since: int) -> QueuedWatch:
        """As `Store.watch`. What is older than the ring is read from the file as the watch is iterated."""
        self._check_open()
        self._check_revision(since)
        if since >= self._history.start:
            return self._watchers.add(prefix, since, self._history.since(since, prefix))
        return self._watchers.add(prefix, since, (), self._backlog(prefix, since, self._revision))

    async def compact(self, revision: int) -> None:
        """As `Store.compact`. Returns when it is decided; rows are deleted between writes, a few at a time."""
        self._check_open()
        if revision > self._revision:
            raise FutureRevision(self._revision)
        if revision <= self._oldest:
            return
        answer: asyncio.Future[int] = self._loop.create_future()
        self._writer.queue.put(_Compact(revision, answer))
        await answer

    async def close(self) -> None:
        """As `Store.close`. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._writer.queue.put(None)
        await self._loop.run_in_executor(None, self._writer.join)
        self._watchers.close()
        await self._loop.run_in_executor(self._reading, self._reader.close)
        self._reading.shutdown(wait=False)
        self._lock.release()

    def _on_loop(self, results: Sequence[_Outcome | _Compacted]) -> None:
        """Called by the writer's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody is left to be told
            self._loop.call_soon_threadsafe(self._publish, results)

    def _publish(self, results: Sequence[_Outcome | _Compacted]) -> None:
        """Make durable commits visible: state first, then the callers, then the watchers."""
        published: list[Event] = []
        for result in results:
            if isinstance(result, _Compacted):
                if result.failure is None:
                    self._oldest = max(self._oldest, result.revision)
                    self._history.forget(result.revision)
            elif result.events:
                for event in result.events:
                    self._state.apply(event)
                self._revision = result.revision
                published += result.events
            if result.answer.done():
                continue
            if result.failure is not None:
                result.answer.set_exception(result.failure)
            else:
                result.answer.set_result(result.revision)
        if published:
            self._history.append(published)
            self._watchers.publish(published)

    def _backlog(self, prefix: str, since: int, until: int) -> Backlog:
        position = since

        async def older() -> Sequence[Event]:
            nonlocal position
            if position >= until:
                return ()
            events = await self._read(lambda: self._reader.events(prefix, position, until, _BACKLOG_CHUNK))
            position = events[-1].revision if events else until
            return events

        return older

    async def _read(self, work: Callable[[], T]) -> T:
        try:
            return await self._loop.run_in_executor(self._reading, work)
        except (RuntimeError, sqlite3.ProgrammingError) as error:
            if self._closed:
                raise StoreClosed("the store was closed") from error
            raise

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed("the store was closed")

    def _check_revision(self, revision: int) -> None:
        if revision < self._oldest:
            raise Compacted(self._oldest)
        if revision > self._revision:
            raise FutureRevision(self._revision)
