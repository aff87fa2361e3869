"""Reading what is newest, also where other API servers write to the same store.

Stands between the verbs and the store. A write needs none of this (its commit compares revisions), unless it misses
something that it would refuse the request for. Invariant: nothing is reported missing, stale or unknown before the
store's view has caught up.
"""

from __future__ import annotations

from fairlead.api.errors import unavailable
from fairlead.store.interface import Record, Store, StoreFailed


async def catch_up(store: Store) -> None:
    """As `Store.catch_up`; 503 if that can't be done now."""
    try:
        await store.catch_up()
    except StoreFailed as error:
        raise unavailable(str(error)) from error


async def find(store: Store, key: str) -> Record | None:
    """The record, of which only the absence is certain to be the newest state."""
    record = await store.get(key)
    if record is None:
        await catch_up(store)
        record = await store.get(key)
    return record
