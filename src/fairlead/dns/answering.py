"""The answering process: its sockets, its zone and its life.

The parent of the two (see `processes`). Stands between the pipe and the server. Invariant: it ends with 0 only if it
was asked to; what was accepted by then is answered.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import signal
import socket
from pathlib import Path

from fairlead.dns.answer import Limits
from fairlead.dns.forward import Forwarder, Upstream, parse_upstream, upstreams_of
from fairlead.dns.health import serve_status
from fairlead.dns.names import packed_address, wire_name
from fairlead.dns.options import DNSOptions
from fairlead.dns.pipe import Frames
from fairlead.dns.server import Server
from fairlead.dns.sockets import SLOT_SIZE, bind_tcp, bind_udp, own_addresses
from fairlead.dns.table import Table
from fairlead.dns.zone import Zone

log = logging.getLogger("fairlead.dns")

_CHUNK = 1 << 16  # bytes of the pipe taken at once


class DNSError(Exception):
    """The DNS cannot start. The message says what to change."""


def main(options: DNSOptions, pipe: socket.socket) -> int:
    """The whole life of the answering process; returns its exit code. Deltas come through `pipe`."""
    try:
        sockets = Sockets(options)
        zone, forwarder = prepare(options)
    except DNSError as error:
        log.error("%s", error)
        return 1
    return asyncio.run(_answer(options, sockets, zone, forwarder, pipe))


class Sockets:
    """All listening sockets, bound before anything else, so that what is taken is said at once. Raises DNSError."""

    def __init__(self, options: DNSOptions) -> None:
        self._open: list[socket.socket] = []
        self.tcp = self._bind("tcp", options.listen, options.port)
        self.port = self.tcp.getsockname()[1]
        self.udp = self._bind("udp", options.listen, self.port)
        self.health = self._bind("tcp", options.listen, options.health_port) if options.health_port else None
        self.ready = self._bind("tcp", options.listen, options.ready_port) if options.ready_port else None

    def _bind(self, kind: str, host: str, port: int) -> socket.socket:
        try:
            sock = bind_udp(host, port) if kind == "udp" else bind_tcp(host, port)
        except OSError as error:
            self.close()
            raise DNSError(f"cannot listen on {host}:{port}/{kind}: {error.strerror}{_advice(error)}") from None
        self._open.append(sock)
        return sock

    def close(self) -> None:
        """Close them all."""
        for sock in self._open:
            sock.close()


def _advice(error: OSError) -> str:
    if error.errno == errno.EACCES:
        return "; ports below 1024 need root or the capability NET_BIND_SERVICE: choose another with --port"
    if error.errno == errno.EADDRINUSE:
        return "; another server has it: stop that one, or choose another with --listen or --port"
    return ""


def prepare(options: DNSOptions) -> tuple[Zone, Forwarder]:
    """The empty zone and the forwarder that the options describe. Raises DNSError."""
    try:
        wire_name(options.domain)
    except (ValueError, UnicodeError):
        raise DNSError(f"cluster domain {options.domain!r} is not a domain name") from None
    found = options.own_addresses if options.own_addresses is not None else own_addresses()
    own = tuple(filter(None, map(packed_address, found)))
    zone = Zone(options.domain, options.ttl, options.pods, own)
    upstreams = upstreams_from(options, own)
    if not upstreams:
        log.warning("no upstream name server: names outside of %s are refused", options.domain)
    return zone, Forwarder(upstreams, max_concurrent=options.max_concurrent)


def upstreams_from(options: DNSOptions, own: tuple[bytes, ...]) -> tuple[Upstream, ...]:
    """The upstreams of the options, or of resolv.conf; never this server itself, which would ask itself for ever."""
    if options.upstreams is not None:
        try:
            return tuple(parse_upstream(text) for text in options.upstreams)
        except ValueError as error:
            raise DNSError(str(error)) from None
    try:
        text = Path(options.resolv_conf).read_text(errors="replace")
    except OSError as error:
        log.warning("cannot read %s: %s", options.resolv_conf, error.strerror)
        return ()
    found = upstreams_of(text)
    others = tuple(upstream for upstream in found if not _is_self(upstream, options, own))
    for host, _ in set(found) - set(others):
        log.warning("%s names %s, which is this server itself here: left out", options.resolv_conf, host)
    return others


def _is_self(upstream: Upstream, options: DNSOptions, own: tuple[bytes, ...]) -> bool:
    """A node's resolver on a loopback address is, seen from a pod, the pod itself."""
    packed = packed_address(upstream[0].partition("%")[0])
    if packed is None or upstream[1] != options.port:
        return False
    if options.listen in {"0.0.0.0", "::"}:
        return packed in own or packed[:1] == b"\x7f" or packed == bytes(15) + b"\1"
    return packed == packed_address(options.listen)


async def _answer(options: DNSOptions, sockets: Sockets, zone: Zone, forwarder: Forwarder, pipe: socket.socket) -> int:
    """The answering process: returns its exit code."""
    _raise_file_limit(options)
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()
    leaving = False

    def end(code: int) -> None:
        if not ended.done():
            ended.set_result(code)

    limits = Limits(min(options.udp_size, SLOT_SIZE), bool(forwarder.upstreams))
    server = Server(zone, Table(options.table_size), limits, forwarder, max_connections=options.max_connections)
    frames = Frames()

    def readable() -> None:
        try:
            data = pipe.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            loop.remove_reader(pipe)
            log.error("the process that follows the API ended; ending too, to be started again")
            end(1)
            return
        frames.feed(data)
        while (step := frames.next()) is not None:
            server.apply(step)

    def ready() -> tuple[int, str]:
        return (200, "OK") if zone.synced and not leaving else (503, "kubernetes")

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, 0)
    loop.add_reader(pipe, readable)
    await server.start(sockets.udp, sockets.tcp)
    statuses = []
    if sockets.health is not None:
        statuses.append(await serve_status(sockets.health, "/health", lambda: (200, "OK")))
    if sockets.ready is not None:
        statuses.append(await serve_status(sockets.ready, "/ready", ready))
    log.info("answering for %s on %s port %d", options.domain, options.listen, sockets.port)
    code = await ended
    leaving = True
    if code == 0:
        await asyncio.sleep(options.lame_duck)  # packets are on their way that were sent before we left the Service
        await server.stop()
    for status in statuses:
        status.close()
    return code


def _raise_file_limit(options: DNSOptions) -> None:
    """Room for every forwarded query's socket and every connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * options.max_concurrent + options.max_connections + 64
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
