"""Puts the claims right: of cluster IPs (IPAddress objects, which anyone may delete) and of node ports.

The registry itself never lets Services and claims differ, so this finds something only if someone deleted an IPAddress
that is in use, or wrote to the store by other means. As upstream's repair loops it runs at the start and every three
minutes; besides, it sees deletions of IPAddresses at once. IPAddresses that people made (without our label) are theirs.
Invariant: decided on one revision, and written only if the Service is still as it was seen.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import orjson

from fairlead.api.kinds import IPADDRESSES, SERVICES
from fairlead.registry.allocation import ALLOCATOR, MANAGED_BY, AddressPool, Owner, PortPool, claimant
from fairlead.registry.requests import RegistryOptions
from fairlead.registry.services import claimed_keys
from fairlead.registry.stored import key_of, prefix_of
from fairlead.store.interface import (
    Compacted,
    CompareFailed,
    Delete,
    Operation,
    Put,
    Record,
    Require,
    Store,
    StoreFailed,
    WatcherTooSlow,
)

log = logging.getLogger("fairlead.registry")

INTERVAL_SECONDS = 180.0


class Repair:
    """Of one store."""

    def __init__(self, store: Store, options: RegistryOptions) -> None:
        self._store, self._options = store, options

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                since = self._store.revision
                await self.repair()
                async with asyncio.timeout(INTERVAL_SECONDS):
                    await self._follow(since)
            except (TimeoutError, WatcherTooSlow, Compacted):
                continue
            except StoreFailed as error:
                log.warning("cluster IPs and node ports are not looked after for now: %s", error)
                await asyncio.sleep(5)

    async def repair(self) -> int:
        """Once, everything; how much was put right."""
        revision = self._store.revision
        services = (await self._store.list(prefix_of(SERVICES), revision=revision)).records
        claims = {
            record.key: record
            for prefix in (AddressPool.prefix, PortPool.prefix)
            for record in (await self._store.list(prefix, revision=revision)).records
        }
        owners: dict[str, Record] = {}
        for service in services:
            for key in claimed_keys(_spec(service)):
                owners[key] = service
        count = 0
        for key, service in owners.items():
            if key not in claims:
                count += await self._claim(key, service)
        for key, record in claims.items():
            if key not in owners and _ours(record):
                count += await self._release(record)
        return count

    async def _follow(self, since: int) -> None:
        """Claim again what is deleted while a Service has it."""
        watch = self._store.watch(AddressPool.prefix, since)
        try:
            async for events in watch:
                for event in events:
                    owner = claimant(event.record) if event.type == "DELETE" else None
                    if owner is None:
                        continue
                    service = await self._store.get(key_of(SERVICES, *owner))
                    if service is not None and event.record.key in claimed_keys(_spec(service)):
                        await self._claim(event.record.key, service)
        finally:
            watch.close()

    async def _claim(self, key: str, service: Record) -> int:
        _, _, namespace, name = service.key.split("/")
        owner = Owner(namespace, name, self._options.clock, self._options.dice)
        what = key.rpartition("/")[2]
        value = owner.address(what) if key.startswith(AddressPool.prefix) else f"{namespace}/{name}".encode()
        return await self._write(
            f"{what} was not allocated to the Service {namespace}/{name}, which has it",
            Put(key, value, expected=0),
            Require(service.key, service.modified),
        )

    async def _release(self, record: Record) -> int:
        owner = claimant(record) or ("", "")
        service = await self._store.get(key_of(SERVICES, *owner))
        return await self._write(
            f"{record.key.rpartition('/')[2]} was allocated to the Service {'/'.join(owner)}, which does not have it",
            Delete(record.key, expected=record.modified),
            Require(key_of(SERVICES, *owner), service.modified if service else 0),
        )

    async def _write(self, text: str, *operations: Operation) -> int:
        try:
            await self._store.commit(*operations)
        except CompareFailed:
            return 0  # it is being changed by a request right now
        log.warning("%s: put right", text)
        return 1


def _spec(service: Record) -> dict[str, Any]:
    spec: dict[str, Any] = orjson.loads(service.value)["spec"]
    return spec


def _ours(record: Record) -> bool:
    """Made by the allocator."""
    if not record.key.startswith(prefix_of(IPADDRESSES)):
        return True
    labels = orjson.loads(record.value)["metadata"].get("labels") or {}
    return labels.get(MANAGED_BY) == ALLOCATOR and claimant(record) is not None
