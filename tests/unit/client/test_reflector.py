"""Following through every kind of trouble, against a server in memory that fails on demand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from fairlead.api import errors
from fairlead.api.events import EventType, WatchEvent
from fairlead.api.kinds import CONFIGMAPS, NAMESPACES
from fairlead.client import Batch, Watched, follow
from fairlead.client.fake import FakeAPI, FakeClient
from fairlead.client.reflector import coalesce
from fairlead.client.rest import Notices

Object = dict[str, Any]


def config_map(name: str, value: str = "") -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": {"v": value},
    }


def namespace() -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}


class Reader:
    """Collects what a stream tells."""

    def __init__(self, stream: AsyncGenerator[Batch, None]) -> None:
        self.stream = stream
        self.told: list[str] = []
        self.held: dict[str, str] = {}
        self.synced = False

    async def read(self) -> list[str]:
        """One batch, as "TYPE name"."""
        async with asyncio.timeout(10):
            batch = await anext(self.stream)
        self.synced = batch.synced
        lines = [f"{e.type} {e.object['metadata']['name']}" for e in batch.events]
        for event in batch.events:
            name = event.object["metadata"]["name"]
            if event.type == "DELETED":
                del self.held[name]
            else:
                self.held[name] = event.object["data"]["v"]
        self.told += lines
        return lines

    async def until(self, condition: Any) -> None:
        while not condition():
            await self.read()


async def started(api: FakeAPI) -> tuple[FakeClient, Reader]:
    client = FakeClient(api)
    reader = Reader(follow(client, Watched(CONFIGMAPS), dice=lambda: 0.0))
    await reader.until(lambda: reader.synced)
    return client, reader


async def test_an_empty_world_is_told_once() -> None:
    """With nothing there, one empty batch says that all is listed."""
    _, reader = await started(FakeAPI(namespace()))
    assert reader.told == [] and reader.synced


async def test_synced_needs_every_resource() -> None:
    """Until the last of several kinds is listed, batches are not synced."""
    api = FakeAPI(namespace(), config_map("a"))
    blocked = True

    def fail(method: str, path: str) -> None:
        if blocked and path.endswith("/namespaces"):
            raise errors.unavailable("not yet", retry_after=0)

    api.fail = fail
    stream = follow(FakeClient(api), Watched(CONFIGMAPS), Watched(NAMESPACES))
    first = await anext(stream)
    assert [e.object["metadata"]["name"] for e in first.events] == ["a"] and not first.synced
    blocked = False
    async with asyncio.timeout(10):
        while not (await anext(stream)).synced:
            pass
    await stream.aclose()


@pytest.mark.parametrize(
    "refusal", [errors.access_forbidden("not for you", "namespaces"), errors.not_found("namespaces", "", "x")]
)
async def test_an_optional_resource_may_be_missing(refusal: errors.StatusError) -> None:
    """What the server has not, or does not let us read, keeps nobody from being synced; what is read is told."""
    api = FakeAPI(namespace(), config_map("a"))

    def fail(method: str, path: str) -> None:
        if path.endswith("/namespaces"):
            raise refusal

    api.fail = fail
    stream = follow(FakeClient(api), Watched(CONFIGMAPS), Watched(NAMESPACES, optional=True))
    told: list[str] = []
    async with asyncio.timeout(10):
        while True:
            batch = await anext(stream)
            told += [e.object["metadata"]["name"] for e in batch.events]
            if batch.synced:
                break
    assert told == ["a"]
    await stream.aclose()


async def test_a_broken_watch_resumes_where_it_was() -> None:
    """After the server dropped the watch, only what is new is told, and nothing is listed again."""
    api = FakeAPI(namespace(), config_map("a"))
    client, reader = await started(api)
    api.break_watches()
    await client.create(CONFIGMAPS, config_map("b"))
    await reader.until(lambda: "b" in reader.held)
    assert reader.told == ["ADDED a", "ADDED b"]
    assert api.requests.count(("GET", "/api/v1/configmaps")) == 0
    await reader.stream.aclose()


@pytest.mark.parametrize("streams_lists", [True, False])
async def test_an_expired_version_becomes_a_difference(streams_lists: bool) -> None:
    """After 410 the relist is told as what changed, also a name that was deleted and made anew."""
    api = FakeAPI(namespace(), *(config_map(n, "1") for n in ("kept", "changed", "gone", "replaced")))
    api.streams_lists = streams_lists
    client, reader = await started(api)
    reader.told.clear()
    await client.update(CONFIGMAPS, config_map("changed", "2"))
    await client.delete(CONFIGMAPS, "gone", "default")
    await client.delete(CONFIGMAPS, "replaced", "default")
    await client.create(CONFIGMAPS, config_map("replaced", "2"))
    await client.create(CONFIGMAPS, config_map("new", "2"))
    api.compact()
    api.break_watches()
    expected = {"kept": "1", "changed": "2", "replaced": "2", "new": "2"}
    await reader.until(lambda: reader.held == expected)
    assert sorted(reader.told) == [
        "ADDED new",
        "ADDED replaced",
        "DELETED gone",
        "DELETED replaced",
        "MODIFIED changed",
    ]
    await reader.stream.aclose()


async def test_a_server_that_refuses_streamed_lists_is_listed() -> None:
    """422 for sendInitialEvents leads to list and watch, for good."""
    api = FakeAPI(namespace(), config_map("a"), streams_lists=False)
    client, reader = await started(api)
    assert client.watch_lists is False and reader.held == {"a": ""}
    assert ("GET", "/api/v1/configmaps") in api.requests
    await client.create(CONFIGMAPS, config_map("b"))
    await reader.until(lambda: "b" in reader.held)
    await reader.stream.aclose()


async def test_a_server_that_ignores_streamed_lists_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 without the bookmark that ends the initial events must not leave the reader waiting for ever."""
    monkeypatch.setattr("fairlead.client.reflector._SILENCE", 0.05)

    class Old(FakeClient):
        async def watch(self, resource: Any, *args: Any, **kw: Any) -> AsyncGenerator[Notices, None]:  # type: ignore[override]
            kw.pop("send_initial_events")
            async for notices in super().watch(resource, *args, **kw):
                yield notices

    client = Old(FakeAPI(namespace(), config_map("a")))
    reader = Reader(follow(client, Watched(CONFIGMAPS)))
    await reader.until(lambda: reader.synced)
    assert reader.told == ["ADDED a"] and client.watch_lists is False
    await reader.stream.aclose()


async def test_long_lists_come_in_pages() -> None:
    """A plain list asks for 500 at a time and tells them all."""
    api = FakeAPI(namespace(), *(config_map(f"m{i:04}") for i in range(1200)), streams_lists=False)
    _, reader = await started(api)
    assert len(reader.held) == 1200
    assert api.requests.count(("GET", "/api/v1/configmaps")) == 3
    await reader.stream.aclose()


async def test_a_list_that_expires_between_pages_is_taken_in_one_go() -> None:
    """410 on a continue token does not lead to an endless loop."""
    api = FakeAPI(namespace(), *(config_map(f"m{i:04}") for i in range(600)), streams_lists=False)
    asked = 0

    def fail(method: str, path: str) -> None:
        nonlocal asked
        asked += method == "GET" and path.endswith("/configmaps")
        if asked == 2 and method == "GET":
            raise errors.expired("The provided continue parameter is too old")

    api.fail = fail
    _, reader = await started(api)
    assert len(reader.held) == 600 and asked == 3
    await reader.stream.aclose()


@pytest.mark.parametrize(
    "error", [errors.unauthorized(), errors.access_forbidden("no"), errors.internal("oops")], ids=str
)
async def test_an_outage_is_said_once(error: errors.StatusError, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the server refuses with: one warning at the start, one line at the end, and then it works."""
    caplog.set_level(logging.INFO, "fairlead.client")
    api = FakeAPI(namespace(), config_map("a"))
    failures = 0

    def fail(method: str, path: str) -> None:
        nonlocal failures
        failures += 1
        if failures <= 4:
            raise error

    api.fail = fail
    client = FakeClient(api)
    reader = Reader(follow(client, Watched(CONFIGMAPS), dice=lambda: -0.98))
    await reader.until(lambda: reader.synced)
    assert reader.held == {"a": ""}
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"]
    assert "configmaps at https://fake" in caplog.records[0].getMessage()
    await reader.stream.aclose()


async def test_a_reflectors_own_fault_reaches_the_reader() -> None:
    """A bug is raised where it can be seen, not swallowed in a task."""
    api = FakeAPI(namespace())

    def fail(method: str, path: str) -> None:
        raise ZeroDivisionError

    api.fail = fail
    with pytest.raises(ZeroDivisionError):
        await anext(follow(FakeClient(api), Watched(CONFIGMAPS)))


async def test_waiting_events_come_together() -> None:
    """What happened while the reader was busy is one batch with one event per object."""
    api = FakeAPI(namespace())
    _, reader = await started(api)
    for value in "1234":
        api.add(config_map(value)) if value == "1" else api.edit(
            CONFIGMAPS, "1", "default", lambda o, v=value: o["data"].update(v=v)
        )
        await asyncio.sleep(0.01)
    assert await reader.read() == ["ADDED 1"]
    assert reader.held == {"1": "4"}
    await reader.stream.aclose()


def event(kind: EventType, name: str, value: str = "") -> tuple[int, WatchEvent]:
    return 0, WatchEvent(kind, CONFIGMAPS, config_map(name, value))


COALESCE = [
    ("MODIFIED a 1, MODIFIED a 2", "MODIFIED a 2"),
    ("ADDED a 1, MODIFIED a 2", "ADDED a 2"),
    ("MODIFIED a 1, DELETED a 1", "DELETED a 1"),
    ("DELETED a 1, ADDED a 2", "DELETED a 1, ADDED a 2"),
    ("DELETED a 1, ADDED a 2, MODIFIED a 3", "DELETED a 1, ADDED a 3"),
    ("ADDED a 1, ADDED b 1, MODIFIED a 2", "ADDED b 1, ADDED a 2"),
    ("ADDED a 1, DELETED a 1", ""),
    ("ADDED a 1, DELETED a 1, ADDED a 2", "ADDED a 2"),
    ("DELETED a 1, ADDED a 2, DELETED a 2", "DELETED a 1"),
]


@pytest.mark.parametrize(("given", "kept"), COALESCE)
def test_coalescing(given: str, kept: str) -> None:
    """One event says it all, unless the object was replaced by another of its name; what came and went is silent."""

    def parse(text: str) -> list[tuple[int, WatchEvent]]:
        return [event(*words.split()) for words in text.split(", ") if words]  # type: ignore[arg-type]

    assert coalesce(parse(given)) == [e for _, e in parse(kept)]
