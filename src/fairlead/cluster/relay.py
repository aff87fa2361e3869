"""The way from the control plane, in the LAN's network namespace, to an etcd that only this machine may reach.

A thread keeps the network namespace it was started in. So one that is started before the process moves listens on a
Unix socket and carries bytes to and from etcd, which may be on this machine's loopback. It knows nothing of what it
carries; TLS goes through it from end to end. Invariant: a connection ends as soon as either side does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path

_CHUNK = 1 << 18


class Relay:
    """Running from `start` to `stop`."""

    def __init__(self, socket: Path, hosts: Sequence[str]) -> None:
        self._socket, self._hosts = socket, tuple(hosts)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="etcd-relay", daemon=True)

    @classmethod
    def start(cls, socket: Path, hosts: Sequence[str]) -> Relay:
        """Listen at `socket`, for this user only, and lead to the first of `hosts` (`host:port`) that answers."""
        made = cls(socket, hosts)
        made._thread.start()
        made._ready.wait()
        return made

    def stop(self) -> None:
        """End all connections and the thread."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._socket.unlink(missing_ok=True)

    def _run(self) -> None:
        self._socket.unlink(missing_ok=True)
        try:
            self._loop.run_until_complete(self._listen())
            self._ready.set()
            self._loop.run_forever()
        finally:
            self._ready.set()
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()

    async def _listen(self) -> None:
        await asyncio.start_unix_server(self._serve, str(self._socket), limit=_CHUNK)
        os.chmod(self._socket, 0o600)  # noqa: PTH101  (made a moment ago, in a folder of our own)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            upstream = await self._connect()
            with contextlib.closing(upstream[1]):
                ways = [
                    asyncio.create_task(_carry(reader, upstream[1])),
                    asyncio.create_task(_carry(upstream[0], writer)),
                ]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        failure = OSError("no host")
        for host in self._hosts:
            name, _, port = host.rpartition(":")
            try:
                async with asyncio.timeout(3):
                    return await asyncio.open_connection(name.strip("[]"), int(port), limit=_CHUNK)
            except OSError as error:
                failure = error
        raise failure


async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(_CHUNK):
            target.write(data)
            await target.drain()
