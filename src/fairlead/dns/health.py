"""`/health`, `/ready` and `/metrics` over HTTP, as CoreDNS's plugins have them.

Stands beside the server. Invariant: a request gets one short answer and is closed; nothing here can hold the loop up.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping

_PATIENCE = 2.0  # s for a request line
_REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}

Status = Callable[[], tuple[int, str]]


async def serve_status(sock: socket.socket, routes: Mapping[str, Status]) -> asyncio.Server:
    """Answer GET of the paths on a listening socket with what their functions return: code and text."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                line = await reader.readline()
                while (await reader.readline()).strip():
                    pass  # headers
            method, _, rest = line.decode("latin-1").partition(" ")
            target = rest.split(" ")[0].partition("?")[0]
            status = routes.get(target.rstrip("/"))
            if status is None:
                code, text = 404, "404 page not found"
            elif method not in {"GET", "HEAD"}:
                code, text = 405, "method not allowed"
            else:
                code, text = status()
            body = text.encode()
            head = f"HTTP/1.1 {code} {_REASONS[code]}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
            head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + (b"" if method == "HEAD" else body))
            await writer.drain()
        except (OSError, TimeoutError, ValueError):
            pass  # not a request, or nobody waits for the answer
        finally:
            writer.close()

    return await asyncio.start_server(client, sock=sock, limit=8192)
