"""What every store must do, whichever it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fairlead.store.etcd import EtcdStore
from fairlead.store.interface import (
    Compacted,
    CompareFailed,
    Delete,
    Event,
    FutureRevision,
    Put,
    Require,
    Store,
    StoreClosed,
    Watch,
    WatcherTooSlow,
)
from fairlead.store.memory import MemoryStore
from fairlead.store.sqlite import SQLiteStore
from tests.contract.etcd_server import EtcdServer

DEADLINE = 20.0


@pytest.fixture(params=["memory", "sqlite", "sqlite-small-ring", "etcd", "etcd-small-ring"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Each store in turn; those with a small ring read nearly all history from their file or server."""
    made: Store
    history = 2 if request.param.endswith("-small-ring") else 1000
    if request.param == "memory":
        yield MemoryStore(queue_limit=100)
        return
    if request.param.startswith("sqlite"):
        made = await SQLiteStore.open(tmp_path / "state.db", history=history, queue_limit=100)
        yield made
        await made.close()
        return
    server = EtcdServer(tmp_path)
    server.start()
    try:
        made = await EtcdStore.open(server.url, history=history, queue_limit=100)
        yield made
        await made.close()
    finally:
        server.kill()


async def take(watch: Watch, count: int) -> list[Event]:
    """The next `count` events."""
    events: list[Event] = []
    async with asyncio.timeout(DEADLINE):
        while len(events) < count:
            events += await watch.__anext__()
    assert len(events) == count
    return events


def brief(events: list[Event]) -> list[tuple[str, str, bytes, bytes | None, int]]:
    """Events as rows."""
    return [
        (e.type, e.record.key, e.record.value, e.previous.value if e.previous else None, e.revision) for e in events
    ]


async def test_an_empty_store_is_at_revision_one(store: Store) -> None:
    """Revisions start at 1, so that 0 can mean absent."""
    assert (store.revision, store.oldest) == (1, 1)
    assert await store.get("a") is None
    page = await store.list("")
    assert (page.records, page.revision, page.remaining) == ([], 1, 0)


async def test_a_commit_takes_one_revision_for_all_its_operations(store: Store) -> None:
    """Two puts in one commit are modified at the same revision."""
    assert await store.commit(Put("a", b"1"), Put("b", b"2")) == 2
    assert await store.commit(Put("a", b"3"), Delete("b")) == 3
    record = await store.get("a")
    assert record is not None
    assert (record.value, record.created, record.modified) == (b"3", 2, 3)
    assert await store.get("b") is None
    assert store.revision == 3


async def test_expectations(store: Store) -> None:
    """A put, a delete or a requirement at the wrong revision changes nothing and says what is there."""
    await store.commit(Put("a", b"1", expected=0))
    for wrong in (
        Put("a", b"x", expected=0),
        Put("a", b"x", expected=9),
        Put("z", b"x", expected=2),
        Delete("a", expected=9),
        Delete("z"),
        Delete("z", expected=0),
        Require("a", 0),
        Require("z", 2),
    ):
        with pytest.raises(CompareFailed) as caught:
            await store.commit(Put("other", b"x"), wrong)
        assert caught.value.key == wrong.key
        assert (caught.value.current.value if caught.value.current else None) == (b"1" if wrong.key == "a" else None)
    assert await store.get("other") is None
    assert store.revision == 2
    assert await store.commit(Put("a", b"2", expected=2), Require("z", 0)) == 3
    assert await store.commit(Delete("a", expected=3)) == 4


async def test_a_commit_without_writes_takes_no_revision(store: Store) -> None:
    """Requirements alone are checked and answered with the newest revision."""
    await store.commit(Put("a", b"1"))
    assert await store.commit(Require("a", 2)) == 2
    assert store.revision == 2


async def test_misuse_is_refused(store: Store) -> None:
    """The same key twice in one commit has no meaning."""
    with pytest.raises(ValueError, match="differ"):
        await store.commit(Put("a", b"1"), Delete("a"))


async def test_a_failed_compare_fails_alone(store: Store) -> None:
    """Of many writers racing for one key exactly one wins, and writers of other keys all do."""
    racing = [store.commit(Put("k", b"%d" % i, expected=0), Put(f"own/{i}", b"")) for i in range(20)]
    free = [store.commit(Put(f"free/{i}", b"")) for i in range(20)]
    results = await asyncio.gather(*racing, *free, return_exceptions=True)
    won = [r for r in results[:20] if isinstance(r, int)]
    assert len(won) == 1
    assert all(isinstance(r, CompareFailed) for r in results[:20] if not isinstance(r, int))
    assert all(isinstance(r, int) for r in results[20:])
    assert len({r for r in results if isinstance(r, int)}) == 21
    assert len((await store.list("own/")).records) == 1


async def test_lists_are_in_key_order_and_paged(store: Store) -> None:
    """Prefix, after and limit cut the list; remaining counts what is left."""
    for key in ("b/2", "a/1", "b/1", "b/10", "c/1", "b/é", "b0"):
        await store.commit(Put(key, key.encode()))
    page = await store.list("b/")
    assert [r.key for r in page.records] == ["b/1", "b/10", "b/2", "b/é"]
    page = await store.list("b/", after="b/1", limit=2)
    assert ([r.key for r in page.records], page.remaining) == (["b/10", "b/2"], 1)
    page = await store.list("b/", after="b/2", limit=2)
    assert ([r.key for r in page.records], page.remaining) == (["b/é"], 0)
    assert len((await store.list("")).records) == 7


async def test_lists_at_an_old_revision(store: Store) -> None:
    """Every kept revision can be listed as it was."""
    await store.commit(Put("a", b"1"))  # 2
    await store.commit(Put("b", b"1"))  # 3
    await store.commit(Put("a", b"2"), Delete("b"))  # 4
    await store.commit(Delete("a"))  # 5
    await store.commit(Put("b", b"9"), Put("c", b"9"))  # 6
    seen = {}
    for revision in range(1, 7):
        page = await store.list("", revision=revision)
        assert page.revision == revision
        seen[revision] = {r.key: (r.value, r.created, r.modified) for r in page.records}
    assert seen == {
        1: {},
        2: {"a": (b"1", 2, 2)},
        3: {"a": (b"1", 2, 2), "b": (b"1", 3, 3)},
        4: {"a": (b"2", 2, 4)},
        5: {},
        6: {"b": (b"9", 6, 6), "c": (b"9", 6, 6)},
    }
    page = await store.list("", revision=3, after="a", limit=1)
    assert ([r.key for r in page.records], page.remaining) == (["b"], 0)
    page = await store.list("", revision=3, limit=1)
    assert ([r.key for r in page.records], page.remaining) == (["a"], 1)
    with pytest.raises(FutureRevision) as caught:
        await store.list("", revision=7)
    assert caught.value.current == 6


async def test_a_watch_gives_every_commit_after_its_revision_once(store: Store) -> None:
    """History first, then what happens, with the record before and whole commits together."""
    await store.commit(Put("x/a", b"1"))  # 2
    await store.commit(Put("x/a", b"2"), Put("y/a", b"0"), Put("x/b", b"1"))  # 3
    await store.commit(Delete("x/a"))  # 4
    await store.commit(Put("x/a", b"3"))  # 5
    watch = store.watch("x/", 2)
    await store.commit(Put("x/a", b"4"))  # 6
    await store.commit(Put("y/a", b"5"))  # 7
    await store.commit(Delete("x/b"))  # 8
    assert brief(await take(watch, 6)) == [
        ("PUT", "x/a", b"2", b"1", 3),
        ("PUT", "x/b", b"1", None, 3),
        ("DELETE", "x/a", b"2", b"2", 4),
        ("PUT", "x/a", b"3", None, 5),
        ("PUT", "x/a", b"4", b"3", 6),
        ("DELETE", "x/b", b"1", b"1", 8),
    ]
    watch.close()
    with pytest.raises(StopAsyncIteration):
        await watch.__anext__()


async def test_what_a_watch_tells_is_already_readable(store: Store) -> None:
    """An event is never ahead of get, list or revision."""
    watch = store.watch("", store.revision)
    commits = asyncio.gather(*(store.commit(Put(f"k{i % 3}", b"%d" % i)) for i in range(30)))
    last = 1
    for event in await take(watch, 30):
        assert event.revision > last
        last = event.revision
        assert store.revision >= event.revision
        record = await store.get(event.record.key)
        assert record is not None
        assert record.modified >= event.revision
    await commits


async def test_a_watch_can_not_start_in_the_future(store: Store) -> None:
    """A revision that has not happened is refused at once, with the newest."""
    with pytest.raises(FutureRevision) as caught:
        store.watch("", 2)
    assert caught.value.current == 1


async def test_a_slow_watcher_is_dropped_alone(store: Store) -> None:
    """More waiting events than its queue holds end one watch; another one misses nothing."""
    slow, quick = store.watch("", 1), store.watch("", 1)
    seen: list[Event] = []
    for i in range(150):
        await store.commit(Put("k", b"%d" % i))
        seen += await take(quick, 1)
    assert [e.revision for e in seen] == list(range(2, 152))
    with pytest.raises(WatcherTooSlow):
        await slow.__anext__()


async def test_compaction(store: Store) -> None:
    """What is before the compacted revision is refused; what is from it on is as it was."""
    for i in range(10):
        await store.commit(Put("a", b"%d" % i), Put(f"once/{i}", b""))  # 2 … 11
    await store.commit(Delete("a"))  # 12
    await store.compact(8)
    assert store.oldest == 8
    with pytest.raises(Compacted) as caught:
        await store.list("", revision=7)
    assert caught.value.oldest == 8
    with pytest.raises(Compacted):
        store.watch("", 7)
    page = await store.list("", revision=8)
    assert [(r.key, r.value) for r in page.records] == [("a", b"6")] + [(f"once/{i}", b"") for i in range(7)]
    watch = store.watch("a", 8)
    assert [(e.type, e.revision) for e in await take(watch, 4)] == [
        ("PUT", 9),
        ("PUT", 10),
        ("PUT", 11),
        ("DELETE", 12),
    ]
    await store.compact(3)  # already done
    assert store.oldest == 8
    with pytest.raises(FutureRevision):
        await store.compact(13)
    await store.compact(12)
    assert len((await store.list("")).records) == 10
    assert await store.commit(Put("a", b"new")) == 13


async def test_closing_ends_watches_and_refuses_calls(store: Store) -> None:
    """An open watch ends with StoreClosed after what it was owed; later calls too."""
    watch = store.watch("", 1)
    pending = store.commit(Put("a", b"1"))
    assert await pending == 2
    await store.close()
    assert [e.revision for e in await take(watch, 1)] == [2]
    with pytest.raises(StoreClosed):
        await watch.__anext__()
    for call in (store.get("a"), store.list(""), store.commit(Put("a", b"2")), store.compact(2)):
        with pytest.raises(StoreClosed):
            await call
    with pytest.raises(StoreClosed):
        store.watch("", 1)
    await store.close()


async def test_progress_is_never_ahead_of_what_was_given(store: Store) -> None:
    """A watch's progress is the newest revision only once nothing of its own is waiting."""
    await store.commit(Put("x/a", b"1"), Put("y", b""))  # 2
    await store.commit(Put("x/a", b"2"))  # 3
    watch = store.watch("x/", 1)
    assert watch.progress == 1
    await take(watch, 2)
    await store.commit(Put("y", b"3"))  # 4
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await watch.__anext__()
    assert watch.progress == 4
    await store.commit(Put("x/a", b"5"))  # 5
    assert watch.progress < 5
    await take(watch, 1)
    assert watch.progress == 5
