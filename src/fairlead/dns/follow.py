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
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from fairlead.discovery.model import ServiceSnapshot
from fairlead.dns.options import Watch
from fairlead.dns.pipe import frame
from fairlead.dns.records import delta, pieces

if TYPE_CHECKING:
    from fairlead.client import Batch, Client

log = logging.getLogger("fairlead.dns")

_PIECE = 200  # services in one frame: about a millisecond of the answering loop


async def tell(
    batches: AsyncIterator[Batch],
    pipes: Sequence[socket.socket],
    clock: Callable[[], float] = time.time,
    *,
    pod_names: bool = False,
) -> None:
    """Fold batches and send what they change, for ever."""
    from fairlead.discovery.fold import fold
    from fairlead.dns.pods import PodTable

    loop = asyncio.get_running_loop()
    snapshot = ServiceSnapshot()
    table = PodTable()
    async for batch in batches:
        before = snapshot
        snapshot, changes = fold(before, batch.events, batch.synced)
        step = delta(before, snapshot, changes, int(clock()), table.take(batch.events), pod_names=pod_names)
        if step is not None:
            for piece in pieces(step, _PIECE):
                encoded = frame(piece)
                for pipe in pipes:
                    await loop.sock_sendall(pipe, encoded)
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


async def run(watch: Watch, pipes: Sequence[socket.socket]) -> None:
    """Follow the API until an answering process is gone. Raises `client.ConfigError`."""
    from fairlead.api.kinds import ENDPOINTSLICES, NAMESPACES, PODS, SERVICES
    from fairlead.client import Watched, follow

    for pipe in pipes:
        asyncio.get_running_loop().add_reader(pipe, os._exit, 1)  # it never writes: it is gone
    watched = [
        Watched(SERVICES, label_selector=watch.labels),
        Watched(NAMESPACES, label_selector=watch.namespace_labels),
    ]
    if watch.endpoints:
        watched.append(Watched(ENDPOINTSLICES, label_selector=watch.labels))
    if watch.pods:
        watched.append(Watched(PODS, label_selector=watch.labels))
    async with _client(watch) as client:
        await tell(follow(client, *watched), pipes, pod_names=watch.pod_names)


def _client(watch: Watch) -> Client:
    from fairlead.client import Client, ConfigError

    if watch.endpoint:
        context = None
        if watch.endpoint.startswith("https://"):
            certificate, key, authority = watch.tls or ("", "", "")
            try:
                context = ssl.create_default_context(cafile=authority or None)
                if certificate:
                    context.load_cert_chain(certificate, key)
            except OSError as error:
                raise ConfigError(f"the kubernetes plugin's tls: {error}") from None
        return Client(watch.endpoint, context, user_agent="fairlead-dns")
    if watch.kubeconfig is None:
        return Client.in_cluster("fairlead-dns")
    return Client.from_kubeconfig(watch.kubeconfig, watch.context or None, user_agent="fairlead-dns")


def main(watch: Watch, pipes: Sequence[socket.socket]) -> int:
    """The whole life of the follower process; returns its exit code."""
    with _no_certificate_store():
        from fairlead.client import ConfigError

    try:
        asyncio.run(run(watch, pipes))
    except ConfigError as error:
        log.error("cannot reach the API: %s", error)
        return 1
    except (BrokenPipeError, ConnectionResetError):
        return 1  # the answering process is gone
    return 0
