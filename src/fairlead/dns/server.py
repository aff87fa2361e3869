"""The answering loop: datagrams and TCP connections in, answers out.

Stands between the sockets and the pure answer. Invariants: a hit is one look-up and takes no object; what must wait for
an upstream waits in a task of its own; whatever a client sends, the loop goes on.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine
from typing import Any

from fairlead.dns.answer import (
    Chase,
    Forward,
    Limits,
    Response,
    Rotating,
    chased,
    failure,
    fit_forwarded,
    respond,
)
from fairlead.dns.forward import Forwarder, TooMany
from fairlead.dns.message import REFUSED, SERVFAIL
from fairlead.dns.records import Delta
from fairlead.dns.sockets import SLOT_SIZE, SLOTS, Address, Batch
from fairlead.dns.table import Table
from fairlead.dns.zone import Zone

log = logging.getLogger("fairlead.dns")

_BATCHES = 4  # taken before the loop looks after anything else
IDLE = 10.0  # s a TCP client may say nothing, as CoreDNS
_READ = 5.0  # s for the rest of a query whose length has come
_PIPELINED = 64  # queries of one connection under way; more are not read


class Server:
    """Answers from `zone`. Has one owner and one loop; `apply` and the sockets are used from that loop only."""

    def __init__(
        self,
        zone: Zone,
        table: Table,
        limits: Limits,
        forwarder: Forwarder,
        *,
        max_connections: int = 1000,
        idle: float = IDLE,
    ) -> None:
        self.zone, self.table = zone, table
        self._limits, self._forwarder = limits, forwarder
        self._max_connections, self._idle = max_connections, idle
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._udp: list[socket.socket] = []
        self._tcp: list[asyncio.Server] = []

    # -- life ------------------------------------------------------------------------------------------------------

    async def start(self, udp: socket.socket, tcp: socket.socket) -> None:
        """Answer on these sockets, which must not block; they are closed by `stop`."""
        self._tcp.append(await asyncio.start_server(self._client, sock=tcp, limit=1 << 16))
        self._udp.append(udp)
        loop = asyncio.get_running_loop()
        try:
            loop.add_reader(udp, self._drain_batch, Batch(udp))
        except OSError as error:
            log.warning("answering datagrams one by one: %s", error.strerror)
            loop.add_reader(udp, self._drain_single, udp)

    async def stop(self, grace: float = 2.0) -> None:
        """Take nothing more; give what is under way `grace` seconds. A second call does nothing."""
        loop = asyncio.get_running_loop()
        listening, self._tcp = self._tcp, []
        sockets, self._udp = self._udp, []
        for server in listening:
            server.close()
        for udp in sockets:
            loop.remove_reader(udp)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for task in [*self._tasks, *self._connections]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._connections, return_exceptions=True)
        for udp in sockets:
            udp.close()

    def apply(self, step: Delta) -> None:
        """Take a change, and forget exactly what followed from what it changes."""
        touched = self.zone.apply(step)
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
        for _ in range(_BATCHES):
            count = batch.receive()
            first = 0  # of the run of slots that have a reply laid out
            for slot in range(count):
                at = slot * SLOT_SIZE
                key = bytes(batch.received[at + 2 : at + batch.length(slot)])
                value = young.get(key)
                if value is None:
                    value = self._miss(bytes(batch.received[at : at + 2]) + key, batch, slot)
                if value is not None and batch.put(slot, value if isinstance(value, bytes) else value.turn()):
                    continue
                batch.send(first, slot)
                first = slot + 1
            batch.send(first, count)
            if count < SLOTS:
                return

    def _drain_single(self, udp: socket.socket) -> None:
        for _ in range(_BATCHES * SLOTS):
            try:
                packet, address = udp.recvfrom(SLOT_SIZE)
            except OSError:
                return
            value = self.table.young.get(packet[2:])
            if value is None:
                value = self._miss(packet, udp, address)
            if value is not None:
                _send(udp, packet[:2] + (value if isinstance(value, bytes) else value.turn()), address)

    def _miss(self, packet: bytes, source: Batch | socket.socket, where: Any) -> bytes | Rotating | None:
        """The answer, if it can be given at once; else a task is under way, or nothing is to be said."""
        table = self.table
        value = table.recall(packet[2:])
        if value is not None:
            return value
        decision = respond(self.zone, packet, self._limits)
        if isinstance(decision, Response):
            if decision.keep:
                table.put(packet[2:], decision.value, decision.depends_on)
            return decision.value
        if decision is not None:
            udp, address = (source.sock, source.address(where)) if isinstance(source, Batch) else (source, where)
            self._spawn(self._later(udp, packet, address, decision))
        return None

    async def _later(self, udp: socket.socket, packet: bytes, address: Address, decision: Forward | Chase) -> None:
        _send(udp, packet[:2] + await self._from_upstream(packet, decision, tcp=False), address)

    async def _from_upstream(self, packet: bytes, decision: Forward | Chase, *, tcp: bool) -> bytes:
        """The answer without its id."""
        query, limits = decision.query, self._limits
        try:
            if isinstance(decision, Chase):
                found = await self._forwarder.resolve(decision.answer.unresolved, query.type)
                return chased(decision, found, limits, tcp=tcp)
            answer = await self._forwarder.ask(packet, query, tcp=tcp)
        except TooMany:
            return failure(query, REFUSED, limits)
        if answer is None:
            return failure(query, SERVFAIL, limits)
        return fit_forwarded(query, answer, limits, tcp=tcp)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a query could not be answered: %r", error)

    # -- connections -----------------------------------------------------------------------------------------------

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= self._max_connections:
            writer.close()
            return
        self._connections.add(task)
        try:
            await self._talk(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the client's right: it went away, or had nothing more to say
        finally:
            self._connections.discard(task)
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Queries may be pipelined, and answers come as they are ready (RFC 7766 §6.2.1.1)."""
        under_way: set[asyncio.Task[None]] = set()
        try:
            while True:
                async with asyncio.timeout(self._idle):
                    header = await reader.readexactly(2)
                async with asyncio.timeout(_READ):
                    packet = await reader.readexactly(int.from_bytes(header, "big"))
                decision = respond(self.zone, packet, self._limits, tcp=True)
                if decision is None:
                    return  # no query: there is nothing to talk about
                if isinstance(decision, Response):
                    value = decision.value
                    _frame(writer, packet[:2] + (value if isinstance(value, bytes) else value.turn()))
                else:
                    if len(under_way) >= _PIPELINED:
                        await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                    work = asyncio.create_task(self._later_tcp(writer, packet, decision))
                    under_way.add(work)
                    work.add_done_callback(under_way.discard)
                async with asyncio.timeout(self._idle):  # a client that does not read is no client
                    await writer.drain()
        except asyncio.IncompleteReadError:
            if under_way:  # it has said all it wants to say, and still listens
                await asyncio.wait(under_way)
        finally:
            for work in under_way:
                work.cancel()

    async def _later_tcp(self, writer: asyncio.StreamWriter, packet: bytes, decision: Forward | Chase) -> None:
        _frame(writer, packet[:2] + await self._from_upstream(packet, decision, tcp=True))


def _frame(writer: asyncio.StreamWriter, packet: bytes) -> None:
    writer.write(len(packet).to_bytes(2, "big") + packet)


def _send(udp: socket.socket, packet: bytes, address: Address) -> None:
    try:
        udp.sendto(packet, address)
    except OSError as error:  # a full buffer, a client that went away: datagrams may be lost
        log.debug("could not answer %s: %s", address[0], error)
