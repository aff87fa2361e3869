"""Bytes and packets carried from one socket to another, on the loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from fairlead.cluster.carrying import TCPPort, UDPPort
from fairlead.cluster.ports import listen
from fairlead.cluster.publish import Listener, Way

DEADLINE = 30.0
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def carried(serve: Serve, *before: Way) -> AsyncIterator[int]:
    """The port that leads to a server, after the ways in `before`."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    end = server.sockets[0].getsockname()[1]
    one = listen(Listener("127.0.0.1", 0, "tcp"))
    port = TCPPort(one, lambda: (*before, Way("127.0.0.1", end, False)), list)
    await port.start()
    try:
        async with asyncio.timeout(DEADLINE):
            yield one.getsockname()[1]
    finally:
        await port.close()
        server.close()


async def test_an_answer_after_the_end_of_the_request() -> None:
    """The client says that it is done; the server answers then, much, and all of it arrives."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.read()  # until the end
        writer.write(asked * 100_000)
        writer.close()

    async with carried(serve) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"0123456789")
        writer.write_eof()
        assert await reader.read() == b"0123456789" * 100_000
        writer.close()


async def test_many_at_once() -> None:
    """Each has its own answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    async def ask(port: int, number: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"%d\n" % number)
        answer = await reader.read()
        writer.close()
        return answer

    async with carried(serve) as port:
        answers = await asyncio.gather(*(ask(port, number) for number in range(50)))
    assert answers == [b"%d\n" % number for number in range(50)]


async def test_a_server_that_resets() -> None:
    """The client's connection is ended, too."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with carried(serve) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()


async def test_the_next_way_when_one_does_not_answer() -> None:
    """What can't be reached is passed over."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"here")
        writer.close()

    unreachable = Way("255.255.255.255", 9, False)
    async with carried(serve, unreachable) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b"here"
        writer.close()


async def test_no_way() -> None:
    """Where there is no Service, a connection is ended at once."""
    one = listen(Listener("127.0.0.1", 0, "tcp"))
    port = TCPPort(one, tuple, list)
    await port.start()
    try:
        async with asyncio.timeout(DEADLINE):
            reader, writer = await asyncio.open_connection(*one.getsockname())
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
            writer.close()
    finally:
        await port.close()


class Echo(asyncio.DatagramProtocol):
    """Says from where a packet came."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data + b" from %d" % addr[1], addr)  # type: ignore[attr-defined]


async def test_udp() -> None:
    """Each client has its own socket towards the server, the same for all its packets; answers come back to it."""
    loop = asyncio.get_running_loop()
    server, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    end = server.get_extra_info("sockname")[1]
    one = listen(Listener("127.0.0.1", 0, "udp"))
    port = UDPPort(one, lambda: (Way("127.0.0.1", end, False),), list)
    await port.start()
    clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    try:
        answers = []
        async with asyncio.timeout(DEADLINE):
            for client in [*clients, clients[0]]:
                client.setblocking(False)
                await loop.sock_sendto(client, b"hello", one.getsockname())
                answers.append(await loop.sock_recv(client, 100))
        assert all(answer.startswith(b"hello from ") for answer in answers)
        assert answers[0] == answers[2] != answers[1]
    finally:
        for client in clients:
            client.close()
        await port.close()
        server.close()
