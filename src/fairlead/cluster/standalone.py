"""An API server by itself, and controllers by themselves: the parts of a control plane, as many of each as wanted.

Several API servers share one etcd, and a folder of certificates (or copies of it); several controllers share one Lease.
In: values, as the command line read them. Invariant: a server that was started with certificates of its own writes
nothing but its store; one that was not writes into its folder what is missing there, and what it finds it uses.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import fcntl
import ipaddress
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import msgspec

from fairlead.api.errors import StatusError
from fairlead.api.kinds import LEASES, NAMESPACES
from fairlead.apiserver.config import DEFAULT_ISSUER, ServerConfig
from fairlead.apiserver.server import APIServer
from fairlead.client import Client
from fairlead.client.election import Election
from fairlead.client.lease import Timing
from fairlead.cluster import signing
from fairlead.cluster.credentials import KUBELET_CLIENTS
from fairlead.cluster.errors import ClusterError
from fairlead.cluster.issuing import Issued
from fairlead.controllers import ControllerOptions, presence, run_controllers
from fairlead.controllers.bootstrap import SYSTEM_NAMESPACES
from fairlead.registry import DeleteOptions, Registry, RegistryOptions, RequestContext, User
from fairlead.registry.requests import utc_now
from fairlead.store.etcd_client import Address, Trust
from fairlead.store.interface import Store
from fairlead.store.memory import MemoryStore
from fairlead.store.sqlite import SQLiteStore

log = logging.getLogger("fairlead.cluster")

CONTEXT = "fairlead-apiserver"
LEASE = "fairlead-controllers"
SQLITE = "sqlite:"


class Files(msgspec.Struct, frozen=True):
    """What a server identifies itself with, and whom it trusts: paths of PEM files."""

    client_ca: Path
    cert: Path
    key: Path
    signing_key: Path
    kubelet_cert: Path | None = None
    kubelet_key: Path | None = None
    kubelet_ca: Path | None = None


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """One API server. `store` is memory, sqlite:FILE or etcd://…; `files` None: those of `folder`, made if missing."""

    store: str
    host: str
    port: int
    folder: Path
    trust: Trust | None = None
    files: Files | None = None
    advertise: str = ""
    registry: RegistryOptions = RegistryOptions()
    issuer: str = DEFAULT_ISSUER
    tokens: dict[str, User] = {}

    @property
    def place(self) -> str:
        """Tells this server's files from those of others in the folder."""
        return f"{self.advertise or self.host}-{self.port}".replace(":", "-")

    def kubeconfig(self, user: str) -> Path:
        """The file that leads `admin` or `controllers` to this server."""
        return self.folder / f"{user}-{self.place}.conf"

    @property
    def url(self) -> str:
        """Where clients find it."""
        host = self.advertise or self.host
        if host in ("0.0.0.0", "::"):
            host = "127.0.0.1" if host == "0.0.0.0" else "::1"
        return f"https://[{host}]:{self.port}" if ":" in host else f"https://{host}:{self.port}"


class Folder(Issued):
    """The folder of a server, or of several: authority, certificates, and kubeconfigs of those who start out."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, CONTEXT, CONTEXT, f"restore it, or remove {folder} and start anew")

    def ensure(self, serving: Serving) -> Files:
        """Everything is there, for a server at that address."""
        addresses = {serving.host, serving.advertise, "127.0.0.1", "::1"} - {"", "0.0.0.0", "::"}
        addresses |= {str(ipaddress.ip_network(cidr)[1]) for cidr in serving.registry.service_cidrs}
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", socket.gethostname()]
        names.append("kubernetes.default.svc.cluster.local")
        server = f"apiserver-{serving.place}"
        self._leaf(server, "kube-apiserver", dns_names=names, ips=sorted(addresses), server=True)
        self._leaf("apiserver-kubelet-client", "kube-apiserver-kubelet-client", [KUBELET_CLIENTS], client=True)
        self._signing_key()
        self._user_file(serving.kubeconfig("admin"), "kubernetes-admin", ["system:masters"], serving.url)
        self._user_file(serving.kubeconfig("controllers"), "system:kube-controller-manager", [], serving.url)
        own = self._folder
        return Files(
            own / "ca.crt",
            own / f"{server}.crt",
            own / f"{server}.key",
            own / "service-account.key",
            own / "apiserver-kubelet-client.crt",
            own / "apiserver-kubelet-client.key",
            own / "ca.crt",
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Alone in the folder: two servers that start at once make one authority."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(folder / ".lock", os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def files_of(serving: Serving) -> Files:
    """The files that were given, or the folder's. Raises ClusterError, OSError."""
    if serving.files is not None:
        return serving.files
    with locked(serving.folder):
        return Folder(serving.folder).ensure(serving)


def read_tokens(file: Path) -> dict[str, User]:
    """Upstream's --token-auth-file: lines of token,user,uid and perhaps "group,group". Raises ClusterError."""
    found: dict[str, User] = {}
    try:
        rows = list(csv.reader(file.read_text().splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ClusterError(f"--token-auth-file {file}: {error}") from error
    for number, row in enumerate(rows, 1):
        if not row or row[0].startswith("#"):
            continue
        if len(row) < 3 or not row[0] or not row[1]:
            raise ClusterError(
                f"--token-auth-file {file}, line {number}: write token,user,uid or token,user,uid,groups"
            )
        groups = tuple(filter(None, (group.strip() for group in row[3].split(",")))) if len(row) > 3 else ()
        found[row[0]] = User(row[1].strip(), groups, row[2].strip())
    return found


async def open_store(where: str, trust: Trust | None, identity: str) -> Store:
    """The store that is named. Raises StoreCorrupt, StoreFailed."""
    if where == "memory":
        return MemoryStore()
    if where.startswith(SQLITE):
        file = Path(where.removeprefix(SQLITE))
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return await SQLiteStore.open(file)
    from fairlead.store.etcd import EtcdStore

    return await EtcdStore.open(Address.parse(where), trust, identity=identity)


async def ensure_namespaces(registry: Registry) -> None:
    """The system's namespaces are there: the controllers' Lease is in one of them."""
    for name in SYSTEM_NAMESPACES:
        try:
            await registry.create(NAMESPACES, "", {"metadata": {"name": name}}, RequestContext())
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise


async def keep_present(registry: Registry, address: str, port: int) -> None:
    """Say in a Lease that this server is there, until cancelled; then take it back."""
    name = presence.lease(address, port, utc_now())["metadata"]["name"]
    said = ""
    try:
        while True:
            try:
                await _renew(registry, address, port)
                said = ""
            except StatusError as error:
                if str(error) != said:
                    log.warning("lease %s/%s: %s; trying again", presence.NAMESPACE, name, error)
                said = str(error)
            await asyncio.sleep(presence.SECONDS / 3)
    finally:
        with contextlib.suppress(StatusError, TimeoutError):
            async with asyncio.timeout(2):
                await registry.delete(LEASES, presence.NAMESPACE, name, DeleteOptions(), RequestContext())


async def _renew(registry: Registry, address: str, port: int) -> None:
    made = presence.lease(address, port, utc_now())
    try:
        there = await registry.get(LEASES, presence.NAMESPACE, made["metadata"]["name"])
    except StatusError as error:
        if error.reason != "NotFound":
            raise
        await registry.create(LEASES, presence.NAMESPACE, made, RequestContext())
        return
    renewed = presence.lease(address, port, utc_now(), there.get("spec"))
    renewed["metadata"] = {**there["metadata"], **renewed["metadata"]}
    await registry.update(LEASES, presence.NAMESPACE, made["metadata"]["name"], renewed, RequestContext())


async def serve(
    serving: Serving, files: Files, stop: asyncio.Event, started: Callable[[], None] = lambda: None
) -> None:
    """Serve until told to stop; `started` is called once it answers. Raises StoreCorrupt, StoreFailed, OSError."""
    identity = sha256(files.client_ca.read_bytes()).hexdigest()
    store = await open_store(serving.store, serving.trust, identity)
    registry = Registry(store, serving.registry)
    server = APIServer(
        ServerConfig(
            registry=registry,
            listen=(serving.host, serving.port),
            cert_file=files.cert,
            key_file=files.key,
            client_ca_file=files.client_ca,
            tokens=serving.tokens,
            service_account_key=files.signing_key.read_bytes(),
            service_account_issuer=serving.issuer,
            kubelet_cert_file=files.kubelet_cert or "",
            kubelet_key_file=files.kubelet_key or "",
            kubelet_ca_file=files.kubelet_ca or "",
        )
    )
    present: asyncio.Task[None] | None = None
    try:
        await registry.start()
        await server.start()
        await ensure_namespaces(registry)
        log.info("serving on %s, store %s", server.url, serving.store)
        started()
        address = serving.advertise or serving.host
        if not (ip := ipaddress.ip_address(address)).is_loopback and not ip.is_unspecified:
            present = asyncio.create_task(keep_present(registry, address, serving.port))
        await stop.wait()
    finally:
        if present is not None:
            present.cancel()
            await asyncio.gather(present, return_exceptions=True)
        await server.stop()
        await registry.stop()
        await store.close()


class Controlling(msgspec.Struct, frozen=True, kw_only=True):
    """Controllers by themselves. `timing` None: no election, these are the only ones."""

    options: ControllerOptions
    timing: Timing | None = Timing()
    lease: str = LEASE
    namespace: str = "kube-system"
    signer: signing.Signer | None = None


async def control(client: Client, controlling: Controlling, stop: asyncio.Event) -> None:
    """Run the controllers, the scheduler and the signer, whenever these lead, until told to stop."""

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(run_controllers(client, controlling.options), name="controllers")
            if controlling.signer is not None:
                group.create_task(signing.keep(client, controlling.signer), name="signing")

    if controlling.timing is None:
        running = asyncio.ensure_future(work())
    else:
        identity = f"{socket.gethostname()}_{os.urandom(16).hex()}"
        election = Election(client, controlling.lease, identity, controlling.namespace, controlling.timing)
        running = asyncio.ensure_future(election.run(work))
    waiter = asyncio.ensure_future(stop.wait())
    done, _ = await asyncio.wait([running, waiter], return_when=asyncio.FIRST_COMPLETED)
    for task in (running, waiter):
        task.cancel()
    await asyncio.gather(running, waiter, return_exceptions=True)
    if running in done:
        running.result()
