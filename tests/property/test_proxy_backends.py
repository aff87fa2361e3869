"""All backends agree: any Services, endpoints, nodes and policies, any packet: the same endpoints, refusals, drops and
masquerade. In the tracers of each backend's own rules; tests/kernel does the same with fewer, real packets."""

from __future__ import annotations

import ipaddress

from hypothesis import given, settings
from hypothesis import strategies as st
from immutables import Map
from msgspec.structs import replace

from fairlead.discovery.model import (
    Changes,
    Endpoint,
    EndpointPort,
    LoadBalancerAddress,
    Node,
    Service,
    ServiceKey,
    ServicePort,
    ServiceSnapshot,
    Slice,
)
from fairlead.linux.ipset import MemoryIpset
from fairlead.linux.iptables_memory import MemoryIptables
from fairlead.linux.ipvs import Address, Destination, Load, MemoryIpvs
from fairlead.proxy.compile import compile_table
from fairlead.proxy.iptables import show as iptables
from fairlead.proxy.iptables.backend import IptablesBackend
from fairlead.proxy.iptables.trace import trace as iptables_trace
from fairlead.proxy.ipvs import show as ipvs
from fairlead.proxy.ipvs.backend import IpvsBackend, Kernel
from fairlead.proxy.ipvs.layout import TYPES
from fairlead.proxy.ipvs.trace import trace as ipvs_trace
from fairlead.proxy.nftables import show as nftables
from fairlead.proxy.nftables.trace import Outcome, Packet
from fairlead.proxy.nftables.trace import trace as nft_trace
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.table import ServiceTable
from tests.property.test_proxy_nftables import addresses, services

NODE_IP, SECOND_IP, OUTSIDE = "192.0.2.1", "192.0.2.77", "198.51.100.7"
LOCAL = frozenset({NODE_IP, SECOND_IP, "127.0.0.1"})
EXTERNAL, BALANCER = "203.0.113.9", "203.0.113.80"

options = st.builds(
    ProxyOptions,
    st.just("n1"),
    cluster_cidrs=st.sampled_from([(), ("10.244.0.0/16",), ("10.244.1.0/24", "10.244.2.0/24")]),
    masquerade_all=st.booleans(),
    masquerade_bit=st.sampled_from([14, 3]),
    node_port_addresses=st.sampled_from([("primary",), ("192.0.2.0/26",), ("0.0.0.0/0",)]),
    localhost_node_ports=st.booleans(),
    detect_local=st.sampled_from(["ClusterCIDR", "ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"]),
    local_interface=st.just("cni0"),
)


@st.composite
def exposed(draw: st.DrawFn, number: int) -> Service:
    """A Service that may have every way in there is."""
    base = draw(services(number))
    # Two Services with one address are for the backend's ledgers, and there each backend has its own way to choose.
    return replace(
        base,
        cluster_ips=(f"10.96.0.{number + 1}",),
        external_ips=draw(st.sampled_from([(), (), (f"203.0.113.{10 + number}",)])),
        load_balancer=draw(
            st.sampled_from([(), (LoadBalancerAddress(BALANCER),), (LoadBalancerAddress(BALANCER, proxied=True),)])
        )
        if number == 0
        else (),
        source_ranges=tuple(
            draw(
                st.lists(
                    st.sampled_from(["198.51.100.0/24", "10.244.1.0/24", "192.0.2.0/24", "203.0.113.80/32"]), max_size=2
                )
            )
        ),
    )


@st.composite
def snapshots(draw: st.DrawFn) -> ServiceSnapshot:
    chosen = [draw(exposed(number)) for number in draw(st.sets(st.integers(0, 2), min_size=1))]
    node = Node("n1", (NODE_IP,), pod_cidrs=("10.244.1.0/24",), zone=draw(st.sampled_from(["", "z1"])))
    return ServiceSnapshot(Map({s.key: s for s in chosen}), Map({"n1": node}), synced=True)


@st.composite
def packets(draw: st.DrawFn, snapshot: ServiceSnapshot) -> Packet:
    """From a pod here, the node, outside; to an address and port of one of the Services."""
    service = draw(st.sampled_from(sorted(snapshot.services.values(), key=lambda s: s.key)))
    port = draw(st.sampled_from(service.ports))
    at_node = [NODE_IP, SECOND_IP, "127.0.0.1"] if port.node_port else []
    ways = [*service.cluster_ips, *service.external_ips, *(lb.ip for lb in service.load_balancer), *at_node]
    destination = draw(st.sampled_from(ways))
    number = port.node_port if destination in at_node else port.port
    kind = draw(st.sampled_from(["pod", "node", "outside"] if destination != "127.0.0.1" else ["node"]))
    if kind == "node":
        own = "127.0.0.1" if destination == "127.0.0.1" else NODE_IP
        return Packet(own, destination, port.protocol, number, from_node=True)
    if kind == "pod":
        source = draw(addresses.filter(lambda a: a.startswith("10.244.1.")))
        return Packet(source, destination, port.protocol, number, link="cni0")
    source = draw(st.sampled_from([OUTSIDE, "198.18.0.1", BALANCER]))
    return Packet(source, destination, port.protocol, number, link="eth0")


def alike(outcomes: frozenset[Outcome]) -> frozenset[Outcome]:
    """A refusal is a refusal, by reset or by ICMP."""
    return frozenset(Outcome("reject") if o.verdict == "reset" else o for o in outcomes)


@settings(deadline=None, max_examples=100)
@given(st.data(), snapshots(), options)
def test_every_backend_treats_a_packet_alike(
    data: st.DataObject, snapshot: ServiceSnapshot, chosen: ProxyOptions
) -> None:
    """The rules of each, as they would be loaded, asked where the packet goes."""
    table, _ = compile_table(snapshot, chosen)
    nft, chains = nftables.state_of("IPv4", chosen, table), iptables.chains_of("IPv4", chosen, table)
    for _ in range(4):
        packet = data.draw(packets(snapshot))
        if packet.destination not in table.node.addresses and packet.destination in LOCAL:
            # Where node ports are not served, iptables still refuses those without endpoints, as kube-proxy does.
            served = alike(nft_trace(nft, packet, LOCAL))
            got = iptables_trace(chains, packet, LOCAL)
            assert got == served or {o.verdict for o in (*got, *served)} <= {"pass", "reject", "drop"}
            continue
        assert iptables_trace(chains, packet, LOCAL) == alike(nft_trace(nft, packet, LOCAL)), packet


@settings(deadline=None, max_examples=100)
@given(st.data(), snapshots(), options)
def test_ipvs_treats_a_packet_alike(data: st.DataObject, snapshot: ServiceSnapshot, chosen: ProxyOptions) -> None:
    """As the others, but: under externalTrafficPolicy Local a pod or the node reaches the endpoints of this node where
    there are some, not all; and node ports are not served on 127.0.0.1."""
    table, _ = compile_table(snapshot, chosen)
    networks = [ipaddress.ip_network(entry) for entry in table.node.addresses]
    served = tuple(a for a in (NODE_IP, SECOND_IP) if any(ipaddress.ip_address(a) in n for n in networks))
    nft, state = nftables.state_of("IPv4", chosen, table), ipvs.state_of("IPv4", chosen, table, served)
    for _ in range(4):
        packet = data.draw(packets(snapshot))
        if packet.destination == "127.0.0.1" or packet.source == BALANCER:
            continue  # the balancer's address is the node's own in this mode: nobody else may come with it
        got, wanted = ipvs_trace(state, packet, LOCAL), alike(nft_trace(nft, packet, LOCAL))
        if packet.from_node:  # whose packets may carry the virtual IP as their source: always masqueraded
            got, wanted = (frozenset(o._replace(masquerade=False) for o in outcomes) for outcomes in (got, wanted))
        local = any(service.external_local for service in snapshot.services.values())
        inside = packet.source not in (OUTSIDE, "198.18.0.1")
        if inside and local and not packet.destination.startswith("10.96."):
            assert ways(got) <= ways(wanted) | ways(
                nft_trace(nft, packet._replace(source=OUTSIDE, from_node=False, link="eth0"), LOCAL)
            ), packet
            assert {o.verdict for o in got} == {o.verdict for o in wanted}, packet
        else:
            assert got == wanted, packet


def ways(outcomes: frozenset[Outcome]) -> set[tuple[str, int]]:
    """Where it is forwarded to."""
    return {(o.destination, o.port) for o in outcomes if o.verdict == "forward"}


@settings(deadline=None, max_examples=60)
@given(st.lists(snapshots(), min_size=1, max_size=4), options)
def test_ipvs_change_by_change_equals_all_at_once(history: list[ServiceSnapshot], chosen: ProxyOptions) -> None:
    """Whatever came before: servers, addresses, sets and rules are what the last snapshot says, and a second look finds
    nothing to mend. In the end nothing is left."""
    kernel = Kernel(MemoryIpvs(), MemoryIpset(), MemoryAddresses(), {"IPv4": MemoryIptables()})
    backend = IpvsBackend(chosen, ("IPv4",), lambda families: kernel)
    backend.start()
    table, before = ServiceTable(), None
    for snapshot in history:
        changes = None
        if before is not None:
            keys = {*before.services, *snapshot.services}
            different = frozenset(k for k in keys if before.services.get(k) != snapshot.services.get(k))
            changes = Changes(different, frozenset(["n1"]) if before.nodes != snapshot.nodes else frozenset())
        table, changed = compile_table(snapshot, chosen, table, changes)
        backend.apply(table, changed)
        before = snapshot
    networks = [ipaddress.ip_network(entry) for entry in table.node.addresses]
    served = tuple(a for a in (NODE_IP, SECOND_IP) if any(ipaddress.ip_address(a) in n for n in networks))
    wanted = ipvs.state_of("IPv4", chosen, table, served)
    held = {at: (server, frozenset(d)) for at, (server, d) in kernel.ipvs.read().items()}
    assert (held, kernel.addresses.held(), kernel.sets.read()) == (wanted.servers, wanted.addresses, wanted.sets)
    assert not backend.disturbed()
    assert backend.repair().changes == 0
    backend.cleanup()
    assert (kernel.ipvs.read(), kernel.sets.read()) == ({}, {})
    assert not any(r for name in wanted.tables for r in kernel.iptables["IPv4"].read(name).values())


def test_ipvs_lets_connections_end() -> None:
    """A destination that left stays without weight while it has connections; then it goes, and nobody is blamed."""
    kernel = Kernel(MemoryIpvs(), MemoryIpset(), MemoryAddresses(), {"IPv4": MemoryIptables()})
    backend = IpvsBackend(ProxyOptions("n1"), ("IPv4",), lambda families: kernel)
    backend.start()
    ports = (ServicePort("a", "TCP", 80, 8080),)

    def apply(*endpoints: str) -> None:
        slices = (Slice("s", "IPv4", (EndpointPort("a", "TCP", 8080),), tuple(Endpoint(e) for e in endpoints)),)
        service = Service(ServiceKey("shop", "web"), cluster_ips=("10.96.0.5",), ports=ports, slices=slices)
        snapshot = ServiceSnapshot(Map({service.key: service}), synced=True)
        table, _ = compile_table(snapshot, ProxyOptions("n1"))
        backend.apply(table, frozenset([service.key]))

    apply("10.244.1.2", "10.244.1.3")
    held = kernel.ipvs.table[Address("TCP", "10.96.0.5", 80)][1]
    leaver = Destination("10.244.1.3", 8080)
    held[leaver] = Load(1, active=1)
    apply("10.244.1.2")
    assert held[leaver] == Load(0, active=1)
    assert not backend.disturbed()
    assert leaver in held
    held[leaver] = Load(0)
    assert not backend.disturbed()
    assert leaver not in held
    kernel.addresses.drop()
    assert backend.disturbed()


def test_ipvs_of_both_families() -> None:
    """Every set of either family has a name that the kernel takes, and no other set has."""
    tables = {"IPv4": MemoryIptables(), "IPv6": MemoryIptables()}
    kernel = Kernel(MemoryIpvs(), MemoryIpset(), MemoryAddresses(), tables)
    backend = IpvsBackend(ProxyOptions("n1"), ("IPv4", "IPv6"), lambda families: kernel)
    backend.start()
    ports = (ServicePort("a", "TCP", 80, 8080),)
    service = Service(ServiceKey("shop", "web"), cluster_ips=("10.96.0.5", "fd00:96::5"), ports=ports)
    backend.apply(*compile_table(ServiceSnapshot(Map({service.key: service}), synced=True), ProxyOptions("n1")))
    assert len(kernel.sets.read()) == 2 * len(TYPES)
    assert {Address("TCP", "10.96.0.5", 80), Address("TCP", "fd00:96::5", 80)} <= set(kernel.ipvs.read())
    backend.cleanup()
    assert (kernel.ipvs.read(), kernel.sets.read()) == ({}, {})


class MemoryAddresses:
    """Addresses of nobody's links."""

    def __init__(self) -> None:
        self.there: set[str] = set()

    def held(self) -> set[str]:
        return set(self.there)

    def own(self) -> set[str]:
        return {NODE_IP, SECOND_IP, "127.0.0.1"}

    def add(self, address: str) -> None:
        self.there.add(address)

    def remove(self, address: str) -> None:
        self.there.discard(address)

    def drop(self) -> None:
        self.there.clear()

    def close(self) -> None:
        pass


@settings(deadline=None, max_examples=60)
@given(st.lists(snapshots(), min_size=1, max_size=4), options)
def test_iptables_change_by_change_equals_all_at_once(history: list[ServiceSnapshot], chosen: ProxyOptions) -> None:
    """Whatever came before: the tables hold what the last snapshot says, every restore was accepted, and a second look
    finds nothing to mend. In the end nothing is left."""
    memory = MemoryIptables()
    backend = IptablesBackend(chosen, ("IPv4",), lambda family: memory)
    backend.start()
    table, before = ServiceTable(), None
    for snapshot in history:
        changes = None
        if before is not None:
            keys = {*before.services, *snapshot.services}
            different = frozenset(k for k in keys if before.services.get(k) != snapshot.services.get(k))
            changes = Changes(different, frozenset(["n1"]) if before.nodes != snapshot.nodes else frozenset())
        table, changed = compile_table(snapshot, chosen, table, changes)
        backend.apply(table, changed)
        before = snapshot
    wanted = iptables.chains_of("IPv4", chosen, table)
    for name, chains in wanted.items():
        held = {chain: rules for chain, rules in memory.read(name).items() if chain in chains or rules}
        assert {c: sorted(r) for c, r in held.items()} == {c: sorted(r) for c, r in chains.items()}
    assert backend.repair().changes == 0
    backend.cleanup()
    assert not any(rules for name in wanted for rules in memory.read(name).values())


@settings(deadline=None, max_examples=30)
@given(snapshots())
def test_iptables_over_anything_that_is_there(snapshot: ServiceSnapshot) -> None:
    """Damage of any sort is mended by one look; strangers' rules stay."""
    memory, chosen = MemoryIptables(), ProxyOptions("n1")
    backend = IptablesBackend(chosen, ("IPv4",), lambda family: memory)
    backend.start()
    backend.apply(*compile_table(snapshot, chosen))
    whole = {name: memory.read(name) for name in memory.tables}
    stranger = ("-s", "9.9.9.9/32", "-j", "DROP")
    memory.tables["filter"]["FORWARD"].insert(1, stranger)
    memory.tables["nat"]["KUBE-SERVICES"] = [stranger]
    memory.tables["nat"].pop("KUBE-MARK-MASQ")
    memory.tables["nat"]["KUBE-SVC-OLD"] = [("-j", "DROP")]
    memory.tables["nat"]["OUTPUT"] = []
    assert backend.repair().changes > 0
    assert memory.tables["filter"]["FORWARD"].count(stranger) == 1
    memory.tables["filter"]["FORWARD"].remove(stranger)
    for name, chains in whole.items():
        assert {c: sorted(r) for c, r in memory.read(name).items()} == {c: sorted(r) for c, r in chains.items()}
