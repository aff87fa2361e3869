"""The proxy's rules, for any Services: diffs lead where they should, and packets go to the chosen endpoints."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from immutables import Map

from fairlead.discovery.choose import categorize, choose
from fairlead.discovery.model import (
    Changes,
    Endpoint,
    EndpointPort,
    Node,
    Service,
    ServiceKey,
    ServicePort,
    ServiceSnapshot,
    Slice,
)
from fairlead.linux.nft.memory import MemoryNftables, apply_changes
from fairlead.linux.nft.objects import TableState
from fairlead.proxy.compile import compile_table, settle
from fairlead.proxy.nftables import diff, layout
from fairlead.proxy.nftables.backend import NftablesBackend
from fairlead.proxy.nftables.desired import NODE, Piece, piece_of
from fairlead.proxy.nftables.trace import Outcome, Packet, trace
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.table import ServiceTable, Target

OPTIONS = ProxyOptions("n1")
NODE_IP, POD, OUTSIDE = "192.0.2.1", "10.244.1.250", "198.51.100.7"

addresses = st.builds("10.244.{}.{}".format, st.integers(1, 2), st.integers(1, 12))


@st.composite
def endpoints(draw: st.DrawFn) -> Endpoint:
    address = draw(addresses)
    return Endpoint(
        address,
        ready=draw(st.booleans()),
        serving=draw(st.booleans()),
        terminating=draw(st.booleans()),
        node="n1" if address.startswith("10.244.1.") else draw(st.sampled_from(["n2", ""])),
        zone_hints=draw(st.sampled_from([(), ("z1",), ("z2",)])),
    )


@st.composite
def services(draw: st.DrawFn, number: int) -> Service:
    ports = draw(
        st.lists(
            st.sampled_from([ServicePort("a", "TCP", 80, "a", 30000 + 4 * number), ServicePort("b", "UDP", 53, 53)]),
            unique=True,
            min_size=1,
        )
    )
    slices = tuple(
        Slice(
            f"s{i}",
            "IPv4",
            draw(
                st.sampled_from(
                    [(EndpointPort("a", "TCP", 8080),), (EndpointPort("a", "TCP", 9), EndpointPort("b", "UDP", 53))]
                )
            ),
            tuple(draw(st.lists(endpoints(), max_size=12))),
        )
        for i in range(draw(st.integers(0, 2)))
    )
    return Service(
        ServiceKey("shop", f"s{number}"),
        # Two services with one address come about by the API's mistakes only, but must not break anything.
        cluster_ips=(draw(st.sampled_from([f"10.96.0.{number + 1}"] * 4 + ["10.96.0.200"])),),
        ports=tuple(ports),
        affinity_seconds=draw(st.sampled_from([0, 0, 0, 60])),
        internal_local=draw(st.booleans()),
        external_local=draw(st.booleans()),
        slices=slices,
    )


@st.composite
def snapshots(draw: st.DrawFn) -> ServiceSnapshot:
    chosen = [draw(services(number)) for number in draw(st.sets(st.integers(0, 3)))]
    node = Node("n1", (draw(st.sampled_from([NODE_IP, "192.0.2.9"])),), zone=draw(st.sampled_from(["", "z1"])))
    return ServiceSnapshot(Map({s.key: s for s in chosen}), Map({"n1": node}), synced=True)


def whole(table: ServiceTable) -> TableState:
    ledger = diff.Ledger()
    ledger.replace([(key, Piece(), piece_of("IPv4", OPTIONS, table, key)) for key in (NODE, *sorted(table.services))])
    return ledger.state("x")


@settings(deadline=None)
@given(snapshots(), snapshots())
def test_the_difference_leads_from_one_to_the_other(a: ServiceSnapshot, b: ServiceSnapshot) -> None:
    """apply(reconcile(a, b), a) == b, in an order the kernel accepts; reconcile(a, a) is empty."""
    before, after = (whole(compile_table(s, OPTIONS)[0]) for s in (a, b))
    assert apply_changes(before, diff.reconcile(before, after)) == after
    assert apply_changes(None, diff.reconcile(None, after)) == after
    assert diff.reconcile(after, after) == ()


@settings(deadline=None)
@given(st.lists(snapshots(), min_size=1, max_size=5))
def test_changes_one_by_one_equal_all_at_once(history: list[ServiceSnapshot]) -> None:
    """Whatever came before: the kernel holds what the table says, as if it had been made in one go."""
    nft = MemoryNftables()
    backend = NftablesBackend(OPTIONS, ("IPv4",), lambda: nft)
    backend.start()
    table, before = ServiceTable(), None
    for snapshot in history:
        changes = None
        if before is not None:
            keys = {*before.services, *snapshot.services}
            services = frozenset(k for k in keys if before.services.get(k) != snapshot.services.get(k))
            nodes = frozenset(["n1"]) if before.nodes != snapshot.nodes else frozenset()
            changes = Changes(services, nodes)
        table, changed = compile_table(snapshot, OPTIONS, table, changes)
        backend.apply(table, changed)
        before = snapshot
    (state,) = nft.tables.values()
    wanted = whole(table)
    assert (state.chains, state.sets, state.elements) == (wanted.chains, wanted.sets, wanted.elements)
    fresh, _ = compile_table(history[-1], OPTIONS)
    assert {k: _unordered(v) for k, v in fresh.services.items()} == {
        k: _unordered(v) for k, v in table.services.items()
    }
    assert backend.repair().changes == 0


def _unordered(entries: tuple[object, ...]) -> set[object]:
    return {(e.slot, e.verdict, e.masquerade, frozenset(e.targets)) for e in entries}  # type: ignore[attr-defined]


@settings(deadline=None)
@given(services(0))
def test_packets_go_where_discovery_says(service: Service) -> None:
    """From a pod, the node and outside, by cluster IP and node port: exactly the chosen endpoints or verdict."""
    snapshot = ServiceSnapshot(Map({service.key: service}), Map({"n1": Node("n1", (NODE_IP,))}), synced=True)
    state = whole(compile_table(snapshot, OPTIONS)[0])
    for port in service.ports:
        where = {"node": "n1", "zone": ""}
        for source, from_node in ((POD, False), (NODE_IP, True), (OUTSIDE, False)):
            inside = source != OUTSIDE
            choice = choose(service, port, "IPv4", external=False, **where)
            got = trace(state, Packet(source, service.cluster_ips[0], port.protocol, port.port, from_node), {NODE_IP})
            assert got == _expected(choice.verdict, choice.endpoints, port.protocol, source, source != POD)
            if not port.node_port:
                continue
            choice = choose(service, port, "IPv4", external=True, **where)
            verdict, chosen = choice.verdict, choice.endpoints
            everywhere = categorize(service, port, "IPv4", **where).cluster
            if service.external_local and inside and everywhere:
                verdict, chosen = "forward", everywhere
            hidden = source == NODE_IP if service.external_local else True
            got = trace(state, Packet(source, NODE_IP, port.protocol, port.node_port, from_node), {NODE_IP})
            assert got == _expected(verdict, chosen, port.protocol, source, hidden)


def _expected(verdict: str, chosen: tuple, protocol: str, source: str, hidden: bool) -> set[Outcome]:  # type: ignore[type-arg]
    if verdict == "forward":
        return {Outcome("forward", b.endpoint.address, b.port, hidden or b.endpoint.address == source) for b in chosen}
    if verdict == "drop":
        return {Outcome("drop")}
    return {Outcome("reset" if protocol == "TCP" else "reject")}


targets = st.lists(st.builds(Target, st.sampled_from("abcdefghij"), st.just(80)), unique=True).map(tuple)


@settings(deadline=None)
@given(targets, targets)
def test_slots_move_as_little_as_possible(before: tuple[Target, ...], wanted: tuple[Target, ...]) -> None:
    """The same targets, and no more slots differ than must: the newcomers', or those that fill a hole or shrink."""
    after = settle(before, wanted)
    assert sorted(after) == sorted(wanted)
    differing = sum(
        1
        for i in range(max(len(before), len(after)))
        if (before[i] if i < len(before) else None) != (after[i] if i < len(after) else None)
    )
    coming, going = len(set(wanted) - set(before)), len(set(before) - set(wanted))
    assert differing <= max(coming, going) + max(0, going - coming)


@settings(deadline=None)
@given(snapshots())
def test_verdicts_are_for_what_is_not_simple(snapshot: ServiceSnapshot) -> None:
    """No virtual IP's port is both in the set of small Services and in the map of verdicts; a cluster IP with up to
    eight endpoints and no affinity is not in the map, which the kernel walks through whenever one comes."""
    table, _ = compile_table(snapshot, OPTIONS)
    elements = whole(table).elements
    small, verdicts = elements[layout.SMALL_SERVICES].keys(), elements[layout.SERVICES].keys()
    assert not small & verdicts
    for key in verdicts:
        claims = [
            entry
            for entries in table.services.values()
            for entry in entries
            if (entry.address, entry.protocol, entry.port) == key and entry.verdict == "forward"
        ]
        assert any(len(entry.targets) > 8 or entry.affinity_seconds for entry in claims), key
