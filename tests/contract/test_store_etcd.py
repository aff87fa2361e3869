"""What is more about the store on etcd: two servers on one, etcd going away and coming back, TLS, and the way in."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fairlead.api.errors import StatusError
from fairlead.api.kinds import NAMESPACES, SERVICES
from fairlead.apiserver import pki
from fairlead.registry.registry import Registry
from fairlead.registry.requests import ListOptions, RegistryOptions, RequestContext, User, WatchOptions
from fairlead.store.etcd import EtcdStore
from fairlead.store.etcd_client import Address, Trust
from fairlead.store.interface import Compacted, CompareFailed, Put, StoreCorrupt, StoreFailed
from tests.contract.etcd_server import EtcdServer

DEADLINE = 30.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EtcdServer]:
    """An etcd that runs."""
    made = EtcdServer(tmp_path)
    made.start()
    yield made
    made.kill()


@pytest.fixture
async def pair(server: EtcdServer) -> AsyncIterator[tuple[EtcdStore, EtcdStore]]:
    """Two API servers' stores on one etcd."""
    one, two = await EtcdStore.open(server.url), await EtcdStore.open(server.url)
    yield one, two
    await one.close()
    await two.close()


def test_addresses_are_read_or_refused_by_name() -> None:
    """Hosts, default port, prefix; what is wrong is said."""
    assert Address.parse("etcd://a:1,b") == Address(("a:1", "b:2379"), "/fairlead")
    assert Address.parse("etcd://[::1]:2/x/y/") == Address(("[::1]:2",), "/x/y")
    for wrong in ("http://a", "etcd:a", "etcd://", "etcd://a:b", "etcd://u@a", "etcd://a,,b"):
        with pytest.raises(ValueError, match="is no etcd address"):
            Address.parse(wrong)


async def test_nothing_there_is_said_in_words() -> None:
    """A server that is not there fails the opening, with its name, after the patience."""
    with pytest.raises(StoreFailed, match=r"etcd at 127.0.0.1:1 can't be reached"):
        await EtcdStore.open("etcd://127.0.0.1:1", patience=0.3)


async def test_two_stores_see_each_other(pair: tuple[EtcdStore, EtcdStore]) -> None:
    """What one was told of, the other has after catching up; watches bring it on their own; stale writes fail."""
    one, two = pair
    watch = two.watch("a", two.revision)
    revision = await one.commit(Put("a", b"1", expected=0))
    await two.catch_up()
    record = await two.get("a")
    assert record is not None and (record.value, record.modified) == (b"1", revision)
    async with asyncio.timeout(DEADLINE):
        assert [event.revision for event in await watch.__anext__()] == [revision]
    with pytest.raises(CompareFailed) as caught:
        await two.commit(Put("a", b"2", expected=0))
    assert caught.value.current == record
    assert await two.commit(Put("a", b"2", expected=revision)) == revision + 1


async def test_both_count_up_without_losing_one(pair: tuple[EtcdStore, EtcdStore]) -> None:
    """Compare-and-swap from two sides: every acknowledged increment is in the result."""

    async def count(store: EtcdStore, times: int) -> None:
        for _ in range(times):
            while True:
                record = await store.get("n")
                value = int(record.value) if record else 0
                try:
                    await store.commit(Put("n", b"%d" % (value + 1), expected=record.modified if record else 0))
                    break
                except CompareFailed:
                    continue

    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*(count(store, 10) for store in pair for _ in range(4)))
    await pair[0].catch_up()
    record = await pair[0].get("n")
    assert record is not None and record.value == b"80"


async def test_writes_below_another_prefix_hold_nobody_up(server: EtcdServer) -> None:
    """A revision that is not ours ends the wait for it by a mark."""
    ours, theirs = await EtcdStore.open(server.url), await EtcdStore.open(server.url + "/other")
    await theirs.commit(Put("x", b""))
    async with asyncio.timeout(DEADLINE):
        await ours.catch_up()
    assert (await ours.list("")).records == []
    await ours.close()
    await theirs.close()


async def test_a_new_server_gives_the_history_that_etcd_has(server: EtcdServer) -> None:
    """A watch may resume at a revision from before this process was there, also when nothing was written since."""
    first = await EtcdStore.open(server.url)
    for i in range(5):
        await first.commit(Put("a", b"%d" % i))
    await first.close()
    second = await EtcdStore.open(server.url)
    watch = second.watch("a", 3)
    seen: list[int] = []
    async with asyncio.timeout(DEADLINE):
        while len(seen) < 3:
            seen += [event.revision for event in await watch.__anext__()]
    assert seen == [4, 5, 6]
    last = await second.commit(Put("a", b"more"))
    async with asyncio.timeout(DEADLINE):
        assert [event.revision for event in await watch.__anext__()] == [last]
    await second.close()


async def test_compaction_by_one_is_told_by_the_other(pair: tuple[EtcdStore, EtcdStore]) -> None:
    """Compacting what the other server has compacted is fine; a third one knows from where on it can serve."""
    one, two = pair
    for i in range(8):
        await one.commit(Put("a", b"%d" % i))
    await two.catch_up()
    await one.compact(6)
    await two.compact(6)
    assert (one.oldest, two.oldest) == (6, 6)
    third = await EtcdStore.open(one._client.address)
    assert third.oldest == 6
    with pytest.raises(Compacted):
        third.watch("", 5)
    await third.close()


async def test_etcd_goes_away_and_comes_back(server: EtcdServer) -> None:
    """Reads go on, writes wait or say so in words, watches go on where they were: nothing twice, nothing lost."""
    store = await EtcdStore.open(server.url, patience=10)
    watch = store.watch("", store.revision)
    await store.commit(Put("a", b"1"))
    server.kill()
    assert (await store.get("a")) is not None
    waiting = asyncio.create_task(store.commit(Put("b", b"1", expected=0)))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    server.start()
    async with asyncio.timeout(DEADLINE):
        revision = await waiting
        seen: list[tuple[str, int]] = []
        while len(seen) < 2:
            seen += [(event.record.key, event.revision) for event in await watch.__anext__()]
    assert seen == [("a", 2), ("b", revision)]
    await store.close()


async def test_too_long_away_fails_in_words(server: EtcdServer) -> None:
    """After the patience a write says that its outcome is not known; a read of the newest that it can't be had."""
    store = await EtcdStore.open(server.url, patience=0.3)
    server.kill()
    with pytest.raises(StoreFailed, match="whether the write was made is not known"):
        await store.commit(Put("a", b"1"))
    with pytest.raises(StoreFailed, match="can't be reached"):
        await store.catch_up()
    await store.close()


async def test_compacted_while_away_ends_watches(server: EtcdServer) -> None:
    """What can't be made up for is said: open watches end with Compacted, and the records are right."""
    store = await EtcdStore.open(server.url)
    other = await EtcdStore.open(server.url)
    watch = store.watch("", store.revision)
    assert store._follower is not None
    store._follower.cancel()
    await asyncio.gather(store._follower, return_exceptions=True)
    for i in range(5):
        await other.commit(Put("a", b"%d" % i))
    await other.compact(5)
    store._follower = asyncio.create_task(store._follow())
    with pytest.raises(Compacted):
        async with asyncio.timeout(DEADLINE):
            await watch.__anext__()
    record = await store.get("a")
    assert record is not None and record.value == b"4"
    await store.close()
    await other.close()


async def test_an_etcd_that_lost_its_data_is_not_followed(server: EtcdServer) -> None:
    """No revision is used twice: a server that is another one is refused until a new start."""
    store = await EtcdStore.open(server.url, patience=5)
    await store.commit(Put("a", b"1"))
    server.kill()
    server.forget()
    server.start()
    with pytest.raises(StoreFailed, match="restored or replaced"):
        async with asyncio.timeout(DEADLINE):
            while True:
                await store.commit(Put("b", b"1"))
    await store.close()


async def test_tls(tmp_path: Path) -> None:
    """With its authority and a certificate of one's own it works; without, it is refused."""
    authority = pki.create_authority("etcd")
    one = pki.issue(authority, "etcd", ips=["127.0.0.1"], client=True, server=True)
    ca, cert, key = tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem"
    ca.write_bytes(authority.cert_pem)
    cert.write_bytes(one.cert_pem)
    key.write_bytes(one.key_pem)
    server = EtcdServer(tmp_path, tls=(ca, cert, key))
    server.start()
    try:
        store = await EtcdStore.open(server.url, Trust(str(ca), str(cert), str(key)))
        assert await store.commit(Put("a", b"1")) == 2
        await store.close()
        for trust in (None, Trust(str(ca))):
            with pytest.raises(StoreFailed, match="can't be reached"):
                await EtcdStore.open(server.url, trust, patience=0.5)
        with pytest.raises(StoreFailed, match="No such file"):
            await EtcdStore.open(server.url, Trust(str(tmp_path / "none.pem")))
    finally:
        server.kill()


# Two API servers' registries


def options(seed: int, **more: Any) -> RegistryOptions:
    """With dice of its own."""
    return RegistryOptions(dice=random.Random(seed), **more)


def ctx() -> RequestContext:
    """A request by an administrator."""
    return RequestContext(user=User("admin", ("system:masters",)), now=datetime.now(UTC))


def service(name: str) -> dict[str, Any]:
    """A NodePort Service."""
    return {"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}}


async def test_two_registries_never_give_an_address_twice(pair: tuple[EtcdStore, EtcdStore]) -> None:
    """Both allocate at once out of a small range until it is full: every address and every port is given once."""
    one = Registry(pair[0], options(1, service_cidrs=("10.9.0.0/26",), node_port_range=(30000, 30099)))
    two = Registry(pair[1], options(1, service_cidrs=("10.9.0.0/26",), node_port_range=(30000, 30099)))
    await one.create(NAMESPACES, "", {"metadata": {"name": "default"}}, ctx())

    async def attempt(registry: Registry, name: str) -> tuple[str, int] | None:
        try:
            made = await registry.create(SERVICES, "default", service(name), ctx())
        except StatusError as error:
            assert error.code in {422, 500}, error
            return None
        return made["spec"]["clusterIP"], made["spec"]["ports"][0]["nodePort"]

    async with asyncio.timeout(60):
        given = await asyncio.gather(
            *(attempt(registry, f"{who}-{i}") for i in range(35) for who, registry in (("one", one), ("two", two)))
        )
    had = [pair for pair in given if pair is not None]
    assert len(had) == 62  # a /26 without its first and its last
    assert len({address for address, _ in had}) == 62
    assert len({port for _, port in had}) == 62


async def test_the_other_server_answers_with_what_was_just_written(pair: tuple[EtcdStore, EtcdStore]) -> None:
    """Get, list, update with the newest resourceVersion, watch from it: no 404, no conflict, no 'too large'."""
    one, two = Registry(pair[0], options(1)), Registry(pair[1], options(2))
    await one.create(NAMESPACES, "", {"metadata": {"name": "default"}}, ctx())
    for i in range(30):
        made = await one.create(SERVICES, "default", service(f"s{i}"), ctx())
        name, version = made["metadata"]["name"], made["metadata"]["resourceVersion"]
        match i % 5:
            case 0:
                assert await two.get(SERVICES, "default", name, ctx()) == made
            case 1:
                listed = await two.list(SERVICES, "default", ListOptions())
                assert name in {item["metadata"]["name"] for item in listed.items}
            case 2:
                made["metadata"]["labels"] = {"a": "b"}
                await two.update(SERVICES, "default", name, made, ctx())
            case 3:
                listed = await two.list(SERVICES, "default", ListOptions(resource_version=version))
                assert listed.revision >= int(version)
            case _:
                watch = two.watch(SERVICES, "default", WatchOptions(resource_version=version))
                await one.create(SERVICES, "default", service(f"more{i}"), ctx())
                async with asyncio.timeout(DEADLINE):
                    batch = await watch.__anext__()
                assert [event.object["metadata"]["name"] for event in batch] == [f"more{i}"]
                watch.close()


async def test_a_cluster_s_mark_keeps_others_out(server: EtcdServer) -> None:
    """Another cluster below the same prefix is refused; an etcd without the mark takes no write, whatever its
    revision."""
    store = await EtcdStore.open(server.url, identity="a", patience=5)
    with pytest.raises(StoreCorrupt, match="another cluster's objects below /fairlead"):
        await EtcdStore.open(server.url, identity="b")
    same = await EtcdStore.open(server.url, identity="a")
    await same.close()
    with pytest.raises(CompareFailed):
        await store.commit(Put("a", b"1", expected=7))
    assert store._follower is not None
    store._follower.cancel()
    server.kill()
    server.forget()
    server.start()
    other = await EtcdStore.open(server.url)
    for _ in range(9):
        await other.commit(Put("x", b""))
    await other.close()
    with pytest.raises(StoreFailed, match="restored or replaced"):
        async with asyncio.timeout(DEADLINE):
            await store.commit(Put("b", b"1"))
    await store.close()
