"""An answering process: its configuration, its book and its life.

The parent of all (see `processes`), or one of several that share the port. Stands between the pipe and what serves.
Invariant: it ends with 0 only if it was asked to; what was accepted by then is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path

from fairlead.dns.book import Book
from fairlead.dns.config import Config, default_corefile, load, load_text
from fairlead.dns.corefile import CorefileError
from fairlead.dns.hot import accelerated
from fairlead.dns.names import packed_address, wire_name
from fairlead.dns.options import DNSOptions
from fairlead.dns.pipe import Frames
from fairlead.dns.serving import DNSError, Serving, Sockets
from fairlead.dns.sockets import own_addresses
from fairlead.dns.upstream import Address, addresses_of, parse_address

log = logging.getLogger("fairlead.dns")

_CHUNK = 1 << 16  # bytes of the pipe taken at once


def configuration(options: DNSOptions) -> Config:
    """What the Corefile says, or without one the other options. Raises DNSError."""
    try:
        if options.config is not None:
            return load(Path(options.config), os.environ, options.port, options.listen)
        try:
            wire_name(options.domain)
        except (ValueError, UnicodeError):
            raise DNSError(f"cluster domain {options.domain!r} is not a domain name") from None
        upstreams = tuple(_text(address) for address in upstreams_from(options, own_of(options)))
        if not upstreams:
            log.warning("no upstream name server: names outside of %s are refused", options.domain)
        text = default_corefile(options, upstreams)
        config = load_text(text, "the command line", {}, default_port=options.port, host=options.listen)
        config.default = True
        return config
    except CorefileError as error:
        raise DNSError(str(error)) from None


def _text(address: Address) -> str:
    text = str(address)
    return text.replace(address.host, f"{address.host}%{address.server_name}") if address.server_name else text


def own_of(options: DNSOptions) -> tuple[bytes, ...]:
    """This server's own addresses, packed."""
    found = options.own_addresses if options.own_addresses is not None else own_addresses()
    return tuple(filter(None, map(packed_address, found)))


def upstreams_from(options: DNSOptions, own: tuple[bytes, ...]) -> tuple[Address, ...]:
    """The upstreams of the options, or of resolv.conf; never this server itself, which would ask itself for ever."""
    if options.upstreams is not None:
        try:
            return tuple(parse_address(text) for text in options.upstreams)
        except ValueError as error:
            raise DNSError(str(error)) from None
    try:
        text = Path(options.resolv_conf).read_text(errors="replace")
    except OSError as error:
        log.warning("cannot read %s: %s", options.resolv_conf, error.strerror)
        return ()
    found = addresses_of(text)
    others = tuple(upstream for upstream in found if not _is_self(upstream, options, own))
    for host in {address.host for address in set(found) - set(others)}:
        log.warning("%s names %s, which is this server itself here: left out", options.resolv_conf, host)
    return others


def _is_self(upstream: Address, options: DNSOptions, own: tuple[bytes, ...]) -> bool:
    """A node's resolver on a loopback address is, seen from a pod, the pod itself."""
    packed = packed_address(upstream.host.partition("%")[0])
    if packed is None or upstream.port != options.port:
        return False
    if options.listen in {"0.0.0.0", "::"}:
        return packed in own or packed[:1] == b"\x7f" or packed == bytes(15) + b"\1"
    return packed == packed_address(options.listen)


class Worker:
    """What an answering process is told. `number` 0 has the status pages; `shared`: there are others on its port."""

    def __init__(self, config: Config, nonce: bytes, pipe: socket.socket | None, number: int = 0, shared: bool = False):
        self.config, self.nonce, self.pipe, self.number, self.shared = config, nonce, pipe, number, shared
        self.children: list[int] = []
        self.life: int | None = None  # a pipe that ends with the first process


def main(options: DNSOptions, worker: Worker) -> int:
    """The whole life of an answering process; returns its exit code."""
    try:
        sockets = Sockets.bind(worker.config, shared=worker.shared, pages=worker.number == 0)
    except DNSError as error:
        log.error("%s", error)
        return 1
    return asyncio.run(_Process(options, worker, sockets).run())


class _Process:
    def __init__(self, options: DNSOptions, worker: Worker, sockets: Sockets) -> None:
        self._options, self._worker, self._sockets = options, worker, sockets
        self._book = Book()
        self._frames = Frames()

    async def run(self) -> int:
        """Serve until asked to end, or until what this needs is gone."""
        options, worker = self._options, self._worker
        _raise_file_limit(options)
        loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = loop.create_future()
        self._serving = serving = Serving(
            self._book,
            own_of(options),
            nonce=worker.nonce,
            table_size=options.table_size,
            connections=options.max_connections,
            shared=worker.shared,
            pages=worker.number == 0,
            on_gone=self._end,
            write=_write_line,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, 0)
        for number in (signal.SIGUSR1, signal.SIGHUP):
            loop.add_signal_handler(number, self._reload_now)
        if worker.children:
            loop.add_signal_handler(signal.SIGCHLD, self._child_ended)
        if worker.pipe is not None:
            loop.add_reader(worker.pipe, self._readable, worker.pipe)
        if worker.life is not None:
            loop.add_reader(worker.life, self._orphaned, worker.life)
        await serving.put(worker.config, self._sockets)
        reloading = loop.create_task(self._follow_corefile())
        names = ", ".join(str(listener) for listener in serving.servers)
        loop_in = "C" if accelerated else "Python"
        log.info("answering on %s (port %d), inner loop in %s", names, self._sockets.port(), loop_in)
        code = await self._ended
        serving.leaving = True
        reloading.cancel()
        for child in worker.children:
            _signal(child, signal.SIGTERM)
        if code == 0:
            await asyncio.sleep(self._lame_duck())  # packets are on their way that were sent before we left the Service
            await serving.stop()
        return code

    def _end(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)

    def _lame_duck(self) -> float:
        config = self._serving.config
        return max((health.lame_duck for health in config.health), default=0.0) if config is not None else 0.0

    def _readable(self, pipe: socket.socket) -> None:
        try:
            data = pipe.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(pipe)
            log.error("the process that follows the API ended; ending too, to be started again")
            self._end(1)
            return
        self._frames.feed(data)
        while (step := self._frames.next()) is not None:
            self._serving.forget(self._book.apply(step))

    def _orphaned(self, life: int) -> None:
        asyncio.get_running_loop().remove_reader(life)
        log.error("the first of the answering processes ended; ending too")
        self._end(1)

    def _child_ended(self) -> None:
        for child in list(self._worker.children):
            if os.waitpid(child, os.WNOHANG)[0] == child:
                self._worker.children.remove(child)
                if not self._serving.leaving:
                    log.error("an answering process ended; ending too, to be started again")
                    self._end(1)

    # -- another Corefile ----------------------------------------------------------------------------------------

    def _reload_now(self) -> None:
        for child in self._worker.children:
            _signal(child, signal.SIGUSR1)
        self._task = asyncio.get_running_loop().create_task(self._reload())

    async def _follow_corefile(self) -> None:
        while True:
            config = self._serving.config
            plugin = config.reload if config is not None else None
            if plugin is None or self._options.config is None:
                await asyncio.sleep(30)
                continue
            dice = int.from_bytes(os.urandom(2), "big") / 0x8000 - 1  # from -1 to 1
            await asyncio.sleep(plugin.interval + dice * plugin.jitter)
            await self._reload()

    async def _reload(self) -> None:
        """Put what the Corefile says now in force. If anything is wrong with it, it is said and nothing changes."""
        options, serving = self._options, self._serving
        now = serving.config
        if options.config is None or now is None:
            return
        try:
            config = await asyncio.get_running_loop().run_in_executor(
                None, load, Path(options.config), os.environ, options.port, options.listen
            )
            if config.digest == now.digest:
                return
            if config.watch != now.watch:
                raise DNSError(
                    "what is followed of the API changes (endpoint, kubeconfig, labels, pods verified, …); this needs "
                    "a restart"
                )
            await serving.put(config)
        except (CorefileError, DNSError) as error:
            serving.metrics.add("coredns_reload_failed_total")
            log.error("Corefile not taken, the one before stays in force: %s", error)
            return
        labels = (("hash", "sha512"), ("value", config.digest))
        serving.metrics.set("coredns_reload_version_info", labels, 1)
        log.info("Corefile read again, in force now; SHA512 = %s", config.digest)


def _signal(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


def _write_line(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _raise_file_limit(options: DNSOptions) -> None:
    """Room for every forwarded query's socket and every connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * options.max_concurrent + options.max_connections + 64
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
