"""Leader election: of several that could do the same work, one does it, and another when that one is gone.

Around `lease`, which decides. Invariant: the work runs only while this process holds the Lease: it is cancelled, and
has ended, before another may take over, as long as it ends within `lease_duration - renew_deadline`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable

from fairlead.api.errors import StatusError
from fairlead.api.kinds import LEASES
from fairlead.client.events import utc_now
from fairlead.client.lease import JITTER, Candidate, Object, Seen, Timing, released
from fairlead.client.rest import Client

log = logging.getLogger("fairlead.client")


class Election:
    """One candidate for one Lease."""

    def __init__(
        self, client: Client, name: str, identity: str, namespace: str = "kube-system", timing: Timing | None = None
    ) -> None:
        self._client, self._timing = client, timing or Timing()
        self._candidate = Candidate(name, namespace, identity, self._timing)
        self._lease = f"{namespace}/{name}"
        self._seen: Seen | None = None
        self._held: Object | None = None
        self._told = ""
        self.leads = False

    @property
    def leader(self) -> str:
        """The identity that leads as far as is known; empty: nobody."""
        return self._candidate.identity if self.leads else self._seen.holder if self._seen else ""

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work whenever we lead, until cancelled or until the work ends by itself (its failure is raised).

        Gives the Lease up in the end."""
        while True:
            await self._acquire()
            task = asyncio.ensure_future(work())
            try:
                await self._renew_while(task)
            finally:
                await _end(task)
                self.leads = False
                await self._release()
            if not task.cancelled():
                task.result()
                return
            log.warning("%s no longer leads %s", self._candidate.identity, self._lease)

    async def _acquire(self) -> None:
        while not await self._try():  # noqa: ASYNC110  # what others do there is asked for, at the Lease's own pace
            await asyncio.sleep(self._timing.retry_period * random.uniform(1, JITTER))
        self.leads = True
        log.info("%s leads %s", self._candidate.identity, self._lease)

    async def _renew_while(self, task: asyncio.Future[None]) -> None:
        """Renew until the work is done, or until it could not be renewed in time."""
        clock = asyncio.get_running_loop().time
        renewed = clock()
        while True:
            done, _ = await asyncio.wait([task], timeout=self._timing.retry_period)
            if done:
                return
            left = renewed + self._timing.renew_deadline - clock()
            try:
                async with asyncio.timeout(max(left, 0)):
                    begun = clock()
                    if await self._try():
                        renewed = begun
                    elif self._seen is not None and self._seen.holder != self._candidate.identity:
                        return  # somebody else has it
            except TimeoutError:
                pass
            if clock() - renewed >= self._timing.renew_deadline:
                self._held = None  # whoever has it now, it is not ours to give up
                return

    async def _try(self) -> bool:
        """Take or renew the Lease. False if another leads or the server does not answer."""
        try:
            there = await self._read()
            clock = asyncio.get_running_loop().time()
            found = self._candidate.attempt(there, self._seen, clock, utc_now())
            self._seen = found.seen
            if found.write is None:
                self._tell(f"{self.leader} leads {self._lease}; waiting")
                return False
            write = self._client.create if there is None else self._client.update
            self._held = await write(LEASES, found.write)
            self._seen = Seen(self._held["spec"], clock)
            return True
        except StatusError as error:
            if error.reason not in ("Conflict", "AlreadyExists"):
                self._tell(f"cannot take or renew the lease {self._lease}: {error}")
            return False

    async def _read(self) -> Object | None:
        try:
            return await self._client.get(LEASES, self._candidate.name, self._candidate.namespace)
        except StatusError as error:
            if error.reason == "NotFound":
                return None
            raise

    async def _release(self) -> None:
        held, self._held, self._seen = self._held, None, None
        if held is not None:
            with contextlib.suppress(StatusError, TimeoutError):
                async with asyncio.timeout(self._timing.retry_period):
                    await self._client.update(LEASES, released(held, utc_now()))

    def _tell(self, text: str) -> None:
        """Once, not at every try."""
        if text != self._told:
            self._told = text
            log.info("%s", text)


async def _end(task: asyncio.Future[None]) -> None:
    """Cancel the work and wait until it is over."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
