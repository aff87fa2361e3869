"""Keys that need work: each at most once in the queue and never in two hands at a time.

Controllers put keys here from their handlers and take them in workers. Invariant: a key added while it is being
worked on is worked on again afterwards; no add is ever lost.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from fairlead.api.errors import StatusError
from fairlead.client.backoff import Backoff
from fairlead.client.rest import Unreachable

log = logging.getLogger("fairlead.client")

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """First in, first out, without duplicates, with delayed adds and a back-off per key. Times are in seconds."""

    def __init__(self, base: float = 0.005, cap: float = 10.0, dice: Callable[[], float] = random.random) -> None:
        self._base, self._cap, self._dice = base, cap, dice
        self._ready: deque[K] = deque()
        self._dirty: set[K] = set()
        self._working: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._backoffs: dict[K, Backoff] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is being worked on (delayed adds do not count)."""
        return not self._dirty and not self._working

    def add(self, key: K) -> None:
        """The key needs work."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._working:
            self._offer(key)

    def add_after(self, key: K, delay: float) -> None:
        """The key needs work in `delay` seconds; the earliest of several wins."""
        if delay <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + delay
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._due, key)

    def add_rate_limited(self, key: K) -> None:
        """The key failed: work on it again, later each time until `forget`."""
        backoff = self._backoffs.setdefault(key, Backoff(self._base, self._cap, dice=self._dice))
        self.add_after(key, backoff.next())

    def failures(self, key: K) -> int:
        """How often the key failed in a row."""
        backoff = self._backoffs.get(key)
        return backoff.failures if backoff is not None else 0

    def forget(self, key: K) -> None:
        """The key succeeded."""
        self._backoffs.pop(key, None)

    async def get(self) -> K:
        """The next key; call `done` when finished with it."""
        while not self._ready:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake()
                raise
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        key = self._ready.popleft()
        self._dirty.discard(key)
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        """The work is over; if the key was added meanwhile it comes again."""
        self._working.discard(key)
        if key in self._dirty:
            self._offer(key)

    def close(self) -> None:
        """Forget delayed adds, so that nothing fires after the end."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _due(self, key: K) -> None:
        del self._timers[key]
        self.add(key)

    def _offer(self, key: K) -> None:
        self._ready.append(key)
        self._wake()

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


async def work(queue: WorkQueue[K], reconcile: Callable[[K], Awaitable[None]], name: str, workers: int = 4) -> None:
    """Reconcile keys from the queue until cancelled. A failure is retried with back-off; its first, fifth and
    every further tenth time in a row is logged; conflicts never, which only mean that the cache is a moment behind, nor
    an unreachable server, of which the reflectors speak."""

    async def worker() -> None:
        while True:
            key = await queue.get()
            try:
                await reconcile(key)
            except StatusError as error:
                queue.add_rate_limited(key)
                failures = queue.failures(key)
                if (
                    error.code != 409
                    and not isinstance(error, Unreachable)
                    and (failures in {1, 5} or failures % 10 == 0)
                ):
                    log.warning("%s: %s: %s (attempt %d, trying again)", name, key, error, failures)
            except Exception:
                queue.add_rate_limited(key)
                log.exception("%s: %s failed; trying again", name, key)
            else:
                queue.forget(key)
            finally:
                queue.done(key)

    tasks = [asyncio.create_task(worker(), name=f"{name}-{i}") for i in range(workers)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        queue.close()
