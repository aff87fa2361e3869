"""Watch: store events as clients see them.

Stands between the store's watches and the wire. Encoded events are hung on the store's events, so that all watchers of
a resource send the same bytes. Invariant: the object of every event carries the revision to resume from, and a
selector's watcher sees exactly the objects that enter, change within and leave its selection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import orjson

from fairlead.api.errors import FieldError, StatusError, expired, forbidden, not_supported, unprocessable
from fairlead.api.kinds import Resource
from fairlead.registry.fresh import catch_up
from fairlead.registry.listing import list_records, parse_revision
from fairlead.registry.requests import ListOptions, RegistryEvent, RegistryEventType, WatchOptions
from fairlead.registry.selection import Selection
from fairlead.registry.stored import prefix_of, served
from fairlead.store.interface import Compacted, Event, FutureRevision, Record, Store, StoreClosed, Watch, WatcherTooSlow

INITIAL_EVENTS_END = "k8s.io/initial-events-end"


def encoded(resource: Resource, event: Event, type: RegistryEventType, record: Record) -> RegistryEvent:
    """The event for clients, made once for all watchers. `record` is the event's own or the one before."""
    key = f"{type} {resource.api_version}"
    made: RegistryEvent | None = event.__dict__.get(key)
    if made is None:
        if record.modified != event.revision:
            record = Record(record.key, record.value, record.created, event.revision)
        made = RegistryEvent(type, served(resource, record))
        event.__dict__[key] = made
    return made


def select(resource: Resource, selection: Selection, event: Event) -> RegistryEvent | None:
    """What a watcher with that selection is told of a store event; None if it is not concerned."""
    before = event.previous
    was = before is not None and selection.matches(before)
    if event.type == "DELETE":
        return encoded(resource, event, "DELETED", event.record) if was else None
    if selection.matches(event.record):
        return encoded(resource, event, "MODIFIED" if was else "ADDED", event.record)
    if was and before is not None:
        return encoded(resource, event, "DELETED", before)
    return None


def bookmark(resource: Resource, revision: int, *, initial_end: bool = False) -> RegistryEvent:
    """A bookmark: an object of the kind with nothing but a resourceVersion."""
    metadata: dict[str, object] = {"resourceVersion": str(revision), "creationTimestamp": None}
    if initial_end:
        metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
    body = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
    return RegistryEvent("BOOKMARK", orjson.dumps(body))


def _check(options: WatchOptions) -> None:
    problems: list[FieldError] = []
    match = options.resource_version_match
    if options.send_initial_events is not None and match != "NotOlderThan":
        if match:
            problems.append(not_supported("resourceVersionMatch", match, ["NotOlderThan"]))
        else:
            text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            problems.append(forbidden("resourceVersionMatch", text))
    elif match and options.send_initial_events is None:
        text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        problems.append(forbidden("resourceVersionMatch", text))
    if problems:
        raise unprocessable("ListOptions", "meta.k8s.io", "", problems)


class RegistryWatch(AsyncIterator[list[RegistryEvent]]):
    """An open watch: iterate for batches; `close()` (or `aclose()`) when the client is gone.

    It ends by itself only after an ERROR event, or when the store is closed.
    """

    def __init__(
        self,
        store: Store,
        resource: Resource,
        namespace: str,
        options: WatchOptions,
        *,
        bookmark_seconds: float,
        count: Callable[[int], None],
    ) -> None:
        _check(options)
        self._selection = Selection.parse(resource, options.label_selector, options.field_selector)
        self._since = parse_revision(options.resource_version)
        self._store, self._resource, self._namespace, self._options = store, resource, namespace, options
        self._bookmark_seconds = bookmark_seconds if options.allow_bookmarks else 0.0
        self._bookmark_at: float | None = None
        initial = options.send_initial_events
        self._initial = initial if initial is not None else self._since == 0
        self._watch: Watch | None = None
        self._failure: StatusError | None = None
        self._ended = False
        self._late = self._since > store.revision
        if not self._initial and not self._late:
            self._open(self._since or store.revision)
        self._count = count
        count(1)

    def _open(self, since: int) -> None:
        prefix = prefix_of(self._resource, self._namespace)
        try:
            self._watch = self._store.watch(prefix, since)
        except Compacted as error:
            self._failure = expired(f"too old resource version: {since} ({error.oldest})")
        except FutureRevision as error:
            self._failure = expired(f"resource version {since} is not known here, the newest is {error.current}")

    async def __anext__(self) -> list[RegistryEvent]:
        if self._bookmark_at is None:
            self._bookmark_later()
        while not self._ended:
            if self._late and not self._initial:
                self._late = False
                try:
                    await catch_up(self._store)
                    self._open(self._since)
                except StoreClosed:
                    break
                except StatusError as error:
                    self._failure = error
            if self._initial:
                self._initial = False
                try:
                    batch = await self._begin()
                except StoreClosed:
                    break
                if batch:
                    return batch
            if self._failure is not None or self._watch is None:
                self.close()
                return [_error(self._failure or expired("the watch was not opened"))]
            try:
                async with asyncio.timeout_at(self._bookmark_at):
                    events = await self._watch.__anext__()
            except TimeoutError:
                self._bookmark_later()
                return [bookmark(self._resource, self._watch.progress)]
            except (StoreClosed, StopAsyncIteration):
                break
            except WatcherTooSlow:
                self._failure = expired("the watch was too slow to follow, list and watch again")
                continue
            except Compacted as error:
                self._failure = expired(f"too old resource version: {self._since} ({error.oldest})")
                continue
            batch = self._convert(events)
            if batch:
                return batch
        self.close()
        raise StopAsyncIteration

    def _bookmark_later(self) -> None:
        """Once in a while, also if other objects of the resource change all the time."""
        if self._bookmark_seconds:
            self._bookmark_at = asyncio.get_running_loop().time() + self._bookmark_seconds

    def _convert(self, events: Sequence[Event]) -> list[RegistryEvent]:
        resource, selection = self._resource, self._selection
        converted = (select(resource, selection, event) for event in events)
        return [event for event in converted if event is not None]

    async def _begin(self) -> list[RegistryEvent]:
        """What exists, as ADDED; then follow from there."""
        if self._since > self._store.revision:
            await catch_up(self._store)
        if self._since > self._store.revision:
            self._open(self._since)
            return []
        options = ListOptions(self._options.label_selector, self._options.field_selector)
        records, result = await list_records(self._store, self._resource, self._namespace, options)
        self._since = result.revision
        self._open(result.revision)
        batch = [RegistryEvent("ADDED", served(self._resource, record)) for record in records]
        if self._options.send_initial_events and self._options.allow_bookmarks:
            batch.append(bookmark(self._resource, result.revision, initial_end=True))
        return batch

    def close(self) -> None:
        """Give up; the iteration ends."""
        if not self._ended:
            self._ended = True
            self._count(-1)
        if self._watch is not None:
            self._watch.close()

    async def aclose(self) -> None:
        """As `close`."""
        self.close()


def _error(failure: StatusError) -> RegistryEvent:
    return RegistryEvent("ERROR", orjson.dumps(failure.status))
