"""ARP, neighbor discovery and beats as bytes."""

from __future__ import annotations

import ipaddress
import struct

import pytest

from fairlead.announce import frames
from fairlead.announce.frames import Arp, Beat, Solicitation

MAC, PEER = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
VIP, VIP6 = ipaddress.IPv4Address("192.0.2.1"), ipaddress.IPv6Address("2001:db8::1")
KEY = b"k" * 32


def test_an_arp_request_is_answered_to_who_asked() -> None:
    """RFC 826: the answer goes back to the sender, with the address asked for as its own."""
    asked = bytes.fromhex(
        "ffffffffffff 020000000002 0806 0001 0800 06 04 0001 020000000002 c0000209 000000000000 c0000201"
    )
    parsed = frames.parse_arp(asked)
    assert parsed == Arp(1, PEER, ipaddress.IPv4Address("192.0.2.9"), VIP)
    assert frames.arp_answer(parsed, MAC) == bytes.fromhex(
        "020000000002 020000000001 0806 0001 0800 06 04 0002 020000000001 c0000201 020000000002 c0000209"
    )


def test_gratuitous_arp_has_both_forms() -> None:
    """A request and a reply whose sender and target are the address; the reply names the MAC twice, as Linux asks."""
    request, reply = frames.gratuitous_arp(VIP, MAC)
    assert request == bytes.fromhex(
        "ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 c0000201 000000000000 c0000201"
    )
    assert reply == bytes.fromhex(
        "ffffffffffff 020000000001 0806 0001 0800 06 04 0002 020000000001 c0000201 020000000001 c0000201"
    )


def solicitation(source: str, hops: int = 255) -> bytes:
    body = bytes.fromhex("8700 0000 00000000") + VIP6.packed + bytes.fromhex("0101 020000000002")
    header = struct.pack("!IHBB", 6 << 28, len(body), 58, hops) + ipaddress.IPv6Address(source).packed
    group = ipaddress.IPv6Address("ff02::1:ff00:1").packed
    return bytes.fromhex("3333ff000001 020000000002 86dd") + header + group + body


def test_a_solicitation_is_answered() -> None:
    """RFC 4861: solicited and overriding, with the checksum over the pseudo header."""
    asked = frames.parse_solicitation(solicitation("2001:db8::9"))
    assert asked == Solicitation(PEER, ipaddress.IPv6Address("2001:db8::9"), VIP6)
    answer = frames.advertisement(asked, MAC)
    assert answer[:6] == PEER
    assert answer[22:54] == VIP6.packed + ipaddress.IPv6Address("2001:db8::9").packed
    assert answer[54:56] + answer[58:62] == bytes.fromhex("8800 60000000")
    pseudo = answer[22:54] + struct.pack("!IxxxB", len(answer) - 54, 58)
    total = sum(struct.unpack(f"!{(len(pseudo) + len(answer) - 54) // 2}H", pseudo + answer[54:]))
    assert (total & 0xFFFF) + (total >> 16) in {0xFFFF, 0x1FFFE}


def test_who_has_no_address_yet_is_answered_to_all() -> None:
    """Duplicate address detection asks from the unspecified address."""
    asked = frames.parse_solicitation(solicitation("::"))
    assert asked is not None
    assert frames.advertisement(asked, MAC) == frames.unsolicited_advertisement(VIP6, MAC)


def test_a_solicitation_from_afar_is_none() -> None:
    """A hop limit under 255 came through a router (RFC 4861 7.1.1)."""
    assert frames.parse_solicitation(solicitation("2001:db8::9", hops=254)) is None


BEATS = [Beat("n1", 7, (VIP, VIP6)), Beat("knoten-ß", 1 << 63, ()), Beat("n1", 8, (), leaving=True)]


@pytest.mark.parametrize("beat", BEATS)
def test_a_beat_comes_back(beat: Beat) -> None:
    """Rendered and parsed it is the same; also with the padding that short frames get."""
    frame = frames.render_beat(beat, MAC, KEY)
    assert frames.parse_beat(frame, KEY) == beat
    assert frames.parse_beat(frame + bytes(20), KEY) == beat


def test_a_beat_of_others_is_none() -> None:
    """Another key, a bit turned, or cut short."""
    frame = frames.render_beat(BEATS[0], MAC, KEY)
    assert frames.parse_beat(frame, b"x" * 32) is None
    for place in range(14, len(frame)):
        turned = frame[:place] + bytes([frame[place] ^ 1]) + frame[place + 1 :]
        assert frames.parse_beat(turned, KEY) is None
        assert frames.parse_beat(frame[:place], KEY) is None


def test_many_addresses_take_several_beats() -> None:
    """Each fits a frame; together they have all."""
    addresses = [ipaddress.ip_address("2001:db8::") + n for n in range(300)]
    made = frames.beats("n1", 5, addresses)
    assert [beat.counter for beat in made] == list(range(5, 5 + len(made)))
    assert [address for beat in made for address in beat.addresses] == addresses
    assert all(len(frames.render_beat(beat, MAC, KEY)) <= 1514 for beat in made)


@pytest.mark.parametrize("junk", [b"", b"\x00" * 13, b"\xff" * 42, bytes(200)])
def test_junk_is_none(junk: bytes) -> None:
    """Whatever comes by, nothing breaks."""
    assert frames.parse_arp(junk) is None
    assert frames.parse_solicitation(junk) is None
    assert frames.parse_beat(junk, KEY) is None
