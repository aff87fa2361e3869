"""`bufsize`, `dns64`, `header`, `loadbalance`, `minimal`, `nsid`: plugins that change what others answer."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
import socket
from pathlib import Path

from fairlead.dns.answer import Style
from fairlead.dns.corefile import CorefileError, Directive
from fairlead.dns.message import AA, AAAA, CNAME, IN, NOERROR, NXDOMAIN, RA, RD, SOA, A, Record
from fairlead.dns.names import packed_address, text_name
from fairlead.dns.plugins.base import (
    Handler,
    Outcome,
    Plugin,
    Reply,
    Request,
    Site,
    duration,
    file_stamp,
    no_options,
    number,
)
from fairlead.dns.reply import NEVER, then, unpacked

log = logging.getLogger("fairlead.dns")

_FLAGS = {"aa": AA, "ra": RA, "rd": RD}
_NSID = 3  # EDNS option code, RFC 5001


class Bufsize(Plugin):
    """`bufsize [SIZE]`: the most bytes over UDP."""

    name = "bufsize"
    place = 110

    def parse(self, directive: Directive) -> None:
        no_options(directive)
        args = directive.counted(0, 1)
        self.size = number(directive, args[0], 512, 4096) if args else 1232

    def style(self, style: Style) -> Style:
        return style._replace(udp_size=self.size)


class Header(Plugin):
    """`header { response|query set|clear FLAGS… }`."""

    name = "header"
    place = 260

    def parse(self, directive: Directive) -> None:
        directive.counted(0)
        self.set_flags = self.clear_flags = 0
        self.query_set = self.query_clear = 0
        if not directive.children:
            raise directive.error("needs a rule like `response set ra`")
        for option in directive.children:
            no_options(option)
            if option.name not in {"response", "query"}:
                directive.unknown(option, ("response", "query"))
            action, *words = option.counted(2, 10)
            if action not in {"set", "clear"}:
                raise option.error(f"can set or clear, not {action!r}")
            flags = 0
            for word in words:
                if word.lower() not in _FLAGS:
                    raise option.error(f"{word!r} is not one of aa, ra, rd")
                flags |= _FLAGS[word.lower()]
            if option.name == "query":
                if flags & ~RD:
                    raise option.error("only rd means anything in a query")
                self.query_set, self.query_clear = _order(self.query_set, self.query_clear, flags, action)
            else:
                self.set_flags, self.clear_flags = _order(self.set_flags, self.clear_flags, flags, action)

    def style(self, style: Style) -> Style:
        return style._replace(set_flags=self.set_flags, clear_flags=self.clear_flags)

    def build(self, following: Handler, site: Site) -> Handler:
        if not self.query_set and not self.query_clear:
            return following
        added, gone = self.query_set, self.query_clear

        def handle(request: Request) -> Outcome:
            request.query = request.query._replace(flags=(request.query.flags | added) & ~gone)
            return following(request)

        return handle


def _order(added: int, gone: int, flags: int, action: str) -> tuple[int, int]:
    """The last word counts."""
    return (added | flags, gone & ~flags) if action == "set" else (added & ~flags, gone | flags)


class Minimal(Plugin):
    """`minimal`: nothing but the answer, where there is one."""

    name = "minimal"
    place = 270

    def build(self, following: Handler, site: Site) -> Handler:
        def handle(request: Request) -> Outcome:
            return then(following(request), _minimal)

        return handle


def _minimal(reply: Reply) -> Reply:
    if reply.rcode != NOERROR or not (reply.whole.counts[0] if reply.whole is not None else reply.answers):
        return reply
    if reply.whole is not None and not any(reply.whole.counts[1:]):
        return reply
    return unpacked(reply)._replace(authority=(), additional=())


class Nsid(Plugin):
    """`nsid [DATA]`: who answered, for those who ask (RFC 5001)."""

    name = "nsid"
    place = 100

    def parse(self, directive: Directive) -> None:
        no_options(directive)
        self.data = " ".join(directive.args) or socket.gethostname()

    def build(self, following: Handler, site: Site) -> Handler:
        raw = self.data.encode()
        option = _NSID.to_bytes(2, "big") + len(raw).to_bytes(2, "big") + raw

        def handle(request: Request) -> Outcome:
            outcome = following(request)
            if not request.query.options or not _asks_nsid(request.packet):
                return outcome
            return then(outcome, lambda reply: reply._replace(options=reply.options + option))

        return handle


def _asks_nsid(packet: bytes) -> bool:
    """Whether a query that is well formed, and ends with an OPT record, has the option."""
    position = 12
    while packet[position : position + 1] not in {b"", b"\0"}:
        position += packet[position] + 1
    position += 5
    while position + 11 <= len(packet):
        while packet[position] not in {0} and packet[position] < 0xC0:
            position += packet[position] + 1
        position += 2 if packet[position] >= 0xC0 else 1
        kind = int.from_bytes(packet[position : position + 2], "big")
        length = int.from_bytes(packet[position + 8 : position + 10], "big")
        position += 10
        if kind == 41:
            end = position + length
            while position + 4 <= end:
                if int.from_bytes(packet[position : position + 2], "big") == _NSID:
                    return True
                position += 4 + int.from_bytes(packet[position + 2 : position + 4], "big")
            return False
        position += length
    return False


class Loadbalance(Plugin):
    """`loadbalance [round_robin | weighted FILE]`. Without options it costs nothing: remembered answers turn."""

    name = "loadbalance"
    place = 240

    def parse(self, directive: Directive) -> None:
        args = directive.counted(0, 2)
        self.weights: dict[str, dict[bytes, int]] = {}
        self.preferred: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self.file = ""
        self.reload = 30.0  # s, as CoreDNS; 0: never
        if args and args[0] not in {"round_robin", "weighted"}:
            raise directive.error(f"can be round_robin or weighted, not {args[0]!r}")
        if args[:1] == ["weighted"]:
            if len(args) != 2:
                raise directive.error("weighted needs a file")
            self.file = str(self.block.path(args[1]))
            self.weights, self.directive = self._weights(directive), directive
        elif len(args) > 1:
            raise directive.error("round_robin takes no file")
        for option in directive.children:
            no_options(option)
            if option.name == "reload":
                if not self.file:
                    raise option.error("only weighted has a file to read again")
                self.reload = duration(option, option.counted(1)[0])
            elif option.name == "prefer":
                try:
                    self.preferred += [ipaddress.ip_network(text) for text in option.counted(1, 1000)]
                except ValueError as error:
                    raise option.error(str(error)) from None
            else:
                directive.unknown(option, ("reload", "prefer"))

    def _weights(self, directive: Directive) -> dict[str, dict[bytes, int]]:
        try:
            lines = Path(self.file).read_text().splitlines()
        except OSError as error:
            raise directive.error(f"{self.file}: {error.strerror}") from None
        found: dict[str, dict[bytes, int]] = {}
        domain = ""
        for at, line in enumerate(lines, 1):
            words = line.partition("#")[0].split()
            if len(words) == 1:
                domain = words[0].lower().rstrip(".") + "."
                found[domain] = {}
            elif len(words) == 2:
                address = packed_address(words[0])
                if address is None or not words[1].isdigit() or not 1 <= int(words[1]) <= 255 or not domain:
                    raise directive.error(f"{self.file}:{at}: {line.strip()!r} is not ADDRESS WEIGHT below a name")
                found[domain][address] = int(words[1])
            elif words:
                raise directive.error(f"{self.file}:{at}: {line.strip()!r} is neither a name nor ADDRESS WEIGHT")
        return found

    def style(self, style: Style) -> Style:
        return style._replace(rotate=True)

    def build(self, following: Handler, site: Site) -> Handler:
        if not self.file and not self.preferred:
            return following
        if self.file and self.reload:
            site.background.append(self._follow)
        preferred = self.preferred

        def ordered(reply: Reply) -> Reply:
            reply = unpacked(reply)
            addresses = [record for record in reply.answers if record.type in {A, AAAA}]
            if reply.rcode != NOERROR or len(addresses) < 2:
                return reply
            others = tuple(record for record in reply.answers if record.type not in {A, AAAA})
            random.shuffle(addresses)
            known = self.weights.get(text_name(addresses[0].name).lower()) if self.weights else None
            if known is not None:
                (first,) = random.choices(addresses, [known.get(record.data, 1) for record in addresses])
                addresses.remove(first)
                addresses.insert(0, first)
            if preferred:
                addresses.sort(
                    key=lambda record: not any(ipaddress.ip_address(record.data) in net for net in preferred)
                )
            return reply._replace(answers=(*others, *addresses), keep=NEVER, rotate=False)

        def handle(request: Request) -> Outcome:
            return then(following(request), ordered)

        return handle

    async def _follow(self) -> None:
        """Read the weights again as they change; wrong ones are said, and the last right ones stay."""
        stamp = file_stamp(Path(self.file))
        while True:
            await asyncio.sleep(self.reload)
            if (now := file_stamp(Path(self.file))) != stamp:
                stamp = now
                try:
                    self.weights = self._weights(self.directive)
                except CorefileError as error:
                    log.error("the weights stay as they were: %s", error)


class Dns64(Plugin):
    """`dns64 [PREFIX]`: AAAA records made of A records (RFC 6147)."""

    name = "dns64"
    place = 210

    def parse(self, directive: Directive) -> None:
        args = directive.counted(0, 1)
        self.all = self.ipv4 = False
        prefix = args[0] if args else "64:ff9b::/96"
        for option in directive.children:
            no_options(option)
            if option.name == "prefix":
                (prefix,) = option.counted(1)
            elif option.name in {"translate_all", "allow_ipv4"}:
                option.counted(0)
                self.all = self.all or option.name == "translate_all"
                self.ipv4 = self.ipv4 or option.name == "allow_ipv4"
            else:
                directive.unknown(option, ("prefix", "translate_all", "allow_ipv4"))
        try:
            self.prefix = ipaddress.IPv6Network(prefix)
        except ValueError as error:
            raise directive.error(str(error)) from None
        if self.prefix.prefixlen not in {32, 40, 48, 56, 64, 96}:
            raise directive.error(f"{prefix!r} is not a /32, /40, /48, /56, /64 or /96")

    def build(self, following: Handler, site: Site) -> Handler:
        def handle(request: Request) -> Outcome:
            query = request.query
            if query.type != AAAA or query.klass != IN or query.dnssec_ok:
                return following(request)
            if not self.ipv4:
                request.personal = True  # which of the two families asks is not in the packet
                if len(request.client) == 4:
                    return following(request)
            return then(following(request), lambda reply: self._translated(request, reply, following, site))

        return handle

    def _translated(self, request: Request, reply: Reply, following: Handler, site: Site) -> Outcome:
        if reply.rcode == NXDOMAIN:
            return reply
        answers = unpacked(reply).answers
        if reply.rcode == NOERROR and any(record.type == AAAA for record in answers) and not self.all:
            return reply
        soa = next((record for record in unpacked(reply).authority if record.type == SOA), None)
        most = min(soa.ttl, int.from_bytes(soa.data[-4:], "big")) if soa is not None else 600  # RFC 6147 §5.1.7

        def made(found: Reply) -> Outcome:
            found = unpacked(found)
            if found.rcode != NOERROR or not any(record.type == A for record in found.answers):
                return reply
            site.metrics.add("coredns_dns64_requests_translated_total", (("server", site.server),))
            records = tuple(
                Record(record.name, AAAA, min(record.ttl, most), self.embedded(record.data))
                if record.type == A
                else record
                for record in found.answers
                if record.type in {A, CNAME}
            )
            return Reply(NOERROR, records, keep=min(found.keep, reply.keep), depends=found.depends + reply.depends)

        return then(following(request.asking(request.query.name, A)), made)

    def embedded(self, address: bytes) -> bytes:
        """The IPv6 address that carries an IPv4 address (RFC 6052 §2.2: bits 64 to 71 stay zero)."""
        size = self.prefix.prefixlen // 8
        out = bytearray(self.prefix.network_address.packed[:size])
        for byte in address:
            if len(out) == 8 and size < 12:
                out.append(0)
            out.append(byte)
        return bytes(out.ljust(16, b"\0"))
