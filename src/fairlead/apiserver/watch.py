"""Watches on the wire: registry batches as chunks of newline-delimited JSON.

Invariant: a batch is one write (several if large), made of bytes that all watchers share (only Tables and
metadata-only watches are encoded per watcher); a stream ends whole, never within an event; a client that stops reading
is cut off alone, after `slow_client_seconds`, while the registry drops its queue long before that.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
from aiohttp import web

from fairlead.api import tables
from fairlead.api.kinds import Resource
from fairlead.api.warnings import DEPRECATED
from fairlead.apiserver import respond
from fairlead.apiserver.call import Call, integer
from fairlead.apiserver.config import ServerConfig
from fairlead.apiserver.negotiation import JSON, WATCH_JSON, Representation
from fairlead.apiserver.streams import Streams
from fairlead.registry import RegistryEvent
from fairlead.registry.requests import utc_now

_LONGEST = 10 * 365 * 86_400  # seconds; a timer can't be set for much longer
PIECE = 256 * 1024  # bytes; a client must take so much within `slow_client_seconds`


async def serve(call: Call, config: ServerConfig, streams: Streams) -> web.StreamResponse:
    """Stream events until the client leaves, its timeoutSeconds are over, or the server stops."""
    resource = call.info.resource
    assert resource is not None
    form = call.form()
    writer = _Encoder(call, resource, form)
    asked = integer(call.query, "timeoutSeconds")
    timeout = min(asked, _LONGEST) if asked else random.uniform(*config.watch_timeout)
    watch = config.registry.watch(resource, call.namespace, call.watch_options())  # to be closed, from here on
    loop = asyncio.get_running_loop()
    timer = loop.call_later(timeout, watch.close)
    try:
        with streams.open(call.request, watch.close):
            response = web.StreamResponse(headers=_headers(call.request))
            if resource in DEPRECATED:
                response.headers.add("Warning", respond.warning(DEPRECATED[resource]))
            response.enable_chunked_encoding()
            await response.prepare(call.request)
            try:
                async for batch in watch:
                    for piece in writer.encode(batch):
                        async with asyncio.timeout(config.slow_client_seconds):
                            await response.write(piece)
                await response.write_eof()
            except (TimeoutError, ConnectionError):
                transport = call.request.transport
                if transport is not None:
                    transport.abort()
            return response
    finally:
        timer.cancel()
        watch.close()


def _headers(request: web.BaseRequest) -> dict[str, str]:
    streaming = "stream=watch" in request.headers.get("Accept", "")
    return {**respond.BASE_HEADERS, "Content-Type": WATCH_JSON if streaming else JSON}


class _Encoder:
    """Batches to bytes, in one client's form."""

    def __init__(self, call: Call, resource: Resource, form: Representation) -> None:
        self._resource, self._form = resource, form
        self._include = respond.included(call.query)
        self._columns_sent = False

    def encode(self, batch: Sequence[RegistryEvent]) -> Iterator[bytes]:
        """The batch in writes of about PIECE bytes: usually one."""
        plain = self._form.form == "Object"
        frames: list[bytes] = []
        size = 0
        for event in batch:
            frame = event.frame if plain else self._transformed(event)
            frames.append(frame)
            size += len(frame)
            if size >= PIECE:
                yield b"".join(frames)
                frames, size = [], 0
        if frames:
            yield b"".join(frames)

    def _transformed(self, event: RegistryEvent) -> bytes:
        if event.type == "ERROR":
            return event.frame
        if self._form.form == "PartialObjectMetadata":
            shown = respond.partial(event.object, self._form.version)
        else:
            shown = self._table(event)
        return orjson.dumps({"type": event.type, "object": shown}) + b"\n"

    def _table(self, event: RegistryEvent) -> dict[str, Any]:
        """One row; the columns only with the first (as upstream: kubectl remembers them)."""
        meta = event.object.get("metadata") or {}
        objects = [] if event.type == "BOOKMARK" else [event.object]
        list_meta = {"resourceVersion": meta.get("resourceVersion", "")}
        made = tables.table(self._resource, objects, utc_now(), include=self._include, list_meta=list_meta)
        made["apiVersion"] = f"meta.k8s.io/{self._form.version}"
        if event.type == "BOOKMARK":
            bookmark = {**respond.partial(event.object, self._form.version)}
            made["rows"] = [{"cells": ["" for _ in made["columnDefinitions"]], "object": bookmark}]
        if self._columns_sent:
            made["columnDefinitions"] = None
        self._columns_sent = True
        return made
