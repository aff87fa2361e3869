"""DNS over HTTPS: RFC 8484 over HTTP/1.1.

Stands between a TLS listener and the server. Invariants: a request is bounded in every part before it is taken; a
connection stays open for more, as long as its client is not silent for too long.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, urlsplit

from fairlead.dns.reply import Transfer, packed_client

PATH = "/dns-query"
TYPE = "application/dns-message"
_MAX_BODY = 65535
_MAX_HEADERS = 64
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 413: "Content Too Large",
            415: "Unsupported Media Type", 500: "Internal Server Error"}  # fmt: skip

Answer = Callable[[bytes, bytes, int, str], Awaitable[bytes | None]]


class BadRequest(Exception):
    """The request cannot be answered; `code` says why."""

    def __init__(self, code: int) -> None:
        super().__init__(_REASONS[code])
        self.code = code


async def talk(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    answer: Answer,
    idle: float,
    count: Callable[[int], None],
) -> None:
    """Answer the requests of one connection. `count` is told every response's code."""
    peer = writer.get_extra_info("peername") or ("0.0.0.0", 0)
    client, port = packed_client(peer), peer[1]
    more = True
    while more:
        async with asyncio.timeout(idle):
            line = await reader.readline()
            if not line.strip():
                return
            headers = await _headers(reader)
            more = headers.get("connection", "").lower() != "close" and line.rstrip().endswith(b"HTTP/1.1")
            body, code = b"", 200
            try:
                packet = await _query(line, headers, reader)
                found = await answer(packet, client, port, "https")
                if found is None:
                    raise BadRequest(400)
                body = found
            except BadRequest as error:
                code, more = error.code, False
            except Transfer:
                code = 500  # RFC 8484 §4.2.1 leaves no room for it
            count(code)
            writer.write(_response(code, body, close=not more))
            await writer.drain()


async def _headers(reader: asyncio.StreamReader) -> dict[str, str]:
    found: dict[str, str] = {}
    for _ in range(_MAX_HEADERS):
        line = (await reader.readline()).decode("latin-1").strip()
        if not line:
            return found
        name, _, value = line.partition(":")
        found[name.strip().lower()] = value.strip()
    raise asyncio.IncompleteReadError(b"", None)


async def _query(line: bytes, headers: dict[str, str], reader: asyncio.StreamReader) -> bytes:
    """The DNS message of a request. Raises BadRequest."""
    words = line.decode("latin-1").split()
    if len(words) != 3:
        raise BadRequest(400)
    method, target, _ = words
    url = urlsplit(target)
    if url.path != PATH:
        raise BadRequest(404)
    if method == "GET":
        values = parse_qs(url.query).get("dns", [])
        if len(values) != 1:
            raise BadRequest(400)
        try:
            return base64.b64decode(values[0] + "=" * (-len(values[0]) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise BadRequest(400) from None
    if method != "POST":
        raise BadRequest(405)
    if headers.get("content-type", "").partition(";")[0].strip() != TYPE:
        raise BadRequest(415)
    length = headers.get("content-length", "")
    if not length.isdigit():
        raise BadRequest(400)
    if int(length) > _MAX_BODY:
        raise BadRequest(413)
    return await reader.readexactly(int(length))


def _response(code: int, body: bytes, *, close: bool) -> bytes:
    head = f"HTTP/1.1 {code} {_REASONS[code]}\r\nContent-Length: {len(body)}\r\n"
    if code == 200:
        head += f"Content-Type: {TYPE}\r\nCache-Control: max-age={_lowest_ttl(body)}\r\n"
    if close:
        head += "Connection: close\r\n"
    return head.encode() + b"\r\n" + body


def _lowest_ttl(packet: bytes) -> int:
    """How long a cache may keep it (RFC 8484 §5.1)."""
    from fairlead.dns.message import OPT, FormatError, parse_message

    try:
        message = parse_message(packet)
    except FormatError:
        return 0
    records = [record for record in (*message.answers, *message.authority) if record.type != OPT]
    return min((record.ttl for record in records), default=0)
