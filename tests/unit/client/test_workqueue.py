"""The work queue's law: once in the queue, once in a hand, never lost."""

from __future__ import annotations

import asyncio
import logging

import pytest

from fairlead.api import errors
from fairlead.client.backoff import Backoff
from fairlead.client.workqueue import WorkQueue, work


async def test_a_key_waits_once() -> None:
    """Adding twice gives it once; order is kept."""
    queue: WorkQueue[str] = WorkQueue()
    for key in "aba":
        queue.add(key)
    assert [await queue.get(), await queue.get()] == ["a", "b"] and len(queue) == 0


async def test_a_key_in_hand_comes_again_afterwards() -> None:
    """Added while it is worked on, it is not given to a second hand, and is not lost."""
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await queue.get()
    queue.add("a")
    assert len(queue) == 0 and not queue.idle
    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert queue.idle


async def test_the_earliest_delay_wins() -> None:
    """Of several delayed adds the first to fall due counts, once."""
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 30)
    queue.add_after("a", 0.01)
    queue.add_after("a", 60)
    async with asyncio.timeout(5):
        assert await queue.get() == "a"
    queue.done("a")
    assert queue.idle
    queue.close()


async def test_a_cancelled_waiter_passes_its_turn_on() -> None:
    """A key is not lost with the worker that was woken for it."""
    queue: WorkQueue[str] = WorkQueue()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    async with asyncio.timeout(5):
        assert await second == "a"


async def test_failures_are_tried_again_and_logged_sparingly(caplog: pytest.LogCaptureFixture) -> None:
    """The first failure is logged, conflicts never; success forgets the back-off."""
    caplog.set_level(logging.WARNING, "fairlead.client")
    queue: WorkQueue[str] = WorkQueue(base=0.0001, cap=0.001)
    tries: dict[str, int] = {}
    finished = asyncio.Event()

    async def reconcile(key: str) -> None:
        tries[key] = tries.get(key, 0) + 1
        if tries[key] < 4:
            raise errors.internal("no") if key == "a" else errors.conflict("pods", "", "b")
        if all(n >= 4 for n in tries.values()) and len(tries) == 2:
            finished.set()

    queue.add("a")
    queue.add("b")
    task = asyncio.create_task(work(queue, reconcile, "test"))
    async with asyncio.timeout(5):
        await finished.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert tries == {"a": 4, "b": 4} and queue.failures("a") == 0
    assert [r.getMessage() for r in caplog.records] == ["test: a: no (attempt 1, trying again)"]


def test_backoff_grows_to_its_cap() -> None:
    """Half of each wait is certain, the whole never passes the cap, and success starts anew."""
    low, high = Backoff(1, 10, dice=lambda: 0.0), Backoff(1, 10, dice=lambda: 1.0)
    assert [low.next() for _ in range(6)] == [0.5, 1, 2, 4, 5, 5]
    assert [high.next() for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    high.reset()
    assert high.next() == 1
