"""The answering loop: datagrams and TCP connections in, answers out.

Stands between the sockets and the chain of plugins. Invariants: a hit is one look-up and takes no object; what must
wait for an upstream waits in a task of its own; whatever a client sends, the loop goes on.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Literal

import msgspec

from fairlead.dns.answer import PLAIN, Rotating, Value, read, render
from fairlead.dns.answer import finish as rendered
from fairlead.dns.book import Book, Touched
from fairlead.dns.hot import HotLoop, accelerated
from fairlead.dns.message import AA, HEADER, QR, REFUSED, SERVFAIL, Query, Writer
from fairlead.dns.reply import BRIEFLY, NEVER, Reply, Request, Silence, Transfer, failed, packed_client
from fairlead.dns.router import Chain, Router
from fairlead.dns.sockets import SLOT_SIZE, SLOTS, Address, Batch
from fairlead.dns.table import ByClient, Entry, Table

log = logging.getLogger("fairlead.dns")

Way = Literal["hot", "batch", "single"]
"""How datagrams are taken: by the thread in C, 64 a system call from Python, or one by one."""
_BATCHES = 4  # taken before the loop looks after anything else
_PIPELINED = 64  # queries of one connection under way; more are not read
_TALLY = 4096  # answers counted apart before they are put together
_TRANSFER_CHUNK = 16_000  # bytes of a transfer's message before the next begins


class StreamLimits(msgspec.Struct, frozen=True):
    """Of TCP, DoT and DoH. Seconds: a client may say nothing for `idle`, as CoreDNS; take `read` for the rest of a
    query whose length has come, and `write` to take an answer. `queries` 0: as many on a connection as it likes."""

    connections: int = 1000
    idle: float = 10.0
    read: float = 5.0
    write: float = 10.0
    queries: int = 0


class Server:
    """Answers by `router`. Has one owner and one loop; all of it is used from that loop only."""

    def __init__(
        self,
        router: Router,
        table: Table | None = None,
        book: Book | None = None,
        limits: StreamLimits = StreamLimits(),  # noqa: B008 - frozen
    ) -> None:
        self.router = router
        self.table = table if table is not None else Table()
        self.book = book if book is not None else Book()
        self.limits = limits
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._udp: dict[socket.socket, tuple[int, Callable[[], None]]] = {}
        self._hot: HotLoop | None = None
        self._tcp: list[asyncio.Server] = []
        self._turn = 0
        self._ticking = False

    # -- life ------------------------------------------------------------------------------------------------------

    async def start(
        self, udp: socket.socket | None, tcp: socket.socket | None, tls: ssl.SSLContext | None = None, way: Way = "hot"
    ) -> None:
        """Answer on these sockets, which must not block; they are closed by `stop`. `way`: how datagrams are taken, if
        that can be had; else the next best."""
        if tcp is not None:
            await self.serve_streams(tcp, self._client, tls)
        if udp is None:
            return
        self._udp[udp] = self._datagrams(udp, way)

    def _datagrams(self, udp: socket.socket, way: Way) -> tuple[int, Callable[[], None]]:
        """Begin to answer datagrams: what becomes readable when there is something to do here, and what does it."""
        drain: Callable[[], None]
        if way == "hot" and accelerated:
            hot = self._hot = HotLoop(udp, self.table, self._given)
            readable, drain = hot.fileno(), lambda: self._drain_hot(hot, udp)
        else:
            readable = udp.fileno()
            try:
                batch = Batch(udp)
                drain = (lambda: self._drain_single(udp)) if way == "single" else (lambda: self._drain_batch(batch))
            except OSError as error:
                log.warning("answering datagrams one by one: %s", error.strerror)
                drain = lambda: self._drain_single(udp)  # noqa: E731
        asyncio.get_running_loop().add_reader(readable, drain)
        return readable, drain

    def _given(self, value: Value, times: int) -> None:
        if self.router.counted:
            self._tallied(value, times)

    async def serve_streams(
        self,
        sock: socket.socket,
        client: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
        tls: ssl.SSLContext | None,
    ) -> None:
        """Accept connections for `client`, at most as many at once as the limits say."""

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            if len(self._connections) >= self.limits.connections:
                writer.close()
                return
            self._connections.add(task)
            try:
                await client(reader, writer)
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                pass  # the client's right: it went away, or had nothing more to say
            finally:
                self._connections.discard(task)
                writer.close()

        handshake = self.limits.read if tls is not None else None
        self._tcp.append(
            await asyncio.start_server(accepted, sock=sock, limit=1 << 16, ssl=tls, ssl_handshake_timeout=handshake)
        )

    async def stop(self, grace: float = 2.0) -> None:
        """Take nothing more; answer what is in the sockets, give what is under way `grace` seconds. A second call does
        nothing."""
        loop = asyncio.get_running_loop()
        listening, self._tcp = self._tcp, []
        sockets, self._udp = self._udp, {}
        for server in listening:
            server.close()
        if self._hot is not None:
            self._hot.stop()
        for readable, drain in sockets.values():
            loop.remove_reader(readable)
            drain()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for task in [*self._tasks, *self._connections]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._connections, return_exceptions=True)
        for udp in sockets:
            self._drain_single(udp)  # what came meanwhile: who shares the port would never see it
            udp.close()

    def forget(self, touched: Touched) -> None:
        """Forget exactly what followed from what changed."""
        if touched.everything:
            self.table.clear()
            return
        for namespace, service in touched.services:
            self.table.forget_service(namespace, service)
        for namespace in touched.namespaces:
            self.table.forget_namespace(namespace)

    # -- datagrams -------------------------------------------------------------------------------------------------

    def _drain_batch(self, batch: Batch) -> None:
        young = self.table.young
        counted = self.router.counted
        for _ in range(_BATCHES):
            count = batch.receive()
            first = 0  # of the run of slots that have a reply laid out
            for slot in range(count):
                at = slot * SLOT_SIZE
                key = bytes(batch.received[at + 2 : at + batch.length(slot)])
                value = young.get(key)
                if value.__class__ is not bytes:
                    value = self._uncommon(value, key, batch, slot)
                if value is None:
                    batch.send(first, slot)
                    first = slot + 1
                    continue
                if counted:
                    self._tallied(value)
                if not batch.put(slot, value if value.__class__ is bytes else value.turn()):  # type: ignore
                    batch.send(first, slot)
                    first = slot + 1
            batch.send(first, count)
            if count < SLOTS:
                return

    def _uncommon(self, value: Entry | None, key: bytes, batch: Batch, slot: int) -> Value | None:
        """What is not simply there: the first time, or one that takes turns, or one that depends on who asks."""
        if value.__class__ is Rotating:
            return value
        if value is not None and (found := self._by_client(value, batch.client(slot))) is not None:
            return found
        at = slot * SLOT_SIZE
        return self._miss(bytes(batch.received[at : at + 2]) + key, batch.sock, batch.address(slot))

    def _by_client(self, value: Entry, client: bytes) -> Value | None:
        if not isinstance(value, ByClient):
            return value
        return value.theirs if self.book.namespace_of(client) == value.namespace else value.plain

    def _tallied(self, value: Value, times: int = 1) -> None:
        tally = self.router.tally
        tally[value] = tally.get(value, 0) + times
        if len(tally) > _TALLY:
            self.router.fold()

    def fold(self) -> None:
        """Bring what was counted apart into the metrics."""
        if self._hot is not None and self.router.counted:
            self._hot.collect()
        self.router.fold()

    def _drain_hot(self, hot: HotLoop, udp: socket.socket) -> None:
        for packet, address in hot.take():
            self._one(udp, packet, address)

    def _drain_single(self, udp: socket.socket) -> None:
        for _ in range(_BATCHES * SLOTS):
            try:
                packet, address = udp.recvfrom(SLOT_SIZE)
            except OSError:
                return
            self._one(udp, packet, address)

    def _one(self, udp: socket.socket, packet: bytes, address: Address) -> None:
        entry = self.table.young.get(packet[2:])
        value = self._by_client(entry, packed_client(address)) if entry is not None else None
        if value is None:
            value = self._miss(packet, udp, address)
        if value is not None:
            if self.router.counted:
                self._tallied(value)
            _send(udp, packet[:2] + (value if isinstance(value, bytes) else value.turn()), address)

    def _miss(self, packet: bytes, udp: socket.socket, address: Address) -> Value | None:
        """The answer, if it can be given at once; else a task is under way, or nothing is to be said."""
        key = packet[2:]
        client = packed_client(address)
        if (entry := self.table.recall(key)) is not None and (known := self._by_client(entry, client)) is not None:
            return known
        query = read(packet)
        if query is None or isinstance(query, bytes):
            return query
        chain = self.router.route(query.labels)
        if chain is None:
            return render(query, failed(REFUSED), PLAIN, tcp=False)
        request = Request(query, client, address[1], "udp", packet)
        start = self.router.clock() if chain.logs else 0.0
        try:
            outcome = chain.handler(request)
        except Silence:
            return None
        except Exception as error:
            self._fault(query, error)
            outcome = failed(SERVFAIL)
        if not isinstance(outcome, Reply):
            self._spawn(self._later(udp, address, chain, request, query, outcome))
            return None
        value = self._kept(chain, request, query, outcome, key)
        if chain.logs:
            answer = value if isinstance(value, bytes) else value.turn()
            chain.say(request, query, packet, answer, self.router.clock() - start)
            return answer
        return value

    def _kept(self, chain: Chain, request: Request, query: Query, reply: Reply, key: bytes) -> Value:
        """The answer; remembered if it may be."""
        value = rendered(query, reply, chain.style, tcp=False)
        if not reply.keep or request.personal or query.options or not chain.remembers:
            if isinstance(value, Rotating):
                self._turn += 1
                return value.from_turn(self._turn)
            return value
        briefly = reply.keep == BRIEFLY
        table = self.table
        if reply.only_for or reply.not_for:
            table.put_for(
                key,
                reply.only_for or reply.not_for,
                value,
                reply.depends,
                theirs=bool(reply.only_for),
                briefly=briefly,
            )
        else:
            table.put(key, value, reply.depends, briefly=briefly)
        if briefly and not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(1.0, self._tick)
        return value

    def _tick(self) -> None:
        self._ticking = False
        self.table.tick()

    async def _later(  # noqa: PLR0917 - all that is known of a query when its answer must be waited for
        self,
        udp: socket.socket,
        address: Address,
        chain: Chain,
        request: Request,
        query: Query,
        outcome: Awaitable[Reply],
    ) -> None:
        clock = self.router.clock
        start, version = clock(), self.book.version
        reply = await self._awaited(chain, query, outcome)
        if reply is None:
            return
        if version != self.book.version and reply.keep:  # it may follow from what was
            reply = reply._replace(keep=NEVER)
        value = self._kept(chain, request, query, reply, request.packet[2:])
        answer = value if isinstance(value, bytes) else value.turn()
        _send(udp, request.packet[:2] + answer, address)
        self._noted(chain, request, query, answer, clock() - start)
        if reply.why:
            chain.fail(query, reply.rcode, reply.why)

    def _noted(self, chain: Chain, request: Request, query: Query, answer: bytes, seconds: float) -> None:
        if chain.counted:
            family = 2 if len(request.client) == 16 else 1
            proto = "udp" if request.transport == "udp" else "tcp"
            self.router.count(answer, proto, family, size=len(answer), seconds=seconds)
        if chain.logs:
            chain.say(request, query, request.packet, answer, seconds)

    async def _awaited(self, chain: Chain, query: Query, outcome: Awaitable[Reply]) -> Reply | None:
        """The reply; an error if it cannot be had, or not in time; None: say nothing."""
        try:
            if not chain.timeout:
                return await outcome
            async with asyncio.timeout(chain.timeout):
                return await outcome
        except Silence:
            return None
        except TimeoutError:
            return failed(SERVFAIL)
        except Exception as error:
            self._fault(query, error)
            return failed(SERVFAIL)

    def _fault(self, query: Query, error: Exception) -> None:
        self.router.panic()
        log.error("a query could not be answered: %r: %r", query.question, error, exc_info=error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- connections -----------------------------------------------------------------------------------------------

    async def answer(self, packet: bytes, client: bytes, port: int, transport: str) -> bytes | None:
        """The whole answer to a packet that came by a stream; None: there is nothing to say. Raises Transfer."""
        found = self._stream_answer(packet, client, port, transport)
        return found if found is None or isinstance(found, bytes) else await found

    def _stream_answer(
        self, packet: bytes, client: bytes, port: int, transport: str
    ) -> bytes | Coroutine[Any, Any, bytes | None] | None:
        query = read(packet)
        if query is None:
            return None
        if isinstance(query, bytes):
            return packet[:2] + query
        chain = self.router.route(query.labels)
        if chain is None:
            return packet[:2] + render(query, failed(REFUSED), PLAIN, tcp=True)
        request = Request(query, client, port, transport, packet)
        start = self.router.clock()
        try:
            outcome = chain.handler(request)
        except (Silence, Transfer) as error:
            if isinstance(error, Transfer):
                raise
            return None
        except Exception as error:
            self._fault(query, error)
            outcome = failed(SERVFAIL)
        if isinstance(outcome, Reply):
            return self._stream_reply(chain, request, query, outcome, start)
        return self._stream_later(chain, request, query, outcome, start)

    async def _stream_later(
        self, chain: Chain, request: Request, query: Query, outcome: Awaitable[Reply], start: float
    ) -> bytes | None:
        reply = await self._awaited(chain, query, outcome)
        return None if reply is None else self._stream_reply(chain, request, query, reply, start)

    def _stream_reply(self, chain: Chain, request: Request, query: Query, reply: Reply, start: float) -> bytes:
        self._turn += 1
        answer = render(query, reply, chain.style, tcp=True, first=self._turn)
        if reply.why:
            chain.fail(query, reply.rcode, reply.why)
        if chain.counted or chain.logs:
            self._noted(chain, request, query, answer, self.router.clock() - start)
        return request.packet[:2] + answer

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Queries may be pipelined, and answers come as they are ready (RFC 7766 §6.2.1.1)."""
        peer = writer.get_extra_info("peername") or ("0.0.0.0", 0)
        client, port = packed_client(peer), peer[1]
        transport = "tcp" if writer.get_extra_info("ssl_object") is None else "tls"
        limits = self.limits
        under_way: set[asyncio.Task[None]] = set()
        taken = 0
        try:
            while not limits.queries or taken < limits.queries:
                taken += 1
                async with asyncio.timeout(limits.idle):
                    header = await reader.readexactly(2)
                async with asyncio.timeout(limits.read):
                    packet = await reader.readexactly(int.from_bytes(header, "big"))
                try:
                    found = self._stream_answer(packet, client, port, transport)
                except Transfer as transfer:
                    await self._transfer(writer, packet, transfer)
                    continue
                if found is None:
                    return  # no query: there is nothing to talk about
                if isinstance(found, bytes):
                    _frame(writer, found)
                else:
                    if len(under_way) >= _PIPELINED:
                        await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                    work = asyncio.create_task(_framed(writer, found))
                    under_way.add(work)
                    work.add_done_callback(under_way.discard)
                async with asyncio.timeout(limits.write):  # a client that does not read is no client
                    await writer.drain()
            if under_way:
                await asyncio.wait(under_way)
        except asyncio.IncompleteReadError:
            if under_way:  # it has said all it wants to say, and still listens
                await asyncio.wait(under_way)
        finally:
            for work in under_way:
                work.cancel()

    async def _transfer(self, writer: asyncio.StreamWriter, packet: bytes, transfer: Transfer) -> None:
        """A whole zone, in as many messages as it takes (RFC 5936 §2.2)."""
        query = read(packet)
        assert isinstance(query, Query)
        for message in transfer_messages(query, transfer):
            _frame(writer, packet[:2] + message)
            async with asyncio.timeout(self.limits.write):
                await writer.drain()


def transfer_messages(query: Query, transfer: Transfer) -> Iterator[bytes]:
    """The messages of a transfer, without their ids."""
    records = iter((transfer.soa, *transfer.records, transfer.soa))
    writer, count = Writer(query.question), 0
    for record in records:
        writer.record(record)
        count += 1
        if len(writer.data) > _TRANSFER_CHUNK:
            yield _message(writer, count)
            writer, count = Writer(query.question), 0
    if count:
        yield _message(writer, count)


def _message(writer: Writer, count: int) -> bytes:
    HEADER.pack_into(writer.data, 0, 0, QR | AA, 1, count, 0, 0)
    return bytes(writer.data[2:])


async def _framed(writer: asyncio.StreamWriter, found: Awaitable[bytes | None]) -> None:
    answer = await found
    if answer is not None:
        _frame(writer, answer)


def _frame(writer: asyncio.StreamWriter, packet: bytes) -> None:
    writer.write(len(packet).to_bytes(2, "big") + packet)


def _send(udp: socket.socket, packet: bytes, address: Address) -> None:
    try:
        udp.sendto(packet, address)
    except OSError as error:  # a full buffer, a client that went away: datagrams may be lost
        log.debug("could not answer %s: %s", address[0], error)
