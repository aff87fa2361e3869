"""What rules of others do to a packet: an interpreter of nft's JSON listing that says when it does not know. Pure.

Stands beside the interpreters of the proxy's own rules (`proxy.….trace`). In: the listing (sets without their
elements), and iptables' tables in their own words (`words`). Out: the rule that drops or translates the packet.
Invariant: three values; a match that can't be worked out (a set's elements, a limit, a mark) is neither true nor false,
and such a drop is only said to be possible.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from fairlead.explain import words
from fairlead.explain.words import Packet
from fairlead.linux.iptables import Saved

Object = dict[str, Any]
Key = tuple[str, str, str]  # family, table, chain
_PROXIES = ("KUBE-SERVICES", "KUBE-SVC", "kube-proxy", "CILIUM", "cali-")
_PRIORITIES = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1}


class Interference(NamedTuple):
    """A rule (or a chain's policy) of others that catches the packet. `sure` False: it may."""

    kind: Literal["drop", "reject", "translate"]
    where: str
    rule: str
    sure: bool = True


class _Stop(Exception):
    def __init__(self, found: Interference | None) -> None:
        self.found = found


class Ruleset:
    """All chains of others, from nft's JSON listing and iptables' tables by family. `ours`: the mode of the proxy whose
    chains are none of theirs."""

    def __init__(
        self,
        listing: Iterable[Object],
        iptables: Mapping[str, Mapping[str, Saved]] | None = None,
        ours: str = "nftables",
    ) -> None:
        self._chains: dict[Key, Object] = {}
        self._rules: dict[Key, list[Object]] = {}
        self._iptables = iptables or {}
        self._hidden = () if ours == "nftables" else ("KUBE-",)
        read = {
            ("ip6" if family == "IPv6" else "ip", table) for family, held in self._iptables.items() for table in held
        }
        for entry in listing:
            if chain := entry.get("chain"):
                if not _is_own(chain["table"]) and (chain["family"], chain["table"]) not in read:
                    self._chains[chain["family"], chain["table"], chain["name"]] = chain
            elif (rule := entry.get("rule")) and not _is_own(rule["table"]):
                self._rules.setdefault((rule["family"], rule["table"], rule["chain"]), []).append(rule)
        self.doubts: list[Interference] = []

    def proxies(self) -> list[str]:
        """Tables and chains that look like another proxy's."""
        named = set(self._chains)
        for family, tables in self._iptables.items():
            for table, saved in tables.items():
                named |= {("ip6" if family == "IPv6" else "ip", table, chain) for chain in saved.chains}
        return sorted(
            f"{family} {table} {chain}"
            for family, table, chain in named
            if any(chain.startswith(p) or table == p for p in _PROXIES) and not chain.startswith(self._hidden or "\0")
        )

    def meet(
        self, hook: str, packet: Packet, *, before: int | None = None, after: int | None = None
    ) -> Interference | None:
        """The rule that stops (or translates) the packet at this hook. `before`, `after`: only base chains of a lower,
        or higher, priority."""
        based = [
            (_priority(chain), key)
            for key, chain in self._chains.items()
            if chain.get("hook") == hook and key[0] in _families(packet)
        ]
        tables = self._iptables.get("IPv6" if ":" in packet.destination else "IPv4", {})
        in_words = [(p, ("", table, chain)) for p, table, chain in words.hooked(hook, tables)]
        for priority, key in sorted([*based, *in_words]):
            shared = not key[0] and priority == before and bool(self._hidden)  # the proxy's own jump is in this chain
            if (before is not None and priority >= before and not shared) or (after is not None and priority <= after):
                continue
            found = self._in_words(key, packet, tables, shared) if not key[0] else self._based(key, packet, hook)
            if found is not None:
                return found
        return None

    def _in_words(
        self, key: Key, packet: Packet, tables: Mapping[str, Saved], only_before: bool
    ) -> Interference | None:
        tool = "ip6tables" if ":" in packet.destination else "iptables"
        caught = words.follow(tables[key[1]], key[2], packet, self._hidden, only_before=only_before)
        if caught is None:
            return None
        found = Interference(caught.kind, f"{tool} -t {key[1]}", caught.rule, caught.sure)
        if caught.sure:
            return found
        self.doubts.append(found)
        return None

    def _based(self, key: Key, packet: Packet, hook: str) -> Interference | None:
        try:
            verdict = self._chain(key, packet, (), True)
            if verdict is None and self._chains[key].get("policy") == "drop":
                where = f"{key[0]} {key[1]} {key[2]}"
                return Interference("drop", where, f"policy drop (hook {hook})")
        except _Stop as stop:
            return stop.found
        return None

    def _chain(self, key: Key, packet: Packet, within: tuple[Key, ...], sure: bool) -> str | None:
        if key in within:  # the kernel allows no loops
            return None
        for rule in self._rules.get(key, ()):
            verdict = self._rule(rule, packet, (*within, key), sure)
            if verdict == "return":
                return None
            if verdict is not None:
                return verdict
        return None

    def _rule(self, rule: Object, packet: Packet, within: tuple[Key, ...], sure: bool) -> str | None:
        key = within[-1]
        for expression in rule.get("expr") or ():
            name, body = next(iter(expression.items()))
            if name == "match":
                held = _match(body, packet)
                if held is False:
                    return None
                sure = sure and held is True
            elif name in ("drop", "reject", "dnat", "redirect"):
                kind: Any = "translate" if name in ("dnat", "redirect") else name
                where = f"{key[0]} {key[1]} {key[2]} handle {rule.get('handle', '?')}"
                found = Interference(kind, where, render(rule), sure)
                if sure:
                    raise _Stop(found)
                if kind != "translate":
                    self.doubts.append(found)
                return None
            elif name == "accept":
                if sure:
                    raise _Stop(None)
                return None
            elif name in ("return", "continue"):
                return "return" if sure and name == "return" else None
            elif name in ("jump", "goto"):
                inner = self._chain((key[0], key[1], body["target"]), packet, within, sure)
                if inner is not None:
                    return inner
                if name == "goto" and sure:
                    return "return"
            elif name in ("counter", "log", "mangle", "notrack", "meter", "comment"):
                continue
            else:  # vmap, limit, xt, …: not followed
                sure = False
        return None


def _is_own(table: str) -> bool:
    """The proxy's table, and those of the pod network."""
    return table == "fairlead" or table.startswith("fairlead-")


def _families(packet: Packet) -> tuple[str, ...]:
    return ("ip6" if ":" in packet.destination else "ip", "inet", "bridge")


def _priority(chain: Object) -> int:
    value = chain.get("prio", 0)
    return value if isinstance(value, int) else _PRIORITIES.get(str(value), 0)


def _match(body: Object, packet: Packet) -> bool | None:
    actual = _left(body.get("left"), packet)
    if actual is None:
        return None
    held = _right(actual, body.get("right"))
    if held is None:
        return None
    op = body.get("op")
    if op in ("==", "in"):
        return held
    return (not held) if op == "!=" else None


def _left(left: Any, packet: Packet) -> Any:
    if not isinstance(left, dict):
        return None
    if payload := left.get("payload"):
        protocol, field = payload.get("protocol"), payload.get("field")
        if protocol in ("ip", "ip6"):
            if (protocol == "ip6") != (":" in packet.destination):
                return _NEVER
            known = {"saddr": packet.source, "daddr": packet.destination}
            known |= {"protocol": packet.protocol.lower(), "nexthdr": packet.protocol.lower()}
            return known.get(str(field)) or None
        if protocol in ("tcp", "udp", "sctp", "th"):
            if protocol not in ("th", packet.protocol.lower()):
                return _NEVER
            return {"dport": packet.destination_port, "sport": packet.source_port}.get(str(field)) or None
        return _NEVER if protocol in ("icmp", "icmpv6", "arp") else None
    if meta := left.get("meta"):
        known = {"iifname": packet.iif, "oifname": packet.oif, "l4proto": packet.protocol.lower()}
        known |= {"nfproto": "ipv6" if ":" in packet.destination else "ipv4"}
        return known.get(str(meta.get("key"))) or None
    if (ct := left.get("ct")) and ct.get("key") == "state":
        return packet.state
    return None


_NEVER = object()


def _right(actual: Any, right: Any) -> bool | None:
    if actual is _NEVER:
        return False
    if isinstance(right, dict):
        if prefix := right.get("prefix"):
            network = ipaddress.ip_network(f"{prefix['addr']}/{prefix['len']}", strict=False)
            return _address(actual) in network
        if bounds := right.get("range"):
            low, high = bounds
            if isinstance(low, int):
                return low <= int(actual) <= int(high)
            return int(_address(low)) <= int(_address(actual)) <= int(_address(high))
        if "set" in right:
            right = right["set"]
        else:
            return None
    if isinstance(right, list):
        answers = [_right(actual, entry) for entry in right]
        return True if True in answers else None if None in answers else False
    if isinstance(right, str) and right.startswith("@"):
        return None
    if isinstance(right, str) and right.endswith("*"):
        return str(actual).startswith(right[:-1])
    if isinstance(actual, str) and isinstance(right, int):
        return _NUMBERS.get(actual) == right
    return bool(actual == right)


def _address(text: Any) -> Any:
    return ipaddress.ip_address(str(text))


def render(rule: Object) -> str:
    """A rule in words close to nft's."""
    return " ".join(_words(expression) for expression in rule.get("expr") or ())


def _words(expression: Object) -> str:
    name, body = next(iter(expression.items()))
    if name == "match":
        op = "" if body.get("op") in ("==", "in") else f"{body.get('op')} "
        return f"{_side(body.get('left'))} {op}{_side(body.get('right'))}"
    if name in ("jump", "goto"):
        return f"{name} {body['target']}"
    if name == "dnat" and isinstance(body, dict):
        return f"dnat to {body.get('addr', '')}" + (f":{body['port']}" if body.get("port") else "")
    return str(name)


def _side(side: Any) -> str:
    if isinstance(side, dict):
        name, body = next(iter(side.items()))
        if name == "payload":
            return f"{body.get('protocol', '')} {body.get('field', '')}"
        if name in ("meta", "ct"):
            return f"{name} {body.get('key')}"
        if name == "prefix":
            return f"{body['addr']}/{body['len']}"
        if name == "range":
            return f"{body[0]}-{body[1]}"
        if name == "set":
            return "{ " + ", ".join(_side(entry) for entry in body) + " }"
        return str(name)
    if isinstance(side, list):
        return ", ".join(_side(entry) for entry in side)
    return str(side)
