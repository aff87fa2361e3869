"""One HTTP/1.1 connection over TLS, by hand: what a proper client would refuse to send can be sent.

Invariant: `ask` comes back within its deadline, with an answer or with Hung; nothing of an answer is interpreted but
its frame.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import NamedTuple

ENOUGH = 64 * 1024  # bytes of a stream's body that are read before it is left


class Hung(Exception):
    """No whole answer in time."""


class Answer(NamedTuple):
    """Code 0: the server closed the connection without a word, which is an answer to what is not HTTP."""

    code: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """Opened when first used, and again after it was closed."""

    def __init__(self, port: int, context: ssl.SSLContext, deadline: float) -> None:
        self._port, self._context, self._deadline = port, context, deadline
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes, *, stream: float = 0.0) -> Answer:
        """Send bytes, read one answer. Of a stream the head must come in time; its body is read for `stream` seconds.

        Raises Hung.
        """
        fresh = self._streams is None
        try:
            async with asyncio.timeout(self._deadline):
                answer = await self._ask(request, stream)
                if answer.code == 0 and not fresh:
                    answer = await self._ask(request, stream)  # a kept connection may have ended meanwhile
        except TimeoutError:
            await self.close()
            raise Hung from None
        return answer

    async def _ask(self, request: bytes, stream: float) -> Answer:
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._context)
            reader, writer = self._streams
            writer.write(request)
            await writer.drain()
            code, headers = await self._head(reader)
            body, whole = await self._body(reader, request, code, headers, stream)
        except (OSError, asyncio.IncompleteReadError, ssl.SSLError):
            await self.close()
            return Answer(0, {}, b"")
        if not whole or headers.get("connection", "").lower() != "keep-alive" or code == 101:
            await self.close()
        return Answer(code, headers, body)

    async def _head(self, reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
        code = 100
        lines: list[bytes] = []
        while code == 100:
            lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
            code = int(lines[0].split()[1])
        pairs = (line.decode("latin-1").partition(":") for line in lines[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        headers.setdefault("connection", "keep-alive" if lines[0].startswith(b"HTTP/1.1") else "close")
        return code, headers

    async def _body(
        self, reader: asyncio.StreamReader, request: bytes, code: int, headers: dict[str, str], stream: float
    ) -> tuple[bytes, bool]:
        if request.startswith(b"HEAD ") or code in (101, 204, 304):
            return b"", True
        if "content-length" in headers:
            return await reader.readexactly(int(headers["content-length"])), True
        body = bytearray()
        try:
            async with asyncio.timeout(stream or None):
                async for piece in self._pieces(reader, chunked="chunked" in headers.get("transfer-encoding", "")):
                    body += piece
                    if stream and len(body) > ENOUGH:
                        return bytes(body), False
        except TimeoutError:
            if not stream:
                raise
            return bytes(body), False
        return bytes(body), "transfer-encoding" in headers

    async def _pieces(self, reader: asyncio.StreamReader, *, chunked: bool) -> AsyncIterator[bytes]:
        while True:
            if not chunked:
                piece = await reader.read(ENOUGH)
                if not piece:
                    return
                yield piece
                continue
            size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
            piece = await reader.readexactly(size + 2)
            if size == 0:
                return
            yield piece[:-2]

    async def close(self) -> None:
        """Leave without a goodbye, as clients do."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].transport.abort()
