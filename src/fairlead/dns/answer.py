"""(zone, packet) → what to send back. Pure.

Stands between the zone and the server's sockets. Invariants: any bytes at all get a decision and never raise; an answer
is valid for the packet it was made for and for every packet that differs from it only in its id; it never exceeds what
the client can take.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from fairlead.dns.message import (
    AA,
    AAAA,
    AXFR,
    BADVERS,
    CD,
    HEADER,
    IN,
    IXFR,
    MAX_MESSAGE,
    MIN_UDP,
    NOERROR,
    QR,
    RA,
    RD,
    REFUSED,
    SERVFAIL,
    TC,
    A,
    FormatError,
    Message,
    Query,
    Record,
    Refusal,
    Writer,
    opt_record,
    parse_query,
    skip_question,
)
from fairlead.dns.names import is_reverse
from fairlead.dns.zone import Answer, Zone

_OWN_UDP_SIZE = 1232  # what we say we can take; dnsflagday.net/2020
_AFTER_ID = struct.Struct("!HHHHH")


class Rotating:
    """An answer without its id whose address records come in another order each time: every record is first equally
    often. Where not all fit, those that do are a window that moves through all of them."""

    __slots__ = ("_doubled", "_length", "_offset", "_prefix", "_size", "_suffix", "_unit")

    def __init__(self, prefix: bytes, records: bytes, unit: int, shown: int, suffix: bytes) -> None:
        self._prefix, self._suffix = prefix, suffix
        self._doubled = records + records
        self._size = len(records)
        self._unit = unit
        self._length = shown * unit
        self._offset = 0

    @property
    def everything(self) -> tuple[bytes, bytes, bytes]:
        """All that it is made of, in the first order; for comparing."""
        return self._prefix, self._doubled, self._suffix

    def turn(self) -> bytes:
        """The answer in the next order."""
        offset = self._offset
        following = offset + self._unit
        self._offset = following if following < self._size else 0
        return self._prefix + self._doubled[offset : offset + self._length] + self._suffix


class Response(NamedTuple):
    """Send this after the packet's id. If `keep`, it answers all packets that are equal but for the id until
    `depends_on`, a (namespace, service), changes; None never changes."""

    value: bytes | Rotating
    keep: bool = False
    depends_on: tuple[str, str] | None = None


class Forward(NamedTuple):
    """Not ours: ask upstream, and fit the answer to the client by `fit_forwarded`."""

    query: Query


class Chase(NamedTuple):
    """Ours up to a CNAME to `answer.unresolved`: ask upstream for that, and answer with `chased`."""

    query: Query
    answer: Answer


class Limits(NamedTuple):
    """What bounds an answer. `udp_size`: the most we send over UDP, whatever the client offers. `recursion`: there is
    an upstream to forward to."""

    udp_size: int = _OWN_UDP_SIZE
    recursion: bool = True


def respond(zone: Zone, packet: bytes, limits: Limits, *, tcp: bool = False) -> Response | Forward | Chase | None:
    """Decide on a packet. None: send nothing."""
    query = parse_query(packet)
    if query is None:
        return None
    if isinstance(query, Refusal):
        return Response(query.packet[2:])
    if query.version:
        return Response(failure(query, BADVERS, limits))
    if query.klass != IN or query.type in {AXFR, IXFR}:
        return Response(failure(query, REFUSED, limits))
    if zone.holds(query.labels):
        answer = zone.find(query.labels, query.type)
    else:
        reverse = zone.find_reverse(query.labels, query.type) if is_reverse(query.labels) else None
        if reverse is None:
            return Forward(query) if limits.recursion else Response(failure(query, REFUSED, limits))
        answer = reverse
    if answer.unresolved and limits.recursion:
        return Chase(query, answer)
    authority = () if answer.records and answer.rcode == NOERROR else (zone.soa(),)
    value = assemble(
        query, answer.rcode, answer.records, limits, tcp=tcp, authority=authority, additional=answer.additional
    )
    return Response(value, answer.keep and not tcp and not query.options, answer.depends_on)


def assemble(
    query: Query,
    rcode: int,
    records: tuple[Record, ...],
    limits: Limits,
    *,
    tcp: bool,
    authority: tuple[Record, ...] = (),
    additional: tuple[Record, ...] = (),
) -> bytes | Rotating:
    """An answer without its id that fits: additional records go first and silently (RFC 2181 §9), then answers, which
    sets TC."""
    limit = MAX_MESSAGE if tcp else min(query.udp_size, max(limits.udp_size, MIN_UDP))
    opt = opt_record(_OWN_UDP_SIZE, query.dnssec_ok, rcode >> 4) if query.edns else b""
    writer = Writer(query.question)
    data = writer.data
    room = limit - len(opt)
    start = len(data)
    ends = []
    for record in records:
        writer.record(record)
        ends.append(len(data))
    truncated = bool(ends) and ends[-1] > room
    shown = sum(end <= room for end in ends)
    sections = [shown, 0, 0]
    boundary = ends[shown - 1] if shown else start
    if not truncated:
        for index, section in ((1, authority), (2, additional)):
            for record in section:
                writer.record(record)
                if len(data) > room:
                    break
                boundary = len(data)
                sections[index] += 1
    flags = _flags(query, limits, rcode) | AA | (TC if truncated else 0)
    head = _AFTER_ID.pack(flags, 1, shown, sections[1], sections[2] + bool(opt)) + query.question
    if len(records) > 1 and _rotates(records):
        unit = ends[1] - ends[0]
        tail = b"" if truncated else bytes(data[ends[-1] : boundary])
        return Rotating(head, bytes(data[start : ends[-1]]), unit, shown, tail + opt)
    return head + bytes(data[start:boundary]) + opt


def _rotates(records: tuple[Record, ...]) -> bool:
    first = records[0]
    return first.type in {A, AAAA} and all(
        record.type == first.type and record.name == first.name for record in records
    )


def _flags(query: Query, limits: Limits, rcode: int) -> int:
    return QR | query.flags & (RD | CD) | (RA if limits.recursion else 0) | rcode & 0xF


def failure(query: Query, rcode: int, limits: Limits) -> bytes:
    """An answer without its id that says only that it went wrong."""
    opt = opt_record(_OWN_UDP_SIZE, query.dnssec_ok, rcode >> 4) if query.edns else b""
    return _AFTER_ID.pack(_flags(query, limits, rcode), 1, 0, 0, 1 if opt else 0) + query.question + opt


def chased(chase: Chase, found: Message | None, limits: Limits, *, tcp: bool) -> bytes:
    """The answer without its id to a query whose name leads outside of the zone, with what upstream `found`; None means
    that no upstream could be asked: SERVFAIL, because that denies nothing."""
    query, answer = chase
    if found is None:
        return failure(query, SERVFAIL, limits)
    records = answer.records + tuple(record for record in found.answers if record.klass == IN)
    value = assemble(query, NOERROR, records, limits, tcp=tcp)
    return value if isinstance(value, bytes) else value.turn()


def upstream_query(query_id: int, name: bytes, kind: int) -> bytes:
    """A query of our own for an upstream, with EDNS."""
    question = name + struct.pack("!HH", kind, IN)
    return HEADER.pack(query_id, RD, 1, 0, 0, 1) + question + opt_record(_OWN_UDP_SIZE)


def is_answer(packet: bytes, query: Query, query_id: int) -> bool:
    """Whether a packet from upstream answers the query that was sent there as `query_id`: the id, and the question
    itself, whose case need not be kept. An error may come without the question."""
    if len(packet) < 12:
        return False
    got_id, flags, questions, *_ = HEADER.unpack_from(packet)
    if got_id != query_id or not flags & QR:
        return False
    if questions == 0:
        return bool(flags & 0xF)
    if questions != 1:
        return False
    end = 12 + len(query.question)
    asked = packet[12:end]
    return asked[-4:] == query.question[-4:] and asked[:-4].lower() == query.question[:-4].lower()


def is_truncated(packet: bytes) -> bool:
    """Whether a message says that it is not all."""
    return len(packet) > 3 and bool(packet[2] & TC >> 8)


def fit_forwarded(query: Query, packet: bytes, limits: Limits, *, tcp: bool) -> bytes:
    """What upstream answered, without its id, for this client: with the case of its question, and cut to the question
    with TC if it is more than the client can take. Our limit of what we send over UDP does not apply: the client made
    its offer, and upstream kept to it."""
    if len(packet) < 12 + len(query.question) or HEADER.unpack_from(packet)[2] != 1:
        return failure(query, packet[3] & 0xF or SERVFAIL, limits)
    if not tcp and len(packet) > query.udp_size:
        flags = int.from_bytes(packet[2:4], "big") | TC
        try:
            end = skip_question(packet)
        except FormatError:
            return failure(query, SERVFAIL, limits)
        if end != 12 + len(query.question):
            return failure(query, SERVFAIL, limits)
        return _AFTER_ID.pack(flags, 1, 0, 0, 0) + query.question
    return packet[2:12] + query.question + packet[12 + len(query.question) :]
