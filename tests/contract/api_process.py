"""An API server in a process of its own, to be killed: `python -m tests.contract.api_process FOLDER PORT STORE`.

FOLDER has the files ca, crt and key; STORE is a path or etcd://…; the token `t0ken` may do anything. What follows are
the ranges of cluster IPs, if not the small one.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import uvloop

from fairlead.apiserver import APIServer, ServerConfig, pki
from fairlead.registry import Registry, RegistryOptions, User
from fairlead.store.etcd import EtcdStore
from fairlead.store.interface import Store
from fairlead.store.sqlite import SQLiteStore

SMALL_RANGE = ("10.96.0.0/26",)


async def main(folder: Path, port: int, where: str, ranges: tuple[str, ...]) -> None:
    """Serve until SIGTERM."""
    store: Store = await EtcdStore.open(where) if where.startswith("etcd://") else await SQLiteStore.open(where)
    registry = Registry(store, RegistryOptions(service_cidrs=ranges))
    await registry.start()
    config = ServerConfig(
        registry=registry,
        listen=("127.0.0.1", port),
        cert_file=folder / "crt",
        key_file=folder / "key",
        client_ca_file=folder / "ca",
        tokens={"t0ken": User("tester", ("system:masters",))},
        service_account_key=pki.create_signing_key(),
    )
    server = APIServer(config)
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop()
    await registry.stop()
    await store.close()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], tuple(sys.argv[4:]) or SMALL_RANGE))
