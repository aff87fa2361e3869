"""The proxy with real packets: a node with two pods on a bridge, and a client outside."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from fairlead.discovery.model import Changes, Service
from fairlead.linux import namespaces
from fairlead.linux.iptables import IptablesTools
from fairlead.proxy import sysctls
from fairlead.proxy.backend import Backend
from fairlead.proxy.compile import compile_table
from fairlead.proxy.iptables.backend import IptablesBackend
from fairlead.proxy.nftables.backend import NftablesBackend
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.run import Proxy, Sync
from fairlead.proxy.table import ServiceTable
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

pytestmark = pytest.mark.kernel

OPTIONS = ProxyOptions(NODE)
VIP, NONE = "10.96.0.5", "10.96.0.6"
BOTH = (POD_A, POD_B)


@pytest.fixture
def lab(make_namespace: Callable[[str], str]) -> Iterator[Lab]:
    made = Lab(make_namespace)
    yield made
    made.close()


KINDS = ("nftables", "iptables-nft", "iptables-legacy")


def backend_of(kind: str) -> Backend:
    if kind == "nftables":
        return NftablesBackend(OPTIONS)
    return IptablesBackend(OPTIONS, ("IPv4",), lambda family: IptablesTools(family, kind.removeprefix("iptables-")))


class Rules:
    """A backend in the lab's node, fed with Services."""

    def __init__(self, lab: Lab, kind: str = "nftables") -> None:
        self.lab, self.kind, self.table = lab, kind, ServiceTable()
        self.backend = backend_of(kind)
        with lab.at("node"):
            assert sysctls.ensure(("IPv4",)) == []
            self.backend.start()

    def apply(self, *services: Service) -> int:
        """Apply; returns the number of changes made in the kernel."""
        self.table, changed = compile_table(snapshot(*services), OPTIONS, self.table, None)
        return self.backend.apply(self.table, changed).changes


@pytest.fixture(params=KINDS)
def rules(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Rules]:
    made = Rules(lab, request.param)
    yield made
    made.backend.stop()


def servers(lab: Lab, kind: socket.SocketKind = socket.SOCK_STREAM) -> dict[str, socket.socket]:
    return {address: lab.listen(address, kind=kind) for address in BOTH}


def test_tcp_spreads_over_endpoints_and_the_source_stays(lab: Lab, rules: Rules) -> None:
    """Connections of a pod to a virtual IP reach both endpoints about evenly, with the pod's own address."""
    rules.apply(service("web", VIP, BOTH))
    listening = servers(lab)
    reached: collections.Counter[str] = collections.Counter()
    for _ in range(120):
        with lab.connect(POD_A, VIP):
            name, peer, connection = accepted(listening)
            connection.close()
        reached[name] += 1
        assert peer == (GATEWAY if name == POD_A else POD_A)  # hairpin is masqueraded
    assert min(reached[a] for a in BOTH) > 30


def test_udp_through_the_virtual_ip(lab: Lab, rules: Rules) -> None:
    """Datagrams reach an endpoint and the answer comes from the virtual IP."""
    rules.apply(service("dns", VIP, BOTH, protocol="UDP", port=53))
    listening = servers(lab, socket.SOCK_DGRAM)
    reached = {ask(lab.open(POD_A, socket.SOCK_DGRAM), VIP, 53, listening) for _ in range(30)}
    assert reached == set(BOTH)


@pytest.mark.parametrize("place", [POD_A, "node", "outside"])
def test_no_endpoints_are_refused_at_once(lab: Lab, rules: Rules, place: str) -> None:
    """A Service without endpoints refuses TCP and UDP, from pods, from the node and from outside."""
    rules.apply(
        service("none", NONE, node_port=30081),
        service("none-udp", "10.96.0.7", protocol="UDP", node_port=30082),
    )
    for address, port in ((NONE, 80), (NODE_IP, 30081)):
        start = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            lab.connect(place, address, port)
        assert time.monotonic() - start < 5
    for address, port in (("10.96.0.7", 80), (NODE_IP, 30082)):
        client = lab.open(place, socket.SOCK_DGRAM)
        client.connect((address, port))
        with contextlib.suppress(PermissionError):  # on the node itself the kernel refuses the sending, too
            client.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            client.recv(10)


def test_wrong_port_is_refused_and_unallocated_ip_is_dropped(lab: Lab, rules: Rules) -> None:
    """A port no Service has on a live cluster IP is refused; a cluster IP of no Service does not answer (nftables)."""
    if rules.kind != "nftables":
        return
    rules.apply(service("web", VIP, BOTH))
    for place in (POD_A, "node", "outside"):
        with pytest.raises(ConnectionRefusedError):
            lab.connect(place, VIP, 81)
        client = lab.open(place, socket.SOCK_STREAM)
        client.settimeout(0.15)
        with pytest.raises(TimeoutError):
            client.connect(("10.96.77.77", 80))


def test_from_outside_and_from_the_node_is_masqueraded(lab: Lab, rules: Rules) -> None:
    """Who is no pod reaches cluster IPs and node ports with an address of the node."""
    rules.apply(service("web", VIP, BOTH, node_port=30080))
    listening = servers(lab)
    for place in ("outside", "node"):
        for address, port in ((VIP, 80), (NODE_IP, 30080)):
            with lab.connect(place, address, port):
                _, peer, connection = accepted(listening)
                connection.close()
            assert peer == GATEWAY, (place, address)
    with lab.connect(POD_A, NODE_IP, 30080):
        assert accepted(listening)[1] == GATEWAY


def test_local_policy(lab: Lab, rules: Rules) -> None:
    """externalTrafficPolicy Local: the client's address is kept; without local endpoints outside is dropped, but a pod
    and the node get through."""
    rules.apply(service("web", VIP, (POD_A,), node_port=30080, external_local=True))
    listening = servers(lab)
    with lab.connect("outside", NODE_IP, 30080):
        assert accepted(listening)[:2] == (POD_A, OUTSIDE_IP)
    rules.apply(service("web", VIP, (POD_B,), node_port=30080, external_local=True, node="elsewhere"))
    client = lab.open("outside", socket.SOCK_STREAM)
    client.settimeout(0.15)
    with pytest.raises(TimeoutError):
        client.connect((NODE_IP, 30080))
    with lab.connect(POD_A, NODE_IP, 30080):
        assert accepted(listening)[:2] == (POD_B, POD_A)
    with lab.connect("node", NODE_IP, 30080):
        assert accepted(listening)[:2] == (POD_B, GATEWAY)


def test_affinity(lab: Lab, rules: Rules) -> None:
    """A client with ClientIP affinity meets one endpoint by every way; another endpoint's change does not move it."""
    rules.apply(service("web", VIP, BOTH, node_port=30080, affinity_seconds=10800))
    listening = servers(lab)

    def reached(address: str, port: int) -> str:
        with lab.connect("outside", address, port):
            name, _, connection = accepted(listening)
            connection.close()
        return name

    first = reached(VIP, 80)
    assert {reached(*way) for way in ((VIP, 80), (NODE_IP, 30080)) for _ in range(10)} == {first}
    rules.apply(service("web", VIP, (*BOTH, "10.244.1.9"), node_port=30080, affinity_seconds=10800))
    assert {reached(VIP, 80) for _ in range(10)} == {first}
    other = POD_B if first == POD_A else POD_A
    rules.apply(service("web", VIP, (other,), node_port=30080, affinity_seconds=10800))
    assert {reached(VIP, 80) for _ in range(3)} == {other}


def test_affinity_times_out(lab: Lab, rules: Rules) -> None:
    """The client's place is kept for the Service's own time."""
    rules.apply(service("web", VIP, (POD_A,), affinity_seconds=1))
    listening = servers(lab)
    with lab.connect("outside", VIP):
        accepted(listening)
    if rules.kind == "nftables":
        listed = lab.nft(f"list set ip fairlead clients-shop/web/main-{POD_A}/8080")
        assert "timeout 1s" in listed
        assert f"{OUTSIDE_IP} expires" in listed


def test_applying_twice_changes_nothing(lab: Lab, rules: Rules) -> None:
    """What is there already is left alone, also by a proxy that has just started; nft can list and check it."""
    wanted = (service("web", VIP, BOTH, node_port=30080), service("sticky", "10.96.0.8", BOTH, affinity_seconds=60))
    assert rules.apply(*wanted) > 0
    assert rules.apply(*wanted) == 0
    assert rules.backend.repair().changes == 0
    again = Rules(lab, rules.kind)
    assert again.apply(*wanted) == 0
    again.backend.stop()
    if rules.kind != "nftables":
        return
    listed = lab.nft("list table ip fairlead")
    assert '10.96.0.5 . tcp . 80 comment "shop/web:main"' in listed
    assert listed.count("shop/sticky") > 3


def test_a_connection_survives_restart_and_endpoint_change(lab: Lab, rules: Rules) -> None:
    """An established connection goes on while its endpoint leaves the Service and a new proxy starts."""
    rules.apply(service("web", VIP, (POD_B,)))
    listening = servers(lab)
    client = lab.connect(POD_A, VIP)
    connection = accepted(listening)[2]
    rules.backend.stop()
    again = Rules(lab, rules.kind)
    again.apply(service("web", VIP, (POD_A,)))
    again.apply(service("web", VIP))
    again.backend.stop()
    connection.settimeout(2)
    client.send(b"still there?")
    assert connection.recv(100) == b"still there?"
    connection.send(b"yes")
    assert client.recv(100) == b"yes"
    connection.close()


def test_strangers_rules_stay_and_cleanup_leaves_only_them(lab: Lab, rules: Rules) -> None:
    """Another table survives everything; cleanup removes ours alone."""
    lab.nft("add table ip stranger")
    lab.nft("add chain ip stranger c { type nat hook prerouting priority 0 ; }")
    rules.apply(service("web", VIP, BOTH))
    rules.backend.cleanup()
    listed = lab.nft("list ruleset")
    assert "fairlead" not in listed
    assert "stranger" in listed
    with lab.at("node"):
        for variant in ("nft", "legacy"):
            for table in ("nat", "filter"):
                assert not any("KUBE-" in chain for chain in IptablesTools("IPv4", variant).read(table))


async def _started(lab: Lab, on_sync: Callable[[Sync], None] | None = None, kind: str = "nftables") -> Proxy:
    proxy = Proxy(OPTIONS, on_sync=on_sync, backend=backend_of(kind))
    with namespaces.entered(namespaces.path(lab.node)):
        await proxy.start()
    return proxy


@pytest.mark.parametrize(
    "damage",
    [
        "flush ruleset",
        "delete table ip fairlead",
        "flush chain ip fairlead services",
        "delete element ip fairlead svc-8 { 10.96.0.5 . tcp . 80 }",
        "add element ip fairlead eps { 10.96.0.5 . tcp . 80 . 70 : 1.2.3.4 . 5 }",
        "add chain ip fairlead intruder",
        "insert rule ip fairlead services drop",
    ],
)
async def test_damage_is_repaired(lab: Lab, damage: str) -> None:
    """What somebody does to our table is undone at once, without polling."""
    syncs: list[Sync] = []
    proxy = await _started(lab, syncs.append)
    try:
        await proxy.apply(snapshot(service("web", VIP, BOTH)))
        whole = lab.nft("list table ip fairlead")
        start = time.monotonic()
        lab.nft(damage)
        while len(syncs) < 2:
            assert time.monotonic() - start < 20
            await asyncio.sleep(0.005)
        assert syncs[-1].repaired
        assert _sorted(lab.nft("list table ip fairlead")) == _sorted(whole)
    finally:
        await proxy.stop()


@pytest.mark.parametrize("kind", ["iptables-nft", "iptables-legacy"])
@pytest.mark.parametrize(
    "damage", ["-t nat -F", "-t nat -F KUBE-SERVICES", "-t filter -D FORWARD 1", "-t nat -I KUBE-SERVICES -j RETURN"]
)
async def test_damage_to_iptables_is_repaired(lab: Lab, kind: str, damage: str) -> None:
    """The new kind tells of every change; the old kind is asked each second for the size of its tables."""
    syncs: list[Sync] = []
    proxy = await _started(lab, syncs.append, kind)
    try:
        entry = service("web", VIP, BOTH)
        await proxy.apply(snapshot(entry))
        with lab.at("node"):
            tools = IptablesTools("IPv4", kind.removeprefix("iptables-"))
            whole = [tools.read(table) for table in ("nat", "filter")]
            tool = "iptables-nft" if kind == "iptables-nft" else "iptables-legacy"
            subprocess.run([tool, *damage.split()], check=True)  # noqa: ASYNC221  (takes milliseconds)
        start = time.monotonic()
        while len(syncs) < 2:
            assert time.monotonic() - start < 20
            await asyncio.sleep(0.005)
        assert [tools.read(table) for table in ("nat", "filter")] == whole
        await proxy.apply(snapshot(service("web", VIP, (POD_A,))), Changes(frozenset([entry.key])))
        assert not any(sync.repaired for sync in syncs[2:])
        tools.close()
    finally:
        await proxy.stop()


def _sorted(listing: str) -> list[str]:
    return sorted(word.strip("\t ,{}=") for line in listing.splitlines() for word in line.split(","))


async def test_stale_udp_flows_are_forgotten(lab: Lab) -> None:
    """A UDP client that keeps its socket is led to the new endpoint when the old one goes, and after a restart."""
    listening = servers(lab, socket.SOCK_DGRAM)
    proxy = await _started(lab)
    client = lab.open("outside", socket.SOCK_DGRAM)
    client.bind((OUTSIDE_IP, 5555))
    try:
        for address in (POD_A, POD_B):
            entry = service("dns", VIP, (address,), protocol="UDP", node_port=30053)
            await proxy.apply(snapshot(entry), Changes(frozenset([entry.key])))
            assert ask(client, VIP, 80, listening) == address
            assert ask(client, NODE_IP, 30053, listening) == address
        await proxy.stop()
        proxy = await _started(lab)
        entry = service("dns", VIP, (POD_A,), protocol="UDP", node_port=30053)
        await proxy.apply(snapshot(entry), Changes(frozenset([entry.key])))
        assert ask(client, VIP, 80, listening) == POD_A
        await proxy.apply(snapshot(), Changes(frozenset([entry.key])))
        with pytest.raises((TimeoutError, ConnectionRefusedError, AssertionError)):
            client.settimeout(0.2)
            ask(client, VIP, 80, listening)
    finally:
        await proxy.stop()


async def test_udp_begun_while_the_rules_were_away_is_led_right_after_the_repair(lab: Lab) -> None:
    """A datagram sent between the flush and the repair makes a flow to nowhere; the client's next one arrives."""
    listening = servers(lab, socket.SOCK_DGRAM)
    proxy = await _started(lab)
    client = lab.open("outside", socket.SOCK_DGRAM)
    client.bind((OUTSIDE_IP, 5556))
    try:
        entry = service("dns", VIP, (POD_A,), protocol="UDP")
        await proxy.apply(snapshot(entry), Changes(frozenset([entry.key])))
        # Without anyone else who asks for it, the kernel would stop tracking with our last rule.
        lab.nft("add table ip watcher { chain c { type filter hook prerouting priority 0; ct state new accept; }; }")
        lab.nft("delete table ip fairlead")
        client.sendto(b"lost", (VIP, 80))
        async with asyncio.timeout(5):
            while "shop/dns" not in lab.nft("list ruleset"):  # noqa: ASYNC110  (the kernel tells the proxy, not us)
                await asyncio.sleep(0.01)
        assert ask(client, VIP, 80, listening) == POD_A
    finally:
        await proxy.stop()


async def test_nothing_is_touched_before_the_first_complete_snapshot(lab: Lab) -> None:
    """Rules of a former run stay until everything has been listed."""
    proxy = await _started(lab)
    try:
        await proxy.apply(snapshot(service("web", VIP, BOTH)))
        await proxy.stop()
        proxy = await _started(lab)
        empty = snapshot()
        await proxy.apply(type(empty)(empty.services, empty.nodes, synced=False))
        assert "shop/web" in lab.nft("list table ip fairlead")
        await proxy.apply(empty)
        assert "shop/web" not in lab.nft("list table ip fairlead")
    finally:
        await proxy.stop()
