"""Packets as text, for the tables of packet flows: `source PROTOCOL destination → endpoints, masquerade`.

The node n1 (192.0.2.1) runs the pods 10.244.1.x; n2 runs 10.244.2.x. `node` is a process on n1, `outside` no pod.
"""

from __future__ import annotations

import pytest
from immutables import Map

from fairlead.discovery.model import (
    Endpoint,
    EndpointPort,
    Node,
    Service,
    ServiceKey,
    ServicePort,
    ServiceSnapshot,
    Slice,
)
from fairlead.linux.nft.objects import TableState
from fairlead.proxy.compile import compile_table
from fairlead.proxy.nftables.desired import NODE, Piece, piece_of
from fairlead.proxy.nftables.diff import Ledger
from fairlead.proxy.nftables.trace import Outcome, Packet, trace
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.table import Family

OPTIONS = ProxyOptions("n1")
HERE, HERE2, THERE = "10.244.1.2", "10.244.1.3", "10.244.2.2"
NODE_IP, OUTSIDE = "192.0.2.1", "198.51.100.7"
VIP, VIP6 = "10.96.0.5", "fd00:96::5"
LOCAL = frozenset({NODE_IP, "2001:db8::1", "192.0.2.77", "127.0.0.1"})
PODS = {HERE: "n1", HERE2: "n1", THERE: "n2"}


def service(*addresses: str, name: str = "web", vips: tuple[str, ...] = (VIP,), **fields: object) -> Service:
    """A Service with a TCP and a UDP port; endpoints on the nodes their addresses say."""
    endpoints = tuple(Endpoint(a, node="n1" if a.startswith("10.244.1.") else "n2") for a in addresses)
    ports = (ServicePort("http", "TCP", 80, "web", 30080), ServicePort("dns", "UDP", 53, 5353, 30053))
    slices = (
        Slice(f"{name}-1", "IPv4", (EndpointPort("http", "TCP", 8080), EndpointPort("dns", "UDP", 5353)), endpoints),
    )
    base = Service(ServiceKey("shop", name), cluster_ips=vips, ports=ports, slices=slices)
    return Service(**{**{f: getattr(base, f) for f in base.__struct_fields__}, **fields})  # type: ignore[arg-type]


def state(*services: Service, options: ProxyOptions = OPTIONS, family: Family = "IPv4") -> TableState:
    """The desired table."""
    nodes = Map(
        {"n1": Node("n1", (NODE_IP, "2001:db8::1"), pod_cidrs=("10.244.1.0/24",)), "n2": Node("n2", ("192.0.2.2",))}
    )
    table, changed = compile_table(ServiceSnapshot(Map({s.key: s for s in services}), nodes, synced=True), options)
    ledger = Ledger()
    ledger.replace([(key, Piece(), piece_of(family, options, table, key)) for key in (NODE, *changed)])
    return ledger.state()


def flow(table: TableState, row: str) -> str:
    """`pod TCP 10.96.0.5:80` → `10.244.1.2:8080 10.244.2.2:8080`, each with `+masquerade`, or the verdict."""
    who, protocol, to = row.split()
    source = {"node": NODE_IP, "outside": OUTSIDE, "node6": "2001:db8::1", "outside6": "2001:db8::7"}.get(who, who)
    address, port = to.rsplit(":", 1)
    link = "" if who.startswith("node") else "cni0" if source in PODS or source.startswith("10.244.1.") else "eth0"
    if who == "node" and address.startswith("127."):
        source = "127.0.0.1"
    packet = Packet(source, address.strip("[]"), protocol, int(port), who.startswith("node"), link)
    return " ".join(sorted(_text(o) for o in trace(table, packet, LOCAL)))


def _text(outcome: Outcome) -> str:
    if outcome.verdict != "forward":
        return outcome.verdict + ("+masquerade" if outcome.masquerade else "")
    return f"{outcome.destination}:{outcome.port}" + ("+masquerade" if outcome.masquerade else "")


def check(table: TableState, rows: str) -> None:
    """Each row: `source PROTOCOL destination → what is expected`."""
    wrong = []
    for row in rows.strip().splitlines():
        packet, expected = (part.strip() for part in row.split("→"))
        got = flow(table, packet)
        if got != expected:
            wrong.append(f"{packet} → {got}, not {expected}")
    if wrong:
        chains = "\n".join(f"{c.name}: {r.expressions}" for c in table.chains.values() for r in c.rules)
        held = "\n".join(f"{name}: {list(e.values())}" for name, e in table.elements.items() if e)
        pytest.fail("\n".join([*wrong, held, chains]))
