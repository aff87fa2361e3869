"""What carries SPDY's bytes: a connection taken over from the HTTP server, or the messages of a WebSocket.

Between `forward` and the client. Invariant: after `take_over` the HTTP server knows the connection only to count it;
reading waits for the client, writing for the client to take what was written.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import aiohttp
from aiohttp import web

_PIECE = 64 * 1024


class Carrier(Protocol):
    """A way for bytes, in order, both ways."""

    async def read(self) -> bytes:
        """What came; empty when no more will."""
        ...

    async def write(self, data: bytes) -> None:
        """Send, and wait while the other side takes nothing. Raises ConnectionError when it is gone."""
        ...

    async def close(self) -> None:
        """Send what is left, and end it."""
        ...


class Tunnel:
    """A WebSocket's binary messages, end to end."""

    def __init__(self, websocket: web.WebSocketResponse) -> None:
        self._websocket = websocket

    async def read(self) -> bytes:
        """See Carrier."""
        while True:
            message = await self._websocket.receive()
            if message.type is aiohttp.WSMsgType.BINARY and message.data:
                data: bytes = message.data
                return data
            if message.type not in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
                return b""

    async def write(self, data: bytes) -> None:
        """See Carrier."""
        for start in range(0, len(data), _PIECE):
            await self._websocket.send_bytes(data[start : start + _PIECE])

    async def close(self) -> None:
        """See Carrier."""
        await self._websocket.close()


class Taken:
    """A connection that no longer is HTTP."""

    def __init__(self, transport: asyncio.Transport, http: Any) -> None:
        loop = asyncio.get_running_loop()
        self._reader = asyncio.StreamReader(limit=_PIECE, loop=loop)
        protocol = _Listening(self._reader, http, loop)
        self._writer = asyncio.StreamWriter(transport, protocol, self._reader, loop)
        self._transport = transport
        transport.set_protocol(protocol)
        self._reader.set_transport(transport)

    async def read(self) -> bytes:
        """See Carrier."""
        try:
            return await self._reader.read(_PIECE)
        except ConnectionError:
            return b""

    async def write(self, data: bytes) -> None:
        """See Carrier."""
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        """See Carrier."""
        self._writer.close()

    def abort(self) -> None:
        """Give up at once."""
        self._transport.abort()


class _Listening(asyncio.StreamReaderProtocol):
    """Tells the HTTP server when the connection ends."""

    def __init__(self, reader: asyncio.StreamReader, http: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self._http = http

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc if isinstance(exc, Exception) else None)
        self._http.connection_lost(exc)


def take_over(request: web.BaseRequest, protocol: str) -> Taken | None:
    """Answer 101 for SPDY/3.1 and take the connection; None if the client is gone already."""
    transport = request.transport
    if transport is None:
        return None
    transport.write(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
        b"X-Stream-Protocol-Version: " + protocol.encode() + b"\r\n\r\n"
    )
    return Taken(transport, request.protocol)
