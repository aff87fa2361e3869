"""What flows through a chain of plugins: a request down, a reply up. Pure.

Stands between `answer` (bytes) and the plugins. Invariant: a reply says itself how long it may be remembered; nobody
else has to know where it came from. A handler returns its reply at once wherever it can, and an awaitable only where it
must wait: a chain of plugins that need not wait costs calls and no tasks.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from fairlead.dns.message import AA, IN, NOERROR, RD, SERVFAIL, Query, Record
from fairlead.dns.names import split_name, text_address

if TYPE_CHECKING:
    from fairlead.dns.prepared import Prepared

# How long an answer may be given again for the same packet.
NEVER, BRIEFLY, WHILE = 0, 1, 2  # not at all; for up to a second; until something in `depends` changes


class Request:
    """A query on its way through the chain, and who asks. `client` is packed, empty if we ask ourselves. A handler that
    looks at the client, the transport or the clock sets `personal`: then the answer is not remembered."""

    __slots__ = ("client", "depth", "packet", "personal", "port", "query", "transport")

    def __init__(  # noqa: PLR0917 - made for every query that is not remembered: positions cost less than words
        self,
        query: Query,
        client: bytes = b"",
        port: int = 0,
        transport: str = "udp",
        packet: bytes = b"",
        depth: int = 0,
    ) -> None:
        self.query = query
        self.client, self.port, self.transport = client, port, transport
        self.packet = packet
        self.personal = False
        self.depth = depth  # of questions that we ask ourselves to answer another

    def asking(self, name: bytes, kind: int) -> Request:
        """The same client's question for another name (wire form) or type."""
        return Request(
            question_for(self.query, name, kind), self.client, self.port, self.transport, b"", self.depth + 1
        )

    @property
    def address(self) -> str:
        """The client's address as text."""
        return text_address(self.client) if self.client else ""


def question_for(query: Query, name: bytes, kind: int, klass: int = IN) -> Query:
    """The same query with another question."""
    question = name + struct.pack("!HH", kind, klass)
    return query._replace(question=question, labels=split_name(name.lower()), type=kind, klass=klass)


def own_query(name: bytes, kind: int) -> Query:
    """A question of our own."""
    question = name + struct.pack("!HH", kind, IN)
    return Query(0, RD, question, split_name(name.lower()), kind, IN, edns=True, udp_size=1232)


class Reply(NamedTuple):
    """What to answer. `flags` are AA and AD. `whole` replaces the records: a message that came from elsewhere `age`
    seconds ago; use `unpacked` to see its records.

    `depends` are the (namespace, service) pairs it follows from. `only_for` is the namespace whose clients alone may
    get it, `not_for` the one whose clients may not. `options` are EDNS options on the wire."""

    rcode: int
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    flags: int = AA
    keep: int = NEVER
    depends: tuple[tuple[str, str], ...] = ()
    whole: Prepared | None = None
    age: int = 0
    options: bytes = b""
    only_for: str = ""
    not_for: str = ""
    rotate: bool = True
    why: str = ""  # of an error, for the log


class Silence(Exception):
    """Nothing is to be answered."""


class Transfer(Exception):
    """The answer is a whole zone: `soa`, `records`, and `soa` again, in as many messages as it takes (RFC 5936)."""

    def __init__(self, soa: Record, records: Iterable[Record]) -> None:
        super().__init__("a transfer")
        self.soa, self.records = soa, records


Outcome = Reply | Awaitable[Reply]
Handler = Callable[[Request], Outcome]


def then(outcome: Outcome, step: Callable[[Reply], Outcome]) -> Outcome:
    """`step` of the reply, now or when it is there."""
    if isinstance(outcome, Reply):
        return step(outcome)
    return _then(outcome, step)


async def _then(outcome: Awaitable[Reply], step: Callable[[Reply], Outcome]) -> Reply:
    return await settled(step(await outcome))


async def settled(outcome: Outcome) -> Reply:
    """The reply, waited for if need be."""
    return outcome if isinstance(outcome, Reply) else await outcome


def unpacked(reply: Reply) -> Reply:
    """The reply with its records in sight."""
    if reply.whole is None:
        return reply
    answers, authority, additional = reply.whole.records(reply.age)
    return reply._replace(answers=answers, authority=authority, additional=additional, whole=None)


def failed(rcode: int = SERVFAIL, why: str = "") -> Reply:
    """Only an error."""
    return Reply(rcode, flags=0, why=why)


def is_denial(reply: Reply) -> bool:
    """Whether it says that there is nothing of the sort."""
    return reply.rcode == NOERROR and not (reply.whole.counts[0] if reply.whole is not None else reply.answers)


def packed_client(address: tuple[object, ...]) -> bytes:
    """A socket's address, packed; IPv4 mapped into IPv6 is IPv4."""
    host = str(address[0]).partition("%")[0]
    if ":" not in host:
        return socket.inet_aton(host)
    packed = socket.inet_pton(socket.AF_INET6, host)
    return packed[12:] if packed.startswith(b"\0" * 10 + b"\xff\xff") else packed
