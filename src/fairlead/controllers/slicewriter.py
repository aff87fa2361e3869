"""Writes what a plan of EndpointSlices says, and knows when the cache has it.

Shared by the two controllers that keep slices. Invariant: nothing is planned again for a key before the cache holds
what was last written for it, so no endpoint is ever written twice.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fairlead.api.errors import StatusError
from fairlead.api.kinds import ENDPOINTSLICES
from fairlead.client.informer import Cache
from fairlead.client.rest import Client, is_gone
from fairlead.client.workqueue import WorkQueue
from fairlead.controllers.expectations import Written
from fairlead.controllers.slices import SlicePlan

Object = dict[str, Any]

_PATIENCE = 31.0  # s, longer than an unseen write is waited for


class SliceWriter:
    """Of one controller, whose keys are Services' (or Endpoints') `namespace/name`."""

    def __init__(self, client: Client, cache: Cache, queue: WorkQueue[str]) -> None:
        self._client, self._cache, self._queue = client, cache, queue
        self._written = Written()
        self._held: set[str] = set()  # wanted to be planned while the cache was behind

    def saw(self, key: str, before: Object | None, after: Object | None) -> bool:
        """An event of a slice of that key. True if someone should look at the key again."""
        obj = after if after is not None else before
        assert obj is not None
        metadata = obj["metadata"]
        own = self._written.saw(key, metadata["uid"], metadata.get("resourceVersion", "0"), after is None)
        return not own or key in self._held

    def current(self, key: str) -> bool:
        """The cache has all that was written. If not, the key is brought back once it has."""
        if not self._written.current(key):
            self._held.add(key)  # the next event of a slice brings it back; should none come, the writes expire
            self._queue.add_after(key, _PATIENCE)
            return False
        self._held.discard(key)
        return True

    def forget(self, key: str) -> None:
        """There is nothing to keep any more."""
        self._held.discard(key)

    async def write(self, key: str, decided: SlicePlan) -> None:
        """All of it at once. Raises the first failure, but for a namespace that is on its way out."""
        writes = [
            *(self._create(key, s) for s in decided.create),
            *(self._update(key, s) for s in decided.update),
            *(self._delete(key, s) for s in decided.delete),
        ]
        answers = await asyncio.gather(*writes, return_exceptions=True)
        failed = [a for a in answers if isinstance(a, BaseException)]
        if failed and not _is_ending(failed[0]):
            raise failed[0]

    async def _create(self, key: str, obj: Object) -> None:
        self._wrote(key, await self._client.create(ENDPOINTSLICES, obj))

    async def _update(self, key: str, obj: Object) -> None:
        self._wrote(key, await self._client.update(ENDPOINTSLICES, obj))

    async def _delete(self, key: str, obj: Object) -> None:
        metadata = obj["metadata"]
        self._written.deletes(key, metadata["uid"])
        try:
            await self._client.delete(
                ENDPOINTSLICES, metadata["name"], metadata["namespace"], preconditions={"uid": metadata["uid"]}
            )
        except StatusError as error:
            if not is_gone(error):
                self._written.drop(key, metadata["uid"])
                raise

    def _wrote(self, key: str, obj: Object) -> None:
        metadata = obj["metadata"]
        cached = self._cache.get(metadata["name"], metadata["namespace"])
        version = cached["metadata"]["resourceVersion"] if cached is not None else ""
        self._written.wrote(key, metadata["uid"], metadata["resourceVersion"], version)


def _is_ending(error: BaseException) -> bool:
    return isinstance(error, StatusError) and error.code == 403 and "because it is being terminated" in error.message
