"""The DNS wire format: queries in, messages out, and whole messages both ways. Pure.

Stands between sockets and the zone. Sources: RFC 1035 §4, RFC 6891 (EDNS0), RFC 2782 (SRV), RFC 3597 (unknown types).
Invariants: `parse_message(render_message(m)) == m` up to the case of names; no input, however mangled, raises anything
but `FormatError`.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from fairlead.dns.names import MAX_LABEL, MAX_NAME, ROOT

# types (IANA "Resource Record (RR) TYPEs")
A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, OPT = 1, 2, 5, 6, 12, 15, 16, 28, 33, 41
IXFR, AXFR, ANY = 251, 252, 255
# classes
IN = 1
# response codes
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
# header flags
QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
OPCODE = 0x7800

HEADER = struct.Struct("!HHHHHH")
_TWO = struct.Struct("!HH")
_FIXED = struct.Struct("!HHIH")  # type, class, ttl, rdlength
MIN_UDP = 512
MAX_MESSAGE = 65535


class FormatError(ValueError):
    """The message is not well formed."""


class Record(NamedTuple):
    """A resource record. `name` and the names within `data` are uncompressed wire names."""

    name: bytes
    type: int
    ttl: int
    data: bytes
    klass: int = IN


class Question(NamedTuple):
    """What is asked. `name` keeps the case in which it was asked."""

    name: bytes
    type: int
    klass: int = IN


class Message(NamedTuple):
    """A whole message. `flags` is the second header word: QR, opcode, AA, TC, RD, RA, Z, AD, CD, rcode."""

    id: int
    flags: int
    questions: tuple[Question, ...] = ()
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()

    @property
    def rcode(self) -> int:
        """The header's part of the response code."""
        return self.flags & 0xF


class Query(NamedTuple):
    """A well-formed query. `question` is the question section's bytes as sent; `labels` are in lower case."""

    id: int
    flags: int
    question: bytes
    labels: tuple[bytes, ...]
    type: int
    klass: int
    edns: bool = False
    udp_size: int = MIN_UDP  # what the client can take over UDP, at least 512
    version: int = 0
    dnssec_ok: bool = False
    options: bool = False  # the client sent EDNS options (a cookie, …)

    @property
    def name(self) -> bytes:
        """The question's name as sent, as a wire name."""
        return self.question[:-4]


class Refusal(NamedTuple):
    """A packet that gets an error for its form: `packet` is the complete answer."""

    packet: bytes


def parse_query(packet: bytes) -> Query | Refusal | None:
    """The query in a packet; the error to send instead; or None where silence is the answer (RFC 1035 §7.3: too short
    to have an id, or itself a response)."""
    if len(packet) < 12:
        return None
    query_id, flags, questions, answers, authority, additional = HEADER.unpack_from(packet)
    if flags & QR:
        return None
    if flags & OPCODE:
        return _refusal(query_id, flags, NOTIMP)
    # More than one record in answer or authority, or two in additional, is no query (IXFR has one SOA; OPT, TSIG).
    if questions != 1 or answers > 1 or authority > 1 or additional > 2:
        return _refusal(query_id, flags, FORMERR)
    try:
        end = 12
        labels = []
        while length := packet[end]:
            if length > MAX_LABEL:  # a pointer cannot point anywhere yet
                return _refusal(query_id, flags, FORMERR)
            labels.append(packet[end + 1 : end + 1 + length].lower())
            end += length + 1
        end += 1
        if end - 12 > MAX_NAME:
            return _refusal(query_id, flags, FORMERR)
        kind, klass = _TWO.unpack_from(packet, end)
        end += 4
        query = Query(query_id, flags, packet[12:end], tuple(labels), kind, klass)
        if answers or authority or additional:
            return _with_edns(query, packet, end, answers + authority, additional)
        if end != len(packet):
            return _refusal(query_id, flags, FORMERR)
    except (IndexError, struct.error, FormatError):
        return _refusal(query_id, flags, FORMERR)
    return query


def _with_edns(query: Query, packet: bytes, position: int, before: int, additional: int) -> Query | Refusal:
    found = False
    for index in range(before + additional):
        name, position = _read_name(packet, position)
        kind, klass, ttl, length = _FIXED.unpack_from(packet, position)
        position += 10 + length
        if position > len(packet):
            raise FormatError("record runs past the end")
        if kind == OPT and index >= before:
            if found or name != ROOT:  # RFC 6891 §6.1.1
                raise FormatError("OPT is not the only one, or not of the root")
            found = True
            query = query._replace(
                edns=True,
                udp_size=max(klass, MIN_UDP),
                version=ttl >> 16 & 0xFF,
                dnssec_ok=bool(ttl & 0x8000),
                options=length > 0,
            )
    if position != len(packet):
        raise FormatError("bytes after the last record")
    return query


def _refusal(query_id: int, flags: int, rcode: int) -> Refusal:
    return Refusal(HEADER.pack(query_id, QR | flags & (OPCODE | RD) | rcode, 0, 0, 0, 0))


# -- writing ---------------------------------------------------------------------------------------------------


class Writer:
    """A message being written. Names are compressed against all that came before, so a record of the question's name
    costs two bytes (c00c) and is right for whatever case the question has."""

    def __init__(self, question: bytes) -> None:
        self.data = bytearray(12)
        self._seen: dict[bytes, int] = {}
        if question:
            self._note(question[:-4].lower(), 12)
            self.data += question

    def _note(self, name: bytes, at: int) -> None:
        seen = self._seen
        position = 0
        while length := name[position]:
            if at + position > 0x3FFF:
                return
            seen.setdefault(name[position:], at + position)
            position += length + 1

    def name(self, name: bytes) -> None:
        """Write a name, compressed."""
        lower = name.lower()
        position = 0
        while length := lower[position]:
            pointer = self._seen.get(lower[position:])
            if pointer is not None:
                self._note_prefix(lower, position)
                self.data += name[:position]
                self.data += (0xC000 | pointer).to_bytes(2, "big")
                return
            position += length + 1
        self._note(lower, len(self.data))
        self.data += name

    def _note_prefix(self, lower: bytes, end: int) -> None:
        at = len(self.data)
        position = 0
        while position < end and at + position <= 0x3FFF:
            self._seen.setdefault(lower[position:], at + position)
            position += lower[position] + 1

    def question(self, question: Question) -> None:
        """Write one more question."""
        self.name(question.name)
        self.data += _TWO.pack(question.type, question.klass)

    def record(self, record: Record) -> None:
        """Write a record; the names in the data of the types of RFC 1035 are compressed (RFC 3597 §4 allows no
        others)."""
        self.name(record.name)
        data = self.data
        kind, content = record.type, record.data
        data += _FIXED.pack(kind, record.klass, record.ttl, len(content))
        if kind in _NAMES_IN_DATA and kind != SRV:
            start = len(data)
            leading, names = _NAMES_IN_DATA[kind]
            data += content[:leading]
            position = leading
            for _ in range(names):
                end = _name_end(content, position)
                self.name(content[position:end])
                position = end
            data += content[position:]
            data[start - 2 : start] = (len(data) - start).to_bytes(2, "big")
            return
        if kind == SRV:  # RFC 2782: the target is not compressed; but what follows may point to it
            self._note(content[6:].lower(), len(data) + 6)
        data += content


# type → (bytes before the first name in the data, number of names)
_NAMES_IN_DATA = {NS: (0, 1), CNAME: (0, 1), PTR: (0, 1), SOA: (0, 2), MX: (2, 1), SRV: (6, 1)}


def render_message(message: Message) -> bytes:
    """The message on the wire. Its records are written in full, whatever their size: see `answer` for truncation."""
    writer = Writer(b"")
    for question in message.questions:
        writer.question(question)
    for section in (message.answers, message.authority, message.additional):
        for record in section:
            writer.record(record)
    HEADER.pack_into(
        writer.data,
        0,
        message.id,
        message.flags,
        len(message.questions),
        len(message.answers),
        len(message.authority),
        len(message.additional),
    )
    return bytes(writer.data)


# -- reading ---------------------------------------------------------------------------------------------------


def parse_message(packet: bytes) -> Message:
    """A whole message; names within the data of the types of RFC 1035 and SRV come out uncompressed. Raises
    `FormatError`."""
    try:
        return _parse_message(packet)
    except (IndexError, struct.error) as error:
        raise FormatError("message ends too early") from error


def _parse_message(packet: bytes) -> Message:
    message_id, flags, questions, *counts = HEADER.unpack_from(packet)
    position = 12
    asked = []
    for _ in range(questions):
        name, position = _read_name(packet, position)
        kind, klass = _TWO.unpack_from(packet, position)
        position += 4
        asked.append(Question(name, kind, klass))
    sections = []
    for count in counts:
        records = []
        for _ in range(count):
            record, position = _read_record(packet, position)
            records.append(record)
        sections.append(tuple(records))
    if position != len(packet):
        raise FormatError("bytes after the last record")
    return Message(message_id, flags, tuple(asked), *sections)


def _read_record(packet: bytes, position: int) -> tuple[Record, int]:
    name, position = _read_name(packet, position)
    kind, klass, ttl, length = _FIXED.unpack_from(packet, position)
    position += 10
    end = position + length
    if end > len(packet):
        raise FormatError("record runs past the end")
    if kind not in _NAMES_IN_DATA:
        return Record(name, kind, ttl, packet[position:end], klass), end
    leading, names = _NAMES_IN_DATA[kind]
    parts = [packet[position : position + leading]]
    position += leading
    for _ in range(names):
        part, position = _read_name(packet, position)
        parts.append(part)
    if position > end or (kind == SOA and end - position != 20) or (kind != SOA and position != end):
        raise FormatError("data does not fill its record")
    parts.append(packet[position:end])
    return Record(name, kind, ttl, b"".join(parts), klass), end


def _read_name(packet: bytes, position: int) -> tuple[bytes, int]:
    """The uncompressed name at `position`, and where what follows it begins. A pointer must point backwards, so this
    ends."""
    out = bytearray()
    after = 0
    floor = position
    while length := packet[position]:
        if length <= MAX_LABEL:
            out += packet[position : position + length + 1]
            position += length + 1
            if len(out) >= MAX_NAME or position >= len(packet):
                raise FormatError("name is too long or runs past the end")
        elif length >= 0xC0:
            target = (length & 0x3F) << 8 | packet[position + 1]
            after = after or position + 2
            if not 12 <= target < floor:
                raise FormatError("pointer does not point backwards")
            position = floor = target
        else:
            raise FormatError("unknown sort of label")
    out.append(0)
    return bytes(out), after or position + 1


def _name_end(data: bytes, position: int) -> int:
    while length := data[position]:
        position += length + 1
    return position + 1


def skip_question(packet: bytes) -> int:
    """Where the answer section of a message with one question begins. Raises `FormatError`."""
    try:
        _, end = _read_name(packet, 12)
    except IndexError as error:
        raise FormatError("message ends too early") from error
    if end + 4 > len(packet):
        raise FormatError("message ends too early")
    return end + 4


def opt_record(udp_size: int, dnssec_ok: bool = False, extended_rcode: int = 0) -> bytes:
    """An OPT record on the wire (RFC 6891 §6.1.2), version 0, without options."""
    ttl = extended_rcode << 24 | (0x8000 if dnssec_ok else 0)
    return ROOT + _FIXED.pack(OPT, udp_size, ttl, 0)
