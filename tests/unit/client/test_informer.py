"""The cache: what it holds, its indexes, and who is told."""

from __future__ import annotations

import asyncio
from typing import Any

from fairlead.api.events import EventType, WatchEvent
from fairlead.api.kinds import CONFIGMAPS
from fairlead.client import Watched
from fairlead.client.fake import FakeAPI, FakeClient
from fairlead.client.informer import Cache, Informer


def event(kind: EventType, name: str, app: str = "", namespace: str = "default") -> WatchEvent:
    metadata = {"name": name, "namespace": namespace, "labels": {"app": app}}
    return WatchEvent(kind, CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})


def names(found: list[dict[str, Any]]) -> list[str]:
    return sorted(o["metadata"]["name"] for o in found)


def test_indexes_follow_changes() -> None:
    """An object is found by what it says now, not by what it said before."""
    cache = Cache()
    cache.add_index("app", lambda o: [o["metadata"]["labels"]["app"]])
    cache.apply(event("ADDED", "a", "x"))
    cache.apply(event("ADDED", "b", "x", "other"))
    assert names(cache.by_index("app", "x")) == ["a", "b"] and names(cache.list("other")) == ["b"]
    cache.apply(event("MODIFIED", "a", "y"))
    assert names(cache.by_index("app", "x")) == ["b"] and names(cache.by_index("app", "y")) == ["a"]
    before, after = cache.apply(event("DELETED", "a"))
    assert before is not None and before["metadata"]["labels"]["app"] == "y" and after is None
    assert cache.by_index("app", "y") == [] and len(cache) == 1


def test_an_index_may_come_late() -> None:
    """What is there already is indexed too."""
    cache = Cache()
    cache.apply(event("ADDED", "a", "x"))
    cache.add_index("app", lambda o: [o["metadata"]["labels"]["app"]])
    assert names(cache.by_index("app", "x")) == ["a"]


async def test_handlers_are_told_after_the_cache() -> None:
    """before and after come in order, and the cache already holds the new state; transforms apply."""
    api = FakeAPI({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    client = FakeClient(api)
    informer = Informer(
        client, Watched(CONFIGMAPS), transforms={CONFIGMAPS: lambda o: {k: v for k, v in o.items() if k != "secret"}}
    )
    told: list[tuple[Any, Any, int]] = []
    heard = asyncio.Queue[None]()

    def hear(before: Any, after: Any) -> None:
        told.append((before and before["data"], after and after["data"], len(informer.cache(CONFIGMAPS))))
        heard.put_nowait(None)

    informer.on(CONFIGMAPS, hear)
    task = asyncio.create_task(informer.run())
    async with asyncio.timeout(5):
        await informer.synced.wait()
        obj = {"metadata": {"name": "a", "namespace": "default"}, "data": {"v": "1"}, "secret": "x"}
        await client.create(CONFIGMAPS, obj)
        await heard.get()
        assert "secret" not in informer.cache(CONFIGMAPS).list()[0]
        await client.delete(CONFIGMAPS, "a", "default")
        await heard.get()
    task.cancel()
    assert told == [(None, {"v": "1"}, 1), ({"v": "1"}, None, 0)]
