"""Packets as text, for the tables of packet flows: `source PROTOCOL destination → endpoints, masquerade`.

The node n1 (192.0.2.1) runs the pods 10.244.1.x; n2 runs 10.244.2.x. `node` is a process on n1, `outside` no pod.
"""

from __future__ import annotations

from typing import NamedTuple

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
from fairlead.linux.iptables import Chains
from fairlead.linux.nft.objects import TableName, TableState
from fairlead.linux.nft.text import render_table
from fairlead.proxy.compile import compile_table
from fairlead.proxy.iptables import show as iptables
from fairlead.proxy.iptables.trace import trace as iptables_trace
from fairlead.proxy.nftables import show as nftables
from fairlead.proxy.nftables.trace import Outcome, Packet
from fairlead.proxy.nftables.trace import trace as nft_trace
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.table import Family, ServiceTable

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


class Compiled(NamedTuple):
    """What each backend would hold."""

    nft: TableState
    iptables: dict[str, Chains]


def table(*services: Service, options: ProxyOptions = OPTIONS) -> ServiceTable:
    """The service table of n1."""
    node = Node("n1", (NODE_IP, "2001:db8::1"), pod_cidrs=("10.244.1.0/24",))
    nodes = Map({"n1": node, "n2": Node("n2", ("192.0.2.2",))})
    return compile_table(ServiceSnapshot(Map({s.key: s for s in services}), nodes, synced=True), options)[0]


def state(*services: Service, options: ProxyOptions = OPTIONS, family: Family = "IPv4") -> Compiled:
    """What the backends would hold for these Services."""
    compiled = table(*services, options=options)
    return Compiled(nftables.state_of(family, options, compiled), iptables.chains_of(family, options, compiled))


def packet(row: str) -> Packet:
    """`pod TCP 10.96.0.5:80` as a packet."""
    who, protocol, to = row.split()
    source = {"node": NODE_IP, "outside": OUTSIDE, "node6": "2001:db8::1", "outside6": "2001:db8::7"}.get(who, who)
    address, port = to.rsplit(":", 1)
    link = "" if who.startswith("node") else "cni0" if source in PODS or source.startswith("10.244.1.") else "eth0"
    if who == "node" and address.startswith("127."):
        source = "127.0.0.1"
    return Packet(source, address.strip("[]"), protocol, int(port), who.startswith("node"), link)


def _text(outcome: Outcome) -> str:
    if outcome.verdict != "forward":
        return outcome.verdict + ("+masquerade" if outcome.masquerade else "")
    return f"{outcome.destination}:{outcome.port}" + ("+masquerade" if outcome.masquerade else "")


def _flow(outcomes: frozenset[Outcome]) -> str:
    """`10.244.1.2:8080 10.244.2.2:8080`, each with `+masquerade`, or the verdict."""
    return " ".join(sorted(_text(o) for o in outcomes))


def check(compiled: Compiled, rows: str) -> None:
    """Each row: `source PROTOCOL destination → what is expected`, of every backend. A row that begins with the name of
    a backend is for that one only. iptables refuses TCP as it refuses all else."""
    wrong = []
    for row in rows.strip().splitlines():
        question, expected = (part.strip() for part in row.split("→"))
        only = question.partition(" ")[0] if question.startswith(("nftables ", "iptables ")) else ""
        asked = packet(question.removeprefix(only))
        for name, got in (
            ("nftables", nft_trace(compiled.nft, asked, LOCAL)),
            ("iptables", iptables_trace(compiled.iptables, asked, LOCAL)),
        ):
            wish = expected.replace("reset", "reject") if name == "iptables" else expected
            if only in ("", name) and _flow(got) != wish:
                wrong.append(f"{name}: {question} → {_flow(got)}, not {wish}")
    if not wrong:
        return
    chains = [f"{t} {c}: {' '.join(r)}" for t, held in compiled.iptables.items() for c in held for r in held[c]]
    pytest.fail("\n".join([*wrong, render_table(TableName("ip", "fairlead"), compiled.nft), *chains]))
