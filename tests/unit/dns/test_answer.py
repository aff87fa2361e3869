"""What goes back for a packet: sizes, EDNS, rotation, refusals, and fitting what upstream said."""

from __future__ import annotations

import struct

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from fairlead.discovery.model import Endpoint, EndpointPort
from fairlead.dns.answer import PLAIN, Rotating, Style, finish, is_answer, upstream_query
from fairlead.dns.message import Query, parse_message, parse_query
from fairlead.dns.prepared import Prepared
from fairlead.dns.reply import WHILE, Outcome, Reply, Request, failed, then
from tests.unit.dns.worlds import ask, lines, reply_to, service, slice_of, value_of, zone

NOWHERE = Style(recursion=False)

MANY = service(
    "shop",
    "many",
    headless=True,
    slices=(
        slice_of(
            *(Endpoint(f"10.244.2.{i}") for i in range(1, 101)),
            ports=(EndpointPort("http", "TCP", 80),),
        ),
    ),
)


def packet_of(question: str, kind: str = "A", **options: object) -> bytes:
    return dns.message.make_query(question, kind, **options).to_wire()  # type: ignore[arg-type]


def raw(packet: bytes, *, tcp: bool = False) -> bytes | None:
    value = value_of(zone(), packet, tcp=tcp)
    return None if value is None else packet[:2] + (value if isinstance(value, bytes) else value.turn())


# -- sizes


@pytest.mark.parametrize(("payload", "limit"), [(None, 512), (300, 512), (800, 800), (1232, 1232), (4096, 1232)])
def test_an_answer_over_udp_fits_the_client_and_us(payload: int | None, limit: int) -> None:
    """What does not fit is cut at a record and TC is set; the client's offer counts up to our own limit."""
    options = {} if payload is None else {"use_edns": 0, "payload": payload}
    message = ask(zone(MANY), "many.shop.svc.cluster.local.", "A", **options)
    assert message.flags & dns.flags.TC
    size = len(message.to_wire())
    assert limit - 16 < size <= limit
    assert (message.edns == 0) == (payload is not None)


def test_over_tcp_there_is_room() -> None:
    """The same question over TCP gets all."""
    message = ask(zone(MANY), "many.shop.svc.cluster.local.", "A", tcp=True)
    assert not message.flags & dns.flags.TC
    assert len(lines(message.answer)) == 100


def test_glue_is_left_out_without_truncation() -> None:
    """Additional records are a courtesy: if they do not fit, the answer is still whole (RFC 2181 §9)."""
    few = service(
        "shop", "few", headless=True, slices=(slice_of(*MANY.slices[0].endpoints[:7], ports=MANY.slices[0].ports),)
    )
    message = ask(zone(few), "_http._tcp.few.shop.svc.cluster.local.", "SRV")
    assert not message.flags & dns.flags.TC
    assert len(lines(message.answer)) == 7
    assert 0 < len(lines(message.additional)) < 7


# -- rotation


def test_addresses_take_turns() -> None:
    """Every address is first once in as many answers as there are addresses; each answer has them all."""
    packet = packet_of("db.shop.svc.cluster.local")
    value = value_of(zone(), packet)
    assert isinstance(value, Rotating)
    seen = []
    for _ in range(3):
        seen.append([record.split()[-1] for record in lines(dns.message.from_wire(packet[:2] + value.turn()).answer)])
    assert sorted(order[0] for order in seen) == ["10.244.0.8", "10.244.1.8", "10.244.1.9"]
    assert all(sorted(order) == sorted(seen[0]) for order in seen)


def test_a_truncated_answer_moves_through_all_addresses() -> None:
    """Clients that never come back over TCP reach every endpoint all the same."""
    packet = packet_of("many.shop.svc.cluster.local")
    value = value_of(zone(MANY), packet)
    assert isinstance(value, Rotating)
    firsts = {lines(dns.message.from_wire(packet[:2] + value.turn()).answer)[0] for _ in range(100)}
    assert len(firsts) == 100


# -- flags and EDNS


def test_flags() -> None:
    """RD and CD come back; RA says whether we have an upstream; AD is never claimed."""
    query = dns.message.make_query("web.shop.svc.cluster.local", "A")
    query.flags |= dns.flags.CD | dns.flags.AD
    message = dns.message.from_wire(raw(query.to_wire()) or b"")
    assert message.flags == dns.flags.QR | dns.flags.AA | dns.flags.RD | dns.flags.RA | dns.flags.CD
    message = ask(zone(), "web.shop.svc.cluster.local", "A", style=NOWHERE)
    assert not message.flags & dns.flags.RA


def test_edns_is_answered_with_edns() -> None:
    """An OPT record comes back for an OPT record: our size, version 0, the client's DO, no options."""
    query = dns.message.make_query("web.shop.svc.cluster.local", "A", use_edns=0, payload=4096, want_dnssec=True)
    query.use_edns(0, dns.flags.DO, 4096, options=[dns.edns.GenericOption(10, b"12345678")])
    message = dns.message.from_wire(raw(query.to_wire()) or b"")
    assert (message.edns, message.payload, message.ednsflags, message.options) == (0, 1232, dns.flags.DO, ())


def test_unknown_edns_version() -> None:
    """BADVERS with an OPT record of version 0 (RFC 6891 §6.1.3)."""
    message = dns.message.from_wire(raw(packet_of("web.shop.svc.cluster.local", use_edns=1)) or b"")
    assert message.rcode() == dns.rcode.BADVERS
    assert message.edns == 0


def test_how_long_an_answer_holds() -> None:
    """Until its Service changes."""
    kept = reply_to(zone(), packet_of("web.shop.svc.cluster.local"))
    assert isinstance(kept, Reply)
    assert (kept.keep, kept.depends) == (WHILE, (("shop", "web"),))


# -- bad packets

GOOD = packet_of("web.shop.svc.cluster.local")
WITH_OPT = packet_of("web.shop.svc.cluster.local", use_edns=0)
FORM_ERRORS = {
    "no question": GOOD[:4] + b"\0\0" + GOOD[6:12],
    "two questions": GOOD[:4] + b"\0\2" + GOOD[6:] + GOOD[12:],
    "two answers": GOOD[:6] + b"\0\2" + GOOD[8:],
    "name runs past the end": GOOD[:12] + b"\x3fabc",
    "no type": GOOD[:-4],
    "half a class": GOOD[:-1],
    "bytes after the question": GOOD + b"\0",
    "a pointer as name": GOOD[:12] + b"\xc0\x0c\0\1\0\1",
    "a reserved sort of label": GOOD[:12] + b"\x41a\0\0\1\0\1",
    "a name of more than 255 bytes": GOOD[:12] + b"\x3f" + b"a" * 63 + (b"\x3f" + b"a" * 63) * 3 + b"\0\0\1\0\1",
    "a record that is not there": GOOD[:10] + b"\0\1" + GOOD[12:],
    "an OPT record not of the root": WITH_OPT[:-11] + b"\1a" + WITH_OPT[-11:],
    "two OPT records": WITH_OPT[:10] + b"\0\2" + WITH_OPT[12:] + WITH_OPT[-11:],
    "an OPT record that runs past the end": WITH_OPT[:-1] + b"\5",
}


@pytest.mark.parametrize("packet", FORM_ERRORS.values(), ids=FORM_ERRORS.keys())
def test_malformed_queries(packet: bytes) -> None:
    """FORMERR with the query's id and nothing else."""
    answer = raw(packet)
    assert answer is not None
    assert answer == packet[:2] + b"\x81\x01" + bytes(8)


@pytest.mark.parametrize(
    "packet", [b"", b"\0" * 11, GOOD[:2] + b"\x81\x80" + GOOD[4:]], ids=["empty", "short", "response"]
)
def test_silence(packet: bytes) -> None:
    """What has no id, and what is itself a response, gets no answer: two servers must not talk for ever."""
    assert raw(packet) is None


def test_other_opcodes() -> None:
    """NOTIFY, UPDATE and the like are not implemented, and their opcode comes back."""
    answer = raw(GOOD[:2] + b"\x21\x00" + GOOD[4:])
    assert answer is not None
    assert answer[2:4] == b"\xa1\x04"


def test_other_classes() -> None:
    """Only the class IN is served."""
    answer = raw(GOOD[:-1] + b"\3")
    assert answer is not None
    assert answer[3] & 0xF == dns.rcode.REFUSED


def test_without_upstreams_the_outside_is_refused() -> None:
    """REFUSED, not SERVFAIL: asking again will not help."""
    message = ask(zone(), "example.com", "A", style=NOWHERE)
    assert (message.rcode(), message.answer) == (dns.rcode.REFUSED, [])


def test_without_upstreams_an_external_name_is_its_cname() -> None:
    """The CNAME is ours to give, even if nobody can be asked for the rest."""
    message = ask(zone(), "outside.shop.svc.cluster.local", "A", style=NOWHERE)
    assert lines(message.answer) == ["outside.shop.svc.cluster.local. 5 IN CNAME www.example.com."]


# -- upstream's answers


def query_of(packet: bytes) -> Query:
    query = parse_query(packet)
    assert isinstance(query, Query)
    return query


def upstream_answer(packet: bytes, *records: str, truncated: bool = False) -> bytes:
    message = dns.message.make_response(dns.message.from_wire(packet))
    message.flags |= dns.flags.RA | (dns.flags.TC if truncated else 0)
    for record in records:
        owner, ttl, kind, *data = record.split()
        message.answer.append(dns.rrset.from_text(owner, int(ttl), "IN", kind, " ".join(data)))
    return message.to_wire()


def forwarded(asked: bytes, answered: bytes, *, tcp: bool = False, age: int = 0) -> dns.message.Message:
    query = query_of(asked)
    prepared = Prepared(query.question, parse_message(answered))
    value = finish(query, Reply(prepared.rcode, flags=prepared.flags, whole=prepared, age=age), PLAIN, tcp=tcp)
    return dns.message.from_wire(asked[:2] + (value if isinstance(value, bytes) else value.turn()))


def test_an_upstream_answer_keeps_the_clients_question() -> None:
    """An upstream may change the case of the question; the client gets its own back."""
    asked = packet_of("ExAmple.com")
    answered = upstream_answer(packet_of("example.com"), "example.com. 60 A 192.0.2.1")
    message = forwarded(asked, answered)
    assert message.question[0].name.to_text() == "ExAmple.com."
    assert lines(message.answer) == ["ExAmple.com. 60 IN A 192.0.2.1"]


def test_an_upstream_answer_grows_old() -> None:
    """Every TTL is counted down, and none below zero."""
    asked = packet_of("example.com")
    answered = upstream_answer(asked, "example.com. 60 CNAME www.example.com.", "www.example.com. 20 A 192.0.2.1")
    assert lines(forwarded(asked, answered, age=30).answer) == [
        "example.com. 30 IN CNAME www.example.com.",
        "www.example.com. 0 IN A 192.0.2.1",
    ]


def test_addresses_behind_a_cname_take_turns() -> None:
    """The CNAME stays first."""
    asked = packet_of("example.com")
    records = ["example.com. 60 CNAME www.example.com.", *(f"www.example.com. 60 A 192.0.2.{i}" for i in (1, 2, 3))]
    query = query_of(asked)
    prepared = Prepared(query.question, parse_message(upstream_answer(asked, *records)))
    value = finish(query, Reply(0, whole=prepared), PLAIN, tcp=False)
    assert isinstance(value, Rotating)
    answers = [lines(dns.message.from_wire(asked[:2] + value.turn()).answer) for _ in range(3)]
    assert {answer[0] for answer in answers} == {"example.com. 60 IN CNAME www.example.com."}
    assert len({answer[1] for answer in answers}) == 3
    assert all(sorted(answer) == sorted(answers[0]) for answer in answers)


def test_an_upstream_answer_that_is_too_long() -> None:
    """A client without EDNS gets at most 512 bytes, with TC; over TCP it gets all."""
    asked = packet_of("example.com")
    answered = upstream_answer(asked, *(f"example.com. 60 A 192.0.2.{i}" for i in range(60)))
    message = forwarded(asked, answered)
    assert message.flags & dns.flags.TC
    assert len(message.to_wire()) <= 512
    assert len(lines(forwarded(asked, answered, tcp=True).answer)) == 60


def test_what_counts_as_an_answer() -> None:
    """Only a response with the id and the question that were sent; an error may leave the question out."""
    packet = upstream_query(4711, b"\7example\3com\0" + struct.pack("!HH", dns.rdatatype.A, 1))
    query = query_of(packet).question
    good = upstream_answer(packet)
    assert is_answer(good, query, 4711)
    assert is_answer(good.replace(b"example", b"eXample"), query, 4711)
    assert not is_answer(good, query, 4712)
    assert not is_answer(packet, query, 4711)
    assert not is_answer(good.replace(b"example", b"exampel"), query, 4711)
    assert not is_answer(good[:11], query, 4711)
    assert is_answer(struct.pack("!HHHHHH", 4711, 0x8005, 0, 0, 0, 0), query, 4711)
    assert not is_answer(struct.pack("!HHHHHH", 4711, 0x8000, 0, 0, 0, 0), query, 4711)


def chased(found: Outcome) -> Outcome | bytes | None:
    """The answer for an ExternalName whose target the outside says `found` of."""
    return reply_to(zone(), packet_of("outside.shop.svc.cluster.local"), lambda request: found)


def test_a_chased_name() -> None:
    """The CNAME of ours, then what upstream has, in one answer with authority."""
    packet = packet_of("outside.shop.svc.cluster.local")
    found = upstream_answer(
        packet_of("www.example.com"), "www.example.com. 60 CNAME web.example.com.", "web.example.com. 60 A 192.0.2.1"
    )
    whole = Prepared(query_of(packet_of("www.example.com")).question, parse_message(found))
    reply = chased(Reply(0, whole=whole))
    assert isinstance(reply, Reply)
    value = finish(query_of(packet), reply, PLAIN, tcp=False)
    assert isinstance(value, bytes)
    message = dns.message.from_wire(packet[:2] + value)
    assert lines(message.answer) == [
        "outside.shop.svc.cluster.local. 5 IN CNAME www.example.com.",
        "www.example.com. 60 IN CNAME web.example.com.",
        "web.example.com. 60 IN A 192.0.2.1",
    ]
    assert message.flags & dns.flags.AA


def test_a_chase_that_nobody_answers() -> None:
    """SERVFAIL: that no upstream could be asked does not mean that the name has no address."""
    reply = chased(failed())
    assert isinstance(reply, Reply)
    assert reply.rcode == dns.rcode.SERVFAIL


async def test_a_reply_that_comes_later() -> None:
    """A step on a reply that must be waited for is taken when it is there."""

    async def later() -> Reply:
        return Reply(3)

    def step(reply: Reply) -> Reply:
        return reply._replace(rcode=reply.rcode + 2)

    assert then(Reply(3), step) == Reply(5)
    outcome = then(later(), step)
    assert not isinstance(outcome, Reply)
    assert await outcome == Reply(5)
    assert Request(query_of(GOOD)).address == ""
