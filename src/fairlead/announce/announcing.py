"""The announcer of a node's process: fed with snapshots, saying in Events what it has.

Stands around `election` and the announcer. Invariant: where no Service has an address there is no thread, no socket
and no beat.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from typing import Any

from fairlead.announce.announcer import Announcer
from fairlead.announce.election import Address, addresses_of, rankings
from fairlead.api.addresspool import Pool
from fairlead.client.events import EventRecorder
from fairlead.client.rest import Client
from fairlead.controllers.loadbalancer_plan import CLASS
from fairlead.discovery.model import Changes, Service, ServiceKey, ServiceSnapshot

log = logging.getLogger("fairlead.announce")

COMPONENT = "fairlead-announcer"


class Announcing:
    """One node's, in the event loop and in the network namespace of the thread that runs it. `pool` empty: nothing is
    announced."""

    def __init__(
        self,
        client: Client,
        node: str,
        key: bytes,
        pool: Pool,
        *,
        classes: tuple[str, ...] = (CLASS, ""),
        interfaces: tuple[str, ...] = (),
    ) -> None:
        self._node, self._key, self._pool, self._classes = node, key, pool, classes
        self._interfaces = interfaces
        self._recorder = EventRecorder(client, COMPONENT, node)
        self._announcer: Announcer | None = None
        self._snapshot = ServiceSnapshot()
        self._rankings: dict[Address, tuple[str, ...]] = {}
        self._mine: frozenset[Address] = frozenset()
        self._balanced: set[ServiceKey] = set()  # the Services of type LoadBalancer
        self._stale = False

    async def start(self) -> None:
        """Begin."""
        if self._pool:
            await self._recorder.start()

    async def stop(self) -> None:
        """Let the others take over."""
        if self._announcer is not None:
            await asyncio.to_thread(self._announcer.stop)
        await self._recorder.stop()

    @property
    def announced(self) -> frozenset[Address]:
        """The addresses that are this node's."""
        return self._mine

    def see(self, snapshot: ServiceSnapshot, changes: Changes) -> None:
        """The cluster is so now. Call it after the node's own kernel has the Services."""
        self._snapshot = snapshot
        if not self._pool:
            return
        balanced = {k for k in changes.services if (s := snapshot.services.get(k)) and s.type == "LoadBalancer"}
        touched = balanced or not self._balanced.isdisjoint(changes.services)
        self._balanced = (self._balanced - changes.services) | balanced
        self._stale = self._stale or bool(touched or (changes.nodes and self._balanced))
        if not self._stale or not snapshot.synced:
            return
        self._stale = False
        services = [snapshot.services[key] for key in self._balanced]
        wanted = rankings(services, snapshot.nodes.values(), self._pool, self._classes)
        if wanted == self._rankings:
            return
        self._rankings = wanted
        if self._announcer is None:
            self._announcer = self._begin()
        node = snapshot.nodes.get(self._node)
        self._announcer.want(wanted, tuple(map(ipaddress.ip_address, node.internal_ips)) if node else ())

    def _begin(self) -> Announcer:
        loop = asyncio.get_running_loop()

        def told(gained: frozenset[Address], lost: frozenset[Address]) -> None:
            loop.call_soon_threadsafe(self._told, gained, lost)

        made = Announcer(self._node, self._key, interfaces=self._interfaces, told=told)
        made.start()
        return made

    def _told(self, gained: frozenset[Address], lost: frozenset[Address]) -> None:
        self._mine = (self._mine | gained) - lost
        for service in (self._snapshot.services.get(key) for key in self._balanced):
            if service is not None and any(address in gained for address in addresses_of(service)):
                message = f'announcing from node "{self._node}" with protocol "layer2"'
                self._recorder.event(_object(service), "Normal", "nodeAssigned", message)


def _object(service: Service) -> dict[str, Any]:
    """As much of the Service as an Event refers to."""
    metadata = {"namespace": service.key.namespace, "name": service.key.name, "uid": service.uid}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata}
