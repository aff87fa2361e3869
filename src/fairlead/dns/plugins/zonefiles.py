"""`file`: zones from zone files; `transfer`: whole zones for secondaries, and word to them when a zone changed."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterable

from fairlead.dns.corefile import Directive
from fairlead.dns.message import (
    AA,
    AXFR,
    HEADER,
    IN,
    IXFR,
    NXDOMAIN,
    OPCODE,
    REFUSED,
    SOA,
    FormatError,
    Record,
    parse_message,
)
from fairlead.dns.names import packed_address
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
    zone_text,
    zones,
)
from fairlead.dns.presentation import TextError
from fairlead.dns.reply import WHILE, Transfer, failed, then, unpacked
from fairlead.dns.upstream import Address, parse_address
from fairlead.dns.zonefile import FileZone, parse_zone_file
from fairlead.dns.zones import Labels

log = logging.getLogger("fairlead.dns")

Whole = Callable[[], tuple[Record, Iterable[Record]]]
_NOTIFY = 4 << 11  # opcode, RFC 1996


class FilePlugin(Plugin):
    """`file DBFILE [ZONES…]`."""

    name = "file"
    place = 340
    once = False

    def parse(self, directive: Directive) -> None:
        args = directive.counted(1, 100)
        self.file = self.block.path(args[0])
        self.zones = zones(directive, args[1:], self.block.zones)
        self.falls: Zones | None = None
        self.reload, self.by_mtime = 60.0, False
        for option in directive.children:
            no_options(option)
            if option.name == "reload":
                self.reload = duration(option, option.counted(1)[0])
            elif option.name == "reload_by_mtime":
                option.counted(0)
                self.by_mtime = True
            elif option.name == "fallthrough":
                self.falls = fall_through(option)
            else:
                directive.unknown(option, ("reload", "reload_by_mtime", "fallthrough"))
        try:
            self.found = {labels: self.read(labels) for labels in self.zones.names}
        except OSError as error:
            raise directive.error(f"{self.file}: {error.strerror}") from None
        except TextError as error:
            raise directive.error(str(error)) from None

    def read(self, labels: Labels) -> FileZone:
        """The zone as the file has it now. Raises TextError, OSError."""
        origin = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
        folder = self.file.parent
        records = parse_zone_file(
            self.file.read_text(), str(self.file), origin, lambda path: (folder / path).read_text()
        )
        try:
            return FileZone(labels, records)
        except TextError as error:
            raise TextError(f"{self.file}: {zone_text(labels)}: {error}") from None

    def build(self, following: Handler, site: Site) -> Handler:
        for labels in self.found:
            site.wholes[labels] = lambda labels=labels: (self.found[labels].soa, self.found[labels].everything())  # type: ignore[misc]
        if self.reload:
            site.background.append(lambda: self._follow(site))
        held, falls = self.zones, self.falls

        def handle(request: Request) -> Outcome:
            query = request.query
            labels = held.match(query.labels)
            if labels is None or query.klass != IN:
                return following(request)
            if query.type in {AXFR, IXFR}:
                return failed(REFUSED)
            found = self.found[labels].find(query.name, query.labels, query.type)
            if found.rcode == NXDOMAIN and not found.answers and falls is not None and query.labels in falls:
                return following(request)
            flags = AA if found.authoritative else 0
            reply = Reply(found.rcode, found.answers, found.authority, found.additional, flags, WHILE)
            if not found.leads_to or request.depth > 8:
                return reply

            def joined(other: Reply) -> Reply:
                if other.rcode == REFUSED:
                    return reply
                return reply._replace(answers=reply.answers + unpacked(other).answers, keep=0)

            return then(site.resolve(request.asking(found.leads_to, query.type)), joined)

        return handle

    async def _follow(self, site: Site) -> None:
        stamp = file_stamp(self.file)
        while True:
            await asyncio.sleep(self.reload)
            if (now := file_stamp(self.file)) == stamp:
                continue
            stamp = now
            for labels, before in list(self.found.items()):
                try:
                    after = self.read(labels)
                except (OSError, TextError) as error:
                    log.error("plugin/file: %s: kept as it was: %s", zone_text(labels), error)
                    continue
                if after.serial == before.serial and not self.by_mtime:
                    continue
                self.found[labels] = after
                log.info("plugin/file: %s: read again, serial %d", zone_text(labels), after.serial)
                site.forget()
                for tell in site.changed:
                    tell(labels)


class TransferPlugin(Plugin):
    """`transfer [ZONE…] { to ADDRESS… }`."""

    name = "transfer"
    place = 290
    once = False

    def parse(self, directive: Directive) -> None:
        self.zones = zones(directive, directive.args, self.block.zones)
        self.everybody = False
        self.to: list[Address] = []
        self.source = ""
        for option in directive.children:
            no_options(option)
            if option.name == "to":
                for text in option.counted(1, 100):
                    if text == "*":
                        self.everybody = True
                        continue
                    try:
                        self.to.append(parse_address(text))
                    except ValueError:
                        raise option.error(f"{text!r} is not an address") from None
            elif option.name == "source":
                (self.source,) = option.counted(1)
                if packed_address(self.source) is None:
                    raise option.error(f"{self.source!r} is not an address")
            else:
                directive.unknown(option, ("to", "source"))
        if not self.everybody and not self.to:
            raise directive.error("needs `to ADDRESS…` or `to *`")

    def build(self, following: Handler, site: Site) -> Handler:
        allowed = {packed_address(address.host) for address in self.to}
        held = self.zones
        site.changed.append(lambda labels: self._notify(labels) if labels in held else None)

        async def at_start() -> None:
            for labels in site.wholes:
                if labels in held and site.book.synced:
                    self._notify(labels)

        if self.to:
            site.background.append(at_start)

        def handle(request: Request) -> Outcome:
            query = request.query
            if query.type not in {AXFR, IXFR} or query.labels not in held:
                return following(request)
            request.personal = True
            whole = site.wholes.get(query.labels)
            if whole is None or not (self.everybody or request.client in allowed):
                log.info(
                    "plugin/transfer: %s of %s refused to %s", query.type, zone_text(query.labels), request.address
                )
                return failed(REFUSED)
            soa, records = whole()
            if query.type == IXFR and (_serial(request.packet) == _of(soa) or request.transport == "udp"):
                return Reply(0, (soa,), flags=AA)  # it has all already; or shall come by TCP (RFC 1995 §2)
            if request.transport == "udp":
                return failed(REFUSED)
            raise Transfer(soa, records)

        return handle

    def _notify(self, labels: Labels) -> None:
        """NOTIFY to all addresses; once: a secondary asks by itself in the end (its SOA's refresh)."""
        wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
        packet = HEADER.pack(int.from_bytes(os.urandom(2), "big"), _NOTIFY & OPCODE | AA, 1, 0, 0, 0)
        packet += wire + SOA.to_bytes(2, "big") + IN.to_bytes(2, "big")
        for address in self.to:
            family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
            try:
                with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
                    if self.source:
                        sock.bind((self.source, 0))
                    sock.sendto(packet, (address.host, address.port))
            except OSError as error:
                log.warning("plugin/transfer: %s could not be notified: %s", address, error.strerror)


def _of(soa: Record) -> int:
    return int.from_bytes(soa.data[-20:-16], "big")


def _serial(packet: bytes) -> int | None:
    """The serial that an IXFR says it has."""
    try:
        message = parse_message(packet)
    except FormatError:
        return None
    return next((_of(record) for record in message.authority if record.type == SOA), None)
