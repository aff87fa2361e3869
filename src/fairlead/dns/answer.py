"""Packets → requests, and replies → packets. Pure.

Stands between the sockets and the chain of plugins. Invariants: any bytes at all get a decision and never raise; an
answer is valid for the packet it was made for and for every packet that differs from it only in its id; it never
exceeds what the client can take.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from fairlead.dns.message import (
    AAAA,
    BADVERS,
    CD,
    HEADER,
    MAX_MESSAGE,
    MIN_UDP,
    OPT,
    QR,
    RA,
    RD,
    TC,
    A,
    Query,
    Record,
    Refusal,
    Writer,
    opt_record,
    parse_query,
)
from fairlead.dns.reply import Reply, unpacked

OWN_UDP_SIZE = 1232  # what we say we can take; dnsflagday.net/2020
_AFTER_ID = struct.Struct("!HHHHH")
_PAIR = struct.Struct("!HH")


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

    @property
    def parts(self) -> tuple[bytes, bytes, int, int, bytes]:
        """What comes before the records; the records twice over; bytes of one, and of those shown; what comes after."""
        return self._prefix, self._doubled, self._unit, self._length, self._suffix

    def from_turn(self, turn: int) -> bytes:
        """The answer in the order number `turn`, for one that is not kept."""
        self._offset = turn * self._unit % self._size
        return self.turn()

    def turn(self) -> bytes:
        """The answer in the next order."""
        offset = self._offset
        following = offset + self._unit
        self._offset = following if following < self._size else 0
        return self._prefix + self._doubled[offset : offset + self._length] + self._suffix


Value = bytes | Rotating


class Style(NamedTuple):
    """How the answers of a server block look. `udp_size`: the most it sends over UDP, whatever the client offers.
    `recursion`: there is an upstream to forward to. `rotate`: addresses take turns. The header flags in `set_flags`
    and `clear_flags` have the last word."""

    udp_size: int = OWN_UDP_SIZE
    recursion: bool = True
    rotate: bool = True
    set_flags: int = 0
    clear_flags: int = 0


PLAIN = Style()


def read(packet: bytes) -> Query | bytes | None:
    """The query in a packet; or the answer without its id to one that is not well formed or of another EDNS version; or
    None: say nothing."""
    query = parse_query(packet)
    if query is None:
        return None
    if isinstance(query, Refusal):
        return query.packet[2:]
    if query.version:
        return render(query, Reply(BADVERS, flags=0), PLAIN, tcp=False, first=0)
    return query


def finish(query: Query, reply: Reply, style: Style, *, tcp: bool) -> Value:
    """The reply as an answer without its id that fits."""
    whole = reply.whole
    if whole is None:
        return assemble(query, reply, style, tcp=tcp)
    opt = _opt(query, reply)
    body = whole.aged(reply.age)
    limit = _limit(query, style, tcp)
    size = 12 + len(query.question) + len(body) + len(opt)
    if size > limit or len(whole.question) != len(query.question):
        return assemble(query, unpacked(reply), style, tcp=tcp)
    answers, authority, additional = whole.counts
    head = _AFTER_ID.pack(_flags(query, reply, style), 1, answers, authority, additional + bool(opt)) + query.question
    if whole.turning is not None and style.rotate and reply.rotate:
        start, unit, count = whole.turning
        end = start + unit * count
        return Rotating(head + body[:start], body[start:end], unit, count, body[end:] + opt)
    return head + body + opt


def render(query: Query, reply: Reply, style: Style, *, tcp: bool, first: int = 0) -> bytes:
    """As `finish`, for one answer that is not kept: the addresses begin with the one numbered `first`."""
    value = finish(query, reply, style, tcp=tcp)
    return value if isinstance(value, bytes) else value.from_turn(first)


def _limit(query: Query, style: Style, tcp: bool) -> int:
    return MAX_MESSAGE if tcp else min(query.udp_size, max(style.udp_size, MIN_UDP))


def _opt(query: Query, reply: Reply) -> bytes:
    if not query.edns:
        return b""
    opt = opt_record(OWN_UDP_SIZE, query.dnssec_ok, reply.rcode >> 4)
    if not reply.options:
        return opt
    return opt[:-2] + len(reply.options).to_bytes(2, "big") + reply.options


def _flags(query: Query, reply: Reply, style: Style) -> int:
    flags = QR | query.flags & (RD | CD) | (RA if style.recursion else 0) | reply.flags | reply.rcode & 0xF
    return (flags | style.set_flags) & ~style.clear_flags


def assemble(query: Query, reply: Reply, style: Style, *, tcp: bool) -> Value:
    """An answer without its id that fits: additional records go first and silently (RFC 2181 §9), then answers, which
    sets TC."""
    limit = _limit(query, style, tcp)
    opt = _opt(query, reply)
    records = reply.answers
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
        for index, section in ((1, reply.authority), (2, reply.additional)):
            for record in section:
                if record.type == OPT:
                    continue
                writer.record(record)
                if len(data) > room:
                    break
                boundary = len(data)
                sections[index] += 1
    flags = _flags(query, reply, style) | (TC if truncated else 0)
    head = _AFTER_ID.pack(flags, 1, shown, sections[1], sections[2] + bool(opt)) + query.question
    if len(records) > 1 and style.rotate and reply.rotate:
        leading = _turning_from(records)
        begin = ends[leading - 1] if leading else start
        count = len(records) - leading
        unit = ends[leading] - begin
        if count > 1 and shown > leading and ends[-1] - begin == unit * count:
            tail = b"" if truncated else bytes(data[ends[-1] : boundary])
            head += bytes(data[start:begin])
            return Rotating(head, bytes(data[begin : ends[-1]]), unit, shown - leading, tail + opt)
    return head + bytes(data[start:boundary]) + opt


def _turning_from(records: tuple[Record, ...]) -> int:
    """From which record on all are addresses of one name and type; what comes before stays where it is."""
    last = records[-1]
    if last.type not in {A, AAAA}:
        return len(records) - 1
    leading = len(records)
    while leading and records[leading - 1].type == last.type and records[leading - 1].name == last.name:
        leading -= 1
    return leading


def upstream_query(
    query_id: int, question: bytes, *, dnssec_ok: bool = False, checking_disabled: bool = False
) -> bytes:
    """A query of our own for an upstream, with EDNS and none of the client's options: what comes back is good for every
    client that asks the same."""
    flags = RD | (CD if checking_disabled else 0)
    return HEADER.pack(query_id, flags, 1, 0, 0, 1) + question + opt_record(OWN_UDP_SIZE, dnssec_ok)


def is_answer(packet: bytes, question: bytes, query_id: int) -> bool:
    """Whether a packet from upstream answers what was sent there as `query_id`: the id, and the question itself, whose
    case need not be kept. An error may come without the question."""
    if len(packet) < 12:
        return False
    got_id, flags, questions, *_ = HEADER.unpack_from(packet)
    if got_id != query_id or not flags & QR:
        return False
    if questions == 0:
        return bool(flags & 0xF)
    if questions != 1:
        return False
    asked = packet[12 : 12 + len(question)]
    return asked[-4:] == question[-4:] and asked[:-4].lower() == question[:-4].lower()


def is_truncated(packet: bytes) -> bool:
    """Whether a message says that it is not all."""
    return len(packet) > 3 and bool(packet[2] & TC >> 8)
