"""One forwarded connection: a WebSocket joined to a TCP connection made inside the pod's network namespace.

Wire: subprotocol `portforward.fairlead`, one WebSocket per connection. A binary message is a piece of the connection's
bytes, an empty one the end of that direction. Invariant: the pod's port is reached before the upgrade is answered, so
that a refusal is a plain HTTP error; neither direction is read faster than the other side takes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import aiohttp
from aiohttp import web

from fairlead.linux import namespaces

PROTOCOL = "portforward.fairlead"
CONNECT_SECONDS = 10.0
_PIECE = 64 * 1024
_LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


async def connect(namespace: Path, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to a port of the pod's loopback, IPv4 first, then IPv6. Raises OSError saying how each ended."""
    said = []
    for family, host in _LOOPBACKS:
        name = "tcp4" if family == socket.AF_INET else "tcp6"
        try:
            with namespaces.entered(namespace):
                end = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as error:
            said.append(f"dial {name}: {error.strerror}")
            continue
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(end, (host, port))
            return await asyncio.open_connection(sock=end, limit=_PIECE)
        except (OSError, TimeoutError) as error:
            end.close()
            why = "i/o timeout" if isinstance(error, TimeoutError) else f"connect: {(error.strerror or '').lower()}"
            said.append(f"dial {name} {f'[{host}]' if ':' in host else host}:{port}: {why}")
        except BaseException:
            end.close()
            raise
    raise ConnectionRefusedError("; ".join(said))


async def join(websocket: web.WebSocketResponse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes both ways until both directions have ended, or either side is gone."""

    async def to_pod() -> None:
        async for message in websocket:
            if message.type is not aiohttp.WSMsgType.BINARY:
                continue
            if not message.data:
                writer.write_eof()
                continue
            writer.write(message.data)
            await writer.drain()

    async def from_pod() -> None:
        while piece := await reader.read(_PIECE):
            await websocket.send_bytes(piece)
        await websocket.send_bytes(b"")

    # The client closes the WebSocket when it has seen both ends, or has lost interest: that ends `to_pod`.
    upward, downward = asyncio.create_task(to_pod()), asyncio.create_task(from_pod())
    try:
        await asyncio.wait({upward, downward}, return_when=asyncio.FIRST_COMPLETED)
        if not upward.done() and downward.exception() is None:
            await upward
    finally:
        broken = downward.done() and not downward.cancelled() and downward.exception() is not None
        for task in (upward, downward):
            task.cancel()
        await asyncio.gather(upward, downward, return_exceptions=True)
        writer.close()
        with contextlib.suppress(ConnectionError, RuntimeError):
            await websocket.close(code=1011 if broken else 1000)
