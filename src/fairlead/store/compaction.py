"""When to forget history: what was the newest revision one interval ago is compacted, so a watcher or a paged list has
at least one interval to come back. Invariant: never compacts what is younger than one interval.
"""

from __future__ import annotations

import asyncio
import logging

from fairlead.store.interface import Store, StoreFailed

log = logging.getLogger("fairlead.store")

INTERVAL_SECONDS = 300.0
"""Upstream's (`--etcd-compaction-interval`)."""


class Compactor:
    """Compacts a store again and again."""

    def __init__(self, store: Store, interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._store, self._interval = store, interval_seconds
        self._seen = 0

    async def tick(self) -> None:
        """One interval has passed."""
        if self._seen > self._store.oldest:
            await self._store.compact(self._seen)
        self._seen = self._store.revision

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.tick()
            except StoreFailed as error:
                log.warning("compaction is put off: %s", error)
            await asyncio.sleep(self._interval)
