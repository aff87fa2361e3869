"""Asking the upstreams for what is not ours.

Stands between the server and the outside. Invariants: every query leaves from a socket of its own, so from a random
port, with a random id (RFC 5452), and only an answer to that question from that address is taken; at most
`max_concurrent` are under way; nothing is remembered.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from fairlead.dns.answer import is_answer, is_truncated, upstream_query
from fairlead.dns.message import FormatError, Message, Query, parse_message, parse_query
from fairlead.dns.names import packed_address

PORT = 53
_ATTEMPT = 2.0  # s that one upstream gets
_DEADLINE = 5.0  # s in all, as a client's own patience
_ROUNDS = 2
_DENIALS = (0, 3)  # NOERROR, NXDOMAIN: the upstream knows

Upstream = tuple[str, int]


class TooMany(Exception):
    """Too many forwarded queries are under way."""


def parse_upstream(text: str) -> Upstream:
    """`10.0.0.1`, `10.0.0.1:5353`, `fd00::1`, `[fd00::1]:5353` → address and port. Raises ValueError."""
    host, port = text, str(PORT)
    if text.startswith("[") and "]" in text:
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") if rest else port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if packed_address(host.partition("%")[0]) is None or not port.isdigit() or not 0 < int(port) <= 65535:
        raise ValueError(f"upstream {text!r} is not ADDRESS or ADDRESS:PORT")
    return host, int(port)


def upstreams_of(resolv_conf: str) -> tuple[Upstream, ...]:
    """The name servers that the text of a resolv.conf lists (resolv.conf(5)); lines that are none are passed over."""
    found = []
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and packed_address(words[1].partition("%")[0]) is not None:
            found.append((words[1], PORT))
    return tuple(dict.fromkeys(found))


class Forwarder:
    """Asks one of `upstreams` after the other, beginning with a random one, until one answers."""

    def __init__(
        self,
        upstreams: tuple[Upstream, ...],
        *,
        max_concurrent: int = 1000,
        attempt: float = _ATTEMPT,
        deadline: float = _DEADLINE,
        dice: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.upstreams = upstreams
        self._max_concurrent = max_concurrent
        self._attempt, self._deadline = attempt, deadline
        self._dice = dice
        self.under_way = 0

    async def ask(self, packet: bytes, query: Query, *, tcp: bool) -> bytes | None:
        """Hand a client's packet on; returns the upstream's answer (with an id of its own), None if none answered.
        Over TCP if the client came by TCP; over UDP a truncated answer is handed on, so that the client comes back.
        Raises TooMany."""
        if self.under_way >= self._max_concurrent:
            raise TooMany
        self.under_way += 1
        try:
            async with asyncio.timeout(self._deadline):
                return await self._ask(packet, query, tcp=tcp)
        except TimeoutError:
            return None
        finally:
            self.under_way -= 1

    async def resolve(self, name: bytes, kind: int) -> Message | None:
        """Ask a question of our own; over TCP if the answer is truncated. None if no upstream knows (that a name does
        not exist is knowledge too). Raises TooMany."""
        packet = upstream_query(0, name, kind)
        query = parse_query(packet)
        assert isinstance(query, Query)
        answer = await self.ask(packet, query, tcp=False)
        if answer is not None and is_truncated(answer):
            answer = await self.ask(packet, query, tcp=True)
        if answer is None:
            return None
        try:
            message = parse_message(answer)
        except FormatError:
            return None
        return message if message.rcode in _DENIALS else None

    async def _ask(self, packet: bytes, query: Query, *, tcp: bool) -> bytes | None:
        upstreams = self.upstreams
        first = self._dice(1)[0] % len(upstreams) if upstreams else 0
        for upstream in (upstreams[first:] + upstreams[:first]) * _ROUNDS:
            query_id = int.from_bytes(self._dice(2), "big")
            sent = query_id.to_bytes(2, "big") + packet[2:]
            try:
                async with asyncio.timeout(self._attempt):
                    if tcp:
                        return await _over_tcp(upstream, sent, query, query_id)
                    return await _over_udp(upstream, sent, query, query_id)
            except (OSError, TimeoutError, FormatError, asyncio.IncompleteReadError):
                continue
        return None


async def _over_udp(upstream: Upstream, packet: bytes, query: Query, query_id: int) -> bytes:
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[bytes] = loop.create_future()
    family = socket.AF_INET6 if ":" in upstream[0] else socket.AF_INET
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
            if is_answer(answer, query, query_id) and not answered.done():
                answered.set_result(answer)

        sock.connect(upstream)
        loop.add_reader(sock, readable)
        try:
            sock.send(packet)
            return await answered
        finally:
            loop.remove_reader(sock)


async def _over_tcp(upstream: Upstream, packet: bytes, query: Query, query_id: int) -> bytes:
    reader, writer = await asyncio.open_connection(*upstream)
    try:
        writer.write(len(packet).to_bytes(2, "big") + packet)
        await writer.drain()
        size = int.from_bytes(await reader.readexactly(2), "big")
        answer = await reader.readexactly(size)
    finally:
        writer.close()
    if not is_answer(answer, query, query_id):
        raise FormatError("not the answer to what was asked")
    return answer
