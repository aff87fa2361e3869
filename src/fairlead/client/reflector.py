"""List and watch, for ever: the one way in which anything here learns what the API server knows.

`follow` merges any number of resources into one stream of batches. Invariant: applied in order, the events of the
stream take a reader from "nothing" to what the server holds, each key's events alternating correctly (ADDED before
MODIFIED, DELETED last), whatever broke on the way. Memory: one short string per object; objects are handed on, never
kept.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec

from fairlead.api.errors import StatusError
from fairlead.api.events import EventType, WatchEvent
from fairlead.api.kinds import Resource
from fairlead.client.backoff import Backoff
from fairlead.client.config import ConfigError
from fairlead.client.rest import PAGE, Client, Notices, Object

log = logging.getLogger("fairlead.client")

INITIAL_EVENTS_END = "k8s.io/initial-events-end"
_FULL = 20_000  # events waiting for a slow reader before the reflectors stop reading
_SILENCE = 10.0  # s without an event before a server that ignores sendInitialEvents is found out
_PATIENCE = 120.0  # s of initial events without an end, likewise
_NOT_STREAMED = (400, 405, 406, 415, 422)  # how a server refuses sendInitialEvents
_WITHOUT = 60.0  # s until an optional resource that is not there is asked for again
_STEADY = 5.0  # s a watch must have lasted to count as working


class Watched(msgspec.Struct, frozen=True):
    """One thing to follow. An empty namespace means all of them. `optional`: where the server has no such resource, or
    does not let us read it, that is as good as none (and is asked again each minute)."""

    resource: Resource
    namespace: str = ""
    field_selector: str = ""
    label_selector: str = ""
    optional: bool = False


class Batch(msgspec.Struct, frozen=True):
    """What happened since the last batch, in order. `synced`: every resource has been listed."""

    events: list[WatchEvent]
    synced: bool


async def follow(
    client: Client,
    *watched: Watched,
    dice: Callable[[], float] = random.random,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncGenerator[Batch, None]:
    """List and watch `watched` as one stream; never ends by itself.

    Whatever is waiting comes in one batch, at once: there is no timer. Within a batch several changes of one object
    are one. A batch without events comes once if there was nothing to tell but that all is listed. Close it (or
    cancel the task that reads it) to stop.
    """
    inbox = _Inbox()
    reflectors = [(w.resource.plural, _Reflector(client, w, inbox, dice, clock)) for w in watched]
    tasks = [asyncio.create_task(r.run(), name=f"follow-{plural}") for plural, r in reflectors]
    for task in tasks:
        task.add_done_callback(inbox.broken)
    try:
        while True:
            yield await inbox.take()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Inbox:
    """Where the reflectors' events wait for the reader."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, WatchEvent]] = []
        self._sources = 0
        self._unlisted: set[int] = set()
        self._told_synced = False
        self._something, self._room = asyncio.Event(), asyncio.Event()
        self._fault: BaseException | None = None
        self._room.set()

    def source(self) -> int:
        """A number for one more reflector."""
        self._sources += 1
        self._unlisted.add(self._sources)
        return self._sources

    async def put(self, source: int, events: list[WatchEvent]) -> None:
        """Wait for room, then leave the events."""
        await self._room.wait()
        if events:
            self._waiting += [(source, e) for e in events]
            self._something.set()
            if len(self._waiting) >= _FULL:
                self._room.clear()

    def listed(self, source: int) -> None:
        """That source has told all there was."""
        if source in self._unlisted:
            self._unlisted.discard(source)
            if not self._unlisted:
                self._something.set()

    def broken(self, task: asyncio.Task[None]) -> None:
        """A reflector ended, which it never does by itself: its fault is the reader's to see."""
        if not task.cancelled():
            self._fault = task.exception()
            self._something.set()

    async def take(self) -> Batch:
        """Everything that waits; waits for something."""
        while True:
            await self._something.wait()
            if self._fault is not None:
                raise self._fault
            self._something.clear()
            waiting, self._waiting = self._waiting, []
            self._room.set()
            events = coalesce(waiting) if len(waiting) > 1 else [e for _, e in waiting]
            synced = not self._unlisted
            if events or synced != self._told_synced:
                self._told_synced = synced
                return Batch(events, synced)


def coalesce(events: list[tuple[int, WatchEvent]]) -> list[WatchEvent]:
    """One event per object where one says it all.

    An object that was replaced by another of its name keeps both events; one that came and went has none.
    """
    latest: dict[tuple[int, str, str], int] = {}
    kept: list[WatchEvent | None] = []
    for source, event in events:
        metadata = event.object["metadata"]
        key = (source, metadata.get("namespace", ""), metadata["name"])
        before = latest.get(key)
        earlier = kept[before] if before is not None else None
        if before is not None and earlier is not None and earlier.type != "DELETED":
            kept[before] = None
            if earlier.type == "ADDED" and event.type == "DELETED":
                del latest[key]
                continue
            if earlier.type == "ADDED":
                event = WatchEvent("ADDED", event.resource, event.object)
        latest[key] = len(kept)
        kept.append(event)
    return [e for e in kept if e is not None]


class _Outage:
    """Says once that something is wrong, and once that it is right again."""

    def __init__(self, what: str, clock: Callable[[], float]) -> None:
        self._what, self._clock = what, clock
        self._since: float | None = None

    def begins(self, error: Exception) -> None:
        if self._since is None:
            self._since = self._clock()
            log.warning("cannot follow %s: %s; trying again until it works", self._what, error)
        else:
            log.debug("still cannot follow %s: %s", self._what, error)

    def ends(self) -> None:
        if self._since is not None:
            log.info("following %s again after %.1f s", self._what, self._clock() - self._since)
            self._since = None


class _Restart(Exception):
    """Nothing can be resumed: list again. `at_once`: in another way, so there is nothing to wait for."""

    def __init__(self, at_once: bool = False) -> None:
        super().__init__()
        self.at_once = at_once


class _Reflector:
    """Follows one resource into the inbox. `_known` is what the reader was told: key → "uid resourceVersion"."""

    def __init__(
        self, client: Client, watched: Watched, inbox: _Inbox, dice: Callable[[], float], clock: Callable[[], float]
    ) -> None:
        self._client, self._watched, self._inbox = client, watched, inbox
        self._source = inbox.source()
        self._dice, self._clock = dice, clock
        self._known: dict[str, str] = {}
        self._revision = ""
        self._backoff = Backoff(dice=dice)
        what = watched.resource.group_plural
        self._outage = _Outage(f"{what} at {client.server}", clock)

    async def run(self) -> None:
        while True:
            started = self._clock()
            try:
                if not self._revision:
                    await self._start()
                await self._watch()
                self._outage.ends()
                if self._clock() - started < _STEADY:  # a server that ends every watch at once must not be hammered
                    await asyncio.sleep(self._backoff.next())
            except _Restart as restart:
                self._revision = ""
                if not restart.at_once and self._clock() - started < _STEADY:
                    await asyncio.sleep(self._backoff.next())
            except (StatusError, ConfigError) as error:
                if isinstance(error, StatusError) and _too_old(error):
                    log.debug("%s: %s; listing again", self._watched.resource.plural, error)
                    self._revision = ""
                elif self._watched.optional and isinstance(error, StatusError) and error.code in (403, 404):
                    log.debug("%s: none (%s)", self._watched.resource.group_plural, error)
                    self._inbox.listed(self._source)
                    await asyncio.sleep(_WITHOUT)
                    continue
                else:
                    self._outage.begins(error)
                after = getattr(error, "retry_after", None) or 0
                await asyncio.sleep(max(self._backoff.next(), float(after)))

    def _works(self) -> None:
        self._backoff.reset()
        self._outage.ends()

    # -- the beginning -------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        """Come to know all there is; leaves `_revision` to watch from. With a server that streams initial events,
        `_watch` does it in the same request."""
        if self._client.watch_lists is not False:
            return
        try:
            await self._list(PAGE)
        except StatusError as error:
            if not _too_old(error):
                raise
            await self._list(0)  # the list expired between two pages: take it in one go
        self._inbox.listed(self._source)
        self._works()

    async def _list(self, limit: int) -> None:
        unseen = set(self._known)
        watched, revision = self._watched, ""
        pages_of = self._client.pages(
            watched.resource,
            watched.namespace,
            label_selector=watched.label_selector,
            field_selector=watched.field_selector,
            limit=limit,
        )
        async with aclosing(pages_of) as pages:
            async for page in pages:
                events: list[WatchEvent] = []
                for item in page["items"]:
                    unseen.discard(_key(item))
                    self._learn(item, events)
                await self._inbox.put(self._source, events)
                revision = page["metadata"].get("resourceVersion", "")
        await self._inbox.put(self._source, self._forget(unseen))
        self._revision = revision

    def _learn(self, item: Object, events: list[WatchEvent]) -> None:
        """The object exists now: tell what that changes."""
        key, told = _key(item), _identity(item)
        before = self._known.get(key)
        if before == told:
            return
        self._known[key] = told
        kind: EventType = "ADDED"
        if before is not None:
            uid = before.partition(" ")[0]
            if uid == told.partition(" ")[0]:
                kind = "MODIFIED"
            else:
                events.append(self._gone(key, uid))
        events.append(WatchEvent(kind, self._watched.resource, item))

    def _forget(self, keys: set[str]) -> list[WatchEvent]:
        return [self._gone(key, self._known.pop(key).partition(" ")[0]) for key in sorted(keys)]

    def _gone(self, key: str, uid: str) -> WatchEvent:
        """A deletion nobody saw: only who it was is known."""
        namespace, _, name = key.rpartition("/")
        metadata: dict[str, Any] = {"name": name, "uid": uid}
        if namespace:
            metadata["namespace"] = namespace
        resource = self._watched.resource
        return WatchEvent(
            "DELETED", resource, {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
        )

    # -- the rest ------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Follow from `_revision`, or from nothing by a streamed list, until the server ends the watch."""
        watched = self._watched
        listing = not self._revision
        unseen = set(self._known) if listing else set()
        opened = self._clock()
        stream = self._client.watch(
            watched.resource,
            watched.namespace,
            label_selector=watched.label_selector,
            field_selector=watched.field_selector,
            resource_version=self._revision,
            send_initial_events=listing,
            timeout_seconds=300 + int(300 * self._dice()),
        )
        async with aclosing(stream):
            while True:
                try:
                    async with asyncio.timeout(_SILENCE if listing else None):
                        notices = await anext(stream, None)
                except TimeoutError:
                    raise self._no_streamed_lists() from None
                except StatusError as error:
                    if listing and error.code in _NOT_STREAMED:
                        raise self._no_streamed_lists() from None
                    raise
                if notices is None:
                    if listing:
                        raise _Restart
                    return
                listing = await self._digest(notices, listing, unseen)
                if not listing:
                    self._works()
                elif self._clock() - opened > _PATIENCE:
                    raise self._no_streamed_lists()

    def _no_streamed_lists(self) -> _Restart:
        """The server refuses sendInitialEvents, or knows nothing of it and never says that the beginning is over."""
        self._client.watch_lists = False
        return _Restart(at_once=True)

    async def _digest(self, notices: Notices, listing: bool, unseen: set[str]) -> bool:
        """Hand on a batch of the watch. Returns whether the initial events are still coming."""
        events: list[WatchEvent] = []
        ended = False
        for kind, item in notices:
            metadata = item["metadata"]
            if kind == "BOOKMARK":
                self._revision = metadata["resourceVersion"]
                if listing and (metadata.get("annotations") or {}).get(INITIAL_EVENTS_END) == "true":
                    events += self._forget(unseen)
                    unseen.clear()
                    listing, ended = False, True
                    self._client.watch_lists = True
                continue
            key = _key(item)
            if kind == "DELETED":
                unseen.discard(key)
                if self._known.pop(key, None) is not None:
                    events.append(WatchEvent("DELETED", self._watched.resource, item))
            else:
                unseen.discard(key)
                self._learn(item, events)
            if not listing:
                self._revision = metadata["resourceVersion"]
        await self._inbox.put(self._source, events)
        if ended:
            self._inbox.listed(self._source)
        return listing


def _too_old(error: StatusError) -> bool:
    """The resourceVersion is no longer (410) or not yet (504, after a restore) known to the server: list again."""
    if error.code == 410:
        return True
    causes = (error.status.get("details") or {}).get("causes") or []
    return any(c.get("reason") == "ResourceVersionTooLarge" for c in causes)


def _key(item: Object) -> str:
    metadata = item["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else metadata["name"]


def _identity(item: Object) -> str:
    metadata = item["metadata"]
    return f"{metadata.get('uid', '')} {metadata.get('resourceVersion', '')}"
