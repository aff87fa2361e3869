"""The control plane's process: the API server and the controllers, in the LAN's namespace.

Runs in a forked child of the supervisor. Invariant: what keeps it from starting, and won't mend itself by trying
again, is left in the layout's failure file, in one line, for `up` to say.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from datetime import timedelta
from hashlib import sha256

import uvloop

from fairlead.apiserver.config import ServerConfig
from fairlead.apiserver.server import APIServer
from fairlead.client import Client
from fairlead.cluster import addons, invitation, routes, signing
from fairlead.cluster.config import ClusterConfig
from fairlead.cluster.credentials import Credentials
from fairlead.cluster.layout import Layout
from fairlead.cluster.provisioner import Provisioner
from fairlead.cluster.relay import Relay
from fairlead.controllers import ControllerOptions, run_controllers
from fairlead.linux import libc, namespaces
from fairlead.registry import Registry, RegistryOptions
from fairlead.store.etcd_client import Address, Trust
from fairlead.store.interface import Store, StoreCorrupt, StoreFailed
from fairlead.store.memory import MemoryStore
from fairlead.store.sqlite import SQLiteStore

log = logging.getLogger("fairlead.cluster")

API_PORT = 6443


def run(layout: Layout, config: ClusterConfig, host_socket: socket.socket) -> None:
    """Serve until SIGTERM. `host_socket` listens on the machine's loopback and outlives us."""
    start_logging()
    relay = Relay.start(layout.etcd_relay, Address.parse(config.store).hosts) if config.on_etcd else None
    enter(layout.lan_namespace)
    failure = layout.failure("control-plane")
    failure.unlink(missing_ok=True)
    try:
        uvloop.run(_serve(layout, config, host_socket))
    except (StoreCorrupt, StoreFailed) as error:
        failure.write_text(str(error))
        raise SystemExit(1) from error
    finally:
        if relay is not None:
            relay.stop()


async def _open_store(layout: Layout, config: ClusterConfig, identity: str) -> Store:
    """The store the flags name. `identity` tells this cluster's from others' in a shared etcd."""
    if config.store == "memory":
        return MemoryStore()
    if not config.on_etcd:
        return await SQLiteStore.open(layout.store)
    from fairlead.store.etcd import EtcdStore

    trust = Trust(config.etcd_cafile, config.etcd_certfile, config.etcd_keyfile) if config.etcd_cafile else None
    return await EtcdStore.open(config.store, trust, relay=str(layout.etcd_relay), identity=identity)


async def _serve(layout: Layout, config: ClusterConfig, host_socket: socket.socket) -> None:
    stop = stop_event()
    credentials = Credentials(layout, config)
    store = await _open_store(layout, config, sha256(credentials.authority.cert_pem).hexdigest())
    registry = Registry(
        store,
        RegistryOptions(
            service_cidrs=config.service_cidrs, ip_families=config.ip_families, node_port_range=config.node_port_range
        ),
    )
    lan_socket = socket.create_server((config.api_ip, API_PORT), backlog=1024)
    server = APIServer(
        ServerConfig(
            registry=registry,
            listen=[lan_socket, host_socket],
            cert_file=layout.pki / "apiserver.crt",
            key_file=layout.pki / "apiserver.key",
            client_ca_file=layout.pki / "ca.crt",
            service_account_key=(layout.pki / "service-account.key").read_bytes(),
            service_account_issuer=f"https://kubernetes.default.svc.{config.cluster_domain}",
            kubelet_cert_file=layout.pki / "apiserver-kubelet-client.crt",
            kubelet_key_file=layout.pki / "apiserver-kubelet-client.key",
            kubelet_ca_file=layout.pki / "ca.crt",
        )
    )
    await registry.start()
    await server.start()
    log.info("serving on https://%s:%d and %s", config.api_ip, API_PORT, config.api_url)
    async with Client.from_kubeconfig(layout.kubeconfig("controllers")) as client:
        options = ControllerOptions(
            advertise_address=config.api_ip,
            advertise_port=API_PORT,
            service_cidr=config.service_cidr,
            cluster_cidr=config.pod_cidr,
            secondary_service_cidr=config.service_cidr6 if config.dual else "",
            secondary_cluster_cidr=config.pod_cidr6 if config.dual else "",
            load_balancer_pool=config.balancer_pool,
            ca_pem=credentials.authority.cert_pem.decode(),
        )
        authority, told = credentials.authority, invitation.Settings.of(config, API_PORT)
        signer = signing.Signer(
            authority,
            timedelta(seconds=config.signing_duration),
            credentials.api_names,
            {node: config.addresses_of(config.node_ip(node)) for node in config.node_names},
        )
        work = [
            asyncio.create_task(run_controllers(client, options), name="controllers"),
            asyncio.create_task(addons.keep(client, config), name="addons"),
            asyncio.create_task(routes.keep(client), name="routes"),
            asyncio.create_task(signing.keep(client, signer), name="signing"),
            asyncio.create_task(Provisioner(client, config.name, layout.volumes).run(), name="provisioner"),
            asyncio.create_task(invitation.keep(client, told, authority.cert_pem, config.join_url), name="invitation"),
        ]
        for beside in work[1:]:
            beside.add_done_callback(_say_failure)
        waiter = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([waiter, work[0]], return_when=asyncio.FIRST_COMPLETED)
        for task in [waiter, *work]:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
    await server.stop()
    await registry.stop()
    await store.close()
    for task in done - {waiter}:
        task.result()


def _say_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s failed", task.get_name(), exc_info=error)


def enter(namespace: str) -> None:
    """Move this process into a named network namespace, for good."""
    with namespaces.path(namespace).open() as target:
        libc.setns(target.fileno(), libc.CLONE_NEWNET)


def stop_event() -> asyncio.Event:
    """Set when SIGTERM or SIGINT arrives. Call in the running loop."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, event.set)
    return event


def start_logging(*, debug: bool = False) -> None:
    """One line per record on stderr, which is the process' log file."""
    level = logging.DEBUG if debug else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
