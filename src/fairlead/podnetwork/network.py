"""Applies the plan to this node, and attaches pods to it.

Runs in the node's network namespace, in the agent's event loop: every call is a few netlink round trips. Invariant:
each call may be repeated after a crash at any point; what is already there is kept, so running pods keep their links.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from fairlead.api import nodenetworks
from fairlead.discovery.model import Node
from fairlead.linux import namespaces
from fairlead.linux.links import Links, Route
from fairlead.linux.nft.objects import TableName
from fairlead.podnetwork import elsewhere, hostports, translationkeeper, wireguard
from fairlead.podnetwork.addresses import AddressBook
from fairlead.podnetwork.elsewhere import Elsewhere
from fairlead.podnetwork.hostports import HostPort
from fairlead.podnetwork.keeper import TableKeeper, drop
from fairlead.podnetwork.nat import NAT_TABLE, nat_tables
from fairlead.podnetwork.plan import BRIDGE, VXLAN_LINK, Network, NodePlan, gateway, link_name, mac_address, plan
from fairlead.podnetwork.portbook import PortBook

log = logging.getLogger("fairlead.podnetwork")

SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    # Pods on one bridge: without this, a reply between them bypasses conntrack and is never translated back.
    "net/bridge/bridge-nf-call-iptables": "1",
    # The LAN's port is the way back of what came in by another (NodePort through this node).
    "net/ipv4/conf/all/rp_filter": "0",
}
SYSCTLS6 = {"net/ipv6/conf/all/forwarding": "1", "net/bridge/bridge-nf-call-ip6tables": "1"}


_ETH0 = "eth0"
_EVERYWHERE = {4: ipaddress.ip_network("0.0.0.0/0"), 6: ipaddress.ip_network("::/0")}


class PodNetworkOptions(msgspec.Struct, frozen=True):
    """`state_dir` survives restarts. `cluster_cidrs` hold every node's pods."""

    node_name: str
    state_dir: Path
    cluster_cidrs: tuple[str, ...] = ("10.244.0.0/16",)
    mtu: int = 1500
    form: translationkeeper.Form = "nftables"


class PodAddress(msgspec.Struct, frozen=True):
    """What a pod got: its addresses (the first is status.podIP), their gateways, and its MAC."""

    ips: tuple[str, ...]
    gateways: tuple[str, ...]
    mac: str


class PodNetwork:
    """One node's pod network. `ready` is set once pods can be attached.

    `outlook` is for nodes in other networks: publish, probe and witness of `elsewhere`; without it there are none for
    this node.
    """

    def __init__(
        self,
        options: PodNetworkOptions,
        outlook: tuple[elsewhere.Publisher, elsewhere.Probe, elsewhere.Witness] | None = None,
    ) -> None:
        self._options = options
        self._links = Links()
        self._plan: NodePlan | None = None
        self._books: list[AddressBook] = []
        self._nat: TableKeeper | None = None
        self._ports: PortBook | None = None
        self._nodes: Mapping[str, Node] = {}
        self._nudge = asyncio.Event()
        self._bridge = 0
        self._elsewhere: Elsewhere | None = None
        if outlook is not None:
            publish, probe, witness = outlook
            settings = elsewhere.Settings(
                node_name=options.node_name,
                state_dir=options.state_dir,
                pods={6 if ":" in cidr else 4: cidr for cidr in options.cluster_cidrs},
                form=options.form,
                publish=publish,
                probe=probe,
                witness=witness,
            )
            self._elsewhere = Elsewhere(settings, self._links)
        self.ready = asyncio.Event()

    def close(self) -> None:
        """Release the sockets. Links, addresses, routes and rules stay."""
        if self._elsewhere is not None:
            self._elsewhere.close()
        if self._nat is not None:
            self._nat.close()
        self._links.close()

    async def sync(self, nodes: Mapping[str, Node]) -> None:
        """Make this node as the cluster's nodes demand: the bridge, the NAT, the routes to peers."""
        self._nodes = nodes
        wanted = plan(self._options.node_name, nodes, self._options.cluster_cidrs)
        if wanted is None:
            return
        if wanted != self._plan:
            if self._plan is None or self._plan.pod_cidrs != wanted.pod_cidrs:
                self._set_up(wanted)
            self._plan = wanted
            self._route(wanted)
            self.ready.set()
        self._nudge.set()

    async def run(self) -> None:
        """Keep the ways to nodes in other networks, until cancelled. They take subprocesses and answers from afar, so
        `sync` only asks for it."""
        while self._elsewhere is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(elsewhere.LOOK if self._elsewhere.active else None):
                    await self._nudge.wait()
            self._nudge.clear()
            before = self._elsewhere.routes
            try:
                await self._elsewhere.sync(self._nodes)
                if self._plan is not None and (self._elsewhere.active or before):
                    self._route(self._plan)
            except OSError as error:  # somebody took away what was just looked at; or the kernel lacks something
                log.warning("nodes in other networks: %s; trying again", error)

    async def attach(self, pod_uid: str, namespace: Path | str | int) -> PodAddress:
        """Give the pod's network namespace its eth0. Repeated for a pod that has one, says what it has."""
        await self.ready.wait()
        assert self._plan is not None
        addresses = [book.take(pod_uid) for book in self._books]
        mac = mac_address(addresses[0])
        result = PodAddress(
            ips=tuple(map(str, addresses)), gateways=tuple(str(g.ip) for g in self._plan.gateways), mac=mac
        )
        name = link_name(pod_uid)
        fd = namespace if isinstance(namespace, int) else os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._connect(name, fd, mac)
            with namespaces.entered(fd):
                device = socket.if_nametoindex(_ETH0)
                inside = Links()
            with inside:
                given, ways = [], []
                for address, via in zip(addresses, self._plan.gateways, strict=True):
                    given.append(ipaddress.ip_interface(f"{address}/{via.network.prefixlen}"))
                    ways.append(Route(_EVERYWHERE[via.version], via.ip, device))
                inside.furnish(device, given, ways)
        finally:
            if not isinstance(namespace, int):
                os.close(fd)
        return result

    def _connect(self, name: str, namespace: int, mac: str) -> None:
        """The pod's eth0 and the bridge's port are there. Each request to the kernel waits for its one lock of all
        networks, so nothing is asked before there is a reason to."""
        try:
            self._links.create_veth(
                name,
                _ETH0,
                peer_namespace=namespace,
                master=self._bridge,
                mtu=self._options.mtu,
                peer_mac=mac,
                hairpin=True,
            )
        except FileExistsError:
            with Links(namespace) as inside:
                is_whole = inside.get(_ETH0) is not None
            if is_whole:
                self._links.set_hairpin(name)
            else:  # left by an attach that was cut short, in a namespace that is gone
                self._links.delete(name)
                self._connect(name, namespace, mac)

    async def publish(self, pod_uid: str, ips: tuple[str, ...], ports: tuple[HostPort, ...]) -> None:
        """These ports of the node, and no others, lead to the pod. Raises OSError: another pod has one (PortTaken), or
        the kernel refuses."""
        await self.ready.wait()
        assert self._ports is not None
        if ports:
            write_sysctl(f"net/ipv4/conf/{BRIDGE}/route_localnet", "1")  # for what the node sends to 127.0.0.1
        self._ports.publish(pod_uid, ips, ports)

    async def detach(self, pod_uid: str) -> None:
        """Take the pod's link and give its address back. Detaching what is not attached is fine."""
        if self._ports is not None:
            self._ports.withdraw(pod_uid)
        self._links.delete(link_name(pod_uid))
        for book in self._books:
            book.give_back(pod_uid)

    def attached(self) -> set[str]:
        """The UIDs of the pods that hold an address here; after a crash, some may be gone."""
        return set().union(*(book.owners() for book in self._books))

    def _set_up(self, wanted: NodePlan) -> None:
        dual = any(network.version == 6 for network in wanted.pod_cidrs)
        for key, value in (SYSCTLS | (SYSCTLS6 if dual else {})).items():
            write_sysctl(key, value)
        mac = mac_address(wanted.gateways[0].ip)
        bridge = self._links.ensure_bridge(BRIDGE, mac)
        self._bridge = bridge.index
        for address in wanted.gateways:
            self._links.ensure_address(bridge.index, address)
        if self._nat is None:
            self._nat = TableKeeper("the rules of the pod network were")
        self._nat.apply(nat_tables(wanted))
        if self._ports is None:
            self._ports = PortBook(self._options.state_dir / "hostports", self._nat)
        root = self._options.state_dir / "addresses"
        self._books = [AddressBook(c, root / str(c).replace("/", "_").replace(":", "-")) for c in wanted.pod_cidrs]
        log.info("pod network %s ready, gateway %s", wanted.pod_cidrs[0], gateway(wanted.pod_cidrs[0]).ip)

    def _route(self, wanted: NodePlan) -> None:
        others = self._elsewhere.routes if self._elsewhere is not None else {}
        present = {r.destination: r for r in self._links.routes() if r.ours}
        reachable = [r for r in self._links.routes() if r.gateway is None]
        for peer in wanted.routes:
            device = next((r.device for r in reachable if peer.via in r.destination), None)
            if device is None:
                log.warning("pods %s: node address %s is on no network of this node", peer.destination, peer.via)
                continue
            route = Route(peer.destination, peer.via, device)
            if present.get(peer.destination) != route:
                self._links.ensure_route(route)
        for destination, route in others.items():
            if present.get(destination) != route:
                self._links.ensure_route(route)
        destinations = {peer.destination for peer in wanted.routes} | others.keys()
        for destination, route in present.items():
            if destination not in destinations and _is_pods(destination, wanted.cluster_cidrs):
                self._links.delete_route(route)


def _is_pods(destination: Network, cluster_cidrs: Iterable[Network]) -> bool:
    """Whether a route there is the pod network's: to pods, or to a node in tunnels. Others of fairlead's are theirs."""
    return any(
        destination.network_address in cidr and destination.prefixlen >= cidr.prefixlen
        for cidr in (*cluster_cidrs, nodenetworks.INNER_RANGE, nodenetworks.INNER_RANGE6)
    )


def clean(state_dir: Path, cluster_cidrs: Iterable[str]) -> None:
    """Nothing of a pod network is left in this network namespace: links, routes, tables. Sysctls stay."""
    pods = [ipaddress.ip_network(cidr) for cidr in cluster_cidrs]
    drop((TableName("ip", NAT_TABLE), TableName("ip6", NAT_TABLE), *hostports.TABLES.values()))
    translationkeeper.clean()
    wireguard.remove(wireguard.link_name(state_dir))
    with Links() as links:
        bridge = links.get(BRIDGE)
        if bridge is not None:
            for link in links.list():
                if link.master == bridge.index:
                    links.delete(link.name)
            links.delete(BRIDGE)
        links.delete(VXLAN_LINK)
        for route in [r for r in links.routes() if r.ours and _is_pods(r.destination, pods)]:
            links.delete_route(route)


def write_sysctl(key: str, value: str) -> None:
    """Set /proc/sys/<key> unless it is so. What can't be set is said once, with what is lost."""
    file = Path("/proc/sys") / key
    try:
        if file.read_text().strip() != value:
            file.write_text(value)
    except FileNotFoundError:
        log.warning("%s is not on this kernel (module br_netfilter?): Services may fail between pods of one node", key)
    except PermissionError:
        log.warning("%s could not be set to %s (needs CAP_NET_ADMIN over this network namespace)", key, value)
