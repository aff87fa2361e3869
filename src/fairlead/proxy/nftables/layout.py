"""The parts of the table that no Service changes: maps, base chains, and the chains that pick an endpoint. Pure.

The layout is flat: all endpoints of all services lie in one map, keyed by virtual address, protocol, port and the
number of a slot. A service of up to eight endpoints is in the set `svc-8`, whose packets go to the chain `class-8`, and
has at most eight elements there: each endpoint has as many of the eight slots as the others, and a rest may stay empty.
The chain draws a slot, again if it is empty, and sends the connection there. What is not so simple has a verdict in the
map `svc`; a new one there has the kernel look through all verdicts for loops. So a change costs its own elements,
however many services there are (docs/proxy.md has the picture, docs/decisions/0008 what else was tried).

Invariant: a function of the family, the options and this node's place in the cluster only.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from functools import lru_cache

import msgspec

from fairlead.linux.nft import datatypes as types
from fairlead.linux.nft.expressions import (
    DNAT,
    Bitwise,
    Compare,
    Conntrack,
    Decide,
    Expression,
    FibType,
    Lookup,
    Masquerade,
    Meta,
    Numgen,
    Payload,
    Reject,
    SetMeta,
    Verdict,
    register,
)
from fairlead.linux.nft.objects import FAMILIES, Chain, Element, Hook, Rule, Set, TableName
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.table import Family, NodePlace, Pods, Target

TABLE = "fairlead"
COMMENT = "Services, by the proxy of fairlead"

CLUSTER_IPS, NODEPORT_IPS, HAIRPIN = "cluster-ips", "nodeport-ips", "hairpin"
SMALL_SERVICES, SERVICES, ENDPOINTS, NO_ENDPOINTS = "svc-8", "svc", "eps", "no-endpoints"
SHORT_SERVICES, SHORT_SERVICE_ENDPOINTS = "short-svc", "short-eps"
NODEPORTS, NODEPORT_ENDPOINTS, NO_ENDPOINT_NODEPORTS = "nodeports", "nodeport-eps", "no-endpoint-nodeports"
SHORT_NODEPORTS, SHORT_ENDPOINTS = "short-nodeports", "short-nodeport-eps"

# Kinds of chains that pick an endpoint: by virtual IP (of a cluster; from outside, with the client's address kept, or
# hidden, or hidden if it is the node), and the same by node port.
CLASS, LOCAL_EXTERNAL_CLASS, EXTERNAL_CLASS, SHORT_EXTERNAL_CLASS = (
    "class",
    "external-local",
    "external",
    "short-external",
)
LOCAL_CLASS, NODEPORT_CLASS, SHORT_CLASS = "nodeport-local", "nodeport", "short"
_BY_ADDRESS = (CLASS, LOCAL_EXTERNAL_CLASS, EXTERNAL_CLASS, SHORT_EXTERNAL_CLASS)
_HIDING, _HIDING_NODE = (NODEPORT_CLASS, EXTERNAL_CLASS), (SHORT_CLASS, SHORT_EXTERNAL_CLASS)
_ENDPOINTS = {SHORT_EXTERNAL_CLASS: SHORT_SERVICE_ENDPOINTS, SHORT_CLASS: SHORT_ENDPOINTS}
SMALLEST_CLASS = 8  # slots; the chain for these is always there, larger ones are made when a service needs them
SMALL_CLASS = f"{CLASS}-{SMALLEST_CLASS}"
_DRAWS = 8  # before a slot is taken that is never empty: of 1,000,000 connections 400 at most come so far

_DNAT_PRIORITY = -100
_SRCNAT_PRIORITY = 100
_STATE_NEW = 8
_STATUS_DNAT = 1 << 5
_TYPE_LOCAL = 2
_LINK_NAME = 16  # IFNAMSIZ
_LOOPBACK: dict[Family, str] = {"IPv4": "127.0.0.0/8", "IPv6": "::1/128"}


class Dialect(msgspec.Struct, frozen=True):
    """What differs between IPv4 and IPv6."""

    family: Family
    table: TableName
    number: int
    address: types.DataType
    daddr: types.DataType
    source_offset: int
    destination_offset: int
    port_unreachable: int

    @property
    def words(self) -> int:
        """The registers' 32-bit words an address fills."""
        return self.address.size // 4


DIALECTS: dict[Family, Dialect] = {
    "IPv4": Dialect("IPv4", TableName("ip", TABLE), FAMILIES["ip"], types.IPV4_ADDR, types.IP_DADDR, 12, 16, 3),
    "IPv6": Dialect("IPv6", TableName("ip6", TABLE), FAMILIES["ip6"], types.IPV6_ADDR, types.IP6_DADDR, 8, 24, 4),
}


def sets_of(d: Dialect) -> tuple[Set, ...]:
    """The sets and maps of the table, empty."""
    service = (d.address, types.INET_PROTO, types.INET_SERVICE)
    indexed_service = (d.daddr, types.META_L4PROTO, types.TH_DPORT, types.NUMGEN_RANDOM)
    port = (types.INET_PROTO, types.INET_SERVICE)
    indexed_port = (types.META_L4PROTO, types.TH_DPORT, types.NUMGEN_RANDOM)
    endpoint = (d.daddr, types.TCP_DPORT)
    return (
        Set(CLUSTER_IPS, (d.address,), comment="live cluster IPs"),
        Set(NODEPORT_IPS, (d.address,), comment="addresses of this node that serve node ports"),
        Set(HAIRPIN, (d.address, d.address), comment="endpoints here: one that reaches itself is masqueraded"),
        Set(SMALL_SERVICES, service, comment="cluster IPs with up to eight endpoints, where nothing else is wanted"),
        Set(SERVICES, service, verdicts=True, comment="other virtual IPs with endpoints"),
        Set(ENDPOINTS, indexed_service, endpoint, comment="their endpoints"),
        Set(SHORT_SERVICES, service, verdicts=True, comment="Local external IPs, for this node and its pods"),
        Set(SHORT_SERVICE_ENDPOINTS, indexed_service, endpoint, comment="their endpoints, on any node"),
        Set(NO_ENDPOINTS, service, verdicts=True, comment="virtual IPs that nobody answers, or not to everybody"),
        Set(NODEPORTS, port, verdicts=True, comment="node ports with endpoints"),
        Set(NODEPORT_ENDPOINTS, indexed_port, endpoint, comment="their endpoints"),
        Set(SHORT_NODEPORTS, port, verdicts=True, comment="Local node ports, for this node and its pods"),
        Set(SHORT_ENDPOINTS, indexed_port, endpoint, comment="their endpoints, on any node"),
        Set(NO_ENDPOINT_NODEPORTS, port, verdicts=True, comment="node ports without endpoints for this node"),
    )


def source(d: Dialect, word: int = 0) -> Expression:
    """Load the source address."""
    return Payload("network", d.source_offset, d.address.size, register(word))


def destination(d: Dialect, word: int = 0) -> Expression:
    """Load the destination address."""
    return Payload("network", d.destination_offset, d.address.size, register(word))


def _protocol_and_port(word: int) -> tuple[Expression, ...]:
    return (Meta("l4proto", register(word)), Payload("transport", 2, 2, register(word + 1)))


def _service_key(d: Dialect) -> tuple[Expression, ...]:
    return (destination(d), *_protocol_and_port(d.words))


def _verdict_map(name: str) -> Expression:
    return Lookup(name, 1, 0)


def _drop() -> Expression:
    return Decide(Verdict("drop"))


def jump(chain: str) -> Expression:
    """Go there and come back."""
    return Decide(Verdict("jump", chain))


def goto(chain: str) -> Verdict:
    """Go there for good."""
    return Verdict("goto", chain)


def mark_bits(options: ProxyOptions) -> bytes:
    """The mark of packets to masquerade, in the byte order of this machine, as the kernel compares it."""
    return struct.pack("=I", 1 << options.masquerade_bit)


def mark_for_masquerade(options: ProxyOptions) -> tuple[Expression, ...]:
    """meta mark set meta mark | 0x4000."""
    bit = 1 << options.masquerade_bit
    keep = struct.pack("=I", ~bit & 0xFFFFFFFF)
    return (Meta("mark"), Bitwise(keep, struct.pack("=I", bit)), SetMeta("mark"))


def in_network(load: Expression, cidr: str, inside: bool = True) -> tuple[Expression, ...]:
    """Whether the loaded address is in (or outside) the network. An address is a network of one."""
    network = ipaddress.ip_network(cidr, strict=False)
    mask, size = network.netmask.packed, network.max_prefixlen // 8
    value = Compare(network.network_address.packed, inside)
    if network.prefixlen == network.max_prefixlen:
        return (load, value)
    if network.prefixlen == 0:
        return () if inside else (load, Compare(network.network_address.packed, True))
    return (load, Bitwise(mask, bytes(size)), value)


def _by_link(pods: Pods, equal: bool) -> tuple[Expression, ...]:
    name = pods.interface.encode()
    return (Meta("iifname"), Compare(name if pods.prefix else name.ljust(_LINK_NAME, b"\0"), equal))


def _from_pods(d: Dialect, pods: Pods) -> list[tuple[Expression, ...]]:
    """The ways to be a pod of this cluster, each the beginning of a rule."""
    if pods.interface:
        return [_by_link(pods, True)]
    return [in_network(source(d), cidr) for cidr in _of_family(pods.cidrs, d)]


def _not_from_pods(d: Dialect, pods: Pods) -> tuple[Expression, ...] | None:
    """To be no pod; None if that cannot be told."""
    if pods.interface:
        return _by_link(pods, False)
    cidrs = _of_family(pods.cidrs, d)
    return tuple(e for cidr in cidrs for e in in_network(source(d), cidr, inside=False)) if cidrs else None


def _of_family(cidrs: tuple[str, ...], d: Dialect) -> list[str]:
    return [c for c in cidrs if (":" in c) == (d.family == "IPv6")]


def _from_node() -> tuple[Expression, ...]:
    return (FibType("saddr"), Compare(struct.pack("=I", _TYPE_LOCAL)))


def _to_node_ports(d: Dialect, place: NodePlace) -> list[tuple[Expression, ...]]:
    """The ways to be addressed to where node ports are served, each the beginning of a rule; 127.0.0.1 apart."""
    ways: list[tuple[Expression, ...]] = [(destination(d), Lookup(NODEPORT_IPS))]
    local = (FibType("daddr"), Compare(struct.pack("=I", _TYPE_LOCAL)))
    not_loopback = in_network(destination(d), _LOOPBACK[d.family], inside=False)
    cidrs = [entry for entry in _of_family(place.addresses, d) if "/" in entry]
    return ways + [(*in_network(destination(d), cidr), *not_loopback, *local) for cidr in cidrs]


def _to_localhost(d: Dialect, place: NodePlace) -> tuple[Expression, ...] | None:
    """To be addressed to 127.0.0.0/8, if node ports are served there."""
    return in_network(destination(d), _LOOPBACK["IPv4"]) if place.localhost and d.family == "IPv4" else None


def _services_chain(d: Dialect, options: ProxyOptions, place: NodePlace) -> Chain:
    rules = []
    to_cluster_ip = (destination(d), Lookup(CLUSTER_IPS))
    mark = mark_for_masquerade(options)
    outside = _not_from_pods(d, place.pods)
    if options.masquerade_all:
        rules.append(Rule((*to_cluster_ip, *mark), "masquerade all"))
    elif outside is not None:
        rules.append(Rule((*outside, *to_cluster_ip, *mark), "clients that are no pods are masqueraded"))
    short = (*_service_key(d), _verdict_map(SHORT_SERVICES))
    rules += [Rule((*way, *short)) for way in (*_from_pods(d, place.pods), _from_node())]
    rules.append(Rule((*_service_key(d), Lookup(SMALL_SERVICES), Decide(goto(SMALL_CLASS)))))
    rules.append(Rule((*_service_key(d), _verdict_map(SERVICES))))
    rules += [Rule((*way, jump("node-ports"))) for way in _to_node_ports(d, place)]
    return Chain("services", tuple(rules))


def _node_ports_chain(d: Dialect, place: NodePlace) -> Chain:
    short = (*_protocol_and_port(0), _verdict_map(SHORT_NODEPORTS))
    rules = [Rule((*way, *short)) for way in (*_from_pods(d, place.pods), _from_node())]
    rules.append(Rule((*_protocol_and_port(0), _verdict_map(NODEPORTS))))
    return Chain("node-ports", tuple(rules))


def _unserved_chain(d: Dialect, options: ProxyOptions, place: NodePlace) -> Chain:
    """What `services` did not translate although it is for a Service. It runs after DNAT on purpose: pods and the node
    itself, whom a short cut has sent to an endpoint elsewhere, must not meet the verdict for clients from outside."""
    translated = (Conntrack("status"), Bitwise(struct.pack("=I", _STATUS_DNAT), bytes(4)), Compare(bytes(4), False))
    node_port = (*_protocol_and_port(0), _verdict_map(NO_ENDPOINT_NODEPORTS))
    localhost = _to_localhost(d, place)
    rules = [
        Rule((*translated, Decide(Verdict("return")))),
        Rule((*_service_key(d), _verdict_map(NO_ENDPOINTS))),
        *(Rule((*way, *node_port)) for way in _to_node_ports(d, place)),
        *([Rule((*localhost, *node_port))] if localhost is not None else []),
        Rule((destination(d), Lookup(CLUSTER_IPS), Decide(goto("refuse"))), "no such port on a live cluster IP"),
    ]
    rules += [
        Rule((*in_network(destination(d), cidr), _drop()), "a cluster IP of no Service")
        for cidr in _of_family(place.service_cidrs, d)
    ]
    return Chain("unserved", tuple(rules))


def _refuse_chain(d: Dialect) -> Chain:
    return Chain(
        "refuse",
        (
            Rule((Meta("l4proto"), Compare(bytes((socket.IPPROTO_TCP,))), Reject(tcp_reset=True))),
            Rule((Reject(code=d.port_unreachable),)),
        ),
    )


def _masquerading_chain(d: Dialect, options: ProxyOptions) -> Chain:
    bit = mark_bits(options)
    marked = (Meta("mark"), Bitwise(bit, bytes(4)), Compare(bit))
    unmark = (Meta("mark"), Bitwise(b"\xff\xff\xff\xff", bit), SetMeta("mark"))
    hairpin = (source(d), destination(d, d.words), Lookup(HAIRPIN), Masquerade())
    hook = Hook("nat", "postrouting", _SRCNAT_PRIORITY)
    return Chain("nat-postrouting", (Rule((*marked, *unmark, Masquerade())), Rule(hairpin)), hook)


def class_size(endpoints: int) -> int:
    """How many slots a service of so many endpoints has: a power of two, so that few changes change it."""
    return max(SMALLEST_CLASS, 1 << (endpoints - 1).bit_length())


def slots_of(targets: tuple[Target, ...]) -> tuple[Target | None, ...]:
    """Who is in which slot: all equally often; nobody is in the rest."""
    size = class_size(len(targets))
    taken = targets * (size // len(targets))
    return (*taken, *[None] * (size - len(taken)))


def class_name(kind: str, size: int) -> str:
    """The chain that picks one of `size` slots."""
    return f"{kind}-{size}"


@lru_cache(maxsize=4096)
def class_chain(family: Family, options: ProxyOptions, kind: str, size: int) -> Chain:
    """The chain for `size` slots: draw one, look up who is there, send the connection there. More than half of them are
    taken from a certain size on; below, the first always is."""
    d = DIALECTS[family]
    by_address = kind in _BY_ADDRESS
    key, word = (_service_key(d), d.words + 2) if by_address else (_protocol_and_port(0), 2)
    endpoints = _ENDPOINTS.get(kind, ENDPOINTS if by_address else NODEPORT_ENDPOINTS)
    send = (Lookup(endpoints, 1, 1), DNAT(d.number, register(0), register(d.words)))
    certain = 1 if size == SMALLEST_CLASS else size // 2
    rules = [Rule((*key, Numgen(slots, register(word)), *send)) for slots in (*[size] * _DRAWS, certain)]
    return Chain(class_name(kind, size), (*marking(kind, options), *rules))


def marking(kind: str, options: ProxyOptions) -> tuple[Rule, ...]:
    """What precedes the choice of an endpoint: whose source address will be hidden."""
    if kind in _HIDING:
        return (Rule(mark_for_masquerade(options)),)
    if kind in _HIDING_NODE:
        return (Rule((*_from_node(), *mark_for_masquerade(options))),)
    return ()


def chains_of(d: Dialect, options: ProxyOptions, place: NodePlace) -> tuple[Chain, ...]:
    """The chains that are always there."""
    new = (Conntrack("state"), Bitwise(struct.pack("=I", _STATE_NEW), bytes(4)), Compare(bytes(4), False))
    localhost = _to_localhost(d, place)
    at_localhost: tuple[Rule, ...] = ()
    kept_out: tuple[Rule, ...] = ()
    if localhost is not None:
        # route_localnet lets the network reach 127.0.0.1: only this node itself may.
        at_localhost = (Rule((*localhost, jump("node-ports"))),)
        not_loopback = (Meta("iifname"), Compare(b"lo".ljust(_LINK_NAME, b"\0"), False))
        kept_out = (Rule((*new, *not_loopback, *localhost, _drop()), "127.0.0.1 is not for the network"),)
    unserved = (Rule((*new, jump("unserved"))),)
    services = (Rule((jump("services"),)),)
    standing = [class_chain(d.family, options, kind, SMALLEST_CLASS) for kind in (CLASS, NODEPORT_CLASS)]
    return (
        *standing,
        _refuse_chain(d),
        _node_ports_chain(d, place),
        _services_chain(d, options, place),
        _unserved_chain(d, options, place),
        Chain("nat-prerouting", services, Hook("nat", "prerouting", _DNAT_PRIORITY)),
        Chain("nat-output", (*services, *at_localhost), Hook("nat", "output", _DNAT_PRIORITY)),
        Chain("filter-prerouting", (*kept_out, *unserved), Hook("filter", "prerouting", _DNAT_PRIORITY + 10)),
        Chain("filter-output", unserved, Hook("filter", "output", _DNAT_PRIORITY + 10)),
        _masquerading_chain(d, options),
    )


def node_port_addresses(d: Dialect, place: NodePlace) -> tuple[tuple[str, Element], ...]:
    """Where node ports are served, as elements; CIDRs have rules instead."""
    addresses = (entry for entry in _of_family(place.addresses, d) if "/" not in entry)
    return tuple((NODEPORT_IPS, Element((address,))) for address in addresses)
