"""A node's process: kubelet, pod network and proxy, in the node's namespace, fed by one stream of events.

Runs in a forked child of the supervisor. Invariant: nothing here outlives a crash in memory alone; pods, addresses and
rules are found again and adopted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import uvloop

from fairlead.announce.announcing import Announcing
from fairlead.api import nodenetworks
from fairlead.api.addresspool import Pool
from fairlead.api.kinds import NODES
from fairlead.client import Client, config, follow
from fairlead.client.events import EventRecorder
from fairlead.cluster import renewal, whereabouts
from fairlead.cluster.config import ClusterConfig, ProxyMode
from fairlead.cluster.controlplane import enter, start_logging, stop_event
from fairlead.cluster.credentials import KUBELET_CLIENTS
from fairlead.cluster.enlist import obtain
from fairlead.cluster.issuing import serving_files
from fairlead.cluster.layout import RUNTIME_ROOT, Layout, images_directory, state_root
from fairlead.cluster.member import AUTO, Member
from fairlead.discovery.confirmed import newest_slice
from fairlead.discovery.fold import fold
from fairlead.discovery.model import Node, ServiceSnapshot
from fairlead.explain.evidence import Facts
from fairlead.kubelet.kubelet import Kubelet
from fairlead.kubelet.options import KubeletOptions
from fairlead.kubelet.spawner import Spawner
from fairlead.linux import cgroups
from fairlead.podnetwork import wireguard
from fairlead.podnetwork.network import PodNetwork, PodNetworkOptions
from fairlead.proxy.backends import backend_for, clean_others
from fairlead.proxy.confirm import Confirmer
from fairlead.proxy.options import Accelerate, Place, ProxyOptions
from fairlead.proxy.run import FOLLOWED, Proxy, uncollected
from fairlead.proxy.serving import ProxyServers
from fairlead.proxy.table import Family
from fairlead.survey.nodeside import NodeSide
from fairlead.survey.server import NodeSights

log = logging.getLogger("fairlead.node")

_WITHDRAW_SECONDS = 2.0
_LAN_MTU = 1500
_MANY = 500  # events at once, beyond which the garbage collector waits


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What one node's process is told: by `up` for its own nodes, by the description of a node that joined."""

    cluster: str
    node: str
    node_ips: tuple[str, ...]
    state: Path
    runtime: Path
    kubeconfig: Path
    pki: Path
    volumes: Path
    pod_cidrs: tuple[str, ...]
    service_cidrs: tuple[str, ...]
    ip_families: tuple[Family, ...]
    proxy_mode: ProxyMode
    acceleration: Path  # where it is kept whether sockets are accelerated
    dns_ip: str
    cluster_domain: str
    accelerate: Accelerate = ""
    pods_group: str = ""  # the control group of the node and its pods
    balancer_pool: Pool = Pool()  # empty: it answers for no load balancer's address
    announce_key: bytes = b""
    outside_ip: str = ""
    member: Member | None = None

    @property
    def away(self) -> bool:
        """Whether the node is in another network than the control plane."""
        return self.member is not None and bool(self.member.network)

    @property
    def serving_files(self) -> tuple[Path, Path]:
        """Certificate and key of the kubelet's server."""
        return serving_files(self.pki, self.node)

    @property
    def serving_ips(self) -> tuple[str, ...]:
        """The addresses that the certificate bears: those of a node that joined may change."""
        return self.node_ips if self.member is None else ()

    @property
    def labels(self) -> dict[str, str]:
        """Of the Node."""
        return {nodenetworks.MACHINE: self.cluster} if self.member is None else self.member.labels

    @property
    def annotations(self) -> dict[str, str]:
        """Of the Node, when it is new."""
        return {} if self.member is None else self.member.annotations | {nodenetworks.VOLUMES: str(self.volumes)}

    @property
    def endpoints_elsewhere(self) -> tuple[tuple[Place, Place], ...]:
        """The API server's endpoint, and where this node reaches it. Raises OSError: its name can't be resolved."""
        if self.member is None or not self.away:
            return ()
        return ((self.member.settings.api_endpoint, self.member.api_endpoint()),)

    @property
    def facts(self) -> Facts:
        """What `explain` may be told of the cluster."""
        return Facts(
            name=self.cluster,
            domain=self.cluster_domain,
            dns_ip=self.dns_ip,
            pod_cidrs=self.pod_cidrs,
            service_cidrs=self.service_cidrs,
            outside_ip=self.outside_ip,
            proxy_mode=self.proxy_mode,
            accelerate=self.accelerate,
        )


def run(layout: Layout, config: ClusterConfig, node: str) -> None:
    """Be the node until SIGTERM; its pods go on running."""
    enter(layout.node_namespace(node))
    start_logging()
    group = f"{layout.name}/{node}"
    if config.accelerate:
        cgroups.join(group)  # before any pod: its sockets are told by their group
    spawner = Spawner.fork()  # before there is an event loop
    settings = NodeSettings(
        cluster=config.name,
        node=node,
        node_ips=config.addresses_of(config.node_ip(node)),
        state=layout.node_state(node),
        runtime=layout.runtime / "nodes" / node,
        kubeconfig=layout.kubeconfig(node),
        pki=layout.pki,
        volumes=layout.volumes,
        pod_cidrs=config.pod_cidrs,
        service_cidrs=config.service_cidrs,
        ip_families=config.ip_families,
        proxy_mode=config.proxy_mode,
        accelerate=config.accelerate,
        pods_group=str(cgroups.path(group) or "/sys/fs/cgroup (not mounted for writing)"),
        acceleration=layout.acceleration(node),
        dns_ip=config.dns_ip,
        cluster_domain=config.cluster_domain,
        balancer_pool=config.balancer_pool,
        announce_key=layout.announce_key.read_bytes(),
        outside_ip=config.host_ip,
    )
    uvloop.run(_serve(settings, spawner))


def run_member(layout: Layout, member: Member) -> None:
    """As `run`, for a node that joined, in the network namespace it is started in."""
    start_logging()
    spawner = Spawner.fork()
    known = member.settings
    settings = NodeSettings(
        cluster=known.cluster,
        node=member.node,
        node_ips=member.internal_ips(),
        state=layout.node_state(member.node),
        runtime=layout.runtime / "nodes" / member.node,
        kubeconfig=layout.kubeconfig(member.node),
        pki=layout.pki,
        volumes=layout.volumes,
        pod_cidrs=known.pod_cidrs,
        service_cidrs=known.service_cidrs,
        ip_families=known.ip_families,
        proxy_mode=known.proxy_mode,
        acceleration=layout.acceleration(member.node),
        dns_ip=known.dns_ip,
        cluster_domain=known.cluster_domain,
        member=member,
    )
    uvloop.run(_serve(settings, spawner))


async def _serve(settings: NodeSettings, spawner: Spawner) -> None:
    stop = stop_event()
    node, member = settings.node, settings.member
    settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    proxy, servers = node_proxy(settings)
    view = View(node)
    side = NodeSide(settings.runtime / "pods", mode=settings.proxy_mode)
    connection = config.from_kubeconfig(settings.kubeconfig)
    async with Client.from_connection(connection) as client:
        recorder = EventRecorder(client, "podnetwork", node)

        async def publish(annotations: Mapping[str, str]) -> None:
            said = {key: text or None for key, text in annotations.items()}
            await client.patch(NODES, node, {"metadata": {"annotations": said}}, kind="merge")

        def witness(other: Node, answers: bool) -> None:
            if not answers and other.external_wish not in ("", AUTO):  # behind most routers `auto` does not answer
                obj, message = whereabouts.not_answering(other, node)
                recorder.event(obj, "Warning", "ExternalIPNotAnswering", message)

        network = PodNetwork(
            PodNetworkOptions(
                node,
                settings.state,
                settings.pod_cidrs,
                mtu=wireguard.MTU if settings.away else _LAN_MTU,
                form="nftables" if settings.proxy_mode == "nftables" else "iptables",
            ),
            (publish, whereabouts.prober(settings.pki / "ca.crt"), witness),
        )
        kubelet = Kubelet(
            KubeletOptions(
                node_name=node,
                node_ip=settings.node_ips[0],
                more_node_ips=settings.node_ips[1:],
                address="0.0.0.0" if member is not None else "",
                root_dir=settings.state,
                runtime_dir=settings.runtime,
                cluster_dns=(settings.dns_ip,),
                cluster_domain=settings.cluster_domain,
                masked=(str(state_root()), str(RUNTIME_ROOT)),
                resolv_conf=upstream_resolv_conf(),
                server_cert_file=settings.serving_files[0],
                server_key_file=settings.serving_files[1],
                client_ca_file=settings.pki / "ca.crt",
                client_groups=(KUBELET_CLIENTS,),
                withdraw_seconds=_WITHDRAW_SECONDS,
                images_dir=images_directory(),
                labels=settings.labels,
                annotations=settings.annotations,
            ),
            client,
            network,
            spawner,
            lambda: view.snapshot,
            routes=NodeSights(side, settings.facts).routes(),
        )
        announcing = Announcing(client, node, settings.announce_key, settings.balancer_pool)
        await recorder.start()
        await servers.start()
        await proxy.start()
        await kubelet.start()
        await announcing.start()
        confirmer = Confirmer(client, node)
        follower = _follow(client, view, _Parts(network, proxy, kubelet, confirmer, announcing))
        work = [
            asyncio.create_task(follower, name="follow"),
            asyncio.create_task(confirmer.run(), name="confirm"),
            asyncio.create_task(network.run(), name="elsewhere"),
            asyncio.create_task(
                whereabouts.keep(connection, kubelet.node, settings.node_ips, view.external_wish, member),
                name="whereabouts",
            ),
            asyncio.create_task(
                renewal.keep(
                    renewal.Files(settings.kubeconfig, *settings.serving_files),
                    lambda signer: obtain(client, node, signer, settings.serving_ips),
                    renewal.Users(connection.ssl_context, kubelet.take_certificate),
                ),
                name="renewal",
            ),
        ]
        waiter = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([*work, waiter], return_when=asyncio.FIRST_COMPLETED)
        for task in (*work, waiter):
            task.cancel()
        await announcing.stop()
        await kubelet.stop()
        await proxy.stop()
        await servers.stop()
        await recorder.stop()
        network.close()
        for task in done - {waiter}:
            task.result()


def node_proxy(settings: NodeSettings) -> tuple[Proxy, ProxyServers]:
    """The node's proxy, in the cluster's mode, and what it serves. Whether sockets are accelerated is kept in a file,
    for `status`."""
    options = ProxyOptions(
        node_name=settings.node,
        cluster_cidrs=settings.pod_cidrs,
        service_cidrs=settings.service_cidrs,
        ipvs_strict_arp=True,  # who answers for a load balancer's address is not the kernel's to decide
        accelerate=settings.accelerate,
        accelerate_group=settings.pods_group,
        endpoints_elsewhere=settings.endpoints_elsewhere,
    )
    state = settings.acceleration
    state.unlink(missing_ok=True)
    backend = backend_for(settings.proxy_mode, options, settings.ip_families, lambda said: keep(state, said))
    proxy = Proxy(options, backend=backend, on_first=partial(clean_others, settings.proxy_mode))
    return proxy, ProxyServers(proxy, settings.proxy_mode)


def keep(file: Path, text: str) -> None:
    """Write a file of the runtime directory."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file.write_text(text)


def upstream_resolv_conf() -> Path:
    """The name servers of the machine that a node can reach: behind a local stub (systemd-resolved), the stub's own."""
    plain, stub = Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")
    try:
        lines = [line.split() for line in plain.read_text().splitlines()]
    except OSError:
        return plain
    servers = [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]
    return stub if servers and all(s.startswith("127.") for s in servers) and stub.exists() else plain


class View:
    """The node's newest snapshot, shared by its parts."""

    def __init__(self, node: str) -> None:
        self._node = node
        self.snapshot = ServiceSnapshot()

    def external_wish(self) -> str:
        """What this node's annotation says of its ExternalIP."""
        own = self.snapshot.nodes.get(self._node)
        return own.external_wish if own is not None else ""


class _Parts(NamedTuple):
    """What is fed by the stream of events."""

    network: PodNetwork
    proxy: Proxy
    kubelet: Kubelet
    confirmer: Confirmer
    announcing: Announcing


async def _follow(client: Client, view: View, parts: _Parts) -> None:
    network, proxy, kubelet, confirmer, announcing = parts
    newest = 0

    def confirm(_: object = None) -> None:
        """The kernel has what was followed so far."""
        confirmer.applied(newest)
        kubelet.confirmed_here(newest)

    proxy.on_sync = confirm  # also when it had to be tried again
    async for batch in follow(client, *FOLLOWED):
        with uncollected(len(batch.events) > _MANY):
            view.snapshot, changes = fold(view.snapshot, batch.events, batch.synced)
            if changes.nodes:
                await network.sync(view.snapshot.nodes)
                if network.ready.is_set():
                    kubelet.network_ready()
            newest = max(newest, newest_slice(batch.events))
            await proxy.apply(view.snapshot, changes)
        kubelet.services_changed()
        kubelet.see(batch.events, batch.synced)
        announcing.see(view.snapshot, changes)
        if batch.synced and proxy.failing_since is None:
            confirm()
