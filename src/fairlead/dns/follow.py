"""The process that follows the API and tells the answering process what changed.

A process of its own because a thread that decodes JSON beside the answering loop takes the interpreter lock from it for
milliseconds at a time. Stands between the client and the pipe. Invariant: what is sent is a gapless sequence of deltas
from the empty zone; a delta that does not change the zone is not sent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import msgspec

from fairlead.discovery.model import ServiceSnapshot
from fairlead.dns.options import DNSOptions
from fairlead.dns.records import Delta, delta, pieces

if TYPE_CHECKING:
    from fairlead.client import Batch

log = logging.getLogger("fairlead.dns")

_PIECE = 200  # services in one frame: about a millisecond of the answering loop
_LENGTH = 4

encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Delta).decode


def frame(step: Delta) -> bytes:
    """A delta as it goes through the pipe."""
    body = encode(step)
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


async def tell(batches: AsyncIterator[Batch], pipe: socket.socket, clock: Callable[[], float] = time.time) -> None:
    """Fold batches and send what they change, for ever."""
    from fairlead.discovery.fold import fold

    loop = asyncio.get_running_loop()
    snapshot = ServiceSnapshot()
    async for batch in batches:
        before = snapshot
        snapshot, changes = fold(before, batch.events, batch.synced)
        step = delta(before, snapshot, changes, int(clock()))
        if step is not None:
            for piece in pieces(step, _PIECE):
                await loop.sock_sendall(pipe, frame(piece))
        if snapshot.synced and not before.synced:
            log.info("synced: %d services, %d namespaces", len(snapshot.services), len(snapshot.namespaces))


async def run(options: DNSOptions, pipe: socket.socket) -> None:
    """Follow the API until the answering process is gone. Raises `client.ConfigError`."""
    from fairlead.api.kinds import ENDPOINTSLICES, NAMESPACES, SERVICES
    from fairlead.client import Client, Watched, follow

    asyncio.get_running_loop().add_reader(pipe, os._exit, 1)  # it never writes: it is gone
    if options.kubeconfig is None:
        client = Client.in_cluster("fairlead-dns")
    else:
        client = Client.from_kubeconfig(options.kubeconfig, user_agent="fairlead-dns")
    async with client:
        await tell(follow(client, Watched(SERVICES), Watched(ENDPOINTSLICES), Watched(NAMESPACES)), pipe)


def main(options: DNSOptions, pipe: socket.socket) -> int:
    """The whole life of the follower process; returns its exit code."""
    from fairlead.client import ConfigError

    try:
        asyncio.run(run(options, pipe))
    except ConfigError as error:
        log.error("cannot reach the API: %s", error)
        return 1
    except (BrokenPipeError, ConnectionResetError):
        return 1  # the answering process is gone
    return 0
