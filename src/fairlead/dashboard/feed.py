"""What is going on, kept for the page and told to everybody who has it open.

Follows the API into a snapshot and small documents, and asks the nodes for their traffic while somebody looks.
Invariant: a listener that is told `snapshot` and then every `change` knows what the feed knows; who does not keep up is
let go, and begins again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from fairlead.api.events import WatchEvent
from fairlead.api.kinds import ENDPOINTSLICES, EVENTS, NAMESPACES, NODES, PODS, SERVICES
from fairlead.client import Client, Watched, follow
from fairlead.dashboard import view
from fairlead.discovery.fold import fold
from fairlead.discovery.model import ServiceSnapshot
from fairlead.survey.eyes import Eyes
from fairlead.survey.traffic import Count

log = logging.getLogger("fairlead.dashboard")

Document = dict[str, Any]
Message = tuple[str, Document]
_WATCHED = (SERVICES, ENDPOINTSLICES, NODES, NAMESPACES, PODS, EVENTS)
_FOLDED = ("services", "endpointslices", "nodes", "namespaces")
_LOOK_SECONDS = 2.0
_GATHER_SECONDS = 0.1  # changes are told together, ten times a second at most
_BACKLOG = 256


class Feed:
    """One cluster's. `run` keeps it up to date until it is cancelled."""

    def __init__(self, client: Client, eyes: Eyes) -> None:
        self._client, self._eyes = client, eyes
        self.snapshot = ServiceSnapshot()
        self.pods: dict[str, Document] = {}
        self._events: dict[str, Document] = {}  # by id, the newest last
        self._services: dict[str, Document] = {}
        self._traffic: dict[str, Any] = {}
        self._blind: dict[str, str] = {}
        self._listeners: set[asyncio.Queue[Message | None]] = set()
        self._somebody = asyncio.Event()
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """Follow, and look at traffic."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._watch_traffic())

    # -- the API -------------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        async for batch in follow(self._client, *(Watched(resource) for resource in _WATCHED)):
            before = self.snapshot
            folded = [event for event in batch.events if event.resource.plural in _FOLDED]
            self.snapshot, changes = fold(before, folded, batch.synced)
            change: Document = {}
            if changes.services:
                change["services"] = {str(key): self._service(key) for key in changes.services}
            if changes.nodes:
                change["nodes"] = [view.node_document(n) for _, n in sorted(self.snapshot.nodes.items())]
            if changes.namespaces:
                change["namespaces"] = sorted(self.snapshot.namespaces)
            change |= self._others(batch.events)
            if batch.synced and not self.synced.is_set():
                self.synced.set()
                self._tell("snapshot", self.whole())
            elif change and self.synced.is_set():
                self._tell("change", change)
                await asyncio.sleep(_GATHER_SECONDS)

    def _service(self, key: Any) -> Document | None:
        service = self.snapshot.services.get(key)
        if service is None:
            self._services.pop(str(key), None)
            return None
        self._services[str(key)] = view.service_document(service)
        return self._services[str(key)]

    def _others(self, events: list[WatchEvent]) -> Document:
        pods: dict[str, Document | None] = {}
        told: list[Document] = []
        for event in events:
            if event.resource.plural == "pods":
                document = view.pod_document(event.object)
                key = f"{document['namespace']}/{document['name']}"
                if event.type == "DELETED":
                    self.pods.pop(key, None)
                    pods[key] = None
                else:
                    self.pods[key] = pods[key] = document
            elif event.resource.plural == "events" and event.type != "DELETED":
                told.append(view.event_document(event.object))
        change: Document = {"pods": pods} if pods else {}
        if told:
            told.sort(key=lambda each: each["time"])
            for each in told[-view.MOST_EVENTS :]:
                self._events.pop(each["id"], None)
                self._events[each["id"]] = each
            for oldest in tuple(self._events)[: -view.MOST_EVENTS]:
                del self._events[oldest]
            change["events"] = told[-view.MOST_EVENTS :]
        return change

    def whole(self) -> Document:
        """Everything."""
        return {
            "cluster": self._eyes.facts.name,
            "services": self._services,
            "pods": self.pods,
            "nodes": [view.node_document(node) for _, node in sorted(self.snapshot.nodes.items())],
            "namespaces": sorted(self.snapshot.namespaces),
            "events": list(self._events.values()),
            "traffic": self._traffic,
        }

    # -- traffic -------------------------------------------------------------------------------------------------------

    async def _watch_traffic(self) -> None:
        while True:
            await self._somebody.wait()
            counted, blind = await self._look()
            self._traffic = {
                "counts": view.traffic_document(counted, view.owners(self.snapshot)),
                "time": asyncio.get_running_loop().time(),
                "unseen": blind,
            }
            self._tell("traffic", self._traffic)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self) -> tuple[dict[str, tuple[Count, ...]], list[str]]:
        names = sorted(self.snapshot.nodes)
        found = await asyncio.gather(*(self._eyes.traffic(name) for name in names))
        counted = {name: counts for name, (counts, _) in zip(names, found, strict=True)}
        return counted, sorted({problem for _, problem in found if problem})

    # -- who listens ---------------------------------------------------------------------------------------------------

    def _tell(self, kind: str, document: Document) -> None:
        for queue in tuple(self._listeners):
            try:
                queue.put_nowait((kind, document))
            except asyncio.QueueFull:
                self._listeners.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)

    async def listen(self) -> AsyncGenerator[Message, None]:
        """The whole, then what changes. Ends for who does not keep up."""
        queue: asyncio.Queue[Message | None] = asyncio.Queue(_BACKLOG)
        if self.synced.is_set():
            queue.put_nowait(("snapshot", self.whole()))
        self._listeners.add(queue)
        self._somebody.set()
        try:
            while (message := await queue.get()) is not None:
                yield message
        finally:
            self._listeners.discard(queue)
            if not self._listeners:
                self._somebody.clear()


@contextlib.asynccontextmanager
async def running(feed: Feed) -> AsyncIterator[asyncio.Task[None]]:
    """The feed at work; its task ends only by a fault, which is the caller's to see."""
    task = asyncio.create_task(feed.run(), name="feed")
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
