"""The codec against dnspython, and against nonsense."""

from __future__ import annotations

import contextlib

import dns.exception
import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from hypothesis import given
from hypothesis import strategies as st

from fairlead.dns import message as codec
from fairlead.dns.message import (
    FormatError,
    Message,
    Query,
    Question,
    Record,
    parse_message,
    parse_query,
    render_message,
)
from fairlead.dns.names import (
    dashed,
    packed_address,
    reverse_address,
    reverse_name,
    split_name,
    text_address,
    text_name,
    undashed,
    wire_name,
)
from tests.unit.dns.worlds import value_of, zone

LABEL = st.binary(min_size=1, max_size=63).map(bytes.lower)
SIMPLE = st.from_regex(rb"\A[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?\Z")


def _wire(labels: list[bytes]) -> bytes:
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


# names that share suffixes, so that there is something to compress
NAMES = st.one_of(
    st.lists(st.sampled_from([b"a", b"web", b"svc", b"cluster", b"local"]), max_size=6).map(_wire),
    st.lists(LABEL, max_size=3).map(_wire),
)
NUMBERS = st.integers(0, 0xFFFF)


@st.composite
def records(draw: st.DrawFn) -> Record:
    """A record of a type that we write, with well-formed data."""
    kind = draw(
        st.sampled_from(
            [codec.A, codec.AAAA, codec.NS, codec.CNAME, codec.PTR, codec.SOA, codec.SRV, codec.MX, codec.TXT, 65]
        )
    )
    if kind == codec.A:
        data = draw(st.binary(min_size=4, max_size=4))
    elif kind == codec.AAAA:
        data = draw(st.binary(min_size=16, max_size=16))
    elif kind in {codec.NS, codec.CNAME, codec.PTR}:
        data = draw(NAMES)
    elif kind == codec.SOA:
        data = draw(NAMES) + draw(NAMES) + draw(st.binary(min_size=20, max_size=20))
    elif kind == codec.SRV:
        data = draw(st.binary(min_size=6, max_size=6)) + draw(NAMES)
    elif kind == codec.MX:
        data = draw(st.binary(min_size=2, max_size=2)) + draw(NAMES)
    elif kind == codec.TXT:
        data = b"".join(
            bytes((len(text),)) + text for text in draw(st.lists(st.binary(max_size=20), min_size=1, max_size=3))
        )
    else:
        data = b"\0\1\0"  # HTTPS, the target being the owner
    return Record(draw(NAMES), kind, draw(st.integers(0, 2**31 - 1)), data)


MESSAGES = st.builds(
    Message,
    NUMBERS,
    NUMBERS,
    st.lists(st.builds(Question, NAMES, NUMBERS, st.just(1)), max_size=1).map(tuple),
    st.lists(records(), max_size=6).map(tuple),
    st.lists(records(), max_size=3).map(tuple),
    st.lists(records(), max_size=6).map(tuple),
)


@given(MESSAGES)
def test_what_is_written_is_read(message: Message) -> None:
    """`parse_message(render_message(m)) == m`."""
    assert parse_message(render_message(message)) == message


def _flat(sections: list[list[dns.rrset.RRset]]) -> list[list[tuple[bytes, int, int, bytes]]]:
    return [
        sorted(
            (rrset.name.to_wire(), int(rrset.rdtype), rrset.ttl, data.to_wire()) for rrset in section for data in rrset
        )
        for section in sections
    ]


@given(MESSAGES)
def test_dnspython_reads_what_is_written(message: Message) -> None:
    """Compression included. (TTLs are made equal within a set, as dnspython keeps sets.)"""
    message = message._replace(
        flags=message.flags & 0x87FF | codec.QR,
        **{
            name: tuple(dict.fromkeys(record._replace(ttl=5) for record in getattr(message, name)))
            for name in ("answers", "authority", "additional")
        },
    )
    read = dns.message.from_wire(render_message(message), one_rr_per_rrset=True)
    expected = [
        sorted((record.name, record.type, record.ttl, record.data) for record in section)
        for section in (message.answers, message.authority, message.additional)
    ]
    assert _flat([read.answer, read.authority, read.additional]) == expected


@given(
    st.lists(SIMPLE, min_size=1, max_size=5),
    st.sampled_from(["A", "AAAA", "SRV", "TXT", "ANY"]),
    st.booleans(),
    st.integers(0, 65535),
)
def test_queries_of_dnspython_are_read(labels: list[bytes], kind: str, edns: bool, payload: int) -> None:
    """Name, type, size and flags."""
    name = ".".join(label.decode() for label in labels)
    packet = dns.message.make_query(name, kind, use_edns=0 if edns else -1, payload=payload).to_wire()
    query = parse_query(packet)
    assert isinstance(query, Query)
    assert query.name == wire_name(name)
    assert query.labels == tuple(labels)
    assert query.type == dns.rdatatype.from_text(kind)
    assert query.edns == edns
    assert query.udp_size == (max(payload, 512) if edns else 512)


ZONE = zone()
SEEDS = [
    dns.message.make_query(name, kind, use_edns=edns).to_wire()
    for name, kind, edns in [
        ("web.shop.svc.cluster.local", "A", 0),
        ("_http._tcp.db.shop.svc.cluster.local", "SRV", -1),
        ("20.0.96.10.in-addr.arpa", "PTR", 0),
        ("cluster.local", "NS", -1),
        ("alias-2.shop.svc.cluster.local", "A", 0),
        ("10-244-0-7.shop.pod.cluster.local", "A", -1),
    ]
]
EDITS = st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255), st.sampled_from("rid")), max_size=8)


def mutated(packet: bytes, edits: list[tuple[int, int, str]]) -> bytes:
    data = bytearray(packet)
    for position, value, how in edits:
        at = position % (len(data) + 1)
        if how == "r" and at < len(data):
            data[at] = value
        elif how == "i":
            data.insert(at, value)
        elif how == "d":
            del data[at : at + value % 8]
    return bytes(data)


@given(st.one_of(st.binary(max_size=600), st.builds(mutated, st.sampled_from(SEEDS), EDITS)), st.booleans())
def test_no_packet_is_too_much(packet: bytes, tcp: bool) -> None:
    """Every packet gets a decision; every answer is a well-formed response with the packet's id that fits."""
    value = value_of(ZONE, packet, tcp=tcp)
    if value is not None:
        answer = packet[:2] + (value if isinstance(value, bytes) else value.turn())
        assert tcp or len(answer) <= 1232
        message = parse_message(answer)
        assert message.flags & codec.QR
        assert message.id == int.from_bytes(packet[:2], "big")


@given(st.one_of(st.binary(max_size=300), st.builds(mutated, MESSAGES.map(render_message), EDITS)))
def test_reading_nonsense_raises_only_format_errors(packet: bytes) -> None:
    """An upstream's bytes are as little to be trusted as a client's."""
    with contextlib.suppress(FormatError):
        parse_message(packet)


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_addresses_and_their_names(address: object) -> None:
    """Text, reverse name and dashed label all lead back to the address."""
    packed = packed_address(str(address))
    assert packed is not None
    assert packed_address(text_address(packed)) == packed
    assert reverse_address(split_name(wire_name(reverse_name(packed)))) == packed
    assert reverse_name(packed).rstrip(".") == address.reverse_pointer  # type: ignore[attr-defined]
    if "." not in text_address(packed) or len(packed) == 4:  # not for ::ffff:1.2.3.4
        assert undashed(dashed(packed).encode()) == packed


@given(st.lists(LABEL, max_size=4).map(_wire))
def test_names_as_text(name: bytes) -> None:
    """Escaped as dnspython reads it."""
    with contextlib.suppress(dns.exception.DNSException):
        assert dns.name.from_text(text_name(name)).to_wire() == name
