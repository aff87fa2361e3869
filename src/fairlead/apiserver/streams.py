"""The open streams (watches, logs, exec): who must be woken when a client leaves or the server stops.

Between aiohttp's connections and the handlers of long requests. Invariant: a stream is known here from before its
first byte until its handler is done, and its `end` is called at most once, on the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError


class Streams:
    """Streams by connection (HTTP/1.1: at most one request at a time on each)."""

    def __init__(self) -> None:
        self._ends: dict[Any, Callable[[], None]] = {}
        self._stopping = False

    def __len__(self) -> int:
        return len(self._ends)

    @contextmanager
    def open(self, request: web.BaseRequest, end: Callable[[], None]) -> Iterator[None]:
        """Have `end` called when the client of `request` is gone, or the server stops, while the block runs."""
        connection = request.protocol
        if self._stopping or request.transport is None:
            end()
        else:
            self._ends[connection] = end
        try:
            yield
        finally:
            self._ends.pop(connection, None)

    def lost(self, connection: Any) -> None:
        """The client is gone."""
        end = self._ends.pop(connection, None)
        if end is not None:
            end()

    def stop(self) -> None:
        """End all of them, now and as they come."""
        self._stopping = True
        for connection in list(self._ends):
            self.lost(connection)


class NothingToSend(web.StreamResponse):
    """The answer to a request whose connection is lost, or no longer is HTTP: nothing is written, it is not reused."""

    def __init__(self) -> None:
        super().__init__()
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing."""


class _Mishaps(logging.Filter):
    """Of what aiohttp logs: nothing about clients who do not speak HTTP (they were told), else what, not with which
    values."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether, and how, to log it."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            return False
        record.exc_info = None
        if error is not None:
            record.msg, record.args = f"{record.getMessage()}: {type(error).__name__}", ()
        return True


_log = logging.getLogger("fairlead.apiserver.http")
_log.addFilter(_Mishaps())


class Listener(web.Server):
    """aiohttp's low-level server, telling `Streams` about lost connections, and ending those that ask for nothing."""

    def __init__(self, handler: Any, streams: Streams, *, first_request_seconds: float, **options: Any) -> None:
        super().__init__(self._first(handler), logger=_log, **options)
        self._streams, self._patience = streams, first_request_seconds
        self._silent: dict[Any, asyncio.TimerHandle] = {}

    def _first(self, handler: Any) -> Any:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            self._speaks(request.protocol)
            answer: web.StreamResponse = await handler(request)
            return answer

        return handle

    def _speaks(self, connection: Any) -> None:
        timer = self._silent.pop(connection, None)
        if timer is not None:
            timer.cancel()

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        """A connection is there; the headers of its first request must come in time."""
        super().connection_made(handler, transport)
        loop = asyncio.get_running_loop()
        self._silent[handler] = loop.call_later(self._patience, transport.abort)

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        """A connection ended."""
        self._speaks(handler)
        self._streams.lost(handler)
        super().connection_lost(handler, exc)
