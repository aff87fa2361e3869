"""Carries TCP connections and UDP packets from a socket of the machine to where they are wanted, a node's network too.

Used by the publisher. It knows nothing of what it carries. Invariant: what one side ends, the other is told, and not
more: after the end of a request the answer still comes through.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import cast

from fairlead.cluster.publish import Way
from fairlead.linux import namespaces

log = logging.getLogger("fairlead.publisher")

Ways = Callable[[], tuple[Way, ...]]
Inside = Callable[[], list[tuple[Path, str]]]
"""The nodes through which to go: network namespace and address of each."""

_CHUNK = 1 << 18
_PATIENCE = 5.0  # seconds for one way to answer
_IDLE = 60.0  # seconds after which a UDP client is forgotten


def open_socket(way: Way, node: tuple[Path, str] | None, kind: socket.SocketKind) -> tuple[socket.socket, str]:
    """A socket from which the way's address is reached, and that address."""
    address = way.address or (node[1] if node else "")
    family = socket.AF_INET if ipaddress.ip_address(address).version == 4 else socket.AF_INET6
    inside = namespaces.entered(node[0]) if way.inside and node else contextlib.nullcontext()
    with inside:
        made = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    return made, address


async def connect(ways: tuple[Way, ...], inside: Inside, kind: socket.SocketKind) -> socket.socket:
    """A connected socket, by the first way that answers. Raises OSError with the last failure."""
    failure = OSError(errno.EHOSTUNREACH, "no such Service, or no such port")
    for way in ways:
        for node in inside() if way.inside else [None]:
            try:
                made, address = open_socket(way, node, kind)
                try:
                    async with asyncio.timeout(_PATIENCE):
                        await asyncio.get_running_loop().sock_connect(made, (address, way.port))
                except BaseException:
                    made.close()
                    raise
                return made
            except OSError as error:  # a timeout is one, too
                failure = error
                if isinstance(error, ConnectionRefusedError):
                    raise  # by the Service itself: no way is better
    raise failure


class TCPPort:
    """Accepts connections at a listening socket, and carries them, until `close`."""

    def __init__(self, listener: socket.socket, ways: Ways, inside: Inside) -> None:
        self._listener, self._ways, self._inside = listener, ways, inside
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to accept."""
        self._server = await asyncio.start_server(self._accepted, sock=self._listener, limit=_CHUNK)

    async def close(self) -> None:
        """End all connections and accept no more."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far = await connect(self._ways(), self._inside, socket.SOCK_STREAM)
            far_reader, far_writer = await asyncio.open_connection(sock=far, limit=_CHUNK)
        except OSError as error:
            log.info("a connection to %s leads nowhere: %s", self._listener.getsockname()[:2], error)
            writer.transport.abort()
            return
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_carry(reader, far_writer))
                both.create_task(_carry(far_reader, writer))
        except* OSError:
            writer.transport.abort()
            far_writer.transport.abort()
        finally:
            writer.close()
            far_writer.close()


async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(_CHUNK):
        target.write(data)
        await target.drain()
    target.write_eof()


class UDPPort(asyncio.DatagramProtocol):
    """Carries each client's packets by a socket of its own, until nothing came either way for a minute, or `close`."""

    def __init__(self, listener: socket.socket, ways: Ways, inside: Inside) -> None:
        self._listener, self._ways, self._inside = listener, ways, inside
        self._transport: asyncio.DatagramTransport | None = None
        self._clients: dict[tuple[str, int], _Client] = {}

    async def start(self) -> None:
        """Begin to listen."""
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, sock=self._listener)

    async def close(self) -> None:
        """Listen no more."""
        for client in list(self._clients.values()):
            client.end()
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        client = self._clients.get(addr)
        if client is None:
            client = self._clients[addr] = _Client(lambda back: self._answer(back, addr), lambda: self._forget(addr))
            client.begin(self._ways(), self._inside)
        client.send(data)

    def _answer(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None:
            self._transport.sendto(data, addr)

    def _forget(self, addr: tuple[str, int]) -> None:
        self._clients.pop(addr, None)


class _Client(asyncio.DatagramProtocol):
    """One client of a UDP port."""

    _MOST_WAITING = 64  # packets that wait until there is a way; more are lost, as UDP may lose them

    def __init__(self, answer: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        self._answer, self._ended = answer, ended
        self._transport: asyncio.DatagramTransport | None = None
        self._waiting: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self, ways: tuple[Way, ...], inside: Inside) -> None:
        """Find the way."""
        self._task = asyncio.ensure_future(self._connect(ways, inside))

    async def _connect(self, ways: tuple[Way, ...], inside: Inside) -> None:
        try:
            far = await connect(ways, inside, socket.SOCK_DGRAM)
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=far)
        except OSError as error:
            log.info("a UDP packet leads nowhere: %s", error)
            self.end()

    def send(self, data: bytes) -> None:
        """A packet of the client."""
        self._alive()
        if self._transport is not None:
            self._transport.sendto(data)
        elif len(self._waiting) < self._MOST_WAITING:
            self._waiting.append(data)

    def end(self) -> None:
        """Forget the client."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        if self._transport is not None:
            self._transport.close()
        self._ended()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # uvloop's says so of itself, but is none
        for data in self._waiting:
            self._transport.sendto(data)
        self._waiting.clear()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._alive()
        self._answer(data)

    def error_received(self, exc: Exception) -> None:
        log.debug("a UDP client's socket: %s", exc)  # nobody listens there now: as over a network, the packet is lost

    def _alive(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_IDLE, self.end)
