"""`any`, `chaos`, `local`, `whoami`: plugins that answer by themselves, from nothing but the question and who asks."""

from __future__ import annotations

import ipaddress
import socket
import struct

from fairlead.dns.corefile import Directive
from fairlead.dns.message import AA, AAAA, ANY, IN, NOERROR, NS, NXDOMAIN, PTR, SOA, SRV, TXT, A, Record
from fairlead.dns.names import ROOT, wire_name
from fairlead.dns.plugins.base import Handler, Outcome, Plugin, Reply, Request, Site, Zones, no_options
from fairlead.dns.reply import WHILE

CHAOS_CLASS = 3
HINFO = 13


def text_data(text: str) -> bytes:
    """A TXT record's data: one string."""
    raw = text.encode()[:255]
    return bytes((len(raw),)) + raw


class Any(Plugin):
    """`any`: ANY gets HINFO, as RFC 8482 §4.2 has it."""

    name = "any"
    place = 220

    def build(self, following: Handler, site: Site) -> Handler:
        data = text_data("ANY obsoleted") + text_data("See RFC 8482")

        def handle(request: Request) -> Outcome:
            query = request.query
            if query.type != ANY:
                return following(request)
            return Reply(NOERROR, (Record(query.name, HINFO, 8482, data),), flags=0, keep=WHILE)

        return handle


class Chaos(Plugin):
    """`chaos [VERSION] [AUTHORS…]`: who we are, in class CH."""

    name = "chaos"
    place = 230

    def parse(self, directive: Directive) -> None:
        no_options(directive)
        args = directive.args
        self.version = args[0] if args else f"fairlead-{_version()}"
        self.authors = args[1:] or ["fairlead"]

    def build(self, following: Handler, site: Site) -> Handler:
        host = socket.gethostname()[:255] or "localhost"
        texts = {
            (b"version", b"bind"): [self.version],
            (b"version", b"server"): [self.version],
            (b"authors", b"bind"): self.authors,
            (b"hostname", b"bind"): [host],
            (b"id", b"server"): [host],
        }

        def handle(request: Request) -> Outcome:
            query = request.query
            if query.klass != CHAOS_CLASS or query.type != TXT or query.labels not in texts:
                return following(request)
            records = tuple(Record(query.name, TXT, 0, text_data(text), CHAOS_CLASS) for text in texts[query.labels])
            return Reply(NOERROR, records, flags=0, keep=WHILE)

        return handle


def _version() -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version("fairlead")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


class Local(Plugin):
    """`local`: names that never leave the machine (RFC 6303, RFC 6761)."""

    name = "local"
    place = 200

    def parse(self, directive: Directive) -> None:
        directive.counted(0)
        self.prefix = True
        for option in directive.children:
            if option.name != "localhost_prefix":
                directive.unknown(option, ("localhost_prefix",))
            no_options(option)
            (value,) = option.counted(1)
            if value not in {"on", "off"}:
                raise option.error(f"can be on or off, not {value!r}")
            self.prefix = value == "on"

    def build(self, following: Handler, site: Site) -> Handler:
        zones = Zones.of(["localhost", "0.in-addr.arpa", "127.in-addr.arpa", "255.in-addr.arpa"])
        localhost = wire_name("localhost")
        numbers = struct.pack("!5I", 1, 0, 0, 0, TTL)
        soa_data = localhost + wire_name("root.localhost") + numbers
        prefix = self.prefix

        def handle(request: Request) -> Outcome:
            query = request.query
            labels, kind = query.labels, query.type
            if query.klass != IN or not labels:
                return following(request)
            below = len(labels) > 1 and (labels[-1] == b"localhost" or (prefix and labels[0] == b"localhost"))
            zone = zones.match(labels)
            if not below and zone is None:
                return following(request)
            if below:
                site.metrics.add("coredns_local_localhost_requests_total")
            origin = query.name if below else b"".join(bytes((len(x),)) + x for x in zone or ()) + ROOT
            soa = Record(origin, SOA, TTL, soa_data)
            address = (below or labels == (b"localhost",)) and kind in {A, AAAA}
            if address:
                data = ipaddress.ip_address("127.0.0.1" if kind == A else "::1").packed
                return Reply(NOERROR, (Record(query.name, kind, TTL, data),), flags=AA, keep=WHILE)
            if labels == zone and kind == SOA:
                return Reply(NOERROR, (soa,), keep=WHILE)
            if labels == zone and kind == NS:
                return Reply(NOERROR, (Record(query.name, NS, TTL, localhost),), keep=WHILE)
            if labels == (b"1", b"0", b"0", b"127", b"in-addr", b"arpa"):
                if kind == PTR:
                    return Reply(NOERROR, (Record(query.name, PTR, TTL, localhost),), keep=WHILE)
                return Reply(NOERROR, authority=(soa,), keep=WHILE)
            exists = below or labels == zone
            return Reply(NOERROR if exists else NXDOMAIN, authority=(soa,), keep=WHILE)

        return handle


TTL = 604800  # of what `local` says, as CoreDNS


class Whoami(Plugin):
    """`whoami`: the client's address, port and transport."""

    name = "whoami"
    place = 430

    def build(self, following: Handler, site: Site) -> Handler:
        def handle(request: Request) -> Outcome:
            request.personal = True
            name, client = request.query.name, request.client
            proto = "udp" if request.transport == "udp" else "tcp"
            address = Record(name, A if len(client) == 4 else AAAA, 0, client)
            target = Record(
                bytes((4,)) + f"_{proto}".encode() + name, SRV, 0, struct.pack("!3H", 0, 0, request.port) + ROOT
            )
            return Reply(NOERROR, additional=(address, target), flags=AA)

        return handle
