"""Which server block answers a name, and what its answers look like; the log and the counts of what it answered.

Stands between the server and the chains. Invariant: a chain is put together when a Corefile is loaded; here nothing is
decided but which.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import time
from collections.abc import Callable, Sequence

from fairlead.dns.answer import PLAIN, Rotating, Style, Value
from fairlead.dns.message import MIN_UDP, NOERROR, NXDOMAIN, REFUSED, Query
from fairlead.dns.metrics import DURATIONS, SIZES, Labels, Metrics
from fairlead.dns.names import split_name, text_name
from fairlead.dns.plugins.serving import Log
from fairlead.dns.presentation import CLASS_NAMES, RCODE_NAMES, TYPE_NAMES, type_name
from fairlead.dns.reply import Handler, Outcome, Request, failed
from fairlead.dns.zones import Zones, zone_text

log = logging.getLogger("fairlead.dns")

_COUNTED_TYPES = frozenset(
    {"A", "AAAA", "MX", "SOA", "CNAME", "PTR", "TXT", "NS", "SRV", "DS", "DNSKEY", "RRSIG", "NSEC", "NSEC3", "HTTPS",
     "IXFR", "AXFR", "ANY"}
)  # fmt: skip
_FLAG_NAMES = (
    (0x8000, "qr"),
    (0x0400, "aa"),
    (0x0200, "tc"),
    (0x0100, "rd"),
    (0x0080, "ra"),
    (0x0020, "ad"),
    (0x0010, "cd"),
)
_LEVELS = {"warning": logging.WARNING, "error": logging.ERROR, "info": logging.INFO, "debug": logging.DEBUG}
_DEPTH = 10  # of questions asked to answer others
_HIT = 5e-6  # s; what an answer that was remembered is counted with, as it is not timed by itself


class ErrorLog:
    """The errors plugin. `consolidated` are (seconds, pattern, level, show_first): errors that match are counted for so
    long, and then said in one line."""

    def __init__(self, consolidated: Sequence[tuple[float, re.Pattern[str], str, bool]] = ()) -> None:
        self._consolidated = consolidated
        self._counts = [0] * len(consolidated)

    def say(self, text: str) -> None:
        """Log an error, or count it."""
        why = text.partition(": ")[2]
        for at, (seconds, compiled, level, first) in enumerate(self._consolidated):
            if not compiled.search(why):
                continue
            self._counts[at] += 1
            if self._counts[at] == 1:
                asyncio.get_running_loop().call_later(seconds, self._sum_up, at)
                if first:
                    log.log(_LEVELS[level], "plugin/errors: %s", text)
            return
        log.error("plugin/errors: %s", text)

    def _sum_up(self, at: int) -> None:
        seconds, compiled, level, first = self._consolidated[at]
        count, self._counts[at] = self._counts[at], 0
        if count > first:
            log.log(
                _LEVELS[level],
                "plugin/errors: %d errors like '%s' occurred in last %gs",
                count,
                compiled.pattern,
                seconds,
            )


class Chain:
    """One server block, ready to answer."""

    def __init__(
        self,
        handler: Handler,
        style: Style = PLAIN,
        zone: str = ".",
        *,
        logs: tuple[Log, ...] = (),
        timeout: float = 0.0,
        counted: bool = False,
        errors: ErrorLog | None = None,
        write: Callable[[str], object] = sys.stdout.write,
    ) -> None:
        self.handler, self.style, self.zone, self.timeout, self.counted = handler, style, zone, timeout, counted
        self.logs, self.errors, self._write = logs, errors, write
        self.remembers = not logs  # what is remembered is answered without a word

    def named(self, labels: tuple[bytes, ...]) -> Chain:
        """The same chain, counted for another zone of its block."""
        zone = zone_text(labels)
        if zone == self.zone:
            return self
        return Chain(
            self.handler,
            self.style,
            zone,
            logs=self.logs,
            timeout=self.timeout,
            counted=self.counted,
            errors=self.errors,
            write=self._write,
        )

    def fail(self, query: Query, rcode: int, why: str) -> None:
        """Say what went wrong, if the block has the errors plugin."""
        if self.errors is not None:
            self.errors.say(f"{rcode} {text_name(query.name)} {type_name(query.type)}: {why}")

    def say(self, request: Request, query: Query, packet: bytes, answer: bytes, seconds: float) -> None:
        """Write what the log plugins ask for. `answer` is without its id."""
        rcode = answer[1] & 0xF
        denial = rcode == NXDOMAIN or (rcode == NOERROR and answer[4:6] == b"\0\0")
        sort = "denial" if denial else "success" if rcode == NOERROR else "error"
        for entry in self.logs:
            if query.labels not in entry.zones or not entry.classes & {"all", sort}:
                continue
            self._write("[INFO] " + _line(entry.format, request, query, packet, answer=answer, seconds=seconds) + "\n")


def _line(form: str, request: Request, query: Query, packet: bytes, *, answer: bytes, seconds: float) -> str:
    flags = int.from_bytes(answer[:2], "big")
    address = f"[{request.address}]" if len(request.client) == 16 else request.address
    values = {
        "type": type_name(query.type),
        "name": text_name(query.name),
        "class": CLASS_NAMES.get(query.klass, f"CLASS{query.klass}"),
        "proto": "udp" if request.transport == "udp" else "tcp",
        "remote": address,
        "local": "-",
        "port": str(request.port),
        "size": str(len(packet)),
        ">id": str(query.id),
        ">opcode": "0",
        ">do": "true" if query.dnssec_ok else "false",
        ">bufsize": str(query.udp_size if query.edns else MIN_UDP),
        "rcode": RCODE_NAMES.get(flags & 0xF, str(flags & 0xF)),
        ">rflags": ",".join(word for bit, word in _FLAG_NAMES if flags & bit),
        "rsize": str(len(answer) + 2),
        "duration": f"{seconds:.9f}s",
    }
    out, position = [], 0
    while (begin := form.find("{", position)) >= 0 and (end := form.find("}", begin)) >= 0:
        out += [form[position:begin], values.get(form[begin + 1 : end], "-")]
        position = end + 1
    return "".join([*out, form[position:]])


class Router:
    """The server blocks behind one address."""

    def __init__(self, server: str, chains: dict[tuple[bytes, ...], Chain], metrics: Metrics | None = None) -> None:
        self.server, self.chains = server, chains
        self._zones = Zones(tuple(chains))
        self._only = next(iter(chains.values())) if list(chains) == [()] else None
        self.counted = metrics is not None and any(chain.counted for chain in chains.values())
        self._metrics = metrics if metrics is not None else Metrics()
        self.tally: dict[Value, int] = {}
        self.clock = time.perf_counter

    def route(self, labels: tuple[bytes, ...]) -> Chain | None:
        """The chain of the longest zone that holds a name."""
        if self._only is not None:
            return self._only
        zone = self._zones.match(labels)
        return self.chains[zone] if zone is not None else None

    def resolve(self, request: Request) -> Outcome:
        """A question of our own, asked of the whole server."""
        chain = self.route(request.query.labels)
        return failed(REFUSED) if chain is None or request.depth > _DEPTH else chain.handler(request)

    def panic(self) -> None:
        """Count a query that a fault of ours left without its answer."""
        self._metrics.add("coredns_panics_total")

    def fold(self) -> None:
        """Bring what the loop counted by answer into the metrics, by what it is."""
        tally, self.tally = dict(self.tally), self.tally
        self.tally.clear()
        for value, times in tally.items():
            data = value.everything[0] if isinstance(value, Rotating) else value
            size = len(data) if isinstance(value, bytes) else sum(map(len, (data, *value.everything[1:]))) // 2
            self.count(data, "udp", 1, size=size, seconds=_HIT, times=times)

    def count(self, answer: bytes, proto: str, family: int, *, size: int, seconds: float, times: int = 1) -> None:
        """Count an answer. `answer` is without its id, at least up to its question; `family` is 1 or 2, as CoreDNS
        counts them."""
        if len(answer) < 15:
            return
        end = 10
        while answer[end]:
            end += answer[end] + 1
        chain = self.route(split_name(answer[10 : end + 1].lower()))
        if chain is None or not chain.counted:
            return
        kind = TYPE_NAMES.get(int.from_bytes(answer[end + 1 : end + 3], "big"), "")
        kind = kind if kind in _COUNTED_TYPES else "other"
        rcode = RCODE_NAMES.get(answer[1] & 0xF, str(answer[1] & 0xF))
        base: Labels = (("server", self.server), ("zone", chain.zone), ("view", ""))
        metrics = self._metrics
        metrics.add(
            "coredns_dns_requests_total", (*base, ("proto", proto), ("family", str(family)), ("type", kind)), times
        )
        metrics.add("coredns_dns_responses_total", (*base, ("rcode", rcode), ("plugin", "")), times)
        metrics.histogram("coredns_dns_request_duration_seconds", (*base, ("type", kind)), DURATIONS).observe(
            seconds, times
        )
        with_proto = (*base, ("proto", proto))
        metrics.histogram("coredns_dns_response_size_bytes", with_proto, SIZES).observe(size + 2, times)
        metrics.histogram("coredns_dns_request_size_bytes", with_proto, SIZES).observe(end + 7, times)


def plain_router(handler: Handler, style: Style = PLAIN) -> Router:
    """One chain for all names."""
    return Router("dns://:53", {(): Chain(handler, style)})
