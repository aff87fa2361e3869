"""Deltas as frames of bytes: what goes through the pipe from the follower to the answering process. Pure.

Invariant: however the bytes are cut on the way, the deltas that come out are those that went in, in order.
"""

from __future__ import annotations

import msgspec

from fairlead.dns.records import Delta

_LENGTH = 4  # bytes that say how long a frame is

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Delta).decode


def frame(step: Delta) -> bytes:
    """A delta as it goes through the pipe."""
    body = _encode(step)
    return len(body).to_bytes(_LENGTH, "big") + body


class Frames:
    """The other end: bytes as they come → deltas."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        """Bytes from the pipe."""
        self._data += data

    def next(self) -> Delta | None:
        """The next complete delta."""
        data = self._data
        if len(data) < _LENGTH:
            return None
        end = _LENGTH + int.from_bytes(data[:_LENGTH], "big")
        if len(data) < end:
            return None
        step = _decode(bytes(data[_LENGTH:end]))
        del data[:end]
        return step
