"""`forward`, `cache` and `loop`: names that are others'.

Stands at the end of the chain. The cache stands right before the upstreams and not where CoreDNS has it, so that
nothing of the cluster's is ever kept in it. Invariant: a server that is found to forward to itself says so and does not
go on.
"""

from __future__ import annotations

import asyncio
import logging
import ssl

import msgspec

from fairlead.dns.answer import Style
from fairlead.dns.cache import Bounds, Cache, CacheOptions
from fairlead.dns.corefile import Directive
from fairlead.dns.forward import Forwarder, ForwardOptions, Outside
from fairlead.dns.message import IN, NOERROR
from fairlead.dns.metrics import DURATIONS
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
    no_options,
    number,
    rcode,
    zone_text,
    zones,
)
from fairlead.dns.presentation import RCODE_NAMES, TextError, name
from fairlead.dns.reply import is_denial, own_query, settled, then, unpacked
from fairlead.dns.upstream import Address, HealthCheck, Upstream, addresses_of, parse_address

log = logging.getLogger("fairlead.dns")

MAX_UPSTREAMS = 15
HINFO = 13
_KNOWN = (
    "except", "force_tcp", "prefer_udp", "expire", "max_fails", "max_connect_attempts", "tls", "tls_servername",
    "policy", "health_check", "max_concurrent", "next", "next_on_nodata", "failfast_all_unhealthy_upstreams",
    "failover",
    "max_idle_conns", "read_timeout", "source_address",
)  # fmt: skip


class CachePlugin(Plugin):
    """`cache [TTL] [ZONES…]`; its handler is built by the `forward` behind it."""

    name = "cache"
    place = 400

    def parse(self, directive: Directive) -> None:
        args = list(directive.args)
        success, denial = Bounds(), Bounds(most=1800)
        if args and args[0].isdigit():
            most = number(directive, args.pop(0), 1, 1 << 30)
            success, denial = Bounds(most=most), Bounds(most=most)
        self.zones = zones(directive, args, self.block.zones)
        self.disabled: dict[str, Zones] = {}
        found: dict[str, object] = {}
        for option in directive.children:
            no_options(option)
            word, values = option.name, option.args
            if word in {"success", "denial"}:
                option.counted(1, 3)
                before = success if word == "success" else denial
                capacity = number(option, values[0], 0, 1 << 30)
                most = number(option, values[1], 0, 1 << 30) if len(values) > 1 else before.most
                least = number(option, values[2], 0, 1 << 30) if len(values) > 2 else 0
                bounds = Bounds(capacity, most, least)
                success, denial = (bounds, denial) if word == "success" else (success, bounds)
            elif word == "prefetch":
                option.counted(1, 3)
                found["prefetch"] = number(option, values[0], 0, 1 << 30)
                if len(values) > 1:
                    found["prefetch_gap"] = duration(option, values[1])
                if len(values) > 2:
                    share = number(option, values[2].removesuffix("%"), 10, 90)
                    if not values[2].endswith("%"):
                        raise option.error(f"{values[2]!r}: a share needs a percent sign")
                    found["prefetch_share"] = share / 100
            elif word == "serve_stale":
                self._stale(option, found)
            elif word == "servfail":
                seconds = duration(option, option.counted(1)[0])
                if seconds > 300:
                    raise option.error("must not be longer than 5 minutes (RFC 2308)")
                found["servfail"] = seconds
            elif word == "disable":
                half = option.counted(1, 100)[0]
                if half not in {"success", "denial"}:
                    raise option.error(f"can be success or denial, not {half!r}")
                self.disabled[half] = zones(option, values[1:], Zones(((),)))
            elif word == "keepttl":
                option.counted(0)
                found["keep_ttl"] = True
            else:
                known = ("success", "denial", "prefetch", "serve_stale", "servfail", "disable", "keepttl")
                directive.unknown(option, known)
        self.options = msgspec.structs.replace(CacheOptions(success=success, denial=denial), **found)

    def _stale(self, option: Directive, found: dict[str, object]) -> None:
        values = option.counted(0, 5)
        found["stale"] = duration(option, values[0]) if values else 3600.0
        if len(values) > 1:
            mode = values[1].lower()
            if mode not in {"immediate", "verify"}:
                raise option.error(f"can be immediate or verify, not {values[1]!r}")
            found["stale_first"] = mode == "immediate"
            rest = values[2:]
            if rest and mode == "verify":
                found["stale_patience"] = duration(option, rest.pop(0))
            if rest:
                found["stale_ttl"] = int(duration(option, rest.pop(0)))
            if rest:
                raise option.error(f"{rest[0]!r}: a recheck after failures is not supported")

    def keeps(self, reply: Reply, request: Request) -> bool:
        """Whether it is for this name and sort of answer."""
        labels = request.query.labels
        if labels not in self.zones:
            return False
        half = self.disabled.get("denial" if is_denial(reply) or reply.rcode != NOERROR else "success")
        return half is None or labels not in half


class Forward(Plugin):
    """`forward FROM TO…`."""

    name = "forward"
    place = 410
    once = False

    def parse(self, directive: Directive) -> None:
        args = directive.counted(2, 100)
        self.zone = zones(directive, args[:1])
        self.excepted = Zones(())
        self.cache: CachePlugin | None = None  # set when the block is all read
        self.next_rcodes: frozenset[int] = frozenset()
        self.next_on_nodata = False
        self.tls: list[str] | None = None
        server_name, source, timeout, expire = "", "", 2.0, 10.0
        check: dict[str, object] = {}
        options: dict[str, object] = {}
        self.addresses = self._addresses(directive, args[1:])
        for option in directive.children:
            no_options(option)
            word = option.name
            if word == "except":
                self.excepted = zones(option, option.counted(1, 1000))
            elif word in {"force_tcp", "prefer_udp"}:
                option.counted(0)
                options[word] = True
            elif word == "failfast_all_unhealthy_upstreams":
                option.counted(0)
                options["failfast"] = True
            elif word == "expire":
                expire = duration(option, option.counted(1)[0])
            elif word == "read_timeout":
                timeout = duration(option, option.counted(1)[0])
                options["deadline"] = max(5.0, 2 * timeout)
            elif word == "max_fails":
                check["max_fails"] = number(option, option.counted(1)[0], 0, 1 << 30)
            elif word == "max_connect_attempts":
                options["attempts"] = number(option, option.counted(1)[0], 0, 1 << 30)
            elif word == "max_idle_conns":
                number(option, option.counted(1)[0], 0, 1 << 30)  # one connection carries all: there is none to spare
            elif word == "max_concurrent":
                options["max_concurrent"] = number(option, option.counted(1)[0], 0, 1 << 30)
            elif word == "policy":
                (policy,) = option.counted(1)
                if policy not in {"random", "round_robin", "sequential"}:
                    raise option.error(f"can be random, round_robin or sequential, not {policy!r}")
                options["policy"] = policy
            elif word == "health_check":
                check |= self._health(option)
            elif word == "tls":
                self.tls = [str(self.block.path(path)) for path in option.counted(0, 3)]
            elif word == "tls_servername":
                (server_name,) = option.counted(1)
            elif word == "next":
                self.next_rcodes = frozenset(rcode(option, text) for text in option.counted(1, 100))
            elif word == "next_on_nodata":
                option.counted(0)
                self.next_on_nodata = True
            elif word == "failover":
                found = frozenset(rcode(option, text) for text in option.counted(1, 100))
                if NOERROR in found:
                    raise option.error("NOERROR cannot be used")
                options["failover"] = found
            elif word == "source_address":
                (source,) = option.counted(1)
                if packed_address(source) is None:
                    raise option.error(f"{source!r} is not an address")
            else:
                directive.unknown(option, _KNOWN)
        if server_name:
            if any(address.server_name for address in self.addresses):
                raise directive.error("tls_servername and tls://ADDRESS%NAME cannot both be set")
            self.addresses = tuple(msgspec.structs.replace(a, server_name=server_name) for a in self.addresses)
        self.options = msgspec.structs.replace(ForwardOptions(), **options)
        self.check = msgspec.structs.replace(HealthCheck(), **check)
        self.source, self.timeout, self.expire = source, timeout, expire
        self.context = self._tls_context(directive) if any(address.tls for address in self.addresses) else None

    def _addresses(self, directive: Directive, texts: list[str]) -> tuple[Address, ...]:
        found: list[Address] = []
        for text in texts:
            path = self.block.path(text)
            if path.is_file():
                listed = addresses_of(path.read_text(errors="replace"))
                if not listed:
                    log.warning("%s:%d: forward: %s lists no name server", directive.file, directive.line, text)
                found += listed
                continue
            try:
                found.append(parse_address(text))
            except ValueError as error:
                raise directive.error(f"{error}, and no file is named so") from None
        if len(found) > MAX_UPSTREAMS:
            raise directive.error(f"more than {MAX_UPSTREAMS} upstreams")
        return tuple(found)

    def _health(self, option: Directive) -> dict[str, object]:
        values = option.counted(1, 4)
        found: dict[str, object] = {"interval": duration(option, values[0])}
        rest = values[1:]
        while rest:
            word = rest.pop(0)
            if word == "no_rec":
                found["recursion"] = False
            elif word == "domain" and rest:
                try:
                    found["name"] = name(rest.pop(0).rstrip(".") + ".")
                except TextError as error:
                    raise option.error(str(error)) from None
            else:
                raise option.error(f"unknown argument {word!r}")
        return found

    def _tls_context(self, directive: Directive) -> ssl.SSLContext:
        files = self.tls or []
        authority = files[0] if len(files) == 1 else files[2] if len(files) == 3 else None
        try:
            context = ssl.create_default_context(cafile=authority)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if len(files) >= 2:
                context.load_cert_chain(files[0], files[1])
        except (OSError, ssl.SSLError) as error:
            raise directive.error(f"tls: {error}") from None
        return context

    def style(self, style: Style) -> Style:
        return style._replace(recursion=bool(self.addresses) or style.recursion)

    def build(self, following: Handler, site: Site) -> Handler:
        upstreams = tuple(
            Upstream(
                address,
                timeout=self.timeout,
                expire=self.expire,
                check=self.check,
                context=self.context,
                source=self.source,
            )
            for address in self.addresses
        )
        forwarder = Forwarder(upstreams, self.options, clock=site.clock)
        cached = self.cache
        store = Cache(cached.options) if cached is not None else None
        outside = Outside(forwarder, store, clock=site.clock, kept=cached.keeps if cached is not None else None)
        site.closers.append(outside.close)
        _measure(site, outside, zone_text(self.block.zones.names[0]) if self.block.zones.names else ".")
        plain = outside.handle
        if self.zone.everything and not self.excepted and not self.next_rcodes and not self.next_on_nodata:
            return plain
        zone, excepted, rcodes, nodata = self.zone, self.excepted, self.next_rcodes, self.next_on_nodata

        def handle(request: Request) -> Outcome:
            labels = request.query.labels
            if labels not in zone or (excepted and labels in excepted):
                return following(request)
            if not rcodes and not nodata:
                return plain(request)

            def other(reply: Reply) -> Outcome:
                if reply.rcode in rcodes or (nodata and is_denial(reply)):
                    return following(request)
                return reply

            return then(plain(request), other)

        return handle


def _measure(site: Site, outside: Outside, zone: str) -> None:
    metrics, server = site.metrics, site.server
    handles = {}

    def observe(upstream: Upstream, code: int, seconds: float) -> None:
        key = upstream.address, code
        if key not in handles:
            to, text = str(upstream.address), RCODE_NAMES.get(code, str(code))
            labels = (("proxy_name", "forward"), ("to", to), ("rcode", text))
            handles[key] = metrics.histogram("coredns_proxy_request_duration_seconds", labels, DURATIONS)
        handles[key].observe(seconds)

    def collect() -> None:
        forwarder, cache = outside.forwarder, outside.cache
        metrics.set("coredns_forward_max_concurrent_rejects_total", (), forwarder.rejected)
        metrics.set("coredns_forward_healthcheck_broken_total", (), forwarder.broken)
        for upstream in forwarder.upstreams:
            to = (("proxy_name", "forward"), ("to", str(upstream.address)))
            metrics.set("coredns_proxy_healthcheck_failures_total", to, upstream.checks_failed)
            proto = ("proto", "tcp-tls" if upstream.address.tls else "tcp")
            fresh, again = upstream.connections_used
            metrics.set("coredns_proxy_conn_cache_misses_total", (*to, proto), fresh)
            metrics.set("coredns_proxy_conn_cache_hits_total", (*to, proto), again)
        if cache is None:
            return
        common = (("server", server),)
        tail = (("zones", zone), ("view", ""))
        for kind, size, hits, gone in zip(
            ("success", "denial"), cache.sizes(), cache.hits, cache.evictions, strict=True
        ):
            labels = (*common, ("type", kind), *tail)
            metrics.set("coredns_cache_entries", labels, size)
            metrics.set("coredns_cache_hits_total", labels, hits)
            metrics.set("coredns_cache_evictions_total", labels, gone)
        metrics.set("coredns_cache_misses_total", (*common, *tail), cache.misses)
        metrics.set("coredns_cache_requests_total", (*common, *tail), cache.misses + sum(cache.hits))
        metrics.set("coredns_cache_prefetch_total", (*common, *tail), outside.prefetched)
        metrics.set("coredns_cache_served_stale_total", (*common, *tail), outside.served_stale)

    outside.forwarder.observe = observe
    metrics.collectors.append(collect)


class Loop(Plugin):
    """`loop`: at the start a question with a random name is sent through the chain; if it comes back, we forward to
    ourselves."""

    name = "loop"
    place = 390

    def build(self, following: Handler, site: Site) -> Handler:
        zone = self.block.zones.names[0] if self.block.zones.names else ()
        numbers = [str(int.from_bytes(half, "big")).encode() for half in (site.nonce[:8], site.nonce[8:])]
        labels = (*numbers, *zone)
        wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"

        def handle(request: Request) -> Outcome:
            query = request.query
            if query.type == HINFO and query.klass == IN and query.labels == labels and request.client:
                log.error(
                    "plugin/loop: Loop (%s:%d -> %s) detected for zone %r: an upstream forwards to this server, or is "
                    "this server. Query: %r. Change the `forward` of that zone, or the resolv.conf it names",
                    request.address,
                    request.port,
                    site.server,
                    zone_text(zone),
                    f"HINFO {zone_text(labels)}",
                )
                site.on_gone(1)
                return Reply(NOERROR)
            return following(request)

        async def probe() -> None:
            for _ in range(3):
                try:
                    async with asyncio.timeout(5):
                        unpacked(await settled(following(Request(own_query(wire, HINFO)))))
                    return
                except TimeoutError:
                    await asyncio.sleep(1)

        site.background.append(probe)
        return handle
