"""The socket balancer does what the rules do, or leaves it to them: its own programs, run by the interpreter, against
the tracer of the nftables rules for the same service table."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from immutables import Map
from msgspec.structs import replace

from fairlead.discovery.model import ServiceKey, ServiceSnapshot
from fairlead.proxy.compile import compile_table
from fairlead.proxy.nftables import show as nftables
from fairlead.proxy.nftables.trace import Outcome, Packet
from fairlead.proxy.nftables.trace import trace as nft_trace
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.sockets import trace
from fairlead.proxy.sockets.desired import PROTOCOLS, Ledger
from fairlead.proxy.table import Forwarding, ServiceTable, Target
from tests.property.test_proxy_backends import LOCAL, options, snapshots

POD, KEY = "10.244.1.9", ServiceKey("shop", "dns")


def loaded(chosen: ProxyOptions, table: ServiceTable) -> trace.Maps:
    """Maps that hold what this table says."""
    maps, ledger = trace.empty(), Ledger(chosen)
    ledger.replace(ServiceTable(), table, table.services)
    trace.take(maps, ledger.steps())
    return maps


def ways(snapshot: ServiceSnapshot) -> list[tuple[str, str, int]]:
    """Every (protocol, address, port) that a pod may ask for."""
    found = []
    for service in sorted(snapshot.services.values(), key=lambda s: s.key):
        addresses = [*service.cluster_ips, *service.external_ips, *(lb.ip for lb in service.load_balancer)]
        for port in service.ports:
            if port.protocol in PROTOCOLS:
                found += [(port.protocol, address, number) for address in addresses for number in (port.port, 4)]
    return found


def ruled(rules: frozenset[Outcome]) -> set[tuple[str, int]] | None:
    """Where the rules forward to with the client's own address kept; None if they do anything else. A client that turns
    out to be its own endpoint is masqueraded, which sockets do without."""
    plain = all(o.verdict == "forward" and (not o.masquerade or o.destination == POD) for o in rules)
    return {(o.destination, o.port) for o in rules} if plain else None


@settings(deadline=None, max_examples=150)
@given(snapshots(), options)
def test_a_socket_goes_where_the_rules_send_it(snapshot: ServiceSnapshot, chosen: ProxyOptions) -> None:
    """Taken over: exactly the endpoints of the rules, and the rules would keep the pod's address. Left: where the rules
    refuse, drop, masquerade or do nothing, where a client stays with its endpoint, and where sources are asked for;
    nothing else is left."""
    table, _ = compile_table(snapshot, chosen)
    maps, rules = loaded(chosen, table), nftables.state_of("IPv4", chosen, table)
    for protocol, address, port in ways(snapshot):
        by_rules = ruled(nft_trace(rules, Packet(POD, address, protocol, port, link="cni0"), LOCAL))
        got = trace.outcomes(maps, protocol, (address, port))
        if got != {(address, port)}:
            assert got == by_rules, (protocol, address, port)
        elif by_rules is not None:
            assert _needs_rules(table, chosen, protocol, address, port), (protocol, address, port)
        assert trace.outcomes(maps, protocol, (address, port), trace.NODE_NAMESPACE) == {(address, port)}


def _needs_rules(table: ServiceTable, chosen: ProxyOptions, protocol: str, address: str, port: int) -> bool:
    """Whether a port has what only rules can do: affinity, sources to tell apart, or every client to hide, also one
    that is its own endpoint."""
    found: list[Forwarding] = [
        e
        for entries in table.services.values()
        for e in entries
        if (e.protocol, e.address, e.port) == (protocol, address, port)
    ]
    return any(
        e.affinity_seconds or e.allowed or e.masquerade == "always" or (chosen.masquerade_all and e.via == "cluster IP")
        for e in found
    )


@settings(deadline=None, max_examples=40)
@given(st.lists(snapshots(), min_size=2, max_size=4), options)
def test_a_connect_in_the_middle_of_a_change(history: list[ServiceSnapshot], chosen: ProxyOptions) -> None:
    """Between any two writes a socket finds what was right before or is right after, or is left to the rules; at the
    end of a change the maps are those of an empty start, so that nothing of an endpoint that left is there."""
    maps, ledger, table = trace.empty(), Ledger(chosen), ServiceTable()
    asked = sorted({way for snapshot in history for way in ways(snapshot)})
    for snapshot in history:
        after, _ = compile_table(snapshot, chosen, table)
        old, new = loaded(chosen, table), loaded(chosen, after)
        steps = ledger.replace(table, after, {*table.services, *after.services})
        for step in steps:
            for element in step.elements:
                trace.take(maps, [step._replace(elements=(element,))])
                for protocol, address, port in asked:
                    to = (address, port)
                    right = trace.outcomes(old, protocol, to) | trace.outcomes(new, protocol, to) | {to}
                    assert trace.outcomes(maps, protocol, to) <= right
        assert maps == new
        table = after


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.lists(st.integers(1, 6), unique=True, max_size=5), min_size=1, max_size=5),
    st.lists(st.integers(0, 1 << 32), min_size=5, max_size=5),
)
def test_a_datagram_flow_stays_while_its_endpoint_serves(history: list[list[int]], draws: list[int]) -> None:
    """A socket that is not connected sends to the same endpoint as long as it is one, whatever comes and goes beside
    it; then to another that serves; and always sees the virtual IP as the sender of the answers."""
    chosen, maps = ProxyOptions("n1"), trace.empty()
    ledger, table = Ledger(chosen), ServiceTable()
    to, last = ("10.96.0.5", 53), None
    for numbers, draw in zip(history, draws, strict=False):
        targets = tuple(Target(f"10.244.1.{number}", 5353) for number in numbers)
        entry = Forwarding("IPv4", *to[:1], "UDP", to[1], "dns", "forward" if targets else "reject", targets)
        after = replace(table, services=Map({KEY: (entry,)}))
        trace.take(maps, ledger.replace(table, after, [KEY]))
        table = after
        got = trace.connect(maps, "UDP", to, draw=draw)
        places = {(target.address, target.port) for target in targets}
        assert got in places if places else got == to
        if last in places:
            assert got == last
        if places:
            last = got
            assert trace.peer(maps, "UDP", got) == to
            assert trace.peer(maps, "UDP", got, cookie=2) == got
