"""What is done to the store without anyone asking: Events are forgotten after their time, history is compacted.

Invariant: an Event is deleted only at the revision at which it was seen to be too old; one that is repeated lives on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import datetime, timedelta

import orjson

from fairlead.api.kinds import EVENTS
from fairlead.registry.events import last_seen
from fairlead.registry.repair import Repair
from fairlead.registry.requests import RegistryOptions
from fairlead.registry.stored import prefix_of
from fairlead.store.compaction import Compactor
from fairlead.store.interface import CompareFailed, Delete, Store, StoreFailed

log = logging.getLogger("fairlead.registry")

_EVENT_ROUND_SECONDS = 60.0


async def expire_events(store: Store, now: datetime, ttl: timedelta) -> int:
    """Delete Events last seen more than `ttl` before `now`; how many those were."""
    count = 0
    for record in (await store.list(prefix_of(EVENTS))).records:
        seen = record.__dict__.get("last_seen")
        if seen is None:
            seen = record.__dict__["last_seen"] = last_seen(orjson.loads(record.value)) or now
        if now - seen > ttl:
            with contextlib.suppress(CompareFailed):
                await store.commit(Delete(record.key, expected=record.modified))
                count += 1
    return count


class Housekeeping:
    """Runs all of them until stopped."""

    def __init__(self, store: Store, options: RegistryOptions) -> None:
        self._store, self._options = store, options
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin."""
        self._tasks = [
            asyncio.create_task(Compactor(self._store).run(), name="store-compaction"),
            asyncio.create_task(self._expire(), name="event-expiry"),
            asyncio.create_task(Repair(self._store, self._options).run(), name="allocation-repair"),
        ]

    async def stop(self) -> None:
        """End, and wait for it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _expire(self) -> None:
        ttl = timedelta(seconds=self._options.event_ttl_seconds)
        while True:
            try:
                await expire_events(self._store, self._options.clock(), ttl)
            except StoreFailed as error:
                log.warning("old events are kept for now: %s", error)
            await asyncio.sleep(_EVENT_ROUND_SECONDS)
