"""Tells the cluster up to where this node's kernel has the EndpointSlices, so that others can wait for it.

Stands behind `Proxy.apply`: what it applied is written into this node's Lease. Invariants: nothing is confirmed that
the kernel does not have; the latest only, one request at a time, so a burst of changes costs a few writes; nobody here
waits for the API server.
"""

from __future__ import annotations

import asyncio
import logging

from fairlead.api.errors import StatusError
from fairlead.api.kinds import LEASES, NODES
from fairlead.client import Client
from fairlead.client.backoff import Backoff
from fairlead.discovery.confirmed import APPLIED, LEASE_NAMESPACE, LEASE_PREFIX, lease

log = logging.getLogger("fairlead.proxy")


class Confirmer:
    """One node's. `applied` is told, `run` writes until it is cancelled."""

    def __init__(self, client: Client, node: str) -> None:
        self._client, self._node = client, node
        self._revision = 0
        self._changed = asyncio.Event()

    def applied(self, revision: int) -> None:
        """The kernel has the slices up to here. What was confirmed stays confirmed."""
        if revision > self._revision:
            self._revision = revision
            self._changed.set()

    async def run(self) -> None:
        """Write what was applied, as often as it advances."""
        backoff = Backoff(0.1, 5.0)
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._write(self._revision)
                backoff.reset()
            except StatusError as error:
                log.info("what node %s applied could not be confirmed: %s; trying again", self._node, error)
                self._changed.set()
                await asyncio.sleep(backoff.next())

    async def _write(self, revision: int) -> None:
        change = {"metadata": {"annotations": {APPLIED: str(revision)}}}
        try:
            await self._client.patch(LEASES, LEASE_PREFIX + self._node, change, LEASE_NAMESPACE, "merge")
        except StatusError as error:
            if error.code != 404:
                raise
            node = await self._client.get(NODES, self._node)
            made = lease(self._node, revision, node["metadata"].get("uid", ""))
            await self._client.create(LEASES, made, LEASE_NAMESPACE)
