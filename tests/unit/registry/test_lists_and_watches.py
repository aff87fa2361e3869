"""Lists and watches: resource versions, pages, selectors, bookmarks, and what is too old."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from fairlead.api import kinds
from fairlead.api.errors import StatusError
from fairlead.registry import DeleteOptions, ListOptions, Registry, RegistryEvent, RequestContext, WatchOptions
from fairlead.store.memory import MemoryStore

CM = kinds.CONFIGMAPS


async def add(cluster: Any, name: str, namespace: str = "default", **labels: str) -> dict[str, Any]:
    """A ConfigMap with labels."""
    return await cluster.create(CM, {"metadata": {"name": name, "labels": labels}}, namespace=namespace)


async def names(cluster: Any, namespace: str = "default", **options: Any) -> list[str]:
    """Which a list gives."""
    result = await cluster.registry.list(CM, namespace, ListOptions(**options))
    return [o["metadata"]["name"] for o in result.items]


async def take(watch: Any, count: int) -> list[RegistryEvent]:
    """The next events."""
    events: list[RegistryEvent] = []
    async with asyncio.timeout(10):
        while len(events) < count:
            events += await watch.__anext__()
    return events


def brief(events: list[RegistryEvent]) -> list[tuple[str, str]]:
    """(type, name) of each."""
    return [(e.type, e.object["metadata"].get("name", "")) for e in events]


async def test_lists(cluster: Any) -> None:
    """Of a namespace or of all, by name, by labels and by fields."""
    await cluster.create(kinds.NAMESPACES, {"metadata": {"name": "shop"}})
    for name in ("b", "a"):
        await add(cluster, name, tier=name)
    await add(cluster, "c", "shop", tier="a")
    assert await names(cluster) == ["a", "b"]
    assert await names(cluster, "") == ["a", "b", "c"]
    assert await names(cluster, "shop") == ["c"]
    assert await names(cluster, "", label_selector="tier=a") == ["a", "c"]
    assert await names(cluster, field_selector="metadata.name=a") == ["a"]
    assert await names(cluster, "", field_selector="metadata.name=a") == ["a"]
    assert await names(cluster, "", field_selector="metadata.namespace=shop") == ["c"]
    assert await names(cluster, label_selector="tier=b", field_selector="metadata.name=a") == []
    result = await cluster.registry.list(CM, "", ListOptions())
    assert [orjson.loads(item) for item in result.items_json] == result.items
    assert result.metadata() == {"resourceVersion": str(cluster.store.revision)}


async def test_pages_show_one_revision(cluster: Any) -> None:
    """What happens between them does not show; the remainder is counted."""
    for i in range(5):
        await add(cluster, f"c{i}")
    at = cluster.store.revision
    first = await cluster.registry.list(CM, "default", ListOptions(limit=2))
    assert first.metadata() == {
        "resourceVersion": str(at), "continue": first.continue_token, "remainingItemCount": 3,
    }  # fmt: skip
    await add(cluster, "c11")
    await cluster.registry.delete(CM, "default", "c2", DeleteOptions(), cluster.ctx())
    second = await cluster.registry.list(CM, "default", ListOptions(limit=2, continue_token=first.continue_token))
    assert [o["metadata"]["name"] for o in second.items] == ["c2", "c3"]
    third = await cluster.registry.list(CM, "default", ListOptions(continue_token=second.continue_token))
    assert [o["metadata"]["name"] for o in third.items] == ["c4"]
    assert third.metadata() == {"resourceVersion": str(at)}


async def test_pages_of_a_selection(cluster: Any) -> None:
    """A limit counts what was chosen; what remains is not told."""
    for i in range(9):
        await add(cluster, f"c{i}", odd="yes" if i % 2 else "no")
    seen, token = [], ""
    while True:
        page = await cluster.registry.list(
            CM, "default", ListOptions(label_selector="odd=no", limit=2, continue_token=token)
        )
        assert page.remaining is None
        seen.append([o["metadata"]["name"] for o in page.items])
        token = page.continue_token
        if not token:
            break
    assert seen == [["c0", "c2"], ["c4", "c6"], ["c8"]]


async def test_resource_version_and_its_match(cluster: Any, refused: Any) -> None:
    """Exact shows the past, NotOlderThan the newest; the future is a timeout."""
    await add(cluster, "a")
    then = str(cluster.store.revision)
    await add(cluster, "b")
    assert await names(cluster, resource_version=then) == ["a", "b"]
    assert await names(cluster, resource_version="0") == ["a", "b"]
    assert await names(cluster, resource_version=then, resource_version_match="NotOlderThan") == ["a", "b"]
    assert await names(cluster, resource_version=then, resource_version_match="Exact") == ["a"]
    assert await names(cluster, resource_version=then, limit=5) == ["a"]
    code, reason, text = await refused(names(cluster, resource_version="99"))
    assert (code, reason) == (504, "Timeout")
    assert text == f"Too large resource version: 99, current: {cluster.store.revision}"
    for bad in (
        {"resource_version_match": "Exact"},
        {"resource_version_match": "Exact", "resource_version": "0"},
        {"resource_version_match": "Newer", "resource_version": then},
        {"resource_version_match": "Exact", "resource_version": then, "continue_token": "x"},
    ):
        assert (await refused(names(cluster, **bad)))[:2] == (422, "Invalid")
    for bad in ({"resource_version": "abc"}, {"resource_version": "-1"}, {"continue_token": "!"}, {"limit": -1}):
        assert (await refused(names(cluster, **bad)))[:2] == (400, "BadRequest")
    for bad in ({"label_selector": "a=("}, {"field_selector": "spec.x=1"}):
        assert (await refused(names(cluster, **bad)))[0] == 400


async def test_what_was_compacted_is_expired(cluster: Any) -> None:
    """410, with a token that goes on inconsistently."""
    for i in range(3):
        await add(cluster, f"c{i}")
    first = await cluster.registry.list(CM, "default", ListOptions(limit=1))
    await add(cluster, "c9")
    await cluster.store.compact(cluster.store.revision)
    with pytest.raises(StatusError) as caught:
        await names(cluster, continue_token=first.continue_token)
    assert (caught.value.code, caught.value.reason) == (410, "Expired")
    token = caught.value.status["metadata"]["continue"]
    assert await names(cluster, continue_token=token) == ["c1", "c2", "c9"]
    with pytest.raises(StatusError) as caught:
        await names(cluster, resource_version="2", resource_version_match="Exact")
    assert caught.value.message == "The resourceVersion for the provided list is too old."


async def test_a_watch_from_a_resource_version(cluster: Any) -> None:
    """All that happened since, and each object with the version to resume from."""
    made = await add(cluster, "a")
    watch = cluster.registry.watch(CM, "", WatchOptions(resource_version=made["metadata"]["resourceVersion"]))
    await add(cluster, "b")
    await cluster.patch(CM, "a", lambda o: o.update(data={"x": "y"}))
    await cluster.registry.delete(CM, "default", "b", DeleteOptions(), cluster.ctx())
    events = await take(watch, 3)
    assert brief(events) == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]
    versions = [int(e.object["metadata"]["resourceVersion"]) for e in events]
    assert versions == list(range(versions[0], versions[0] + 3))
    assert cluster.registry.watchers == 1
    watch.close()
    assert cluster.registry.watchers == 0
    with pytest.raises(StopAsyncIteration):
        await watch.__anext__()


@pytest.mark.parametrize("version", ["", "0"])
async def test_a_watch_without_a_version_begins_with_what_is_there(cluster: Any, version: str) -> None:
    """As synthetic ADDED events."""
    await add(cluster, "a")
    await add(cluster, "b", x="y")
    watch = cluster.registry.watch(CM, "default", WatchOptions(resource_version=version, label_selector="x=y"))
    await add(cluster, "c", x="y")
    assert brief(await take(watch, 2)) == [("ADDED", "b"), ("ADDED", "c")]


async def test_a_selector_sees_objects_come_and_go(cluster: Any) -> None:
    """What enters the selection is ADDED, what leaves it DELETED with its last selected state."""
    await add(cluster, "a", x="1")
    watch = cluster.registry.watch(
        CM, "default", WatchOptions(resource_version=str(cluster.store.revision), label_selector="x=2")
    )
    for value in ("2", "2", "3", "2"):
        await cluster.patch(CM, "a", lambda o, v=value: o.update(metadata=o["metadata"] | {"labels": {"x": v}},
                                                                  data={"n": str(cluster.store.revision)}))  # fmt: skip
    await cluster.registry.delete(CM, "default", "a", DeleteOptions(), cluster.ctx())
    events = await take(watch, 5)
    assert [e.type for e in events] == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]
    assert [e.object["metadata"]["labels"]["x"] for e in events] == ["2"] * 5
    versions = [int(e.object["metadata"]["resourceVersion"]) for e in events]
    assert versions == list(range(versions[0], versions[0] + 5))


async def test_a_field_selector_on_pods(cluster: Any, pod_of: Any) -> None:
    """A kubelet's watch: its pods appear when they are bound."""
    watch = cluster.registry.watch(
        kinds.PODS, "", WatchOptions(resource_version="2", field_selector="spec.nodeName=n1")
    )
    await cluster.create(kinds.PODS, pod_of())
    await cluster.registry.create(
        kinds.PODS, "default", {"target": {"name": "n1"}}, cluster.ctx(), name="web", subresource="binding"
    )
    assert brief(await take(watch, 1)) == [("ADDED", "web")]


async def test_encoded_events_are_shared(cluster: Any) -> None:
    """All watchers of a resource get the very same bytes."""
    options = WatchOptions(resource_version=str(cluster.store.revision))
    watches = [cluster.registry.watch(CM, "", options) for _ in range(3)]
    await add(cluster, "a")
    events = [(await take(watch, 1))[0] for watch in watches]
    assert events[0] is events[1] is events[2]
    assert events[0].frame == b'{"type":"ADDED","object":' + events[0].object_json + b"}\n"


async def test_send_initial_events(cluster: Any) -> None:
    """What is there, then the bookmark that says so, then what happens."""
    await add(cluster, "a")
    options = WatchOptions(resource_version_match="NotOlderThan", allow_bookmarks=True, send_initial_events=True)
    watch = cluster.registry.watch(CM, "default", options)
    at = str(cluster.store.revision)
    added, end = await take(watch, 2)
    assert brief([added]) == [("ADDED", "a")]
    assert (end.type, end.object["kind"], end.object["apiVersion"]) == ("BOOKMARK", "ConfigMap", "v1")
    assert end.object["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert end.object["metadata"]["resourceVersion"] == at
    await add(cluster, "b")
    assert brief(await take(watch, 1)) == [("ADDED", "b")]
    quiet = WatchOptions(resource_version_match="NotOlderThan", send_initial_events=False)
    watch = cluster.registry.watch(CM, "default", quiet)
    await add(cluster, "c")
    assert brief(await take(watch, 1)) == [("ADDED", "c")]


def test_options_that_do_not_go_together() -> None:
    """sendInitialEvents needs NotOlderThan, and a match needs sendInitialEvents."""
    registry = Registry(MemoryStore())
    for bad in (
        WatchOptions(send_initial_events=True),
        WatchOptions(send_initial_events=True, resource_version_match="Exact"),
        WatchOptions(resource_version_match="NotOlderThan", resource_version="1"),
    ):
        with pytest.raises(StatusError) as caught:
            registry.watch(CM, "", bad)
        assert caught.value.code == 422
    for bad in (WatchOptions(label_selector="("), WatchOptions(field_selector="a"), WatchOptions(resource_version="x")):
        with pytest.raises(StatusError) as caught:
            registry.watch(CM, "", bad)
        assert caught.value.code == 400


async def test_bookmarks_come_by_and_by(new_cluster: Any) -> None:
    """To a watcher that is told nothing, with a version it can resume from; only if it allows them."""
    cluster = await new_cluster(bookmark_seconds=0.02)
    at = str(cluster.store.revision)
    options = WatchOptions(resource_version=at, allow_bookmarks=True, label_selector="x=y")
    watch = cluster.registry.watch(CM, "", options)
    last = await add(cluster, "a")
    while True:
        (mark,) = await take(watch, 1)
        assert mark.type == "BOOKMARK"
        if mark.object["metadata"]["resourceVersion"] == last["metadata"]["resourceVersion"]:
            break
    silent = cluster.registry.watch(CM, "", WatchOptions(resource_version=at, label_selector="x=y"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await silent.__anext__()


@pytest.mark.parametrize("version", ["2", "999"])
async def test_a_version_that_is_not_kept_is_an_error_event(cluster: Any, version: str) -> None:
    """One ERROR with a 410 Status, then the end."""
    await add(cluster, "a")
    await cluster.store.compact(cluster.store.revision)
    watch = cluster.registry.watch(CM, "", WatchOptions(resource_version=version))
    (error,) = await take(watch, 1)
    assert error.type == "ERROR"
    assert (error.object["kind"], error.object["code"], error.object["reason"]) == ("Status", 410, "Expired")
    with pytest.raises(StopAsyncIteration):
        await watch.__anext__()
    assert cluster.registry.watchers == 0


async def test_a_slow_watcher_is_told_to_begin_again() -> None:
    """An overrun ends its watch alone, with a 410."""
    registry = Registry(MemoryStore(queue_limit=5))
    watch = registry.watch(kinds.NAMESPACES, "", WatchOptions(resource_version="1"))
    for i in range(9):
        await registry.create(kinds.NAMESPACES, "", {"metadata": {"name": f"n{i}"}}, RequestContext())
    (error,) = await take(watch, 1)
    assert (error.type, error.object["code"]) == ("ERROR", 410)


async def test_closing_the_store_ends_watches(cluster: Any) -> None:
    """Without an error: the server is going."""
    watch = cluster.registry.watch(CM, "", WatchOptions(resource_version="1"))
    await cluster.store.close()
    with pytest.raises(StopAsyncIteration):
        while True:
            await watch.__anext__()


async def test_a_closed_store_is_a_server_going_down(cluster: Any, refused: Any) -> None:
    """Every verb says 503, so that clients try another server or later."""
    await cluster.store.close()
    for request in (
        cluster.get(CM, "a"),
        names(cluster),
        add(cluster, "a"),
        cluster.registry.delete(CM, "default", "a", DeleteOptions(), cluster.ctx()),
    ):
        assert (await refused(request))[:2] == (503, "ServiceUnavailable")
    with pytest.raises(StatusError):
        cluster.registry.watch(CM, "", WatchOptions(resource_version="1"))
    unopened = cluster.registry.watch(CM, "", WatchOptions())
    with pytest.raises(StopAsyncIteration):
        await unopened.__anext__()
