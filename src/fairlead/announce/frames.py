"""What goes over the LAN, as bytes: ARP (RFC 826, RFC 5227), neighbor discovery (RFC 4861), beats. Pure.

Stands under the announcer. Invariants: `parse_*` takes any bytes and gives None for what is not whole and meant; a beat
that is not signed with the key is no beat.
"""

from __future__ import annotations

import hmac
import ipaddress
import struct
from collections.abc import Iterator, Sequence
from hashlib import sha256

import msgspec

from fairlead.announce.election import Address

ETHERTYPE_ARP = 0x0806
ETHERTYPE_IPV6 = 0x86DD
ETHERTYPE_BEAT = 0x88B5  # IEEE 802 local experimental Ethertype 1
BROADCAST = b"\xff" * 6
REQUEST, REPLY = 1, 2

_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_SOLICITATION, _ADVERTISEMENT, _ICMPV6 = 135, 136, 58
_SOLICITED, _OVERRIDE = 0x40, 0x20
_ALL_NODES = ipaddress.IPv6Address("ff02::1").packed
_ALL_NODES_MAC = b"\x33\x33\x00\x00\x00\x01"
_BEAT = struct.Struct("!4sBBHQB")  # magic, version, flags, length with the signature, counter, length of the name
_MAGIC, _VERSION, _LEAVING = b"FLLB", 1, 1
_SIGNATURE = 32
_LONGEST = 1400  # bytes of a beat; more addresses go into another


class Arp(msgspec.Struct, frozen=True):
    """An ARP packet for IPv4 over Ethernet."""

    operation: int
    sender_mac: bytes
    sender_ip: ipaddress.IPv4Address
    target_ip: ipaddress.IPv4Address


class Solicitation(msgspec.Struct, frozen=True):
    """A neighbor solicitation. `source` is unspecified when somebody only looks whether the address is free."""

    mac: bytes
    source: ipaddress.IPv6Address
    target: ipaddress.IPv6Address


class Beat(msgspec.Struct, frozen=True):
    """`node` lives and has these addresses, or (`leaving`) stops answering. `counter` rises from beat to beat."""

    node: str
    counter: int
    addresses: tuple[Address, ...] = ()
    leaving: bool = False


def parse_arp(frame: bytes) -> Arp | None:
    """The ARP packet in an Ethernet frame."""
    if len(frame) < _ETHERNET.size + _ARP.size:
        return None
    hardware, protocol, hlen, plen, operation, sha, spa, _, tpa = _ARP.unpack_from(frame, _ETHERNET.size)
    if (hardware, protocol, hlen, plen) != (1, 0x0800, 6, 4) or operation not in (REQUEST, REPLY):
        return None
    return Arp(operation, sha, ipaddress.IPv4Address(spa), ipaddress.IPv4Address(tpa))


def arp_answer(asked: Arp, mac: bytes) -> bytes:
    """The frame that says: the address you ask for is at `mac`."""
    body = _ARP.pack(1, 0x0800, 6, 4, REPLY, mac, asked.target_ip.packed, asked.sender_mac, asked.sender_ip.packed)
    return _ETHERNET.pack(asked.sender_mac, mac, ETHERTYPE_ARP) + body


def gratuitous_arp(address: ipaddress.IPv4Address, mac: bytes) -> list[bytes]:
    """Frames that tell everybody; as a request and as a reply, since some heed only one of them."""
    raw = address.packed
    head = _ETHERNET.pack(BROADCAST, mac, ETHERTYPE_ARP)
    return [
        head + _ARP.pack(1, 0x0800, 6, 4, REQUEST, mac, raw, bytes(6), raw),
        head + _ARP.pack(1, 0x0800, 6, 4, REPLY, mac, raw, mac, raw),
    ]


def parse_solicitation(frame: bytes) -> Solicitation | None:
    """The neighbor solicitation in an Ethernet frame."""
    start = _ETHERNET.size + _IPV6.size
    if len(frame) < start + 24:
        return None
    _, length, following, hops, source, _ = _IPV6.unpack_from(frame, _ETHERNET.size)
    body = frame[start : start + length]
    if following != _ICMPV6 or hops != 255 or len(body) < 24 or body[0] != _SOLICITATION or body[1] != 0:
        return None
    target = ipaddress.IPv6Address(body[8:24])
    return None if target.is_multicast else Solicitation(frame[6:12], ipaddress.IPv6Address(source), target)


def advertisement(asked: Solicitation, mac: bytes) -> bytes:
    """The answer to a solicitation; to everybody if the one who asks has no address yet."""
    if asked.source.is_unspecified:
        return unsolicited_advertisement(asked.target, mac)
    return _advertisement(asked.target, mac, asked.source.packed, asked.mac, _SOLICITED | _OVERRIDE)


def unsolicited_advertisement(address: ipaddress.IPv6Address, mac: bytes) -> bytes:
    """The frame that tells everybody."""
    return _advertisement(address, mac, _ALL_NODES, _ALL_NODES_MAC, _OVERRIDE)


def _advertisement(address: ipaddress.IPv6Address, mac: bytes, to: bytes, to_mac: bytes, flags: int) -> bytes:
    body = struct.pack("!BBHB3x16sBB6s", _ADVERTISEMENT, 0, 0, flags, address.packed, 2, 1, mac)
    pseudo = address.packed + to + struct.pack("!IxxxB", len(body), _ICMPV6)
    body = body[:2] + struct.pack("!H", _checksum(pseudo + body)) + body[4:]
    header = _IPV6.pack(6 << 28, len(body), _ICMPV6, 255, address.packed, to)
    return _ETHERNET.pack(to_mac, mac, ETHERTYPE_IPV6) + header + body


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def beats(node: str, counter: int, addresses: Sequence[Address]) -> list[Beat]:
    """The beats that hold these addresses; their counters go on from `counter`."""
    room = (_LONGEST - _BEAT.size - len(node.encode()) - 2 - _SIGNATURE) // 17
    parts = [tuple(addresses[at : at + room]) for at in range(0, len(addresses), room)]
    return [Beat(node, counter + place, part) for place, part in enumerate(parts)]


def render_beat(beat: Beat, mac: bytes, key: bytes) -> bytes:
    """The frame, to everybody."""
    name = beat.node.encode()
    body = name + struct.pack("!H", len(beat.addresses)) + b"".join(_pack(address) for address in beat.addresses)
    length = _BEAT.size + len(body) + _SIGNATURE
    head = _BEAT.pack(_MAGIC, _VERSION, _LEAVING if beat.leaving else 0, length, beat.counter, len(name))
    signed = head + body
    signature = hmac.digest(key, signed, sha256)
    return _ETHERNET.pack(BROADCAST, mac, ETHERTYPE_BEAT) + signed + signature


def parse_beat(frame: bytes, key: bytes) -> Beat | None:
    """The beat in an Ethernet frame; None unless it is signed with the key."""
    data = frame[_ETHERNET.size :]
    if len(data) < _BEAT.size + _SIGNATURE:
        return None
    magic, version, flags, length, counter, name_length = _BEAT.unpack_from(data)
    if magic != _MAGIC or version != _VERSION or not _BEAT.size + _SIGNATURE <= length <= len(data):
        return None
    signed, signature = data[: length - _SIGNATURE], data[length - _SIGNATURE : length]
    if not hmac.compare_digest(hmac.digest(key, signed, sha256), signature):
        return None
    try:
        start = _BEAT.size + name_length
        node = signed[_BEAT.size : start].decode()
        (count,) = struct.unpack_from("!H", signed, start)
        addresses = tuple(_unpack(signed, start + 2, count))
    except (ValueError, struct.error):
        return None
    return Beat(node, counter, addresses, bool(flags & _LEAVING))


def _pack(address: Address) -> bytes:
    return bytes((len(address.packed),)) + address.packed


def _unpack(data: bytes, position: int, count: int) -> Iterator[Address]:
    for _ in range(count):
        width = data[position] if position < len(data) else 0
        raw = data[position + 1 : position + 1 + width]
        if width not in (4, 16) or len(raw) != width:
            raise ValueError("cut short")
        yield ipaddress.ip_address(raw)
        position += 1 + width
