"""The one question of a grpc probe: grpc.health.v1.Health/Check, over HTTP/2 without TLS.

Sans-IO: `request` gives the bytes of a whole call, `Answer` reads what comes back. Just enough of HTTP/2 (RFC 9113),
HPACK (RFC 7541: literal fields without indexing, so no table is kept) and protobuf for a unary call whose answer is one
number. Invariant: what is not understood is an unhealthy answer, never an exception.
"""

from __future__ import annotations

import struct

import msgspec

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_PATH = "/grpc.health.v1.Health/Check"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _END_HEADERS, _ACK, _PADDED = 0x1, 0x4, 0x1, 0x8
_STREAM = 1
STATUSES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
SERVING = 1


def request(service: str, authority: str) -> bytes:
    """Everything a client sends to check `service` ("" is the whole server)."""
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", _PATH),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "kube-probe"),
    ]
    name = service.encode()
    message = b"\n" + _varint(len(name)) + name if name else b""
    body = b"\0" + struct.pack("!I", len(message)) + message
    head = b"".join(b"\0" + _text(key) + _text(value) for key, value in fields)
    return (
        PREFACE
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, _STREAM, head)
        + _frame(_DATA, _END_STREAM, _STREAM, body)
    )


class Answer(msgspec.Struct):
    """Feed it what the server sends, until `done`; `take` returns what must be sent back."""

    status: int | None = None
    """Of the HealthCheckResponse; None as long as there is none, or if the call failed."""
    done: bool = False
    _input: bytes = b""
    _body: bytes = b""

    def take(self, data: bytes) -> bytes:
        """Returns acknowledgements for the server."""
        self._input += data
        back = b""
        while len(self._input) >= 9 and not self.done:
            length = int.from_bytes(self._input[:3], "big")
            if len(self._input) < 9 + length:
                break
            kind, flags = self._input[3], self._input[4]
            stream = int.from_bytes(self._input[5:9], "big") & 0x7FFFFFFF
            payload, self._input = self._input[9 : 9 + length], self._input[9 + length :]
            if kind in (_SETTINGS, _PING) and not flags & _ACK:
                back += _frame(kind, _ACK, 0, payload if kind == _PING else b"")
            elif kind == _GOAWAY or (kind == _RST_STREAM and stream == _STREAM):
                self.done = True
            elif stream == _STREAM and kind in (_DATA, _HEADERS):
                if kind == _DATA:
                    self._body += payload[1 : len(payload) - payload[0]] if flags & _PADDED and payload else payload
                if flags & _END_STREAM:
                    self.done = True
                    self.status = _response(self._body)
        return back


def _response(body: bytes) -> int | None:
    """The status in a length-prefixed HealthCheckResponse; its default is UNKNOWN. None if there is no message."""
    if len(body) < 5 or body[0] or len(body) < 5 + int.from_bytes(body[1:5], "big"):
        return None
    message = body[5 : 5 + int.from_bytes(body[1:5], "big")]
    at, status = 0, 0
    while at < len(message):
        tag = message[at]
        if tag != 0x08:  # field 1, a varint: nothing else is in it
            return None
        status = shift = 0
        while True:
            at += 1
            if at >= len(message) or shift > 28:
                return None
            status |= (message[at] & 0x7F) << shift
            shift += 7
            if not message[at] & 0x80:
                break
        at += 1
    return status


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _text(text: str) -> bytes:
    """A string literal without Huffman code: its length as an integer with a prefix of 7 bits."""
    data = text.encode()
    if len(data) < 127:
        return bytes([len(data)]) + data
    return b"\x7f" + _varint(len(data) - 127) + data


def _varint(number: int) -> bytes:
    """Seven bits a byte, the least first: HPACK's continuation and protobuf's integers alike."""
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])
