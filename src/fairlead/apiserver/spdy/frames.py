"""SPDY/3 frames: bytes to values and back, with the shared header compression. Sans-IO.

Source: SPDY Protocol, draft 3.1 (§2.2 frames, §2.6 control frames, §2.6.10 name/value blocks and their dictionary).
Invariant: `parse(encode(frame)) == frame` for every frame, in the order written (compression has state). Data is handed
out as it arrives, so no data frame is ever held whole; what a control frame may cost is bounded.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

import msgspec

VERSION: Final = 3
SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FLAG_FIN: Final = 0x01
MAX_CONTROL_FRAME: Final = 64 * 1024
MAX_HEADER_BLOCK: Final = 64 * 1024
_STREAM_ID_MASK: Final = 0x7FFFFFFF

PROTOCOL_ERROR, INVALID_STREAM, REFUSED_STREAM, CANCEL, INTERNAL_ERROR = 1, 2, 3, 5, 6

_DICTIONARY_NAMES = (
    "options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|accept-ranges|age|"
    "allow|authorization|cache-control|connection|content-base|content-encoding|content-language|content-length|"
    "content-location|content-md5|content-range|content-type|date|etag|expect|expires|from|host|if-match|"
    "if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|location|max-forwards|pragma|"
    "proxy-authenticate|proxy-authorization|range|referer|retry-after|server|te|trailer|transfer-encoding|"
    "upgrade|user-agent|vary|via|warning|www-authenticate|method|get|status|200 OK|version|HTTP/1.1|url|public|"
    "set-cookie|keep-alive|origin"
)
_DICTIONARY_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY: Final = (
    b"".join(struct.pack(">I", len(word)) + word.encode() for word in _DICTIONARY_NAMES.split("|"))
    + _DICTIONARY_TAIL.encode()
)

Headers = dict[str, str]


class ProtocolError(Exception):
    """The peer's bytes are not SPDY/3, or pass a limit. The connection can't be used any further."""


class SynStream(msgspec.Struct, frozen=True):
    """Opens a stream. Names are lower case; several values of one name are joined by NUL."""

    stream: int
    headers: Headers
    fin: bool = False
    associated: int = 0
    priority: int = 0


class SynReply(msgspec.Struct, frozen=True):
    """Accepts a stream."""

    stream: int
    headers: Headers
    fin: bool = False


class MoreHeaders(msgspec.Struct, frozen=True):
    """Further headers of an open stream (the HEADERS frame)."""

    stream: int
    headers: Headers
    fin: bool = False


class Reset(msgspec.Struct, frozen=True):
    """Ends a stream in both directions at once."""

    stream: int
    status: int


class Settings(msgspec.Struct, frozen=True):
    """(flags, id, value) triples."""

    values: tuple[tuple[int, int, int], ...]


class Ping(msgspec.Struct, frozen=True):
    """To be answered with the same id by whoever did not begin it (odd: the client's, even: the server's)."""

    id: int


class GoAway(msgspec.Struct, frozen=True):
    """No further streams."""

    last_stream: int
    status: int = 0


class WindowUpdate(msgspec.Struct, frozen=True):
    """The sender of this frame has consumed `delta` bytes of the stream."""

    stream: int
    delta: int


class Data(msgspec.Struct, frozen=True):
    """Bytes of a stream. As parsed it may be a part of the frame sent; `fin` then is on the last part."""

    stream: int
    payload: bytes
    fin: bool = False


Frame = SynStream | SynReply | MoreHeaders | Reset | Settings | Ping | GoAway | WindowUpdate | Data


class FrameWriter:
    """Encodes frames for one direction of one connection."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(9, zlib.DEFLATED, 15, 8, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)

    def encode(self, frame: Frame) -> bytes:
        """The frame's bytes. Must be sent in the order encoded."""
        match frame:
            case Data(stream, payload, fin):
                return struct.pack(">II", stream, (FLAG_FIN if fin else 0) << 24 | len(payload)) + payload
            case SynStream(stream, headers, fin, associated, priority):
                body = struct.pack(">IIBB", stream, associated, priority << 5, 0) + self._block(headers)
                return _control(SYN_STREAM, body, fin)
            case SynReply(stream, headers, fin):
                return _control(SYN_REPLY, struct.pack(">I", stream) + self._block(headers), fin)
            case MoreHeaders(stream, headers, fin):
                return _control(HEADERS, struct.pack(">I", stream) + self._block(headers), fin)
            case Reset(stream, status):
                return _control(RST_STREAM, struct.pack(">II", stream, status))
            case Settings(values):
                pairs = b"".join(struct.pack(">II", flags << 24 | key, value) for flags, key, value in values)
                return _control(SETTINGS, struct.pack(">I", len(values)) + pairs)
            case Ping(id):
                return _control(PING, struct.pack(">I", id))
            case GoAway(last_stream, status):
                return _control(GOAWAY, struct.pack(">II", last_stream, status))
            case WindowUpdate(stream, delta):
                return _control(WINDOW_UPDATE, struct.pack(">II", stream, delta))

    def _block(self, headers: Headers) -> bytes:
        plain = struct.pack(">I", len(headers))
        for name, value in headers.items():
            for text in (name.encode(), value.encode()):
                plain += struct.pack(">I", len(text)) + text
        return self._deflate.compress(plain) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def _control(kind: int, body: bytes, fin: bool = False) -> bytes:
    return struct.pack(">HHI", 0x8000 | VERSION, kind, (FLAG_FIN if fin else 0) << 24 | len(body)) + body


class FrameReader:
    """Parses the frames of one direction of one connection."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(15, DICTIONARY)
        self._buffer = bytearray()
        self._stream = 0  # of the data frame being read
        self._remaining = 0  # bytes of it still to come
        self._fin = False

    def feed(self, data: bytes) -> list[Frame]:
        """What has become complete with `data`. Raises ProtocolError; nothing may be fed after that."""
        self._buffer += data
        frames: list[Frame] = []
        while self._buffer:
            if self._remaining:
                part = bytes(self._buffer[: self._remaining])
                del self._buffer[: len(part)]
                self._remaining -= len(part)
                frames.append(Data(self._stream, part, self._fin and not self._remaining))
                continue
            if len(self._buffer) < 8:
                break
            first, second = struct.unpack_from(">II", self._buffer)
            flags, length = second >> 24, second & 0xFFFFFF
            if not first & 0x80000000:
                del self._buffer[:8]
                self._stream, self._remaining, self._fin = first, length, bool(flags & FLAG_FIN)
                if not length:
                    frames.append(Data(first, b"", self._fin))
                continue
            if (first >> 16) & 0x7FFF != VERSION:
                raise ProtocolError(f"SPDY version {(first >> 16) & 0x7FFF}, not {VERSION}")
            if length > MAX_CONTROL_FRAME:
                raise ProtocolError(f"a control frame of {length} bytes; at most {MAX_CONTROL_FRAME} are taken")
            if len(self._buffer) < 8 + length:
                break
            body = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            frame = self._parse_control(first & 0xFFFF, flags, body)
            if frame is not None:
                frames.append(frame)
        return frames

    def _parse_control(self, kind: int, flags: int, body: bytes) -> Frame | None:
        fin = bool(flags & FLAG_FIN)
        try:
            if kind == SYN_STREAM:
                stream, associated, priority, _slot = struct.unpack_from(">IIBB", body)
                headers = self._headers(body[10:])
                return SynStream(stream & _STREAM_ID_MASK, headers, fin, associated & _STREAM_ID_MASK, priority >> 5)
            if kind in (SYN_REPLY, HEADERS):
                (stream,) = struct.unpack_from(">I", body)
                build = SynReply if kind == SYN_REPLY else MoreHeaders
                return build(stream & _STREAM_ID_MASK, self._headers(body[4:]), fin)
            if kind == SETTINGS:
                (count,) = struct.unpack_from(">I", body)
                pairs = [struct.unpack_from(">II", body, 4 + 8 * i) for i in range(min(count, len(body) // 8 + 1))]
                return Settings(tuple((first >> 24, first & 0xFFFFFF, value) for first, value in pairs))
            if kind == PING:
                return Ping(struct.unpack(">I", body)[0])
            if kind in (RST_STREAM, GOAWAY, WINDOW_UPDATE):
                first, second = struct.unpack(">II", body)
                first &= _STREAM_ID_MASK
                if kind == RST_STREAM:
                    return Reset(first, second)
                return GoAway(first, second) if kind == GOAWAY else WindowUpdate(first, second & _STREAM_ID_MASK)
        except struct.error:
            raise ProtocolError(f"a control frame of type {kind} is cut short") from None
        return None  # draft 3.1 §2.2.1: unknown control frames are ignored

    def _headers(self, compressed: bytes) -> Headers:
        try:
            plain = self._inflate.decompress(compressed, MAX_HEADER_BLOCK)
        except zlib.error as error:
            raise ProtocolError(f"a header block does not decompress: {error}") from None
        if self._inflate.unconsumed_tail:
            raise ProtocolError(f"a header block passes {MAX_HEADER_BLOCK} bytes")
        (count,) = struct.unpack_from(">I", plain)
        headers: Headers = {}
        offset = 4
        texts: list[str] = []
        for _ in range(2 * min(count, len(plain))):
            (length,) = struct.unpack_from(">I", plain, offset)
            text = plain[offset + 4 : offset + 4 + length]
            if len(text) != length:
                raise ProtocolError("a header block is cut short")
            texts.append(text.decode("utf-8", "replace"))
            offset += 4 + length
        for name, value in zip(texts[::2], texts[1::2], strict=True):
            headers[name] = value
        return headers
