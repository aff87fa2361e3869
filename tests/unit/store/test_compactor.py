"""The periodic compaction policy."""

from __future__ import annotations

from fairlead.store.compaction import Compactor
from fairlead.store.interface import Put
from fairlead.store.memory import MemoryStore


async def test_history_is_kept_for_one_interval_at_least() -> None:
    """A tick forgets what was already old at the tick before."""
    store = MemoryStore()
    compactor = Compactor(store)
    await store.commit(Put("a", b"1"))  # 2
    await compactor.tick()
    assert store.oldest == 1
    await store.commit(Put("a", b"2"))  # 3
    await compactor.tick()
    assert store.oldest == 2
    await compactor.tick()
    assert store.oldest == 3
    await compactor.tick()
    assert store.oldest == 3
