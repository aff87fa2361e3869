"""ipvs mode with real packets, in a kernel that has it (tools/uml runs these inside user-mode Linux)."""

from __future__ import annotations

import asyncio
import collections
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fairlead.cluster.nodeagent import NodeSettings, node_proxy
from fairlead.discovery.model import LoadBalancerAddress, Service
from fairlead.linux import namespaces
from fairlead.linux.ipset import IpsetSocket
from fairlead.linux.iptables import IptablesTools
from fairlead.linux.ipvs import Address, Destination, DropDestination, DropServer, IpvsSocket
from fairlead.linux.links import Links
from fairlead.proxy import sysctls
from fairlead.proxy.compile import compile_table
from fairlead.proxy.iptables.backend import IptablesBackend
from fairlead.proxy.ipvs.backend import IpvsBackend
from fairlead.proxy.ipvs.support import missing
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.table import ServiceTable
from tests.kernel.conftest import make_namespace  # noqa: F401  (the fixture)
from tests.kernel.proxy_lab import (
    GATEWAY,
    NODE,
    NODE_IP,
    OUTSIDE_IP,
    POD_A,
    POD_B,
    Lab,
    accepted,
    ask,
    service,
    snapshot,
)

OPTIONS = ProxyOptions(NODE)
VIP, BALANCER = "10.96.0.5", "10.96.200.80"  # the lab routes 10.96.0.0/16 to the node
BOTH = (POD_A, POD_B)


@pytest.fixture
def lab(make_namespace: Callable[[str], str]) -> Iterator[Lab]:  # noqa: F811
    made = Lab(make_namespace)
    yield made
    made.close()


class Rules:
    """The backend in the lab's node, fed with Services."""

    def __init__(self, lab: Lab, options: ProxyOptions = OPTIONS) -> None:
        self.lab, self.table, self.options = lab, ServiceTable(), options
        self.backend = IpvsBackend(options)
        with lab.at("node"):
            sysctls.ensure(("IPv4",))
            self.backend.start()

    def apply(self, *services: Service) -> int:
        self.table, changed = compile_table(snapshot(*services), self.options, self.table, None)
        return self.backend.apply(self.table, changed).changes


@pytest.fixture
def rules(lab: Lab) -> Iterator[Rules]:
    made = Rules(lab)
    yield made
    made.backend.stop()


def servers(lab: Lab, kind: socket.SocketKind = socket.SOCK_STREAM) -> dict[str, socket.socket]:
    return {address: lab.listen(address, kind=kind) for address in BOTH}


def reach(lab: Lab, listening: dict[str, socket.socket], place: str, address: str, port: int = 80) -> tuple[str, str]:
    client = lab.open(place, socket.SOCK_STREAM)
    client.settimeout(1)
    client.connect((address, port))
    name, peer, connection = accepted(listening)
    connection.close()
    client.close()
    return name, peer


def test_round_robin_hairpin_and_masquerade(lab: Lab, rules: Rules) -> None:
    """Both endpoints in turn; a pod keeps its address but where it reaches itself; others get the node's."""
    rules.apply(service("web", VIP, BOTH, node_port=30080))
    listening = servers(lab)
    reached = collections.Counter(reach(lab, listening, POD_A, VIP) for _ in range(20))
    assert reached == {(POD_A, GATEWAY): 10, (POD_B, POD_A): 10}
    for place in ("outside", "node"):
        for address, port in ((VIP, 80), (NODE_IP, 30080)):
            assert {reach(lab, listening, place, address, port)[1] for _ in range(2)} == {GATEWAY}, (place, address)


def test_udp(lab: Lab, rules: Rules) -> None:
    """Datagrams reach an endpoint and the answer comes from the virtual IP."""
    rules.apply(service("dns", VIP, BOTH, protocol="UDP", port=53))
    listening = servers(lab, socket.SOCK_DGRAM)
    reached = {ask(lab.open(POD_A, socket.SOCK_DGRAM), VIP, 53, listening) for _ in range(6)}
    assert reached == set(BOTH)


@pytest.mark.parametrize("place", [POD_A, "node", "outside"])
def test_refusals(lab: Lab, rules: Rules, place: str) -> None:
    """Without endpoints, and at a wrong port of a virtual IP, a connection is refused, even if the node listens."""
    rules.apply(service("none", VIP), service("web", "10.96.0.6", BOTH))
    lab.listen("node", 81)
    for address, port in ((VIP, 80), ("10.96.0.6", 81)):
        with pytest.raises(ConnectionRefusedError):
            lab.connect(place, address, port)


def test_local_policies(lab: Lab, rules: Rules) -> None:
    """Local: the client's address is kept; without local endpoints outside is dropped, a pod and the node get through;
    the same inside, where everybody is dropped."""
    listening = servers(lab)
    rules.apply(service("web", VIP, (POD_A,), node_port=30080, external_local=True))
    assert reach(lab, listening, "outside", NODE_IP, 30080) == (POD_A, OUTSIDE_IP)
    away = service("web", VIP, (POD_B,), node_port=30080, external_local=True, internal_local=True, node="elsewhere")
    rules.apply(away)
    for place, address, port in (("outside", NODE_IP, 30080), (POD_A, VIP, 80)):
        client = lab.open(place, socket.SOCK_STREAM)
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.connect((address, port))
    assert reach(lab, listening, POD_A, NODE_IP, 30080) == (POD_B, POD_A)
    assert reach(lab, listening, "node", NODE_IP, 30080) == (POD_B, GATEWAY)


def test_source_ranges(lab: Lab, rules: Rules) -> None:
    """The load balancer's IP answers its clients and drops others."""
    listening = servers(lab)
    balanced = {"type": "LoadBalancer", "load_balancer": (LoadBalancerAddress(BALANCER),)}
    rules.apply(service("web", VIP, (POD_B,), source_ranges=(f"{OUTSIDE_IP}/32",), **balanced))
    assert reach(lab, listening, "outside", BALANCER) == (POD_B, GATEWAY)
    client = lab.open(POD_A, socket.SOCK_STREAM)
    client.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.connect((BALANCER, 80))


def test_affinity(lab: Lab, rules: Rules) -> None:
    """A client stays with its endpoint."""
    rules.apply(service("web", VIP, BOTH, affinity_seconds=100))
    listening = servers(lab)
    assert len({reach(lab, listening, "outside", VIP)[0] for _ in range(6)}) == 1


def test_graceful_removal(lab: Lab, rules: Rules) -> None:
    """An endpoint that leaves keeps its connections and gets no new ones; when they have ended, it goes."""
    rules.apply(service("web", VIP, (POD_B,)))
    listening = servers(lab)
    client = lab.connect(POD_A, VIP)
    connection = accepted(listening)[2]
    rules.apply(service("web", VIP, (POD_A,)))
    with lab.at("node"):
        ipvs = IpvsSocket()
    weights = {d.address: load.weight for _, destinations in ipvs.read().values() for d, load in destinations.items()}
    assert weights == {POD_A: 1, POD_B: 0}
    assert {reach(lab, listening, "outside", VIP)[0] for _ in range(4)} == {POD_A}
    client.send(b"still there?")
    assert connection.recv(100) == b"still there?"
    assert not rules.backend.disturbed()
    ipvs.close()


def test_applying_twice_restart_repair_and_cleanup(lab: Lab, rules: Rules) -> None:
    """What is there is left alone, also by a new proxy; damage is seen and mended; clean-up leaves nothing."""
    wanted = (service("web", VIP, BOTH, node_port=30080), service("sticky", "10.96.0.8", BOTH, affinity_seconds=60))
    assert rules.apply(*wanted) > 0
    assert rules.apply(*wanted) == 0
    assert rules.backend.repair().changes == 0
    again = Rules(lab)
    assert again.apply(*wanted) == 0
    again.backend.stop()
    with lab.at("node"):
        ipvs = IpvsSocket()
    ipvs.commit([DropServer(Address("TCP", VIP, 80))])
    ipvs.commit([DropDestination(Address("TCP", NODE_IP, 30080), Destination(POD_A, 8080))])
    assert rules.backend.disturbed()
    assert rules.backend.repair().changes == 4
    assert not rules.backend.disturbed()
    rules.backend.cleanup()
    assert ipvs.read() == {}
    ipvs.close()
    with lab.at("node"):
        sets, links = IpsetSocket(), Links(namespaces.path(lab.node))
        assert sets.read() == {}
        assert links.get("kube-ipvs0") is None
        sets.close()
        links.close()


async def test_the_proxy_of_a_clusters_node(lab: Lab, tmp_path: Path) -> None:
    """`fairlead up --proxy-mode ipvs`: this kernel has what it takes, and the proxy a node's process makes serves pods
    and clients outside; its start takes the rules of another mode away; it tells its mode."""
    assert missing() is None
    settings = NodeSettings(
        cluster="lab",
        node=NODE,
        node_ips=(NODE_IP,),
        state=tmp_path / "state",
        runtime=tmp_path / "runtime",
        kubeconfig=tmp_path / "kubeconfig",
        pki=tmp_path,
        pod_cidrs=("10.244.0.0/16",),
        service_cidrs=("10.96.0.0/16",),
        ip_families=("IPv4",),
        proxy_mode="ipvs",
        acceleration=tmp_path / "acceleration",
        volumes=tmp_path / "volumes",
        dns_ip="10.96.0.10",
        cluster_domain="cluster.local",
    )
    servers = {pod: lab.listen(pod) for pod in BOTH}
    with lab.at("node"):
        sysctls.ensure(("IPv4",))
        before = IptablesBackend(OPTIONS)
        before.start()
        table, changed = compile_table(snapshot(service("web", VIP, BOTH, node_port=30080)), OPTIONS)
        before.apply(table, changed)
        before.stop()
        proxy, pages = node_proxy(settings)
        await pages.start()
        await proxy.start()
    try:
        with lab.at("node"):
            await proxy.apply(snapshot(service("web", VIP, BOTH, node_port=30080)))
            assert proxy.healthy()
            tools = IptablesTools("IPv4")
            assert not any(chain.startswith("KUBE-SVC") for chain in tools.read("nat"))
            tools.close()
        for place, address, port in ((POD_A, VIP, 80), ("outside", VIP, 80), ("outside", NODE_IP, 30080)):
            reached = set()
            for _ in range(4):
                client = lab.connect(place, address, port)
                name, _, connection = accepted(servers)
                reached.add(name)
                connection.close()
                client.close()
            assert reached == set(BOTH), place
        with lab.at("node"):
            client = socket.create_connection(("127.0.0.1", pages.ports[1]))
        reader, writer = await asyncio.open_connection(sock=client)
        writer.write(b"GET /proxyMode HTTP/1.0\r\n\r\n")
        assert (await reader.read()).endswith(b"ipvs")
        writer.close()
    finally:
        await proxy.stop()
        await pages.stop()


@pytest.mark.parametrize(("old", "new"), [("iptables", "ipvs"), ("ipvs", "iptables")])
def test_from_one_mode_to_another(lab: Lab, old: str, new: str) -> None:
    """New connections get through at once. An open one goes on from iptables to ipvs. (When ipvs is left it may end:
    the kernel has it in a table of its own.)"""
    table, changed = compile_table(snapshot(service("web", VIP, BOTH)), OPTIONS)
    servers = {pod: lab.listen(pod) for pod in BOTH}

    def start(mode: str) -> None:
        with lab.at("node"):
            sysctls.ensure(("IPv4",))
            backend = IpvsBackend(OPTIONS) if mode == "ipvs" else IptablesBackend(OPTIONS)
            backend.start()
            backend.apply(table, changed)
            backend.stop()

    start(old)
    client = lab.connect(POD_A, VIP)
    _, _, connection = accepted(servers)
    start(new)
    if old == "ipvs":
        with lab.at("node"):
            IpvsBackend(OPTIONS).cleanup_beside_iptables()
    again = lab.connect(POD_A, VIP)
    assert accepted(servers)[0] in BOTH
    again.close()
    if new == "ipvs":
        client.send(b"still there?")
        connection.settimeout(30)
        assert connection.recv(100) == b"still there?"
    connection.close()
