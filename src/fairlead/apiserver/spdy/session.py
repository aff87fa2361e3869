"""The server's side of one SPDY connection: which streams are open, what may be sent, what must be answered. Sans-IO.

In: bytes received. Out: events for the bridge, and bytes to send. Invariant: nothing is sent on a stream that either
side has ended, and every frame that demands an answer (PING, a stream on a closed session) gets one.

Flow control: what arrives is acknowledged with WINDOW_UPDATE once half a window is consumed. What is sent is not held
to the peer's window, because the one library every Kubernetes client uses for SPDY sends no WINDOW_UPDATE and would
stall after 64 KiB; TCP's own back-pressure bounds it (as upstream does).
"""

from __future__ import annotations

import msgspec

from fairlead.apiserver.spdy import frames

ACKNOWLEDGE_AFTER = 32 * 1024  # half of the initial window of 64 KiB (draft 3.1 §2.6.8)
MAX_STREAMS = 64
MAX_DATA_FRAME = 32 * 1024


class Opened(msgspec.Struct, frozen=True):
    """The client opened a stream; answer with `accept` or `refuse`."""

    stream: int
    headers: frames.Headers


class Received(msgspec.Struct, frozen=True):
    """Bytes of a stream; `fin`: the client sends no more on it."""

    stream: int
    payload: bytes
    fin: bool


class Ended(msgspec.Struct, frozen=True):
    """The client reset the stream."""

    stream: int
    status: int


class GoneAway(msgspec.Struct, frozen=True):
    """The client opens no further streams."""


Event = Opened | Received | Ended | GoneAway


class ServerSession:
    """One connection. Feed it bytes; after every call, send what `take_output` gives."""

    def __init__(self, max_streams: int = MAX_STREAMS) -> None:
        self._max_streams = max_streams
        self._reader, self._writer = frames.FrameReader(), frames.FrameWriter()
        self._output: list[bytes] = []
        self._unacknowledged: dict[int, int] = {}  # streams the client may still send on
        self._sendable: set[int] = set()  # streams we may still send on
        self._last_stream = 0
        self._closed = False

    def take_output(self) -> bytes:
        """The bytes to send now; asking takes them."""
        output = b"".join(self._output)
        self._output.clear()
        return output

    def receive(self, data: bytes) -> list[Event]:
        """What the bytes mean. Raises frames.ProtocolError; then send the output (a GOAWAY) and close."""
        try:
            parsed = self._reader.feed(data)
        except frames.ProtocolError:
            self._put(frames.GoAway(self._last_stream, 1))
            self._closed = True
            raise
        events: list[Event] = []
        for frame in parsed:
            event = self._take(frame)
            if event is not None:
                events.append(event)
        return events

    def accept(self, stream: int) -> None:
        """Answer an opened stream: both sides may send on it."""
        self._sendable.add(stream)
        self._put(frames.SynReply(stream, {}))

    def refuse(self, stream: int) -> None:
        """Answer an opened stream with a reset."""
        self._unacknowledged.pop(stream, None)
        self._put(frames.Reset(stream, frames.REFUSED_STREAM))

    def send(self, stream: int, payload: bytes, *, fin: bool = False) -> None:
        """Bytes on an accepted stream. What goes to a stream that has ended is dropped."""
        if stream not in self._sendable:
            return
        for start in range(0, len(payload), MAX_DATA_FRAME):
            self._put(frames.Data(stream, payload[start : start + MAX_DATA_FRAME]))
        if fin:
            self._put(frames.Data(stream, b"", True))
            self._sendable.discard(stream)

    def close(self) -> None:
        """Say that no further streams are taken."""
        if not self._closed:
            self._closed = True
            self._put(frames.GoAway(self._last_stream))

    def _put(self, frame: frames.Frame) -> None:
        self._output.append(self._writer.encode(frame))

    def _take(self, frame: frames.Frame) -> Event | None:
        match frame:
            case frames.SynStream(stream, headers, fin):
                return self._open(stream, headers, fin)
            case frames.Data(stream, payload, fin):
                return self._data(stream, payload, fin)
            case frames.Reset(stream, status):
                self._unacknowledged.pop(stream, None)
                self._sendable.discard(stream)
                return Ended(stream, status)
            case frames.Ping(id) if id % 2:
                self._put(frame)
            case frames.GoAway():
                return GoneAway()
            case frames.MoreHeaders(stream, _, True):
                return self._data(stream, b"", True)
        return None

    def _open(self, stream: int, headers: frames.Headers, fin: bool) -> Event | None:
        if stream % 2 == 0 or stream <= self._last_stream:
            self._put(frames.Reset(stream, frames.PROTOCOL_ERROR))
            return None
        self._last_stream = stream
        if self._closed or len(self._unacknowledged) >= self._max_streams:
            self._put(frames.Reset(stream, frames.REFUSED_STREAM))
            return None
        if not fin:
            self._unacknowledged[stream] = 0
        return Opened(stream, headers)

    def _data(self, stream: int, payload: bytes, fin: bool) -> Event | None:
        if stream not in self._unacknowledged:
            if not fin:
                self._put(frames.Reset(stream, frames.INVALID_STREAM))
            return None
        if fin:
            del self._unacknowledged[stream]
        else:
            self._unacknowledged[stream] += len(payload)
            if self._unacknowledged[stream] >= ACKNOWLEDGE_AFTER:
                self._put(frames.WindowUpdate(stream, self._unacknowledged[stream]))
                self._unacknowledged[stream] = 0
        return Received(stream, payload, fin)
