"""Tells users what happened to an object, as core/v1 Events.

Components record; the recorder writes in the background. Invariant: recording never waits and never fails the caller;
what repeats is counted on one Event, and a source that floods is cut off, with client-go's correlation rules (tools/
events: 10 similar events in 10 minutes are combined, a burst of 25 per object and source, then one in five minutes).
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, TypeVar

import msgspec

from fairlead.api.errors import StatusError
from fairlead.api.kinds import EVENTS
from fairlead.client.backoff import Backoff
from fairlead.client.rest import Client, Object

log = logging.getLogger("fairlead.client")

_REMEMBERED = 4096
_SIMILAR, _SIMILAR_SPAN = 10, 600.0
_BURST, _REFILL = 25, 1 / 300.0
_WAITING = 1000
_LAG = 0.05  # s; what made the event is usually followed by work that someone waits for: that goes first
_LONGEST_MESSAGE = 1024


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class _Seen(msgspec.Struct):
    """An Event that was written, for counting on."""

    name: str
    count: int
    first: str


class _Similar(msgspec.Struct):
    """Events that differ only in their message: since when, and which messages."""

    since: float
    messages: set[str]


class _Bucket(msgspec.Struct):
    """What one source may still say about one object."""

    tokens: float
    filled: float


class _Recorded(msgspec.Struct, frozen=True):
    reference: Object
    type: str
    reason: str
    message: str
    at: datetime.datetime


class EventRecorder:
    """Records Events of one component. `start` before recording, `stop` writes what still waits."""

    def __init__(
        self,
        client: Client,
        component: str,
        host: str = "",
        *,
        now: Callable[[], datetime.datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._component, self._host, self._now, self._clock = client, component, host, now, clock
        self._queue: asyncio.Queue[_Recorded] = asyncio.Queue(_WAITING)
        self._seen: OrderedDict[tuple[str, ...], _Seen] = OrderedDict()
        self._similar: OrderedDict[tuple[str, ...], _Similar] = OrderedDict()
        self._buckets: OrderedDict[tuple[str, ...], _Bucket] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._serial = 0

    async def start(self) -> None:
        """Begin to write."""
        self._stopping.clear()
        self._task = asyncio.create_task(self._run(), name=f"events-{self._component}")

    async def stop(self) -> None:
        """Write what waits, for at most two seconds, and end."""
        if self._task is None:
            return
        self._stopping.set()
        try:
            async with asyncio.timeout(2):
                await self._queue.join()
        except TimeoutError:
            pass
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    def event(
        self, obj: Object, type: Literal["Normal", "Warning"], reason: str, message: str, *, field_path: str = ""
    ) -> None:
        """Something happened to `obj`. `field_path` names a part of it: `spec.containers{web}`."""
        reference = reference_to(obj)
        if field_path:
            reference["fieldPath"] = field_path
        try:
            self._queue.put_nowait(_Recorded(reference, type, reason, message[:_LONGEST_MESSAGE], self._now()))
        except asyncio.QueueFull:
            log.warning("too many events wait to be written; dropped one about %s", reference.get("name"))

    async def _run(self) -> None:
        while True:
            recorded = await self._queue.get()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _LAG)
            await self._attempt(recorded)
            while not self._queue.empty():
                await self._attempt(self._queue.get_nowait())

    async def _attempt(self, recorded: _Recorded) -> None:
        try:
            await self._write(recorded)
        except Exception:
            log.exception("an event could not be written")
        finally:
            self._queue.task_done()

    # -- correlation ---------------------------------------------------------------------------------------------

    def _allowed(self, recorded: _Recorded) -> bool:
        key = (self._component, *_who(recorded.reference))
        now = self._clock()
        bucket = _recall(self._buckets, key, lambda: _Bucket(_BURST, now))
        bucket.tokens = min(_BURST, bucket.tokens + (now - bucket.filled) * _REFILL)
        bucket.filled = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def _combined(self, recorded: _Recorded) -> tuple[tuple[str, ...], str]:
        """The key to count under, and the message to write."""
        group = (*_who(recorded.reference), recorded.type, recorded.reason)
        now = self._clock()
        similar = _recall(self._similar, group, lambda: _Similar(now, set()))
        if now - similar.since > _SIMILAR_SPAN:
            similar.since, similar.messages = now, set()
        similar.messages.add(recorded.message)
        if len(similar.messages) < _SIMILAR:
            return (*group, recorded.message), recorded.message
        similar.messages.pop()
        return group, f"(combined from similar events): {recorded.message}"

    async def _write(self, recorded: _Recorded) -> None:
        key, message = self._combined(recorded)
        if not self._allowed(recorded):
            log.debug("too many events about %s: dropped %s", recorded.reference.get("name"), recorded.reason)
            return
        at = recorded.at.strftime("%Y-%m-%dT%H:%M:%SZ")
        seen = self._seen.get(key)
        namespace = recorded.reference.get("namespace") or "default"
        backoff = Backoff(0.2, 5.0)
        while True:
            try:
                if seen is not None:
                    patch = {"count": seen.count + 1, "lastTimestamp": at, "message": message}
                    await self._client.patch(EVENTS, seen.name, patch, namespace)
                    seen.count += 1
                    self._seen.move_to_end(key)
                    return
                made = self._new(recorded, namespace, message, at)
                await self._client.create(EVENTS, made, namespace)
                self._seen[key] = _Seen(made["metadata"]["name"], 1, at)
                if len(self._seen) > _REMEMBERED:
                    self._seen.popitem(last=False)
                return
            except StatusError as error:
                if seen is not None and error.code == 404:
                    seen = None
                elif error.code < 500 and error.code != 429:
                    log.debug("the server refused an event about %s: %s", recorded.reference.get("name"), error)
                    return
                elif backoff.failures >= 12:
                    log.warning("giving up on an event about %s: %s", recorded.reference.get("name"), error)
                    return
                else:
                    await asyncio.sleep(backoff.next())

    def _new(self, recorded: _Recorded, namespace: str, message: str, at: str) -> Object:
        self._serial += 1
        unique = int(recorded.at.timestamp() * 1e9) + self._serial
        source = {"component": self._component, **({"host": self._host} if self._host else {})}
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{recorded.reference['name']}.{unique:x}", "namespace": namespace},
            "involvedObject": recorded.reference,
            "reason": recorded.reason,
            "message": message,
            "source": source,
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
            "type": recorded.type,
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }


def reference_to(obj: Object) -> Object:
    """An ObjectReference."""
    metadata = obj["metadata"]
    reference = {"kind": obj["kind"], "apiVersion": obj["apiVersion"], "name": metadata["name"]}
    for field in ("namespace", "uid", "resourceVersion"):
        if metadata.get(field):
            reference[field] = metadata[field]
    return reference


def _who(reference: Object) -> tuple[str, ...]:
    return tuple(str(reference.get(f, "")) for f in ("kind", "namespace", "name", "uid", "fieldPath"))


V = TypeVar("V")


def _recall(memory: OrderedDict[tuple[str, ...], V], key: tuple[str, ...], make: Callable[[], V]) -> V:
    """What is remembered under the key; the longest unused is forgotten."""
    value = memory.get(key)
    if value is None:
        value = memory[key] = make()
        if len(memory) > _REMEMBERED:
            memory.popitem(last=False)
    memory.move_to_end(key)
    return value
