"""`fairlead ingress`: everything of it in one process, from SIGTERM's point of view."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable

import uvloop

from fairlead.client import Client, ConfigError
from fairlead.ingress.certificates import self_signed
from fairlead.ingress.haproxy.process import DataPlaneError, Haproxy, find_program
from fairlead.ingress.options import IngressOptions
from fairlead.ingress.run import Ingress

log = logging.getLogger("fairlead.ingress")

AGENT = "fairlead-ingress"


class IngressError(Exception):
    """What keeps an ingress from starting, in one line."""


def serve(options: IngressOptions) -> None:
    """Until SIGTERM or SIGINT; connections that are there then may end by themselves. Raises IngressError."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    try:
        uvloop.run(_serve(options, _apart(lambda: self_signed("fairlead ingress default certificate"))))
    except (ConfigError, DataPlaneError) as error:
        raise IngressError(str(error)) from error


def _apart(make: Callable[[], str]) -> str:
    """What a function returns, from a child: what it takes to make a certificate is memory that is not needed again.
    Before there is any thread. Raises IngressError."""
    source, sink = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            with os.fdopen(sink, "w") as stream:
                stream.write(make())
            code = 0
        finally:
            os._exit(code)
    os.close(sink)
    with os.fdopen(source) as stream:
        made = stream.read()
    if os.waitpid(child, 0)[1]:
        raise IngressError("no certificate could be made for names that nobody has one for")
    return made


async def _serve(options: IngressOptions, fallback_pem: str) -> None:
    haproxy = Haproxy(options.settings, find_program())
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with _client(options) as client:
        work = asyncio.create_task(Ingress(options, client, haproxy, fallback_pem).run(), name="ingress")
        waiter = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([work, waiter], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, waiter):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
            await haproxy.stop()


def _client(options: IngressOptions) -> Client:
    if options.kubeconfig is None:
        return Client.in_cluster(AGENT)
    return Client.from_kubeconfig(options.kubeconfig, options.context or None, user_agent=AGENT)
