"""The process that follows the API and tells the answering process what changed.

A process of its own because a thread that decodes JSON beside the answering loop takes the interpreter lock from it for
milliseconds at a time. Stands between the client and the pipe. Invariant: what is sent is a gapless sequence of deltas
from the empty zone; a delta that does not change the zone is not sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

from fairlead.discovery.model import ServiceSnapshot
from fairlead.dns.options import DNSOptions
from fairlead.dns.pipe import frame
from fairlead.dns.records import delta, pieces

if TYPE_CHECKING:
    from fairlead.client import Batch

log = logging.getLogger("fairlead.dns")

_PIECE = 200  # services in one frame: about a millisecond of the answering loop


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


@contextlib.contextmanager
def _no_certificate_store() -> Iterator[None]:
    """For importing aiohttp, which reads the machine's whole certificate store for a default that is not used here (a
    kubeconfig brings its own trust): 40 ms of the pod's start, and 2 MB."""
    names = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


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
    with _no_certificate_store():
        from fairlead.client import ConfigError

    try:
        asyncio.run(run(options, pipe))
    except ConfigError as error:
        log.error("cannot reach the API: %s", error)
        return 1
    except (BrokenPipeError, ConnectionResetError):
        return 1  # the answering process is gone
    return 0
