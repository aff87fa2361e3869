"""A configuration in force: its listeners, chains, status pages and background work; and putting another in its place.

Stands between the configuration and the event loop. Invariant: a new configuration takes the place of the old one only
when all of it is ready, its sockets included; until then, and if anything is wrong with it, the old one answers.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import sys
from collections.abc import Callable

from fairlead.dns.book import Book, Touched
from fairlead.dns.config import Config, Listener, build_chain
from fairlead.dns.doh import talk
from fairlead.dns.health import Status, serve_status
from fairlead.dns.metrics import Metrics
from fairlead.dns.plugins import serving as plugins
from fairlead.dns.plugins.base import Plugin, Site
from fairlead.dns.router import Router
from fairlead.dns.server import Server, StreamLimits
from fairlead.dns.sockets import bind_tcp, bind_udp
from fairlead.dns.table import Table

log = logging.getLogger("fairlead.dns")

_LEFT_OVER = 6.0  # s that queries of an old configuration may still take; more than any has


class DNSError(Exception):
    """The DNS cannot start. The message says what to change."""


class Sockets:
    """Listening sockets by what they are for, bound before anything else, so that what is taken is said at once."""

    def __init__(self) -> None:
        self.datagrams: dict[Listener, socket.socket] = {}
        self.streams: dict[Listener, socket.socket] = {}
        self.pages: dict[tuple[str, int], socket.socket] = {}

    @classmethod
    def bind(
        cls, config: Config, *, shared: bool = False, pages: bool = True, beside: Sockets | None = None
    ) -> Sockets:
        """Those that a configuration needs and `beside` does not have. A port 0 is the same for UDP and TCP. Raises
        DNSError; then none is left open."""
        made = cls()
        try:
            for listener in config.listeners():
                if beside is not None and listener in beside.streams:
                    continue
                tcp = made.streams[listener] = _bound("tcp", listener.host, listener.port, shared)
                if listener.transport == "dns":
                    port = tcp.getsockname()[1]
                    made.datagrams[listener] = _bound("udp", listener.host, port, shared)
            if pages:
                for address in config.pages():
                    if address not in made.pages and (beside is None or address not in beside.pages):
                        made.pages[address] = _bound("tcp", address[0], address[1], shared)
        except DNSError:
            made.close()
            raise
        return made

    def port(self) -> int:
        """The first listener's."""
        number: int = next(iter(self.streams.values())).getsockname()[1]
        return number

    def close(self) -> None:
        """Close them all."""
        for sock in (*self.datagrams.values(), *self.streams.values(), *self.pages.values()):
            sock.close()


def _bound(kind: str, host: str, port: int, shared: bool) -> socket.socket:
    bind = bind_udp if kind == "udp" else bind_tcp
    try:
        try:
            return bind(host, port, shared=shared)
        except OSError as error:
            if host != "::" or error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
                raise
            return bind("0.0.0.0", port, shared=shared)  # a machine without IPv6
    except OSError as error:
        raise DNSError(f"cannot listen on {host}:{port}/{kind}: {error.strerror}{_advice(error)}") from None


def _advice(error: OSError) -> str:
    if error.errno == errno.EACCES:
        return "; ports below 1024 need root or the capability NET_BIND_SERVICE: choose another with --port"
    if error.errno == errno.EADDRINUSE:
        return "; another server has it: stop that one, or choose another with --listen or --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return "; no interface here has that address"
    return ""


class _Generation:
    """What lives as long as one configuration."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.routers: dict[Listener, Router] = {}
        self.contexts: dict[Listener, ssl.SSLContext] = {}
        self.limits: dict[Listener, StreamLimits] = {}
        self.sites: list[Site] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.went_ready: set[int] = set()

    def not_ready(self) -> list[str]:
        return sorted({name for site in self.sites for ready in site.ready if (name := ready())})

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for site in self.sites:
            for close in site.closers:
                await close()


class Serving:
    """Everything that answers in one process. `on_gone` ends the process with a code."""

    def __init__(
        self,
        book: Book,
        own: tuple[bytes, ...],
        *,
        nonce: bytes,
        table_size: int = 20_000,
        connections: int = 1000,
        shared: bool = False,
        pages: bool = True,
        on_gone: Callable[[int], None] = lambda code: None,
        write: Callable[[str], object] = sys.stdout.write,
    ) -> None:
        self.book, self.own = book, own
        self.metrics = Metrics()
        describe(self.metrics)
        self.leaving = False
        self._nonce, self._table_size, self._connections = nonce, table_size, connections
        self._shared, self._pages, self._on_gone, self._write = shared, pages, on_gone, write
        self.servers: dict[Listener, Server] = {}
        self.sockets = Sockets()
        self._status: dict[tuple[str, int], asyncio.Server] = {}
        self._pages_of: dict[tuple[str, int], dict[str, Status]] = {}
        self._generation: _Generation | None = None
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def config(self) -> Config | None:
        """What is in force."""
        return self._generation.config if self._generation is not None else None

    async def put(self, config: Config, sockets: Sockets | None = None) -> None:
        """Put a configuration in force, in the place of another if there is one. `sockets` are those it needs, if they
        are bound already. Raises DNSError; then nothing has changed."""
        new = sockets or Sockets.bind(config, shared=self._shared, pages=self._pages, beside=self.sockets)
        for counting in self.servers.values():  # what was counted under the old names
            counting.fold()
        collectors = self.metrics.collectors[:]
        self.metrics.collectors.clear()
        try:
            generation = self._built(config)
        except DNSError:
            self.metrics.collectors[:] = collectors
            raise
        old, self._generation = self._generation, generation
        for listener, router in generation.routers.items():
            server = self.servers.get(listener)
            if server is not None:
                server.router, server.limits = router, generation.limits[listener]
                server.table.clear()
        for listener, router in generation.routers.items():
            if listener in self.servers:
                continue
            server = Server(router, Table(self._table_size), self.book, generation.limits[listener])
            self.servers[listener] = server
            await self._start(server, listener, new, generation)
        self.metrics.collectors += [server.fold for server in self.servers.values()]
        self.sockets.streams |= new.streams
        self.sockets.datagrams |= new.datagrams
        await self._put_pages(generation, new)
        for listener in set(self.servers) - set(generation.routers):
            gone = self.servers.pop(listener)
            self.sockets.streams.pop(listener, None)
            self.sockets.datagrams.pop(listener, None)
            self._spawn(gone.stop())
        for site in generation.sites:
            generation.tasks += [asyncio.create_task(_quiet(work())) for work in site.background]
        if old is not None:
            self._spawn(_end_later(old))

    def _spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _built(self, config: Config) -> _Generation:
        generation = _Generation(config)
        chains = {}
        for listener, zones in config.listeners().items():
            made = {}
            for labels, block in zones.items():
                if block not in chains:
                    site = Site(self.book, self.own, self.metrics)
                    site.server, site.nonce, site.on_gone = str(listener), self._nonce, self._on_gone
                    site.forget = self._forget_all
                    generation.sites.append(site)
                    chains[block] = build_chain(block, site, labels, self._write), site
                    self._enabled(block.plugins, str(listener), chains[block][0].zone)
                made[labels] = chains[block][0].named(labels)
                for plugin in block.plugins:
                    if isinstance(plugin, plugins.Tls):
                        generation.contexts[listener] = plugin.context
                    if isinstance(plugin, plugins.Timeouts):
                        seconds = plugin.seconds
                        generation.limits[listener] = StreamLimits(
                            self._connections,
                            seconds.get("idle", 10.0),
                            seconds.get("read", 5.0),
                            seconds.get("write", 10.0),
                            plugin.most,
                        )
            router = generation.routers[listener] = Router(str(listener), made, self.metrics)
            generation.limits.setdefault(listener, StreamLimits(self._connections))
        for block, (_, site) in chains.items():
            router = generation.routers[block.sites[0][0]]
            site.resolve = router.resolve
        return generation

    def _enabled(self, found: list[Plugin], server: str, zone: str) -> None:
        for plugin in found:
            if plugin.place:
                labels = (("server", server), ("zone", zone), ("view", ""), ("name", plugin.name))
                self.metrics.set("coredns_plugin_enabled", labels, 1)

    async def _start(self, server: Server, listener: Listener, new: Sockets, generation: _Generation) -> None:
        if listener.transport == "dns":
            await server.start(new.datagrams[listener], new.streams[listener])
            return
        context = generation.contexts[listener]
        if listener.transport == "tls":
            context.set_alpn_protocols(["dot"])
            await server.start(None, new.streams[listener], context)
            return
        context.set_alpn_protocols(["http/1.1"])
        name = (("server", str(listener)),)

        def count(code: int) -> None:
            self.metrics.add("coredns_dns_https_responses_total", (*name, ("status", str(code))))

        await server.serve_streams(
            new.streams[listener],
            lambda reader, writer: talk(reader, writer, server.answer, server.limits.idle, count),
            context,
        )

    async def _put_pages(self, generation: _Generation, new: Sockets) -> None:
        if not self._pages:
            return
        config = generation.config
        wanted: dict[tuple[str, int], dict[str, Status]] = {}
        for health in config.health:
            wanted.setdefault(health.address, {})["/health"] = lambda: (200, "OK")
        for ready in config.ready:
            wanted.setdefault(ready.address, {})["/ready"] = lambda ready=ready: self._ready(generation, ready)  # type: ignore[misc]
        for prometheus in config.prometheus:
            wanted.setdefault(prometheus.address, {})["/metrics"] = lambda: (200, self.metrics.text())
        for address in set(self._status) - set(wanted):
            self._status.pop(address).close()
            self.sockets.pages.pop(address, None)
        for address, routes in wanted.items():
            if address in self._status:
                self._pages_of[address].clear()
                self._pages_of[address].update(routes)
                continue
            self._pages_of[address] = routes
            self.sockets.pages[address] = new.pages[address]
            self._status[address] = await serve_status(new.pages[address], routes)

    def _ready(self, generation: _Generation, plugin: plugins.Ready) -> tuple[int, str]:
        missing = generation.not_ready()
        if self.leaving or (missing and (plugin.continuously or id(plugin) not in generation.went_ready)):
            return 503, ",".join(missing) or "leaving"
        generation.went_ready.add(id(plugin))
        return 200, "OK"

    def _forget_all(self) -> None:
        for server in self.servers.values():
            server.table.clear()

    def forget(self, touched: Touched) -> None:
        """Forget what followed from what changed."""
        for server in self.servers.values():
            server.forget(touched)

    async def stop(self) -> None:
        """Answer what came and is under way, then stop."""
        await asyncio.gather(*(server.stop() for server in self.servers.values()))
        for status in self._status.values():
            status.close()
        for task in list(self._ending):
            task.cancel()
        if self._generation is not None:
            await self._generation.end()


def describe(metrics: Metrics) -> None:
    """What the metrics are, for those who read them; and who we are."""
    for name, kind, text in (
        ("coredns_build_info", "gauge", "A metric with a constant '1' value labeled by version and by what answers."),
        ("coredns_panics_total", "counter", "A metrics that counts the number of panics."),
        ("coredns_dns_requests_total", "counter", "Counter of DNS requests made per zone, protocol and family."),
        ("coredns_dns_responses_total", "counter", "Counter of response status codes."),
        ("coredns_dns_request_duration_seconds", "histogram", "Histogram of the time each request took."),
        ("coredns_dns_request_size_bytes", "histogram", "Size of the request in bytes."),
        ("coredns_dns_response_size_bytes", "histogram", "Size of the returned response in bytes."),
        ("coredns_cache_entries", "gauge", "The number of elements in the cache."),
        ("coredns_plugin_enabled", "gauge", "Whether a plugin is enabled on per server and zone basis."),
        ("coredns_hosts_entries", "gauge", "The combined number of entries in hosts and Corefile."),
        ("coredns_reload_version_info", "gauge", "The hash of the Corefile that was read last."),
        ("coredns_proxy_request_duration_seconds", "histogram", "Histogram of the time each upstream's answer took."),
    ):
        metrics.describe(name, kind, text)
    metrics.set("coredns_build_info", (("version", "fairlead"), ("revision", ""), ("goversion", "")), 1)
    metrics.set("coredns_panics_total", (), 0)


async def _quiet(work: object) -> None:
    """Background work whose failure is said and harms nothing else."""
    try:
        await work  # type: ignore[misc]
    except Exception as error:
        log.error("background work failed: %r", error, exc_info=error)


async def _end_later(old: _Generation) -> None:
    """End a configuration when what it had under way must be over."""
    await asyncio.sleep(_LEFT_OVER)
    await old.end()
