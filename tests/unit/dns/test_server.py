"""The running server on loopback: UDP and TCP, hits, misses, upstreams that answer, lie, stall or are not there."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest

from fairlead.dns.answer import Style
from fairlead.dns.cache import Cache
from fairlead.dns.forward import Forwarder, ForwardOptions, Outside
from fairlead.dns.health import serve_status
from fairlead.dns.hot import accelerated
from fairlead.dns.records import Delta, ServiceRecords, whole
from fairlead.dns.server import Server, StreamLimits, Way
from fairlead.dns.sockets import SLOTS, Batch, bind_tcp, bind_udp, unpack_address
from fairlead.dns.table import Table
from fairlead.dns.upstream import Address, Upstream, addresses_of, parse_address
from fairlead.dns.zone import Zone
from tests.unit.dns.test_zone import ANSWERS, NODATA, NXDOMAIN
from tests.unit.dns.worlds import SOA, lines, router_of, rows, shown, snapshot, zone

DEADLINE = 5.0
WAYS: list[Way] = ["batch", "single", *(["hot"] if accelerated else [])]  # type: ignore[list-item]


class Running(Server):
    """A server with the port it listens on, its zone, and what it asks outside."""

    port = 0
    zone: Zone
    outside: Outside

    def apply(self, step: Delta) -> None:
        self.forget(self.zone.apply(step))


@asynccontextmanager
async def running(
    *upstreams: tuple[str, int],
    way: Way = "hot",
    cache: Cache | None = None,
    options: ForwardOptions = ForwardOptions(deadline=1.0),  # noqa: B008 - frozen
    timeout: float = 0.2,
    **limits: Any,
) -> AsyncIterator[Running]:
    asked = tuple(Upstream(Address(host, port), timeout=timeout) for host, port in upstreams)
    outside = Outside(Forwarder(asked, options), cache)
    served = zone()
    router = router_of(served, outside.handle, Style(recursion=bool(upstreams)))
    server = Running(router, Table(), served.book, StreamLimits(**limits))
    server.zone, server.outside = served, outside
    tcp = bind_tcp("127.0.0.1", 0)
    server.port = tcp.getsockname()[1]
    udp = bind_udp("127.0.0.1", server.port)
    await server.start(udp, tcp, way=way)
    try:
        yield server
    finally:
        await server.stop()
        await outside.close()


async def ask(server: Running, question: str, kind: str, *, tcp: bool = False, **options: Any) -> dns.message.Message:
    query = dns.message.make_query(question, kind, **options)
    if tcp:
        return await dns.asyncquery.tcp(query, "127.0.0.1", port=server.port, timeout=DEADLINE)
    return await dns.asyncquery.udp(query, "127.0.0.1", port=server.port, timeout=DEADLINE, ignore_trailing=False)


Reply = Callable[[dns.message.Message, bool], bytes | None]


@asynccontextmanager
async def upstream(reply: Reply) -> AsyncIterator[tuple[str, int]]:
    """A name server that answers with what `reply(query, over_tcp)` gives; None is silence."""

    class Protocol(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            answer = reply(dns.message.from_wire(data), False)
            if answer is not None:
                self.transport.sendto(answer, addr)  # type: ignore[attr-defined]

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        answer = reply(dns.message.from_wire(await reader.readexactly(size)), True)
        if answer is not None:
            writer.write(len(answer).to_bytes(2, "big") + answer)
            await writer.drain()
        writer.close()

    tcp = bind_tcp("127.0.0.1", 0)
    address: tuple[str, int] = tcp.getsockname()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Protocol, local_addr=address)
    server = await asyncio.start_server(client, sock=tcp)
    try:
        yield address
    finally:
        transport.close()
        server.close()


def resolves(*addresses: str, truncated: bool = False) -> Reply:
    """Every A question has these addresses; over UDP perhaps only TC."""

    def reply(query: dns.message.Message, tcp: bool) -> bytes:
        message = dns.message.make_response(query)
        if truncated and not tcp:
            message.flags |= dns.flags.TC
        else:
            message.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", *addresses))
        return message.to_wire()

    return reply


def nowhere() -> tuple[str, int]:
    """A port where nobody listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        address: tuple[str, int] = sock.getsockname()
        return address


@pytest.mark.parametrize("transport", ["tcp", *WAYS])
async def test_the_zone_over_the_wire(transport: Any) -> None:
    """Every row of the zone's tables, asked twice (a miss, then a hit) of a running server."""
    async with running(way="hot" if transport == "tcp" else transport) as server:
        for question, kind, answer, additional in ANSWERS:
            for _ in range(2):
                message = await ask(server, question, kind, tcp=transport == "tcp")
                rcode, found, authority, extra = shown(message)
                assert (rcode, authority, extra) == ("NOERROR", [], rows(additional)), question
                assert sorted(found) == sorted(rows(answer)), question
        for expected, questions in (("NOERROR", NODATA), ("NXDOMAIN", NXDOMAIN)):
            for question, kind in questions:
                for _ in range(2):
                    message = await ask(server, question, kind, tcp=transport == "tcp")
                    assert shown(message) == (expected, [], [f"cluster.local. 5 IN SOA {SOA}"], []), question


@pytest.mark.parametrize("way", WAYS)
async def test_a_change_is_seen_by_the_next_question(way: Way) -> None:
    """Positive, changed, negative, and back: no answer is older than the zone."""
    async with running(way=way) as server:

        async def address() -> list[str]:
            message = await ask(server, "web.shop.svc.cluster.local", "A")
            return [line.split()[-1] for line in lines(message.answer)]

        assert await address() == ["10.96.0.20"]
        other = ServiceRecords("shop", "web", (bytes((10, 96, 0, 99)),), (("http", "tcp", 80),))
        server.apply(Delta(changed=(other,), serial=2))
        assert await address() == ["10.96.0.99"]
        server.apply(Delta(removed=(("shop", "web"),), serial=3))
        assert await address() == []
        server.apply(Delta(changed=(other,), serial=4))
        assert await address() == ["10.96.0.99"]
        server.apply(Delta(namespaces_removed=("shop",), serial=5))
        assert await address() == []


async def test_a_change_forgets_only_what_follows_from_it() -> None:
    """The other answers stay remembered."""
    async with running() as server:
        await ask(server, "web.shop.svc.cluster.local", "A")
        await ask(server, "db.shop.svc.cluster.local", "A")
        await ask(server, "none.shop.svc.cluster.local", "A")
        assert len(server.table) == 3
        server.apply(Delta(removed=(("shop", "web"),)))
        assert len(server.table) == 2


async def test_becoming_synced_turns_servfail_into_answers() -> None:
    """And nothing of before is remembered."""
    async with running() as server:
        server.zone.book.synced = False
        assert (await ask(server, "web.shop.svc.cluster.local", "A")).rcode() == dns.rcode.SERVFAIL
        server.apply(whole(snapshot(), 1))
        assert (await ask(server, "web.shop.svc.cluster.local", "A")).rcode() == dns.rcode.NOERROR


@pytest.mark.parametrize("way", WAYS)
async def test_a_burst_is_answered_completely(way: Way) -> None:
    """More packets than one batch holds, hits and misses and silence mixed: each client gets the answer to its own."""
    async with running(way=way) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", server.port))
            names = ["web.shop.svc.cluster.local", "none.shop.svc.cluster.local", "db-0.db.shop.svc.cluster.local"]
            expected = {}
            for number in range(3 * SLOTS):
                packet = dns.message.make_query(names[number % 3], "A", id=number).to_wire()
                expected[number] = packet[12:]
                sock.send(packet)
                if number % 5 == 0:
                    sock.send(b"\0")
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(DEADLINE):
                while expected:
                    answer = await loop.sock_recv(sock, 4096)
                    question = expected.pop(int.from_bytes(answer[:2], "big"))
                    assert answer[12 : 12 + len(question)] == question


async def test_pipelined_queries_of_one_connection() -> None:
    """A slow question does not hold up the next one (RFC 7766 §6.2.1.1)."""
    async with upstream(lambda query, tcp: None) as silent, running(silent) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for number, name in ((1, "example.com"), (2, "web.shop.svc.cluster.local")):
            packet = dns.message.make_query(name, "A", id=number).to_wire()
            writer.write(len(packet).to_bytes(2, "big") + packet)
        order = []
        async with asyncio.timeout(DEADLINE):
            for _ in range(2):
                size = int.from_bytes(await reader.readexactly(2), "big")
                order.append(dns.message.from_wire(await reader.readexactly(size)))
        assert [message.id for message in order] == [2, 1]
        assert order[1].rcode() == dns.rcode.SERVFAIL
        writer.close()


async def test_idle_connections_are_closed() -> None:
    """A client that says nothing, or half a query, loses its connection."""
    async with running(idle=0.05) as server:
        for sent in (b"", b"\0"):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(sent)
            async with asyncio.timeout(DEADLINE):
                assert await reader.read() == b""
            writer.close()


async def test_one_connection_too_many_is_closed() -> None:
    """The first ones go on."""
    async with running(connections=1) as server:
        first = await asyncio.open_connection("127.0.0.1", server.port)
        packet = dns.message.make_query("web.shop.svc.cluster.local", "A").to_wire()
        framed = len(packet).to_bytes(2, "big") + packet
        first[1].write(framed)
        async with asyncio.timeout(DEADLINE):
            await first[0].readexactly(2)
            second = await asyncio.open_connection("127.0.0.1", server.port)
            assert await second[0].read() == b""
            first[1].write(framed)
            assert await first[0].read(1)
        first[1].close()
        second[1].close()


# -- upstreams


@pytest.mark.parametrize("tcp", [False, True])
async def test_outside_names_come_from_upstream(tcp: bool) -> None:
    """The upstream's answer, with the client's id and question."""
    async with upstream(resolves("192.0.2.1")) as address, running(address) as server:
        message = await ask(server, "wWw.example.com", "A", tcp=tcp)
        assert lines(message.answer) == ["wWw.example.com. 60 IN A 192.0.2.1"]
        assert not message.flags & dns.flags.AA


async def test_a_dead_upstream_is_passed_over() -> None:
    """Whichever comes first, the one that answers does."""
    async with upstream(resolves("192.0.2.1")) as address, running(nowhere(), address) as server:
        for _ in range(4):
            assert (await ask(server, "example.com", "A")).answer


async def test_a_silent_upstream_is_passed_over() -> None:
    """After its time the next one is asked."""
    async with (
        upstream(lambda query, tcp: None) as silent,
        upstream(resolves("192.0.2.1")) as address,
        running(silent, address) as server,
    ):
        for _ in range(3):
            assert (await ask(server, "example.com", "A")).answer


async def test_when_all_upstreams_fail() -> None:
    """SERVFAIL, within the client's patience."""
    async with running(nowhere(), nowhere()) as server:
        assert (await ask(server, "example.com", "A")).rcode() == dns.rcode.SERVFAIL


async def test_forged_answers_are_passed_over() -> None:
    """A wrong id or another question is not what was asked; the true answer still comes through."""

    def liar(query: dns.message.Message, tcp: bool) -> bytes:
        forged = dns.message.make_response(query)
        forged.id ^= 1
        return forged.to_wire()

    def other(query: dns.message.Message, tcp: bool) -> bytes:
        return dns.message.make_response(dns.message.make_query("example.org", "A", id=query.id)).to_wire()

    for reply in (liar, other):
        async with upstream(reply) as address, running(address) as server:
            assert (await ask(server, "example.com", "A")).rcode() == dns.rcode.SERVFAIL


@pytest.mark.parametrize("tcp", [False, True])
async def test_a_truncated_answer_is_asked_for_again(tcp: bool) -> None:
    """Over TCP, and the client, whose own packet has room, never knows."""
    async with upstream(resolves("192.0.2.1", truncated=True)) as address, running(address) as server:
        answer = await ask(server, "example.com", "A", tcp=tcp)
        assert lines(answer.answer) == ["example.com. 60 IN A 192.0.2.1"]
        assert not answer.flags & dns.flags.TC


@pytest.mark.parametrize("truncated", [False, True])
async def test_external_names_are_chased(truncated: bool) -> None:
    """Our CNAME and the upstream's addresses in one answer; a truncated one is asked for again over TCP."""
    async with upstream(resolves("192.0.2.1", truncated=truncated)) as address, running(address) as server:
        message = await ask(server, "outside.shop.svc.cluster.local", "A")
        assert lines(message.answer) == [
            "outside.shop.svc.cluster.local. 5 IN CNAME www.example.com.",
            "www.example.com. 60 IN A 192.0.2.1",
        ]
        assert message.flags & dns.flags.AA


async def test_an_external_name_when_all_upstreams_fail() -> None:
    """SERVFAIL: nothing is denied that is only not known."""
    async with running(nowhere()) as server:
        assert (await ask(server, "outside.shop.svc.cluster.local", "A")).rcode() == dns.rcode.SERVFAIL


async def test_a_slow_upstream_does_not_hold_up_our_names() -> None:
    """While forwarded queries wait, hits and misses of the zone are answered."""
    async with upstream(lambda query, tcp: None) as silent, running(silent) as server:
        waiting = [asyncio.create_task(ask(server, f"{i}.example.com", "A")) for i in range(50)]
        async with asyncio.timeout(DEADLINE):
            await _until(lambda: server.outside.forwarder.under_way == 50)
            assert (await ask(server, "web.shop.svc.cluster.local", "A")).answer
            assert server.outside.forwarder.under_way == 50
            assert {message.rcode() for message in await asyncio.gather(*waiting)} == {dns.rcode.SERVFAIL}


async def test_too_many_forwarded_queries_are_refused() -> None:
    """One more than may be under way is REFUSED at once."""
    options = ForwardOptions(max_concurrent=1, deadline=0.3)
    async with upstream(lambda query, tcp: None) as silent, running(silent, options=options) as server:
        first = asyncio.create_task(ask(server, "example.com", "A"))
        await _until(lambda: server.outside.forwarder.under_way == 1)
        assert (await ask(server, "example.org", "A")).rcode() == dns.rcode.REFUSED
        assert (await first).rcode() == dns.rcode.SERVFAIL


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another's code
            await asyncio.sleep(0.001)


async def test_stopping_answers_what_is_under_way() -> None:
    """A forwarded query that was accepted still gets its answer."""
    held: list[Callable[[], None]] = []

    class Late(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            answer = resolves("192.0.2.1")(dns.message.from_wire(data), False)
            held.append(lambda: self.transport.sendto(answer, addr))  # type: ignore[attr-defined]

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Late, local_addr=("127.0.0.1", 0))
    async with running(transport.get_extra_info("sockname")) as server:
        question = asyncio.create_task(ask(server, "example.com", "A"))
        await _until(lambda: bool(held))
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0)
        held[0]()
        assert (await question).answer
        await stopping
    transport.close()


# -- small parts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1", Address("10.0.0.1")),
        ("10.0.0.1:5353", Address("10.0.0.1", 5353)),
        ("dns://10.0.0.1", Address("10.0.0.1")),
        ("fd00::1", Address("fd00::1")),
        ("[fd00::1]:5353", Address("fd00::1", 5353)),
        ("[fd00::1]", Address("fd00::1")),
        ("tls://9.9.9.9", Address("9.9.9.9", 853, True)),
        ("tls://9.9.9.9%dns.quad9.net", Address("9.9.9.9", 853, True, "dns.quad9.net")),
        ("tls://9.9.9.9%dns.quad9.net:8853", Address("9.9.9.9", 8853, True, "dns.quad9.net")),
    ],
)
def test_upstreams(text: str, expected: Address) -> None:
    """An address, perhaps with a port."""
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text", ["", "example.com", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:99999", "10.0.0.1:x", "[fd00::1"]
)
def test_bad_upstreams(text: str) -> None:
    """Refused with the text in question."""
    with pytest.raises(ValueError, match="not ADDRESS or ADDRESS:PORT"):
        parse_address(text)


def test_upstreams_of_resolv_conf() -> None:
    """nameserver lines, in order, once each; anything else is passed over."""
    text = "# c\nsearch a b\nnameserver 10.0.0.1\n nameserver fd00::1 x\nnameserver nonsense\nnameserver 10.0.0.1\n"
    assert addresses_of(text) == (Address("10.0.0.1"), Address("fd00::1"))


async def test_batches_know_their_senders() -> None:
    """The address of a slot is the sender's, IPv4 and IPv6."""
    for host in ("127.0.0.1", "::1"):
        try:
            sock = bind_udp(host, 0)
        except OSError:
            pytest.skip("no IPv6 on loopback")
        with sock, socket.socket(sock.family, socket.SOCK_DGRAM) as sender:
            sender.bind((host, 0))
            sender.sendto(b"hello", sock.getsockname())
            batch = Batch(sock)
            await _until(lambda batch=batch: batch.receive() == 1)  # type: ignore[misc]
            assert batch.address(0) == sender.getsockname()
            assert batch.length(0) == 5
    assert unpack_address(b"\2\0\0\x35\x7f\0\0\1" + bytes(20)) == ("127.0.0.1", 53)


async def test_health_and_readiness_over_http() -> None:
    """A GET of the one path gets the code and text; anything else is refused."""
    sock = bind_tcp("127.0.0.1", 0)
    port = sock.getsockname()[1]
    server = await serve_status(sock, {"/ready": lambda: (503, "kubernetes")})

    async def get(request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        async with asyncio.timeout(DEADLINE):
            answer = await reader.read()
        writer.close()
        return answer

    ready = await get(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
    assert ready.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert ready.endswith(b"\r\n\r\nkubernetes")
    assert (await get(b"GET /other HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 404 ")
    assert (await get(b"POST /ready HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 405 ")
    assert await get(b"x" * 20000) == b""
    server.close()
