"""`hosts`: a hosts file, and lines of one in the Corefile."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from fairlead.dns.corefile import Directive
from fairlead.dns.message import AAAA, IN, NOERROR, PTR, SERVFAIL, A, Record
from fairlead.dns.names import packed_address, reverse_address
from fairlead.dns.plugins.base import (
    Handler,
    Outcome,
    Plugin,
    Reply,
    Request,
    Site,
    Zones,
    duration,
    fall_through,
    file_stamp,
    no_options,
    number,
    zones,
)
from fairlead.dns.presentation import TextError, name
from fairlead.dns.reply import WHILE, failed

log = logging.getLogger("fairlead.dns")

_OPTIONS = ("fallthrough", "fallthrough_unsupported", "no_reverse", "ttl", "reload")
Names = dict[bytes, list[bytes]]  # wire name in lower case → packed addresses
Addresses = dict[bytes, list[bytes]]  # packed address → wire names


def parse_hosts(text: str) -> tuple[Names, Addresses]:
    """hosts(5): an address and its names on a line. Lines that are none are passed over."""
    names: Names = {}
    addresses: Addresses = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        packed = packed_address(words[0].partition("%")[0]) if len(words) > 1 else None
        if packed is None:
            continue
        for word in words[1:]:
            try:
                wire = name(word.rstrip(".") + ".")
            except TextError:
                continue
            found = names.setdefault(wire.lower(), [])
            if packed not in found:
                found.append(packed)
            addresses.setdefault(packed, []).append(wire)
    return names, addresses


class Hosts(Plugin):
    """`hosts [FILE [ZONES…]]`."""

    name = "hosts"
    place = 310

    def parse(self, directive: Directive) -> None:
        args = directive.args
        self.file = self.block.path(args[0]) if args else Path("/etc/hosts")
        self.zones = zones(directive, args[1:], self.block.zones)
        self.ttl, self.reload = 3600, 5.0
        self.reverse, self.unsupported = True, False
        self.falls: Zones | None = None
        inline = []
        for option in directive.children:
            no_options(option)
            word = option.name
            if word == "fallthrough":
                self.falls = fall_through(option)
            elif word == "fallthrough_unsupported":
                option.counted(0)
                self.unsupported = True
            elif word == "no_reverse":
                option.counted(0)
                self.reverse = False
            elif word == "ttl":
                self.ttl = number(option, option.counted(1)[0], 1, 65535)
            elif word == "reload":
                self.reload = duration(option, option.counted(1)[0])
            elif packed_address(word) is not None:
                inline.append(" ".join([word, *option.counted(1, 1000)]))
            else:
                directive.unknown(option, (*_OPTIONS, "ADDRESS NAME…"))
        if self.unsupported and self.falls is None:
            raise directive.error("fallthrough_unsupported needs fallthrough")
        self.inline = "\n".join(inline)
        if args and not self.file.is_file():
            log.warning("%s:%d: hosts: there is no file %s (yet)", directive.file, directive.line, self.file)

    def _read(self) -> tuple[Names, Addresses]:
        try:
            text = self.file.read_text(errors="replace")
        except OSError:
            text = ""
        names, addresses = parse_hosts(text)
        own_names, own_addresses = parse_hosts(self.inline)
        return {**names, **own_names}, {**addresses, **own_addresses}

    def build(self, following: Handler, site: Site) -> Handler:
        self.names, self.addresses = self._read()
        site.metrics.set("coredns_hosts_entries", (), len(self.names) + len(self.addresses))
        if self.reload:
            site.background.append(lambda: self._follow(site))
        held, falls, ttl = self.zones, self.falls, self.ttl

        def handle(request: Request) -> Outcome:
            query = request.query
            kind = query.type
            if query.klass != IN:
                return following(request)
            if kind == PTR and self.reverse:
                address = reverse_address(query.labels)
                found = self.addresses.get(address) if address is not None else None
                if not found:
                    return following(request)
                return Reply(NOERROR, tuple(Record(query.name, PTR, ttl, wire) for wire in found), keep=WHILE)
            if query.labels not in held:
                return following(request)
            known = self.names.get(query.name.lower())
            if known is None and query.labels:
                known = self.names.get(b"\1*" + query.name.lower()[len(query.labels[0]) + 1 :])
            if known is None:
                if falls is not None and query.labels in falls:
                    return following(request)
                return failed(SERVFAIL)  # there is no SOA to deny it with
            if kind not in {A, AAAA}:
                if self.unsupported and falls is not None and query.labels in falls:
                    return following(request)
                return Reply(NOERROR, keep=WHILE)
            size = 4 if kind == A else 16
            return Reply(
                NOERROR, tuple(Record(query.name, kind, ttl, data) for data in known if len(data) == size), keep=WHILE
            )

        return handle

    async def _follow(self, site: Site) -> None:
        stamp = file_stamp(self.file)
        while True:
            await asyncio.sleep(self.reload)
            if (now := file_stamp(self.file)) != stamp:
                stamp = now
                self.names, self.addresses = self._read()
                site.metrics.set("coredns_hosts_entries", (), len(self.names) + len(self.addresses))
                site.forget()
