"""One leader among several processes, by a Lease (coordination.k8s.io), as client-go's leaderelection.

Used by controllers that run in more than one copy. Invariant: who leads has renewed the Lease within `renew` seconds of
its own clock, or has stopped; others wait for `duration` seconds of theirs after the last renewal they saw. Clocks need
not agree, only to run about as fast (client-go, tools/leaderelection).
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from fairlead.api.errors import StatusError
from fairlead.api.kinds import LEASES
from fairlead.client.events import utc_now
from fairlead.client.rest import Client

log = logging.getLogger("fairlead.client")

Object = dict[str, Any]


def claimed(spec: Object, identity: str, duration: int, now: datetime.datetime) -> Object:
    """The Lease's spec once `identity` has it, or has it still. Pure."""
    at = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    kept = spec.get("holderIdentity") == identity
    transitions = spec.get("leaseTransitions") or 0
    return {
        **spec,
        "holderIdentity": identity,
        "leaseDurationSeconds": duration,
        "acquireTime": spec.get("acquireTime") if kept and spec.get("acquireTime") else at,
        "renewTime": at,
        "leaseTransitions": transitions if kept or not spec else transitions + 1,
    }


class LeaderElection:
    """One candidate. Times are in seconds; defaults are client-go's."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        identity: str,
        *,
        duration: int = 15,
        renew: float = 10.0,
        retry: float = 2.0,
        now: Callable[[], datetime.datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._namespace, self._name, self._identity = client, namespace, name, identity
        self._duration, self._renew, self._retry, self._now, self._clock = duration, renew, retry, now, clock
        self._seen: Object = {}  # the spec seen last,
        self._seen_at = 0.0  # and when it was another one
        self._said = ""

    async def lead(self, work: Callable[[], Awaitable[None]]) -> None:
        """Whenever this candidate leads, do the work; while it does not, wait. Until cancelled, or the work fails."""
        while True:
            await self._acquire()
            log.info("%s leads (Lease %s/%s)", self._identity, self._namespace, self._name)
            working = asyncio.ensure_future(work())
            holding = asyncio.create_task(self._hold())
            try:
                await asyncio.wait([working, holding], return_when=asyncio.FIRST_COMPLETED)
                if working.done():
                    working.result()
                    return
                log.warning("%s leads no more: Lease %s/%s", self._identity, self._namespace, self._name)
            finally:
                holding.cancel()
                working.cancel()
                await asyncio.gather(working, holding, return_exceptions=True)
                await self._release()

    async def _acquire(self) -> None:
        while not await self._try():  # noqa: ASYNC110  (what is awaited happens in another process)
            await asyncio.sleep(self._retry)

    async def _hold(self) -> None:
        """Renew until it fails for too long."""
        renewed = self._clock()
        while self._clock() - renewed < self._renew:
            await asyncio.sleep(self._retry)
            if await self._try():
                renewed = self._clock()

    async def _try(self) -> bool:
        """Take or renew the Lease if it is ours or free. False if it is not, or the API cannot be asked."""
        try:
            async with asyncio.timeout(self._renew):
                return await self._take()
        except TimeoutError:
            return False
        except StatusError as error:
            if error.code not in {404, 409} and error.code < 500 and str(error) != self._said:
                self._said = str(error)
                log.error("Lease %s/%s: %s; trying again", self._namespace, self._name, error)
            return False

    async def _take(self) -> bool:
        try:
            lease = await self._client.get(LEASES, self._name, self._namespace)
        except StatusError as error:
            if error.code != 404:
                raise
            metadata = {"name": self._name, "namespace": self._namespace}
            body = {"apiVersion": LEASES.api_version, "kind": "Lease", "metadata": metadata}
            made = await self._client.create(LEASES, {**body, "spec": self._claimed({})}, self._namespace)
            self._see(made["spec"])
            return True
        spec = lease.get("spec") or {}
        if spec != self._seen:
            self._see(spec)
        holder = spec.get("holderIdentity")
        lasts = spec.get("leaseDurationSeconds") or self._duration
        if holder and holder != self._identity and self._clock() - self._seen_at < lasts:
            return False
        written = await self._client.update(LEASES, {**lease, "spec": self._claimed(spec)})
        self._see(written["spec"])
        return True

    def _claimed(self, spec: Object) -> Object:
        return claimed(spec, self._identity, self._duration, self._now())

    def _see(self, spec: Object) -> None:
        self._seen, self._seen_at = spec, self._clock()

    async def _release(self) -> None:
        """Let another one lead at once."""
        with contextlib.suppress(StatusError, TimeoutError):
            async with asyncio.timeout(2):
                lease = await self._client.get(LEASES, self._name, self._namespace)
                if lease["spec"].get("holderIdentity") == self._identity:
                    spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                    await self._client.update(LEASES, {**lease, "spec": spec})
