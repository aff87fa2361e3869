"""What iptables should hold for one Service. Pure.

Stands between the service table and the ledger. A Service port has a chain for its endpoints under the policy Cluster
(KUBE-SVC-…) and Local (KUBE-SVL-…), one for what comes from outside (KUBE-EXT-…), one for source ranges (KUBE-FW-…),
and one per endpoint (KUBE-SEP-…). Invariant: a piece depends on its entries, the family, the options and the node's
place.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fairlead.discovery.model import ServiceKey
from fairlead.linux.iptables import Words
from fairlead.proxy.iptables.layout import (
    ENDPOINT,
    EXTERNAL,
    FILTER,
    FIREWALL,
    LOCAL_SERVICE,
    MARK_MASQ,
    NAT,
    NODEPORTS,
    OUTSIDE,
    RANGES,
    SERVICE,
    SERVICES,
    Bag,
    chain_name,
    comment,
    from_pods,
    jump,
    network,
)
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.table import Family, Forwarding, NodePlace, Target

_PROTOCOLS = {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp"}


class Piece(msgspec.Struct, frozen=True):
    """Chains of the Service's own (all in the table nat), and its rules in the chains that all share, each with a name
    by which rivals for the same traffic are told."""

    chains: dict[str, tuple[Words, ...]] = {}
    rules: dict[tuple[Bag, str], Words] = {}


def service_piece(
    family: Family, options: ProxyOptions, place: NodePlace, key: ServiceKey, entries: Iterable[Forwarding]
) -> Piece:
    """What one Service's entries of this family become."""
    builder = _Builder(family, options, place, key)
    grouped: dict[tuple[str, str, str, int], list[Forwarding]] = {}
    for entry in entries:
        if entry.family == family:
            builder.hairpins.update(target.address for target in entry.targets if target.local)
            grouped.setdefault((entry.via, entry.address, entry.protocol, entry.port), []).append(entry)
    for group in grouped.values():
        builder.add(group)
    return Piece(builder.chains, builder.rules)


class _Builder:
    """Collects the chains and rules of one Service."""

    def __init__(self, family: Family, options: ProxyOptions, place: NodePlace, key: ServiceKey) -> None:
        self.family, self.options, self.place, self.key = family, options, place, key
        self.chains: dict[str, tuple[Words, ...]] = {}
        self.rules: dict[tuple[Bag, str], Words] = {}
        self.hairpins: set[str] = set()
        self._host = "32" if family == "IPv4" else "128"

    def add(self, group: list[Forwarding]) -> None:
        """Entries for the same traffic: of everybody, and perhaps the short cut of the node and its pods."""
        outside = next(entry for entry in group if entry.sources == "any")
        short = next((entry for entry in group if entry.sources != "any"), None)
        name = f"{self.key}:{outside.port_name}" if outside.port_name else str(self.key)
        where = f"{outside.address}/{outside.protocol}/{outside.port}"
        to = self._to(outside)
        if outside.verdict != "forward":
            self._refuse(outside, name, where)
        if outside.via == "cluster IP":
            if outside.verdict == "forward":
                chain = self._policy(outside, name)
                masked = self._masquerade_outsiders(to, name)
                self.chains[chain] = masked + self.chains[chain]
                self._dispatch(Bag(NAT, SERVICES), where, to, f"{name} cluster IP", chain)
            return
        if outside.verdict != "forward" and short is None:
            return
        chain = self._outside(outside, short, name)
        if outside.allowed:
            chain = self._ranges(outside, name, where, to, chain)
        if outside.is_node_port:
            self._dispatch(Bag(NAT, NODEPORTS), where, to, name, chain)
        else:
            kind = "external IP" if outside.via == "external IP" else "loadbalancer IP"
            self._dispatch(Bag(NAT, SERVICES), where, to, f"{name} {kind}", chain)

    def _to(self, entry: Forwarding) -> tuple[Words, Words]:
        """The address and protocol, and the port: a comment stands between."""
        protocol = _PROTOCOLS[entry.protocol]
        address = ("-d", f"{entry.address}/{self._host}") if entry.address else ()
        return (*address, "-p", protocol), ("-m", protocol, "--dport", str(entry.port))

    def _dispatch(self, bag: Bag, where: str, to: tuple[Words, Words], note: str, chain: str) -> None:
        self.rules[bag, where] = (*to[0], *comment(note), *to[1], *jump(chain))

    def _refuse(self, entry: Forwarding, name: str, where: str) -> None:
        bag = Bag(FILTER, SERVICES if entry.via == "cluster IP" else EXTERNAL)
        code = "icmp-port-unreachable" if self.family == "IPv4" else "icmp6-port-unreachable"
        act = ("-j", "DROP") if entry.verdict == "drop" else ("-j", "REJECT", "--reject-with", code)
        note = comment(f"{name} has no {'local ' if entry.verdict == 'drop' else ''}endpoints")
        to, port = self._to(entry)
        local = ("-m", "addrtype", "--dst-type", "LOCAL") if entry.is_node_port else ()
        self.rules[bag, where] = (*to, *note, *local, *port, *act)

    def _masquerade_outsiders(self, to: tuple[Words, Words], name: str) -> tuple[Words, ...]:
        """Clients of a cluster IP that are no pods, or all."""
        rest = (*comment(f"{name} cluster IP"), *to[1], *jump(MARK_MASQ))
        if self.options.masquerade_all:
            return ((*to[0], *rest),)
        pods = from_pods(self.family, self.place)
        if len(pods) == 1:
            (way,) = pods
            if way[0] == "-s":
                return (("!", *way, *to[0], *rest),)
            return ((*to[0][:2], "!", *way, *to[0][2:], *rest),)
        if not pods:
            return ()
        # Several networks: whoever is in one of them passes by a chain of its own that marks the others.
        chain = chain_name(RANGES, name, to[0][-1], "pods")
        self.chains[chain] = (*((*way, "-j", "RETURN") for way in pods), jump(MARK_MASQ))
        return ((*to[0], *comment(f"{name} cluster IP"), *to[1], *jump(chain)),)

    def _outside(self, outside: Forwarding, short: Forwarding | None, name: str) -> str:
        """KUBE-EXT-…: what comes by a node port, an external IP or a load balancer's IP."""
        chain = chain_name(OUTSIDE, name, outside.protocol)
        rules: list[Words] = []
        if outside.masquerade == "always":
            rules.append((*comment(f"masquerade traffic for {name} external destinations"), *jump(MARK_MASQ)))
        if short is not None:
            everywhere = self._policy(short, name)
            local = ("-m", "addrtype", "--src-type", "LOCAL")
            for way in from_pods(self.family, self.place):
                rules.append((*way, *comment(f"pod traffic for {name} external destinations"), *jump(everywhere)))
            note = comment(f"masquerade LOCAL traffic for {name} external destinations")
            rules.append((*note, *local, *jump(MARK_MASQ)))
            note = comment(f"route LOCAL traffic for {name} external destinations")
            rules.append((*note, *local, *jump(everywhere)))
        if outside.verdict == "forward":
            rules.append(jump(self._policy(outside, name)))
        self.chains[chain] = tuple(rules)
        return chain

    def _ranges(self, entry: Forwarding, name: str, where: str, to: tuple[Words, Words], behind: str) -> str:
        """KUBE-FW-…: the clients of a load balancer's IP. Who is none of them is not translated, and dropped."""
        chain = chain_name(RANGES, name, entry.protocol)
        note = comment(f"{name} loadbalancer IP")
        self.chains[chain] = tuple(("-s", network(cidr), *note, *jump(behind)) for cidr in entry.allowed)
        dropped = comment(f"{name} traffic not accepted by {chain}")
        self.rules[Bag(FILTER, FIREWALL), where] = (*to[0], *dropped, *to[1], "-j", "DROP")
        return chain

    def _policy(self, entry: Forwarding, name: str) -> str:
        """KUBE-SVC-… or KUBE-SVL-…: one of the endpoints, all alike likely; known clients first."""
        chain = chain_name(LOCAL_SERVICE if entry.local_only else SERVICE, name, entry.protocol)
        if chain in self.chains:
            return chain
        known: list[Words] = []
        drawn: list[Words] = []
        targets = sorted(entry.targets)
        for position, target in enumerate(targets):
            endpoint = _written(target)
            own = self._endpoint(entry, target, name)
            note = comment(f"{name} -> {endpoint}")
            if entry.affinity_seconds:
                seconds = str(entry.affinity_seconds)
                mask = "255.255.255.255" if self.family == "IPv4" else "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
                recent = ("-m", "recent", "--rcheck", "--seconds", seconds, "--reap", "--name", own, "--mask", mask)
                known.append((*note, *recent, "--rsource", *jump(own)))
            left = len(targets) - position
            draw = ("-m", "statistic", "--mode", "random", "--probability", _probability(left)) if left > 1 else ()
            drawn.append((*note, *draw, *jump(own)))
        self.chains[chain] = (*known, *drawn)
        return chain

    def _endpoint(self, entry: Forwarding, target: Target, name: str) -> str:
        """KUBE-SEP-…: to one endpoint; a client that is it is masqueraded."""
        chain = chain_name(ENDPOINT, name, entry.protocol, _written(target))
        if chain in self.chains:
            return chain
        protocol = _PROTOCOLS[entry.protocol]
        mask = "255.255.255.255" if self.family == "IPv4" else "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
        remember = ("-m", "recent", "--set", "--name", chain, "--mask", mask, "--rsource")
        itself = ("-s", f"{target.address}/{self._host}", *comment(name), *jump(MARK_MASQ))
        self.chains[chain] = (
            *((itself,) if target.address in self.hairpins else ()),
            (
                *("-p", protocol),
                *comment(name),
                *(remember if entry.affinity_seconds else ()),
                *("-m", protocol, "-j", "DNAT", "--to-destination", _written(target)),
            ),
        )
        return chain


def _written(target: Target) -> str:
    address = f"[{target.address}]" if ":" in target.address else target.address
    return f"{address}:{target.port}"


def _probability(left: int) -> str:
    """1/left as iptables-save prints it: the kernel holds it in units of 1/2**31."""
    return f"{round((1 << 31) / left) / (1 << 31):.11f}"
