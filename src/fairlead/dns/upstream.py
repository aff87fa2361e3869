"""One upstream name server: how it is asked over UDP, TCP and TLS, and whether it is well.

Stands under the forwarder. Invariants: a query over UDP leaves from a socket of its own, so from a random port, with a
random id (RFC 5452), and only an answer to that question from that address is taken; over TCP and TLS one connection
carries many queries at once, each with an id of its own (RFC 7766 §6.2.1); nothing is waited for longer than it was
given.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable

import msgspec

from fairlead.dns.answer import is_answer, is_truncated, upstream_query
from fairlead.dns.message import NS, FormatError
from fairlead.dns.names import ROOT, packed_address

PORT = 53
TLS_PORT = 853
MAX_PIPELINED = 1000  # queries under way on one connection


class Address(msgspec.Struct, frozen=True, order=True):
    """Where an upstream is. `tls`: it is asked over TLS, and proves that it is `server_name` (its address if empty)."""

    host: str
    port: int = PORT
    tls: bool = False
    server_name: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tls://' if self.tls else ''}{host}:{self.port}"


def parse_address(text: str) -> Address:
    """`10.0.0.1`, `10.0.0.1:5353`, `fd00::1`, `[fd00::1]:5353`, `dns://…`, `tls://9.9.9.9%dns.quad9.net:853` → where it
    is. Raises ValueError."""
    scheme, separator, rest = text.rpartition("://")
    if separator and scheme not in {"dns", "tls"}:
        raise ValueError(f"upstream {text!r}: {scheme}:// is not supported, only dns:// and tls://")
    tls = scheme == "tls"
    name = ""
    if tls and "%" in rest and not rest.startswith("fe80"):
        rest, _, name = rest.partition("%")
        name, _, number = name.partition(":")
        rest = f"[{rest.strip('[]')}]:{number}" if number else rest
    host, port = rest, str(TLS_PORT if tls else PORT)
    if rest.startswith("[") and "]" in rest:
        host, _, after = rest[1:].partition("]")
        port = after.removeprefix(":") if after else port
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
    if packed_address(host.partition("%")[0]) is None or not port.isdigit() or not 0 < int(port) <= 65535:
        raise ValueError(f"upstream {text!r} is not ADDRESS or ADDRESS:PORT")
    return Address(host, int(port), tls, name)


def addresses_of(resolv_conf: str) -> tuple[Address, ...]:
    """The name servers that the text of a resolv.conf lists (resolv.conf(5)); lines that are none are passed over."""
    found = []
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and packed_address(words[1].partition("%")[0]) is not None:
            found.append(Address(words[1]))
    return tuple(dict.fromkeys(found))


class HealthCheck(msgspec.Struct, frozen=True):
    """How an upstream that failed is looked after: every so many seconds it is asked for `name` NS, until it answers
    anything at all. After `max_fails` of these it counts as down; 0: it never does."""

    interval: float = 0.5
    max_fails: int = 2
    name: bytes = ROOT
    recursion: bool = True


class Upstream:
    """One name server. `timeout` s is what a query gets."""

    def __init__(
        self,
        address: Address,
        *,
        timeout: float = 2.0,
        expire: float = 10.0,
        check: HealthCheck = HealthCheck(),  # noqa: B008 - frozen
        context: ssl.SSLContext | None = None,
        source: str = "",
        dice: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.address = address
        self.timeout = timeout
        self._expire, self._check, self._source, self._dice = expire, check, source, dice
        self._context = context if address.tls else None
        self._connection: _Connection | None = None
        self._connecting: asyncio.Lock | None = None
        self._checking: asyncio.Task[None] | None = None
        self.fails = 0
        self.checks_failed = 0
        self.connections_used = [0, 0]  # new, again

    @property
    def down(self) -> bool:
        """Whether its health checks failed too often."""
        return 0 < self._check.max_fails < self.fails

    async def ask(
        self, question: bytes, *, tcp: bool, dnssec_ok: bool = False, checking_disabled: bool = False
    ) -> bytes:
        """Its answer to a question; over TCP also where the answer over UDP is truncated and TCP works. Raises OSError,
        TimeoutError or FormatError."""
        query = upstream_query(0, question, dnssec_ok=dnssec_ok, checking_disabled=checking_disabled)
        try:
            async with asyncio.timeout(self.timeout):
                return await self._ask(query, question, tcp=tcp)
        except (OSError, TimeoutError, FormatError):
            self._worry()
            raise

    async def _ask(self, query: bytes, question: bytes, *, tcp: bool) -> bytes:
        if tcp or self.address.tls:
            return await self._over_stream(query, question)
        answer = await _over_udp(self.address, self._source, self._dice(2) + query[2:], question)
        if is_truncated(answer):
            with contextlib.suppress(OSError, TimeoutError, FormatError):
                async with asyncio.timeout(self.timeout / 2):
                    return await self._over_stream(query, question)
        return answer

    async def _over_stream(self, query: bytes, question: bytes) -> bytes:
        """Over the connection that is there, or a new one. A connection that was there may have been closed by the
        other side just now: then once more over a new one (RFC 7766 §6.2.4)."""
        if self._connecting is None:
            self._connecting = asyncio.Lock()
        for attempt in range(2):
            async with self._connecting:
                connection = self._connection
                fresh = connection is None or not connection.usable
                if connection is None or fresh:
                    connection = await self._connect()
                    self._connection = connection
            self.connections_used[not fresh] += 1
            try:
                return await connection.ask(query, question, self._dice)
            except OSError:
                if fresh or attempt:
                    raise
        raise ConnectionError("no connection")

    async def _connect(self) -> _Connection:
        local = (self._source, 0) if self._source else None
        host, port = self.address.host, self.address.port
        if self._context is None:
            reader, writer = await asyncio.open_connection(host, port, local_addr=local)
        else:
            name = self.address.server_name or host
            reader, writer = await asyncio.open_connection(
                host, port, ssl=self._context, server_hostname=name, local_addr=local
            )
        return _Connection(reader, writer, self._expire)

    def _worry(self) -> None:
        if self._check.max_fails and (self._checking is None or self._checking.done()):
            self._checking = asyncio.get_running_loop().create_task(self._look_after())

    async def _look_after(self) -> None:
        """Ask until there is an answer."""
        question = self._check.name + NS.to_bytes(2, "big") + b"\0\1"
        query = upstream_query(0, question)
        if not self._check.recursion:
            query = query[:2] + b"\0\0" + query[4:]
        while True:
            try:
                async with asyncio.timeout(self.timeout):
                    await self._ask(query, question, tcp=False)
                self.fails = 0
                return
            except (OSError, TimeoutError, FormatError):
                self.fails += 1
                self.checks_failed += 1
            await asyncio.sleep(self._check.interval)

    async def close(self) -> None:
        """Let go of what is open."""
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.gather(self._checking, return_exceptions=True)
        if self._connection is not None:
            self._connection.close(ConnectionAbortedError("closing"))


async def _over_udp(address: Address, source: str, packet: bytes, question: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[bytes] = loop.create_future()
    query_id = int.from_bytes(packet[:2], "big")
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:

        def readable() -> None:
            try:
                answer = sock.recv(65535)
            except BlockingIOError:
                return
            except OSError as error:  # nobody listens there
                if not answered.done():
                    answered.set_exception(error)
                return
            if is_answer(answer, question, query_id) and not answered.done():
                answered.set_result(answer)

        if source:
            sock.bind((source, 0))
        sock.connect((address.host, address.port))
        loop.add_reader(sock, readable)
        try:
            sock.send(packet)
            return await answered
        finally:
            loop.remove_reader(sock)


class _Connection:
    """A stream to an upstream that many queries share. Closes itself when nothing was under way for `expire` s."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, expire: float) -> None:
        self._reader, self._writer, self._expire = reader, writer, expire
        self._waiting: dict[int, tuple[bytes, asyncio.Future[bytes]]] = {}
        self._closed = False
        self._reading = asyncio.get_running_loop().create_task(self._read())

    @property
    def usable(self) -> bool:
        return not self._closed and not self._writer.is_closing() and len(self._waiting) < MAX_PIPELINED

    async def ask(self, query: bytes, question: bytes, dice: Callable[[int], bytes]) -> bytes:
        query_id = int.from_bytes(dice(2), "big")
        while query_id in self._waiting:
            query_id = (query_id + 1) & 0xFFFF
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[query_id] = question, answered
        try:
            self._writer.write(len(query).to_bytes(2, "big") + query_id.to_bytes(2, "big") + query[2:])
            return await answered
        finally:
            self._waiting.pop(query_id, None)

    async def _read(self) -> None:
        why: OSError = ConnectionResetError("the upstream closed the connection")
        try:
            while True:
                try:
                    async with asyncio.timeout(self._expire):
                        header = await self._reader.readexactly(2)
                except TimeoutError:
                    if self._waiting:
                        continue
                    return
                answer = await self._reader.readexactly(int.from_bytes(header, "big"))
                if len(answer) < 12:
                    return
                waiting = self._waiting.get(int.from_bytes(answer[:2], "big"))
                if waiting is not None and not waiting[1].done():
                    if is_answer(answer, waiting[0], int.from_bytes(answer[:2], "big")):
                        waiting[1].set_result(answer)
                    else:
                        waiting[1].set_exception(FormatError("not the answer to what was asked"))
        except asyncio.IncompleteReadError:
            pass
        except OSError as error:
            why = error
        finally:
            self.close(why)

    def close(self, why: OSError) -> None:
        """Close it; what still waits gets the reason."""
        if self._closed:
            return
        self._closed = True
        self._writer.close()
        for _, answered in self._waiting.values():
            if not answered.done():
                answered.set_exception(why)
        if self._reading is not asyncio.current_task():
            self._reading.cancel()
