"""Tells the API server a pod's status: the latest only, one request at a time, until it is known.

Invariants: an older status never overwrites a newer one; a status that the server has is not sent again; the API server
may be away for any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from fairlead.api.errors import StatusError
from fairlead.api.kinds import PODS
from fairlead.client import Client
from fairlead.client.backoff import Backoff
from fairlead.kubelet.status import patch_of

log = logging.getLogger("fairlead.kubelet")
Object = dict[str, Any]


class StatusWriter:
    """One pod's. `close` when the pod is gone."""

    def __init__(self, client: Client, pod: Object) -> None:
        self._client, self._pod = client, pod
        self._known: Object = dict(pod.get("status") or {})
        self._wanted: Object | None = None
        self._task: asyncio.Task[None] | None = None
        self.gone = False
        """The server says that there is no such pod (any more)."""

    def put(self, status: Object) -> None:
        """Have the server know this status."""
        self._wanted = status
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write(), name=f"status-{self._pod['metadata']['name']}")

    async def flush(self, timeout: float) -> None:
        """Wait until the server knows the last one put, for at most that long."""
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await asyncio.shield(self._task)

    def close(self) -> None:
        """Stop trying."""
        if self._task is not None:
            self._task.cancel()

    async def _write(self) -> None:
        backoff = Backoff(0.1, 10.0)
        metadata = self._pod["metadata"]
        while self._wanted is not None and not self.gone:
            status = self._wanted
            patch = patch_of(self._pod, status, self._known)
            if patch is not None:
                try:
                    answer = await self._client.patch(
                        PODS, metadata["name"], patch, metadata["namespace"], "strategic", subresource="status"
                    )
                except StatusError as error:
                    if error.code == 404 or (error.code == 409 and "uid" in error.message.lower()):
                        self.gone = True
                    elif error.code == 422:
                        log.warning("the status of pod %s was refused: %s", metadata["name"], error)
                        self._known = dict(status)
                    else:
                        await asyncio.sleep(backoff.next())
                        continue
                else:
                    self._known = {**status, "conditions": (answer.get("status") or {}).get("conditions") or []}
            if self._wanted is status:
                self._wanted = None
