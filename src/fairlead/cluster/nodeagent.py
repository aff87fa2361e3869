"""A node's process: kubelet, pod network and proxy, in the node's namespace, fed by one stream of events.

Runs in a forked child of the supervisor. Invariant: nothing here outlives a crash in memory alone; pods, addresses and
rules are found again and adopted.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from pathlib import Path

import uvloop

from fairlead.client import Client, Watched, follow
from fairlead.cluster.config import ClusterConfig
from fairlead.cluster.controlplane import enter, start_logging, stop_event
from fairlead.cluster.credentials import KUBELET_CLIENTS
from fairlead.cluster.layout import Layout, images_directory
from fairlead.discovery.confirmed import newest_slice
from fairlead.discovery.fold import WATCHED, fold
from fairlead.discovery.model import ServiceSnapshot
from fairlead.kubelet.kubelet import Kubelet
from fairlead.kubelet.options import KubeletOptions
from fairlead.kubelet.spawner import Spawner
from fairlead.podnetwork.network import PodNetwork, PodNetworkOptions
from fairlead.proxy.backends import backend_for, clean_others
from fairlead.proxy.confirm import Confirmer
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.run import Proxy, uncollected
from fairlead.proxy.serving import ProxyServers

log = logging.getLogger("fairlead.node")

_WITHDRAW_SECONDS = 2.0
_MANY = 500  # events at once, beyond which the garbage collector waits


def run(layout: Layout, config: ClusterConfig, node: str) -> None:
    """Be the node until SIGTERM; its pods go on running."""
    enter(layout.node_namespace(node))
    start_logging()
    spawner = Spawner.fork()  # before there is an event loop
    uvloop.run(_serve(layout, config, node, spawner))


async def _serve(layout: Layout, config: ClusterConfig, node: str, spawner: Spawner) -> None:
    stop = stop_event()
    state = layout.node_state(node)
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    network = PodNetwork(PodNetworkOptions(node, state, config.pod_cidrs))
    options = ProxyOptions(node_name=node, cluster_cidrs=config.pod_cidrs, service_cidrs=config.service_cidrs)
    backend = backend_for(config.proxy_mode, options, config.ip_families)
    proxy = Proxy(options, backend=backend, on_first=partial(clean_others, config.proxy_mode))
    servers = ProxyServers(proxy, config.proxy_mode)
    view = View()
    async with Client.from_kubeconfig(layout.kubeconfig(node)) as client:
        kubelet = Kubelet(
            KubeletOptions(
                node_name=node,
                node_ip=config.node_ip(node),
                more_node_ips=config.addresses_of(config.node_ip(node))[1:],
                root_dir=state,
                runtime_dir=layout.runtime / "nodes" / node,
                cluster_dns=(config.dns_ip,),
                cluster_domain=config.cluster_domain,
                masked=(str(layout.state.parent), str(layout.runtime.parent)),
                resolv_conf=upstream_resolv_conf(),
                server_cert_file=layout.pki / f"kubelet-{node}.crt",
                server_key_file=layout.pki / f"kubelet-{node}.key",
                client_ca_file=layout.pki / "ca.crt",
                client_groups=(KUBELET_CLIENTS,),
                withdraw_seconds=_WITHDRAW_SECONDS,
                images_dir=images_directory(),
            ),
            client,
            network,
            spawner,
            lambda: view.snapshot,
        )
        await servers.start()
        await proxy.start()
        await kubelet.start()
        confirmer = Confirmer(client, node)
        confirming = asyncio.create_task(confirmer.run(), name="confirm")
        follower = _follow(client, view, network=network, proxy=proxy, kubelet=kubelet, confirmer=confirmer)
        following = asyncio.create_task(follower, name="follow")
        waiter = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([following, confirming, waiter], return_when=asyncio.FIRST_COMPLETED)
        following.cancel()
        confirming.cancel()
        waiter.cancel()
        await kubelet.stop()
        await proxy.stop()
        await servers.stop()
        network.close()
        for task in done - {waiter}:
            task.result()


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

    def __init__(self) -> None:
        self.snapshot = ServiceSnapshot()


async def _follow(
    client: Client, view: View, *, network: PodNetwork, proxy: Proxy, kubelet: Kubelet, confirmer: Confirmer
) -> None:
    newest = 0

    def confirm(_: object = None) -> None:
        """The kernel has what was followed so far."""
        confirmer.applied(newest)
        kubelet.confirmed_here(newest)

    proxy.on_sync = confirm  # also when it had to be tried again
    async for batch in follow(client, *(Watched(resource) for resource in WATCHED)):
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
        if batch.synced and proxy.failing_since is None:
            confirm()
