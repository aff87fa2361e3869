"""Nodes × networks → what this node must translate, and the rules that do it, for nftables and for iptables. Pure.

A node elsewhere has an InternalIP that this network can't route to, or routes to somebody else. Whoever speaks to that
address here means the node: its packets go to the address that stands for it (`discovery.reach`), and what comes from
there is shown as coming from the InternalIP, so that the node keeps its identity. Invariants: no address of this
network is ever translated; of two nodes elsewhere with one InternalIP only the first by name has it (the other is
reached by what does not go by InternalIP: pods, Services, the API server).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

import msgspec

from fairlead.discovery.model import Node
from fairlead.discovery.reach import address_of, is_elsewhere
from fairlead.linux.iptables import quote
from fairlead.linux.nft.expressions import (
    Bitwise,
    Compare,
    Conntrack,
    Expression,
    Immediate,
    Masquerade,
    Meta,
    NatTo,
    Payload,
)
from fairlead.linux.nft.objects import NFPROTO_IPV4, NFPROTO_IPV6, Chain, Hook, Rule, TableName, TableState
from fairlead.linux.nft.text import render_table

TABLES = {4: TableName("ip", "fairlead-nodes"), 6: TableName("ip6", "fairlead-nodes")}
"""By version of IP."""


_COMMENT = "addresses of nodes in other networks, by fairlead"
# After the proxy (-100), whose virtual addresses go first; before whoever translates the source at 100.
_DSTNAT, _SRCNAT = -95, 95
_LINK_NAME = 16
_DNAT_STATUS = 1 << 5
_PROTOCOLS = {4: NFPROTO_IPV4, 16: NFPROTO_IPV6}  # bytes of an address → its family


class Translation(msgspec.Struct, frozen=True, order=True):
    """`internal`, of the node `name`, is `outer` here."""

    name: str
    internal: str
    outer: str


class Translations(msgspec.Struct, frozen=True):
    """A node's, of one version of IP. `inner`: its own address in tunnels, the source of what it sends by `links`
    (tunnels) by itself; `pods`: the range whose addresses stay as they are; empty if it is not known."""

    entries: tuple[Translation, ...] = ()
    links: tuple[str, ...] = ()
    inner: str = ""
    pods: str = ""
    version: int = 4

    @property
    def outside(self) -> tuple[Translation, ...]:
        """Those that lead out of the pods' network, where a pod's address means nothing."""
        pods = ipaddress.ip_network(self.pods) if self.pods else None
        return tuple(e for e in self.entries if pods is None or ipaddress.ip_address(e.outer) not in pods)

    def __bool__(self) -> bool:
        return bool(self.entries or (self.inner and self.links))


def plan_translations(
    name: str,
    nodes: Mapping[str, Node],
    pods: str = "",
    inner: str = "",
    links: tuple[str, ...] = (),
    *,
    version: int = 4,
) -> Translations:
    """What node `name` translates. The others: see Translations."""
    own = nodes.get(name)
    if own is None:
        return Translations(version=version)
    taken = {ip for node in nodes.values() if not is_elsewhere(node, own) for ip in node.internal_ips}
    entries = []
    for _, peer in sorted(nodes.items()):
        if not is_elsewhere(peer, own):
            continue
        outer = address_of(peer, own, version)
        for internal in peer.internal_ips:
            same = _version(internal) == version == _version(outer)
            if same and internal != outer and internal not in taken:
                taken.add(internal)
                entries.append(Translation(peer.name, internal, outer))
                break  # one address of a node leads back to one
    return Translations(tuple(entries), links, inner, pods, version)


def shadowed(name: str, nodes: Mapping[str, Node]) -> list[str]:
    """The nodes elsewhere whose InternalIP means another machine here."""
    own = nodes.get(name)
    if own is None:
        return []
    found = []
    for version in TABLES:
        there = {entry.name for entry in plan_translations(name, nodes, version=version).entries}
        found += [
            n.name
            for n in nodes.values()
            if is_elsewhere(n, own) and n.name not in there and address_of(n, own, version)
            if any(_version(ip) == version for ip in n.internal_ips)
        ]
    return sorted(set(found))


# ---- nftables


def nft_table(wanted: Translations) -> TableState:
    """The table that does it."""
    to_outer = tuple(_rule(e, _daddr(e.internal), *_dnat(e.outer)) for e in wanted.entries)
    identity = tuple(_rule(e, _saddr(e.outer), *_snat(e.internal)) for e in wanted.entries)
    back = tuple(_rule(e, (*_translated(), *_daddr(e.outer)), Masquerade()) for e in wanted.outside)
    chains = [
        Chain("prerouting", to_outer, Hook("nat", "prerouting", _DSTNAT)),
        Chain("output", to_outer, Hook("nat", "output", _DSTNAT)),
        Chain("input", identity, Hook("nat", "input", _SRCNAT)),
        Chain("postrouting", (*_own_source(wanted), *back), Hook("nat", "postrouting", _SRCNAT)),
    ]
    return TableState(chains={chain.name: chain for chain in chains}, comment=_COMMENT)


def _rule(entry: Translation, match: tuple[Expression, ...], *then: Expression) -> Rule:
    return Rule((*match, *then), entry.name)


def _own_source(wanted: Translations) -> tuple[Rule, ...]:
    """What goes into a tunnel and is no pod's bears the node's address there: peers take no other from us."""
    if not wanted.inner:
        return ()
    rules = []
    for link in wanted.links:
        match: list[Expression] = [Meta("oifname"), Compare(link.encode().ljust(_LINK_NAME, b"\0"))]
        if wanted.pods:
            pods = ipaddress.ip_network(wanted.pods)
            mask = Bitwise(pods.netmask.packed, bytes(len(pods.netmask.packed)))
            match += [_source(wanted.version), mask, Compare(pods.network_address.packed, False)]
        rules.append(Rule((*match, *_snat(wanted.inner)), "the node itself"))
    return tuple(rules)


def _source(version: int) -> Payload:
    return Payload("network", 12, 4) if version == 4 else Payload("network", 8, 16)


def _daddr(address: str) -> tuple[Expression, ...]:
    raw = ipaddress.ip_address(address).packed
    return Payload("network", 16 if len(raw) == 4 else 24, len(raw)), Compare(raw)


def _saddr(address: str) -> tuple[Expression, ...]:
    raw = ipaddress.ip_address(address).packed
    return _source(4 if len(raw) == 4 else 6), Compare(raw)


def _translated() -> tuple[Expression, ...]:
    bits = _DNAT_STATUS.to_bytes(4, "little")
    return Conntrack("status"), Bitwise(bits, bytes(4)), Compare(bytes(4), False)


def _dnat(address: str) -> tuple[Expression, ...]:
    raw = ipaddress.ip_address(address).packed
    return Immediate(raw), NatTo("dnat", _PROTOCOLS[len(raw)])


def _snat(address: str) -> tuple[Expression, ...]:
    raw = ipaddress.ip_address(address).packed
    return Immediate(raw), NatTo("snat", _PROTOCOLS[len(raw)])


# ---- iptables

CHAINS = {
    "PREROUTING": "FAIRLEAD-NODES-PRE",
    "OUTPUT": "FAIRLEAD-NODES-OUT",
    "INPUT": "FAIRLEAD-NODES-IN",
    "POSTROUTING": "FAIRLEAD-NODES-POST",
}
"""The kernel's chain of the table nat → ours, which it jumps to; of iptables and of ip6tables alike."""


def iptables_rules(wanted: Translations) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Our chains with their rules, as words that iptables-save prints."""
    to_outer = tuple(
        ("-d", _host(e.internal), *_comment(e.name), "-j", "DNAT", "--to-destination", e.outer) for e in wanted.entries
    )
    identity = tuple(
        ("-s", _host(e.outer), *_comment(e.name), "-j", "SNAT", "--to-source", e.internal) for e in wanted.entries
    )
    status = ("-m", "conntrack", "--ctstate", "DNAT")
    back = tuple(("-d", _host(e.outer), *status, *_comment(e.name), "-j", "MASQUERADE") for e in wanted.outside)
    return {
        CHAINS["PREROUTING"]: to_outer,
        CHAINS["OUTPUT"]: to_outer,
        CHAINS["INPUT"]: identity,
        CHAINS["POSTROUTING"]: (*_iptables_own_source(wanted), *back),
    }


def _iptables_own_source(wanted: Translations) -> tuple[tuple[str, ...], ...]:
    if not wanted.inner:
        return ()
    rules = []
    for link in wanted.links:
        pods = ("!", "-s", wanted.pods) if wanted.pods else ()
        target = ("-j", "SNAT", "--to-source", wanted.inner)
        rules.append((*pods, "-o", link, *_comment("the node itself"), *target))
    return tuple(rules)


def _comment(text: str) -> tuple[str, ...]:
    return "-m", "comment", "--comment", text


def _host(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"


def _version(text: str) -> int:
    try:
        return ipaddress.ip_address(text).version
    except ValueError:
        return 0


# ---- as text


def render_text(wanted: Translations, form: str) -> str:
    """The rules as a person would hand them to `nft -f`, or to `iptables-restore --noflush` (`ip6tables-restore`)."""
    if form == "iptables":
        chains = iptables_rules(wanted)
        lines = ["*nat", *(f":{chain} - [0:0]" for chain in chains)]
        lines += [f"-A {hook} -j {chain}" for hook, chain in CHAINS.items()]
        lines += [f"-A {chain} {quote(words)}" for chain, rules in chains.items() for words in rules]
        return "\n".join([*lines, "COMMIT", ""])
    return render_table(TABLES[wanted.version], nft_table(wanted))
