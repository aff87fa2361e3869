"""`acl`: who may ask what."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from fairlead.dns.corefile import Directive
from fairlead.dns.message import NOERROR, REFUSED
from fairlead.dns.plugins.base import (
    Handler,
    Outcome,
    Plugin,
    Reply,
    Request,
    Site,
    no_options,
    record_type,
    zone_text,
    zones,
)
from fairlead.dns.reply import Silence, failed

_ACTIONS = ("allow", "block", "filter", "drop")
_COUNTED = {"allow": "allowed", "block": "blocked", "filter": "filtered", "drop": "dropped"}


class Rule(NamedTuple):
    """What happens to these types from these networks; an empty set is all of them."""

    action: str
    types: frozenset[int]
    networks: tuple[tuple[int, int, int], ...]  # version's size in bytes, network, mask

    def matches(self, kind: int, client: bytes) -> bool:
        """Whether it is about this question."""
        if self.types and kind not in self.types:
            return False
        if not self.networks:
            return True
        size, number = len(client), int.from_bytes(client, "big")
        return any(size == length and number & mask == network for length, network, mask in self.networks)


class Acl(Plugin):
    """`acl [ZONES…] { ACTION [type QTYPE…] [net SOURCE…] }`: the first rule that matches decides; none: allowed."""

    name = "acl"
    place = 248
    once = False

    def parse(self, directive: Directive) -> None:
        self.zones = zones(directive, directive.args, self.block.zones)
        self.rules = []
        for option in directive.children:
            no_options(option)
            if option.name not in _ACTIONS:
                directive.unknown(option, _ACTIONS)
            types: set[int] = set()
            networks: list[tuple[int, int, int]] = []
            every = {"type": False, "net": False}
            section = ""
            for word in option.args:
                if word in every:
                    section = word
                elif not section:
                    raise option.error(f"{word!r} stands where `type` or `net` must")
                elif word == "*":
                    every[section] = True
                elif section == "type":
                    types.add(record_type(option, word))
                else:
                    try:
                        net = ipaddress.ip_network(word, strict=False)
                    except ValueError as error:
                        raise option.error(str(error)) from None
                    networks.append((net.max_prefixlen // 8, int(net.network_address), int(net.netmask)))
            self.rules.append(
                Rule(
                    option.name,
                    frozenset() if every["type"] else frozenset(types),
                    () if every["net"] else tuple(networks),
                )
            )
        if not self.rules:
            raise directive.error("needs a rule like `block net 192.0.2.0/24`")

    def build(self, following: Handler, site: Site) -> Handler:
        held, rules, metrics = self.zones, tuple(self.rules), site.metrics
        zone = zone_text(held.names[0])
        labels = (("server", site.server), ("zone", zone), ("view", ""))

        def handle(request: Request) -> Outcome:
            query = request.query
            if query.labels not in held or not request.client:
                return following(request)
            request.personal = True
            for rule in rules:
                if rule.matches(query.type, request.client):
                    action = rule.action
                    break
            else:
                action = "allow"
            if action == "allow":
                metrics.add("coredns_acl_allowed_requests_total", (labels[0], labels[2]))
                return following(request)
            metrics.add(f"coredns_acl_{_COUNTED[action]}_requests_total", labels)
            if action == "drop":
                raise Silence
            return failed(REFUSED) if action == "block" else Reply(NOERROR, flags=0)

        return handle
