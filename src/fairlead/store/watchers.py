"""Open watches and how events reach them.

Stands between a store's publication of durable commits and whoever iterates. Invariant: a watcher gets every event of
its prefix after its revision once and in order, or an exception; a slow one is dropped and never holds up another.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from fairlead.store.interface import Compacted, Event, StoreClosed, WatcherTooSlow

Backlog = Callable[[], Awaitable[Sequence[Event]]]
"""Gives the next older events at each call, an empty sequence at the end; may raise Compacted."""


class QueuedWatch:
    """One open watch. Iterated by one task at a time."""

    def __init__(
        self, watchers: Watchers, prefix: str, since: int, earlier: Sequence[Event], backlog: Backlog | None
    ) -> None:
        self.prefix = prefix
        self._given = since
        self._watchers = watchers
        self._earlier, self._backlog = earlier, backlog
        self._queue: list[Event] = []
        self._failure: Exception | None = None
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None

    def offer(self, events: Sequence[Event], limit: int) -> None:
        """Queue events; more than `limit` waiting ends this watch."""
        if len(self._queue) + len(events) > limit:
            self._queue = []
            self.fail(WatcherTooSlow(f"more than {limit} events were waiting for a watcher of {self.prefix!r}"))
            return
        self._queue.extend(events)
        self._wake()

    def fail(self, failure: Exception) -> None:
        """End the watch once what is queued was taken."""
        self._failure = failure
        self._watchers.remove(self)
        self._wake()

    def close(self) -> None:
        """End the watch; the iteration stops."""
        self._closed = True
        self._queue, self._earlier, self._backlog = [], (), None
        self._watchers.remove(self)
        self._wake()

    def __aiter__(self) -> AsyncIterator[Sequence[Event]]:
        return self

    async def __anext__(self) -> Sequence[Event]:
        if isinstance(self._failure, WatcherTooSlow | Compacted):
            raise self._failure
        if self._earlier:
            earlier, self._earlier = self._earlier, ()
            return self._give(earlier)
        while self._backlog is not None:
            older = await self._backlog()
            if older and not self._closed:
                return self._give(older)
            self._backlog = None
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            if self._failure is not None:
                raise self._failure
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        batch, self._queue = self._queue, []
        return self._give(batch)

    @property
    def progress(self) -> int:
        """The newest revision up to which everything was given out."""
        if self._queue or self._earlier or self._backlog is not None or self._failure is not None:
            return self._given
        return self._watchers.revision

    def _give(self, events: Sequence[Event]) -> Sequence[Event]:
        self._given = events[-1].revision
        return events

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Watchers:
    """All open watches of one store, by prefix: an event is matched against each prefix once."""

    def __init__(self, limit: int, revision: int) -> None:
        self._limit = limit
        self.revision = revision  # of the newest commit that was published
        self._by_prefix: dict[str, list[QueuedWatch]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_prefix.values()))

    def add(self, prefix: str, since: int, earlier: Sequence[Event], backlog: Backlog | None = None) -> QueuedWatch:
        """Open a watch: first `earlier` and what `backlog` gives, then what is published from now on."""
        watch = QueuedWatch(self, prefix, since, earlier, backlog)
        self._by_prefix.setdefault(prefix, []).append(watch)
        return watch

    def remove(self, watch: QueuedWatch) -> None:
        """Forget a watch; one that is already forgotten is fine."""
        watches = self._by_prefix.get(watch.prefix, [])
        if watch in watches:
            watches.remove(watch)
            if not watches:
                del self._by_prefix[watch.prefix]

    def publish(self, events: Sequence[Event]) -> None:
        """Hand whole commits to everyone they concern."""
        self.revision = events[-1].revision
        for prefix, watches in list(self._by_prefix.items()):
            chosen = [event for event in events if event.record.key.startswith(prefix)]
            if chosen:
                for watch in list(watches):
                    watch.offer(chosen, self._limit)

    def fail(self, failure: Exception) -> None:
        """End every watch with `failure`."""
        for watches in list(self._by_prefix.values()):
            for watch in list(watches):
                watch.fail(failure)

    def close(self) -> None:
        """End every watch with StoreClosed."""
        self.fail(StoreClosed("the store was closed"))
