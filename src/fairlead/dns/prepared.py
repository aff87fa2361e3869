"""A message from elsewhere, laid out to be given again and again with its TTLs counted down. Pure.

Stands between the upstreams and the answers: what the cache keeps. Invariant: rendered for a query with the same name
(in any case), it is the message that came, with `age` taken off every TTL; names are compressed against the question
alone and what follows it, so the question's case is the client's.
"""

from __future__ import annotations

import struct

from fairlead.dns.message import AAAA, AD, HEADER, OPT, SOA, A, Message, Record, Writer, parse_message

_TTL = struct.Struct("!I")
MAX_TTL = 0x7FFFFFFF  # RFC 2181 §8


class Prepared:
    """A message without id and question. `counts` are those of the sections, `ttls` the (offset, TTL) pairs in `data`,
    `turning` (start, unit, count) of the addresses that may take turns, all relative to `data`."""

    __slots__ = ("counts", "data", "flags", "question", "rcode", "ttls", "turning")

    def __init__(self, question: bytes, message: Message, most: int = MAX_TTL) -> None:
        """`most` bounds the TTLs."""
        self.rcode = message.rcode
        self.flags = message.flags & AD
        writer = Writer(question)
        start = len(writer.data)
        self.question = question
        ttls, counts, spans = [], [], []
        for index, section in enumerate((message.answers, message.authority, message.additional)):
            kept = [record for record in section if record.type != OPT]
            counts.append(len(kept))
            for record in kept:
                before = len(writer.data)
                ttl = 0 if record.ttl > MAX_TTL else min(record.ttl, most)
                writer.record(record._replace(ttl=ttl))
                at = _after_name(writer.data, before) + 4
                ttls.append((at - start, ttl))
                if index == 0:
                    spans.append((before - start, len(writer.data) - start, record))
        self.data = bytes(writer.data[start:])
        self.ttls = tuple(ttls)
        self.counts = (counts[0], counts[1], counts[2])
        self.turning = _turning(spans)

    def lowest_ttl(self) -> int:
        """Of all its records; 0 without any."""
        return min((ttl for _, ttl in self.ttls), default=0)

    def negative_ttl(self) -> int | None:
        """How long its denial holds, RFC 2308 §5: the lesser of the SOA's TTL and minimum; None without a SOA."""
        for record in self.records(0)[1]:
            if record.type == SOA:
                return min(record.ttl, int.from_bytes(record.data[-4:], "big"))
        return None

    def aged(self, age: int) -> bytes:
        """The records on the wire, `age` seconds later."""
        if age <= 0:
            return self.data
        data = bytearray(self.data)
        for at, ttl in self.ttls:
            _TTL.pack_into(data, at, ttl - age if ttl > age else 0)
        return bytes(data)

    def records(self, age: int) -> tuple[tuple[Record, ...], tuple[Record, ...], tuple[Record, ...]]:
        """Answer, authority and additional, `age` seconds later."""
        message = parse_message(HEADER.pack(0, 0, 1, *self.counts) + self.question + self.aged(age))
        return message.answers, message.authority, message.additional


def _after_name(data: bytearray, at: int) -> int:
    while length := data[at]:
        if length >= 0xC0:
            return at + 2
        at += length + 1
    return at + 1


def _turning(spans: list[tuple[int, int, Record]]) -> tuple[int, int, int] | None:
    """Where the last records of the answers are addresses of one name, of one size."""
    if len(spans) < 2:
        return None
    last = spans[-1][2]
    if last.type not in {A, AAAA}:
        return None
    first = len(spans)
    while first and spans[first - 1][2].type == last.type and spans[first - 1][2].name.lower() == last.name.lower():
        first -= 1
    run = spans[first:]
    sizes = {end - start for start, end, _ in run}
    if len(run) < 2 or len(sizes) != 1:
        return None
    return run[0][0], sizes.pop(), len(run)
