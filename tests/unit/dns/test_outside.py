"""Names of others, through a running server: remembered, asked once, over one connection, and when upstreams fail."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from fairlead.dns.cache import Cache, CacheOptions
from fairlead.dns.forward import Forwarder, ForwardOptions
from fairlead.dns.upstream import Address, HealthCheck, Upstream
from tests.unit.dns.test_server import ask, nowhere, resolves, running, upstream
from tests.unit.dns.worlds import lines

DEADLINE = 5.0


class Counted:
    """An upstream's reply, and how often it was asked."""

    def __init__(self, *addresses: str) -> None:
        self.asked: list[str] = []
        self._reply = resolves(*addresses)

    def __call__(self, query: dns.message.Message, tcp: bool) -> bytes | None:
        self.asked.append(query.question[0].name.to_text())
        return self._reply(query, tcp)


async def test_an_answer_is_remembered() -> None:
    """For all clients, with and without EDNS, in any case of the name, over UDP and TCP; its TTL goes down."""
    reply = Counted("192.0.2.1", "192.0.2.2")
    async with upstream(reply) as address, running(address, cache=Cache()) as server:
        now = 1000.0
        server.outside._clock = lambda: now
        for name in ("example.com", "EXAMPLE.com"):
            for options in ({}, {"use_edns": 0}, {"tcp": True}):
                found = await ask(server, name, "A", **options)
                assert sorted(lines(found.answer)) == [f"{name}. 60 IN A 192.0.2.{i}" for i in (1, 2)]
        assert reply.asked == ["example.com."]
        now += 10
        server.table.tick()
        assert (await ask(server, "example.com", "A")).answer[0].ttl == 50
        now += 50
        server.table.tick()
        await ask(server, "example.com", "A")
        assert len(reply.asked) == 2


async def test_what_is_remembered_takes_turns() -> None:
    """Each address is first as often as the others."""
    async with upstream(Counted("192.0.2.1", "192.0.2.2")) as address, running(address, cache=Cache()) as server:
        firsts = [lines((await ask(server, "example.com", "A")).answer)[0] for _ in range(10)]
        assert len(set(firsts[1:])) == 2


async def test_denials_are_remembered() -> None:
    """As long as their SOA says."""
    asked = []

    def reply(query: dns.message.Message, tcp: bool) -> bytes:
        asked.append(query)
        message = dns.message.make_response(query)
        message.set_rcode(dns.rcode.NXDOMAIN)
        soa = "ns.com. root.com. 1 1 1 1 60"
        message.authority.append(dns.rrset.from_text("com.", 900, "IN", "SOA", soa))
        return message.to_wire()

    async with upstream(reply) as address, running(address, cache=Cache()) as server:
        for _ in range(3):
            message = await ask(server, "none.com", "A")
            assert message.rcode() == dns.rcode.NXDOMAIN
            assert lines(message.authority)[0].startswith("com. 900 IN SOA")
        assert len(asked) == 1


async def test_the_same_question_is_asked_once() -> None:
    """However many wait for its answer."""
    held: list[Any] = []
    reply = Counted("192.0.2.1")

    class Late(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            held.append(lambda: self.transport.sendto(reply(dns.message.from_wire(data), False), addr))  # type: ignore[attr-defined]

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Late, local_addr=("127.0.0.1", 0))
    async with running(transport.get_extra_info("sockname"), cache=Cache(), timeout=2.0) as server:
        questions = [asyncio.create_task(ask(server, "example.com", "A")) for _ in range(20)]
        async with asyncio.timeout(DEADLINE):
            while len(server._tasks) < 20 or not held:  # noqa: ASYNC110 - happens in the server's code
                await asyncio.sleep(0.001)
        held[0]()
        assert all(message.answer for message in await asyncio.gather(*questions))
        assert len(held) == 1
    transport.close()


@asynccontextmanager
async def stream_upstream() -> AsyncIterator[tuple[tuple[str, int], list[int]]]:
    """A name server over TCP alone, that answers pipelined queries in reverse pairs; its connections are counted."""
    connections: list[int] = []

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        waiting = []
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(2), "big")
                waiting.append(resolves("192.0.2.1")(dns.message.from_wire(await reader.readexactly(size)), True))
                if len(waiting) == 2:
                    for answer in reversed(waiting):
                        assert answer is not None
                        writer.write(len(answer).to_bytes(2, "big") + answer)
                    waiting = []
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname(), connections
    finally:
        server.close()


async def test_one_connection_carries_many_queries() -> None:
    """Answers may come in any order; the connection is used again."""
    async with (
        stream_upstream() as (address, connections),
        running(address, options=ForwardOptions(force_tcp=True, deadline=3.0), timeout=2.0) as server,
    ):
        for _ in range(3):
            found = await asyncio.gather(*(ask(server, f"{i}.example.com", "A") for i in range(4)))
            assert [lines(message.answer) for message in found] == [
                [f"{i}.example.com. 60 IN A 192.0.2.1"] for i in range(4)
            ]
        assert len(connections) == 1


async def test_a_connection_that_was_closed_is_opened_again() -> None:
    """The upstream may close it at any time; the client never knows."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        answer = resolves("192.0.2.1")(dns.message.from_wire(await reader.readexactly(size)), True)
        assert answer is not None
        writer.write(len(answer).to_bytes(2, "big") + answer)
        writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0)
    asked = Upstream(Address("127.0.0.1", server.sockets[0].getsockname()[1]))
    for _ in range(3):
        assert await asked.ask(b"\7example\3com\0\0\1\0\1", tcp=True)
    await asked.close()
    server.close()


async def test_an_upstream_that_is_down_is_passed_over() -> None:
    """After its checks failed; and it is asked again once it answers."""
    check = HealthCheck(interval=0.01, max_fails=1)
    dead = Upstream(Address(*nowhere()), timeout=0.2, check=check)
    async with upstream(resolves("192.0.2.1")) as address:
        alive = Upstream(Address(*address), timeout=0.2, check=check)
        forwarder = Forwarder((dead, alive), ForwardOptions(policy="sequential"))
        assert next(forwarder._order()) is dead
        with pytest.raises(OSError):
            await dead.ask(b"\0\0\1\0\1", tcp=False)
        async with asyncio.timeout(DEADLINE):
            while not dead.down:  # noqa: ASYNC110 - happens in the check's task
                await asyncio.sleep(0.005)
        assert list(forwarder._order()) == [alive] * 4
        dead.address = alive.address  # it came back
        async with asyncio.timeout(DEADLINE):
            while dead.down:  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.005)
        assert next(forwarder._order()) is dead
        await forwarder.close()


def test_policies() -> None:
    """Random, in turn, or always from the first."""
    upstreams = tuple(Upstream(Address(f"192.0.2.{i}")) for i in range(3))
    turns = Forwarder(upstreams, ForwardOptions(policy="round_robin"))
    assert [next(turns._order()) for _ in range(4)] == [*upstreams, upstreams[0]]
    order = Forwarder(upstreams, ForwardOptions(policy="sequential", attempts=4))
    assert list(order._order()) == [*upstreams, upstreams[0]]
    dice = Forwarder(upstreams, dice=lambda size: b"\1" * size)
    assert next(dice._order()) is upstreams[1]


def test_when_all_are_down() -> None:
    """One is tried all the same, unless failing fast is wanted."""
    down = Upstream(Address("192.0.2.1"))
    down.fails = 9
    assert list(Forwarder((down,))._order()) == [down]
    assert list(Forwarder((down,), ForwardOptions(failfast=True))._order()) == []


async def test_failover() -> None:
    """An answer with such a code is as none; if nobody has better, it is handed on."""

    def broken(query: dns.message.Message, tcp: bool) -> bytes:
        message = dns.message.make_response(query)
        message.set_rcode(dns.rcode.SERVFAIL)
        return message.to_wire()

    options = ForwardOptions(policy="sequential", failover=frozenset({2}))
    async with upstream(broken) as bad, upstream(resolves("192.0.2.1")) as good:
        async with running(bad, good, options=options) as server:
            assert (await ask(server, "example.com", "A")).answer
        async with running(bad, options=options) as server:
            assert (await ask(server, "example.com", "A")).rcode() == dns.rcode.SERVFAIL


async def test_stale_answers_when_upstreams_are_gone() -> None:
    """Given at once with their TTL at its end, and asked for again behind it."""
    cache = Cache(CacheOptions(stale=3600.0, stale_ttl=7))
    gone = False

    def reply(query: dns.message.Message, tcp: bool) -> bytes | None:
        return None if gone else resolves("192.0.2.1")(query, tcp)

    async with upstream(reply) as address, running(address, cache=cache) as server:
        now = 1000.0
        server.outside._clock = lambda: now
        assert (await ask(server, "example.com", "A")).answer
        gone, now = True, now + 120
        server.table.tick()
        found = await ask(server, "example.com", "A")
        assert lines(found.answer) == ["example.com. 7 IN A 192.0.2.1"]
        assert server.outside.served_stale == 1


async def test_poison_is_not_swallowed() -> None:
    """A hundred forged answers with wrong ids to the right port, and records for other names in a true one: nothing
    but the answer to the question is believed, and for that question only."""

    def bailiwick(query: dns.message.Message, tcp: bool) -> bytes:
        message = dns.message.make_response(query)
        message.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", "192.0.2.1"))
        message.additional.append(dns.rrset.from_text("bank.example.", 60, "IN", "A", "192.0.2.66"))
        return message.to_wire()

    class Liar(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            query = dns.message.from_wire(data)
            forged = dns.message.make_response(query)
            forged.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", "192.0.2.66"))
            wire = forged.to_wire()
            other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # the right id, from another address
            other.sendto(wire, addr)
            other.close()
            for number in range(100):
                wrong = (int.from_bytes(data[:2], "big") ^ (number + 1)).to_bytes(2, "big")
                self.transport.sendto(wrong + wire[2:], addr)  # type: ignore[attr-defined]
            self.transport.sendto(bailiwick(query, False), addr)  # type: ignore[attr-defined]

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Liar, local_addr=("127.0.0.1", 0))
    async with running(transport.get_extra_info("sockname"), cache=Cache(), timeout=2.0) as server:
        assert lines((await ask(server, "example.com", "A")).answer) == ["example.com. 60 IN A 192.0.2.1"]
        assert server.outside.cache is not None
        assert server.outside.cache.sizes() == (1, 0)
    transport.close()
