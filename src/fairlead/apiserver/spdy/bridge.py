"""A kubectl that speaks SPDY/3.1, joined to the kubelet's WebSocket.

The connection is taken over from the HTTP server after the 101: its bytes go to a `ServerSession`, whose streams
(named by their `streamType` header) become the WebSocket's channels. Invariant: bytes of one stream keep their order;
when either side can't take more, the other is not read; the error stream carries the Status and is ended last.

Upgrade and stream headers: k8s.io/apimachinery `httpstream/spdy`; stream roles: k8s.io/kubelet `remotecommand` v4.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import aiohttp
from aiohttp import web

from fairlead.api import errors
from fairlead.apiserver.call import Call
from fairlead.apiserver.channels import CLOSE, ERROR, LOST, RESIZE, STDERR, STDIN, STDOUT, V4
from fairlead.apiserver.spdy import frames, session
from fairlead.apiserver.streams import NothingToSend, Streams

STREAMS_SECONDS = 30.0  # the client must have opened its streams by then (upstream's limit)
LINGER_SECONDS = 5.0  # how long a client may take to close after the end
_CHANNELS = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "error": ERROR, "resize": RESIZE}
_WAITING = 256 * 1024  # bytes from the client not yet sent on, before its connection is no longer read


async def serve(
    call: Call, kubelet: aiohttp.ClientWebSocketResponse, streams: Streams, query: list[tuple[str, str]]
) -> web.StreamResponse:
    """Upgrade the connection and carry the streams until the command ends. Raises 403 for an unknown protocol."""
    request = call.request
    offered = [
        word.strip() for line in request.headers.getall("X-Stream-Protocol-Version", []) for word in line.split(",")
    ]
    if V4 not in offered:
        raise errors.access_forbidden(
            f"unable to upgrade: unable to negotiate protocol: client supports {offered}, server accepts [{V4}]"
        )
    transport = request.transport
    if transport is None:
        return NothingToSend()
    flags = {key for key, _ in query}
    expected = {"error"} | {
        name for key, name in (("input", "stdin"), ("output", "stdout"), ("error", "stderr")) if key in flags
    }
    if "tty" in flags:
        expected.add("resize")
    connection = _Connection(transport, request.protocol, expected)
    transport.write(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
        b"X-Stream-Protocol-Version: " + V4.encode() + b"\r\n\r\n"
    )
    transport.set_protocol(connection)
    try:
        with streams.open(request, connection.abort):
            await _carry(connection, kubelet)
    finally:
        await connection.finish()
    return NothingToSend()


async def _carry(connection: _Connection, kubelet: aiohttp.ClientWebSocketResponse) -> None:
    try:
        async with asyncio.timeout(STREAMS_SECONDS):
            await connection.ready.wait()
    except TimeoutError:
        connection.abort()
        return
    upward = asyncio.create_task(_upward(connection, kubelet))
    downward = asyncio.create_task(_downward(connection, kubelet))
    lost = asyncio.create_task(connection.lost.wait())
    try:
        await asyncio.wait((downward, lost), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (upward, downward, lost):
            task.cancel()
        await asyncio.gather(upward, downward, lost, return_exceptions=True)


async def _upward(connection: _Connection, kubelet: aiohttp.ClientWebSocketResponse) -> None:
    while True:
        message = await connection.next_message()
        try:
            await kubelet.send_bytes(message)
        except ConnectionError:
            return


async def _downward(connection: _Connection, kubelet: aiohttp.ClientWebSocketResponse) -> None:
    status_seen = False
    async for message in kubelet:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            continue
        channel, payload = message.data[0], message.data[1:]
        status_seen = status_seen or channel == ERROR
        if channel == CLOSE:
            if payload and payload[0] in (STDOUT, STDERR):
                connection.send(payload[0], b"", fin=True)
        else:
            connection.send(channel, payload)
        await connection.writable.wait()
    if not status_seen:
        connection.send(ERROR, LOST)


class _Connection(asyncio.Protocol):
    """The client's side, after the upgrade."""

    def __init__(self, transport: asyncio.Transport, http: Any, expected: set[str]) -> None:
        self._transport, self._http = transport, http
        self._session = session.ServerSession()
        self._expected = expected
        self._streams: dict[int, int] = {}  # channel → stream
        self._channels: dict[int, int] = {}  # stream → channel
        self._messages: deque[bytes] = deque()
        self._waiting = 0  # bytes in _messages
        self._more = asyncio.Event()
        self._paused = False
        self.ready, self.lost, self.writable = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.writable.set()

    # ---- the transport's calls
    def data_received(self, data: bytes) -> None:
        try:
            events = self._session.receive(data)
        except frames.ProtocolError:
            self._flush()
            self._transport.close()
            return
        for event in events:
            self._take(event)
        self._flush()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set()
        self.ready.set()
        self.writable.set()
        self._http.connection_lost(exc)

    # ---- the bridge's calls
    async def next_message(self) -> bytes:
        """The next message for the kubelet."""
        while not self._messages:
            self._more.clear()
            await self._more.wait()
        message = self._messages.popleft()
        self._waiting -= len(message)
        if self._paused and self._waiting < _WAITING // 2:
            self._paused = False
            self._transport.resume_reading()
        return message

    def send(self, channel: int, payload: bytes, *, fin: bool = False) -> None:
        """Bytes for the client's stream of that channel; dropped if it has none."""
        stream = self._streams.get(channel)
        if stream is not None:
            self._session.send(stream, payload, fin=fin)
            self._flush()

    def abort(self) -> None:
        """Give up at once."""
        self._transport.abort()

    async def finish(self) -> None:
        """End every stream, the error stream last, and let the client close."""
        for channel in (STDOUT, STDERR, STDIN, RESIZE, ERROR):
            self.send(channel, b"", fin=True)
        self._session.close()
        self._flush()
        if not self.lost.is_set():
            try:
                async with asyncio.timeout(LINGER_SECONDS):
                    await self.lost.wait()
            except TimeoutError:
                self._transport.abort()

    # ---- inside
    def _flush(self) -> None:
        output = self._session.take_output()
        if output and not self._transport.is_closing():
            self._transport.write(output)

    def _take(self, event: session.Event) -> None:
        match event:
            case session.Opened(stream, headers):
                kind = headers.get("streamtype", "")
                channel = _CHANNELS.get(kind)
                if channel is None or channel in self._streams:
                    self._session.refuse(stream)
                    return
                self._session.accept(stream)
                self._streams[channel], self._channels[stream] = stream, channel
                self._expected.discard(kind)
                if not self._expected:
                    self.ready.set()
            case session.Received(stream, payload, fin):
                channel = self._channels.get(stream)
                if channel not in (STDIN, RESIZE):
                    return
                if payload:
                    self._put(bytes((channel,)) + payload)
                if fin and channel == STDIN:
                    self._put(bytes((CLOSE, STDIN)))
            case session.Ended(stream):
                if self._channels.get(stream) == STDIN:
                    self._put(bytes((CLOSE, STDIN)))

    def _put(self, message: bytes) -> None:
        self._messages.append(message)
        self._waiting += len(message)
        self._more.set()
        if self._waiting > _WAITING and not self._paused:
            self._paused = True
            self._transport.pause_reading()
