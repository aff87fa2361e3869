"""The store on an etcd server: where one machine is outgrown, or two API servers share one truth.

A store's revision is etcd's own, its key is `<prefix>/objects/<key>`, a commit is one transaction that compares
modification revisions. All records are kept in memory too, fed by one watch of the whole prefix: a commit returns once
that watch has brought it, and open watches are served from it, so etcd sees one watcher for a whole API server.
Invariant: memory is etcd's state at `revision`, exactly; what others wrote is in it after `catch_up`.

When etcd is away, reads go on from memory, watches stay open and silent, and `commit` and `catch_up` try for
`patience` seconds, then raise StoreFailed. When it is back the watch goes on where it was; if that is compacted by
then, all is listed anew and open watches end with Compacted.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from fairlead.store import etcd_wire as wire
from fairlead.store.etcd_client import Address, EtcdClient, Gone, Trust, Unreachable
from fairlead.store.etcd_commit import already_made, commit_request, fails
from fairlead.store.interface import (
    Compacted,
    CompareFailed,
    Event,
    FutureRevision,
    Operation,
    Page,
    Record,
    Require,
    StoreClosed,
    StoreCorrupt,
    StoreFailed,
)
from fairlead.store.state import History, State, prefix_end
from fairlead.store.watchers import Backlog, QueuedWatch, Watchers

log = logging.getLogger("fairlead.store")

T = TypeVar("T")

PATIENCE_SECONDS = 10.0
"""How long a call goes on trying while etcd is away."""

MAX_OPERATIONS = 128
"""etcd's `--max-txn-ops`, as it is by default."""

_PAGE = 2_000
_FOREIGN_SECONDS = 0.05  # how long a revision may be missing before it is taken for one of another prefix


class EtcdStore:
    """A `Store` in etcd. Open with `EtcdStore.open`."""

    def __init__(self, client: EtcdClient, *, history: int, queue_limit: int, patience: float) -> None:
        self._client, self._patience = client, patience
        self._objects = f"{client.address.prefix}/objects/"
        self._mark = f"{client.address.prefix}/marks/sync".encode()
        self._root = f"{client.address.prefix}/".encode()
        self._state = State()
        self._revision = self._oldest = self._loaded = 1
        self._cluster = 0
        self._identity: list[bytes] = []
        self._identity_key = f"{client.address.prefix}/marks/cluster".encode()
        self._history_limit = history
        self._history = History(start=1, limit=history)
        self._watchers = Watchers(queue_limit, 1)
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._newest_asked: asyncio.Task[int] | None = None
        self._newest_next: asyncio.Task[int] | None = None
        self._follower: asyncio.Task[None] | None = None
        self._following = asyncio.Event()
        self._broken = ""
        self._closed = False

    @classmethod
    async def open(
        cls,
        address: Address | str,
        trust: Trust | None = None,
        *,
        history: int = 10_000,
        queue_limit: int = 10_000,
        patience: float = PATIENCE_SECONDS,
        relay: str = "",
        identity: str = "",
    ) -> EtcdStore:
        """Connect and load. `history` and `queue_limit` as of SQLiteStore; `relay`: as of EtcdClient.

        `identity`: what all API servers of one cluster have in common; the first writes it down, and one that differs
        is refused with StoreCorrupt. StoreFailed when etcd can't be used.
        """
        place = Address.parse(address) if isinstance(address, str) else address
        made = cls(EtcdClient(place, trust, relay=relay), history=history, queue_limit=queue_limit, patience=patience)
        try:
            if identity:
                await made._try(lambda: made._identify(identity.encode()))
            await made._try(made._load)
        except BaseException:
            await made._client.close()
            raise
        made._follower = asyncio.create_task(made._follow(), name="store-follower")
        await made._following.wait()
        return made

    @property
    def revision(self) -> int:
        """The newest revision of ours that was seen."""
        return self._revision

    @property
    def oldest(self) -> int:
        """The oldest revision still listed and watched from, as far as it is known here."""
        return self._oldest

    async def get(self, key: str) -> Record | None:
        """The record, as this view has it."""
        self._check_open()
        return self._state.get(key)

    async def catch_up(self) -> None:
        """As `Store.catch_up`: asks etcd for its newest revision, once for all who ask at the same time."""
        self._check_open()
        await self._see(await self._newest())

    async def list(self, prefix: str, *, revision: int = 0, after: str = "", limit: int = 0) -> Page:
        """As `Store.list`. Old revisions come from the ring of recent events, or from etcd."""
        self._check_open()
        self._check_revision(revision or self._revision)
        if revision in {0, self._revision}:
            return self._state.page(prefix, after, limit, self._revision)
        if revision >= self._history.start:
            return self._state.page_before(self._history.newest_first(revision), prefix, after, limit, revision)
        start = self._key(max(prefix, after)) + (b"\0" if after >= prefix and after else b"")
        request = wire.range_request(start, self._end(prefix), limit=limit, revision=revision)
        try:
            found = await self._try(lambda: self._client.range(request))
        except Gone:
            raise await self._compacted() from None
        return Page([self._record(pair) for pair in found.pairs], revision, max(0, found.count - len(found.pairs)))

    async def commit(self, *operations: Operation) -> int:
        """As `Store.commit`."""
        self._check_open()
        if len({operation.key for operation in operations}) != len(operations):
            raise ValueError("the keys of a commit's operations must differ")
        if len(operations) > MAX_OPERATIONS:
            raise StoreFailed(f"etcd takes at most {MAX_OPERATIONS} keys in one transaction, not {len(operations)}")
        request = commit_request(operations, self._key, self._identity)
        writes = any(not isinstance(operation, Require) for operation in operations)
        attempts, before = 0, self._revision

        async def transact() -> wire.Txn:
            nonlocal attempts
            attempts += 1
            return await self._client.txn(request)

        try:
            done = await self._try(transact, "; whether the write was made is not known")
        except Gone as error:
            raise StoreFailed(str(error)) from None
        if done.succeeded:
            if not writes:
                return self._revision
            if done.revision <= before:
                self._break_off(done.revision)
                raise StoreFailed(self._broken)
            if not await self._reached(done.revision, self._patience):
                raise StoreFailed(self._broken or f"etcd at {self._client.address} took a write and does not show it")
            return done.revision
        there = [found[0] if found else None for found in done.ranges]
        if not (self._identity and not any(map(fails, operations, there))):
            await self.catch_up()
        if attempts > 1 and (made := already_made(operations, there)):
            return max(made, 0) or self._revision
        for operation, pair in zip(operations, there, strict=True):
            if fails(operation, pair):
                raise CompareFailed(operation.key, self._record(pair) if pair else None)
        self._break_off(done.revision)  # the cluster's own mark is not there
        raise StoreFailed(self._broken)

    def watch(self, prefix: str, since: int) -> QueuedWatch:
        """As `Store.watch`. What is older than the ring is read from etcd as the watch is iterated."""
        self._check_open()
        self._check_revision(since)
        if since >= self._history.start:
            return self._watchers.add(prefix, since, self._history.since(since, prefix))
        return self._watchers.add(prefix, since, (), self._backlog(prefix, since, self._revision))

    async def compact(self, revision: int) -> None:
        """As `Store.compact`. Another API server having done so is fine."""
        self._check_open()
        if revision > self._revision:
            raise FutureRevision(self._revision)
        if revision <= self._oldest:
            return
        with contextlib.suppress(Gone):
            await self._try(lambda: self._client.compact(revision))
        self._oldest = max(self._oldest, revision)
        self._history.forget(revision)

    async def close(self) -> None:
        """As `Store.close`. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
        self._watchers.close()
        for _, _, waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(StoreClosed("the store was closed"))
        await self._client.close()

    async def _identify(self, identity: bytes) -> None:
        """Two clusters below one prefix would ruin each other."""
        key, address = self._identity_key, self._client.address
        claim = wire.txn_request(
            [wire.at_revision(key, 0)], [wire.put_operation(key, identity)], [wire.read_operation(key)]
        )
        done = await self._client.txn(claim)
        self._identity = [wire.has_value(key, identity)]  # a condition of every commit from now on
        if not done.succeeded and done.ranges[0][0].value != identity:
            raise StoreCorrupt(
                f"etcd at {address} has another cluster's objects below {address.prefix}: choose another prefix "
                f"(--store etcd://{address}/NAME), or delete them: etcdctl del --prefix {address.prefix}/"
            )

    # Following etcd

    async def _load(self) -> None:
        """Read everything, at one revision."""
        records: list[Record] = []
        start, revision = self._key(""), 0
        while True:
            found = await self._client.range(wire.range_request(start, self._end(""), limit=_PAGE, revision=revision))
            revision = revision or found.revision
            records += map(self._record, found.pairs)
            if len(found.pairs) >= found.count:
                break
            start = found.pairs[-1].key + b"\0"
        self._cluster = found.cluster
        self._state, self._revision, self._loaded = State(records), revision, revision
        self._history = History(start=revision, limit=self._history_limit)
        self._watchers.revision = revision
        self._oldest = await self._find_oldest(revision)

    async def _find_oldest(self, newest: int) -> int:
        """The oldest revision that etcd keeps: it does not say, so by bisection."""
        low, high = 1, newest
        while low < high:
            middle = low if (low, high) == (1, newest) else (low + high) // 2
            try:
                await self._client.range(wire.range_request(self._mark, revision=middle, count_only=True))
                high = middle
            except Gone:
                low = middle + 1
        return high

    async def _follow(self) -> None:
        """The one watch, again and again, until the store is closed."""
        pause, away = 0.05, False
        while not self._broken:
            try:
                newest = await self._client.range(wire.range_request(self._mark, count_only=True))
                if newest.cluster != self._cluster or newest.revision < self._revision:
                    self._break_off(newest.revision)
                    return
                if away:
                    log.info("etcd at %s is back at revision %d", self._client.address, newest.revision)
                pause, away = 0.05, False
                await self._follow_once()
            except Gone:
                await self._reload()
            except (Unreachable, StoreFailed) as error:
                if not away:
                    log.warning("%s; going on from memory until it is back", error)
                away = True
                await asyncio.sleep(pause)
                pause = min(1.0, pause * 2)

    async def _follow_once(self) -> None:
        request = wire.watch_request(self._root, _after(self._root), self._revision + 1, previous=False)
        async with contextlib.aclosing(self._client.watch(request)) as messages:
            async for message in messages:
                if message.compacted:
                    raise Gone(f"revision {self._revision} is compacted")
                if message.canceled:
                    raise Unreachable(f"etcd at {self._client.address} ended a watch: {message.reason}")
                if message.created:
                    self._following.set()
                if message.changes:
                    self._publish(message.changes)

    async def _reload(self) -> None:
        log.warning("etcd at %s was compacted meanwhile: listing everything anew", self._client.address)
        with contextlib.suppress(Unreachable, Gone):
            await self._load()
            self._watchers.fail(Compacted(self._oldest))
            self._wake()

    def _break_off(self, revision: int) -> None:
        """etcd is another one, or has lost what was acknowledged: no revision may be used twice."""
        self._broken = (
            f"etcd at {self._client.address} is at revision {revision} and not the one that was followed to revision "
            f"{self._revision}: it was restored or replaced; start the API server again to use it as it is"
        )
        log.error("%s", self._broken)
        self._watchers.fail(StoreClosed(self._broken))
        self._wake()

    def _publish(self, changes: Sequence[wire.Change]) -> None:
        events: list[Event] = []
        for change in changes:
            pair = change.pair
            if pair.key.startswith(self._objects.encode()):
                record = self._record(pair)
                event = _event(change.deleted, record, self._state.get(record.key))
                self._state.apply(event)
                events.append(event)
        self._revision = changes[-1].pair.modified
        if events:
            self._history.append(events)
            self._watchers.publish(events)
        self._watchers.revision = self._revision
        self._wake()

    # Waiting for it

    def _wake(self) -> None:
        while self._waiting and (self._broken or self._waiting[0][0] <= self._revision):
            waiter = heapq.heappop(self._waiting)[2]
            if not waiter.done():
                waiter.set_result(None)

    async def _reached(self, revision: int, seconds: float) -> bool:
        """Whether the view came to that revision in time."""
        if self._revision >= revision:
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (revision, next(self._numbers), waiter))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await waiter
        self._check_open()
        return self._revision >= revision

    async def _see(self, revision: int) -> None:
        """Wait until the view has `revision`, which may be that of a write below another prefix."""
        if await self._reached(revision, _FOREIGN_SECONDS):
            return
        mark = wire.txn_request((), [wire.put_operation(self._mark, b"")], ())
        marked = await self._try(lambda: self._client.txn(mark))
        if not await self._reached(marked.revision, self._patience):
            raise StoreFailed(self._broken or f"etcd at {self._client.address} answers, but its watch does not")

    async def _newest(self) -> int:
        """etcd's newest revision, read after the call began. One read serves all who wait for the next one."""
        if self._newest_asked is None or self._newest_asked.done():
            self._newest_asked = asyncio.create_task(self._ask_newest())
            return await asyncio.shield(self._newest_asked)
        if self._newest_next is None or self._newest_next.done():
            self._newest_next = asyncio.create_task(self._ask_newest_after(self._newest_asked))
        return await asyncio.shield(self._newest_next)

    async def _ask_newest_after(self, earlier: asyncio.Task[int]) -> int:
        await asyncio.wait([earlier])
        self._newest_asked, self._newest_next = asyncio.current_task(), None
        return await self._ask_newest()

    async def _ask_newest(self) -> int:
        request = wire.range_request(self._mark, count_only=True)
        return (await self._try(lambda: self._client.range(request))).revision

    async def _try(self, call: Callable[[], Awaitable[T]], otherwise: str = "") -> T:
        """Call again while etcd is away, for `patience` seconds. Raises StoreFailed, Gone."""
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + self._patience, 0.02
        while True:
            if self._broken:
                raise StoreFailed(self._broken)
            try:
                return await call()
            except Unreachable as error:
                if self._closed:
                    raise StoreClosed("the store was closed") from None
                if loop.time() + pause > until:
                    raise StoreFailed(f"{error}{otherwise}") from None
            await asyncio.sleep(pause)
            pause = min(0.5, pause * 2)

    # History that is no longer in memory

    def _backlog(self, prefix: str, since: int, until: int) -> Backlog:
        """Reads etcd's own history up to `until`. What was loaded may be at a revision that no event of ours has: then
        a mark is put after it, whose event ends the reading."""
        stream = self._older(prefix, since, until)

        async def older() -> Sequence[Event]:
            try:
                return await stream.__anext__()
            except StopAsyncIteration:
                return ()

        return older

    async def _older(self, prefix: str, since: int, until: int) -> AsyncIterator[Sequence[Event]]:
        if until == self._loaded:
            mark = wire.txn_request((), [wire.put_operation(self._mark, b"")], ())
            await self._try(lambda: self._client.txn(mark))
        position = since
        while position < until:
            request = wire.watch_request(self._root, _after(self._root), position + 1, previous=True)
            try:
                async with contextlib.aclosing(self._client.watch(request)) as messages:
                    async for message in messages:
                        if message.compacted:
                            raise Gone("")
                        if message.canceled:
                            raise Unreachable(message.reason)
                        if not message.changes:
                            continue
                        events = self._past(message.changes, prefix, until)
                        position = message.changes[-1].pair.modified
                        if events:
                            yield events
                        if position >= until:
                            return
            except Gone:
                raise await self._compacted() from None
            except Unreachable:
                await asyncio.sleep(0.2)

    def _past(self, changes: Sequence[wire.Change], prefix: str, until: int) -> Sequence[Event]:
        events = []
        wanted = self._key(prefix)
        for change in changes:
            if change.pair.modified <= until and change.pair.key.startswith(wanted):
                previous = self._record(change.previous) if change.previous else None
                events.append(_event(change.deleted, self._record(change.pair), previous))
        return events

    async def _compacted(self) -> Compacted:
        """Someone compacted: how far, for the one who asked for less."""
        try:
            self._oldest = max(self._oldest, await self._try(lambda: self._find_oldest(self._revision)))
        except StoreFailed:
            log.warning("etcd at %s can't say what it keeps", self._client.address)
        return Compacted(self._oldest)

    # Keys and values

    def _key(self, key: str) -> bytes:
        return (self._objects + key).encode()

    def _end(self, prefix: str) -> bytes:
        return self._key(prefix_end(prefix)) if prefix else _after(self._objects.encode())

    def _record(self, pair: wire.KeyValue) -> Record:
        return Record(pair.key[len(self._objects.encode()) :].decode(), pair.value, pair.created, pair.modified)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed("the store was closed")
        if self._broken:
            raise StoreFailed(self._broken)

    def _check_revision(self, revision: int) -> None:
        if revision < self._oldest:
            raise Compacted(self._oldest)
        if revision > self._revision:
            raise FutureRevision(self._revision)


def _after(prefix: bytes) -> bytes:
    """The end of a range of everything that starts with `prefix`, which ends in no 0xff."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def _event(deleted: bool, record: Record, previous: Record | None) -> Event:
    if not deleted:
        return Event("PUT", record, previous, record.modified)
    value, created = (previous.value, previous.created) if previous else (b"", 0)
    return Event("DELETE", Record(record.key, value, created, record.modified), previous, record.modified)
