"""The kernel's connection tracking table: flows listed and deleted over ctnetlink.

Stands on the netlink socket. In: which flows are asked for. Out: flows as values; a deletion is of exactly the flow
that was listed. Invariant: a flow that is already gone is no error. Format: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from fairlead.linux import netlink
from fairlead.linux.netlink import NLM_F_DUMP, Message, NetlinkSocket, attribute, attribute_map, nested

_SUBSYSTEM = 1
_GET, _DELETE = 1, 2
_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _ID, _ZONE, _FILTER, _STATUS_MASK = 1, 2, 3, 12, 18, 25, 26
_SEEN_REPLY = 2  # IPS_SEEN_REPLY
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_V4_SRC, _V4_DST, _V6_SRC, _V6_DST = 1, 2, 3, 4
_PROTO_NUM, _PROTO_SRC, _PROTO_DST = 1, 2, 3
_FILTER_ORIG_FLAGS, _FILTER_REPLY_FLAGS = 1, 2
_MATCH_DESTINATION, _MATCH_PROTOCOL = 1 << 1, 1 << 3

TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP


class Tuple(NamedTuple):
    """One direction of a flow. `family` is AF_INET or AF_INET6; ports are 0 for protocols without."""

    family: int
    protocol: int
    source: str
    source_port: int
    destination: str
    destination_port: int


class Flow(NamedTuple):
    """A tracked connection: as its first packet was, and as answers to it must look. `zone` and `id` tell it from
    another between the same ends. `answered`: a packet came back once."""

    original: Tuple
    reply: Tuple
    zone: int = 0
    id: bytes = b""
    answered: bool = True


def render_tuple(kind: int, value: Tuple) -> bytes:
    """A direction as an attribute."""
    source, destination = (_V4_SRC, _V4_DST) if value.family == socket.AF_INET else (_V6_SRC, _V6_DST)
    addresses = attribute(source, socket.inet_pton(value.family, value.source))
    addresses += attribute(destination, socket.inet_pton(value.family, value.destination))
    protocol = attribute(_PROTO_NUM, bytes((value.protocol,)))
    protocol += attribute(_PROTO_SRC, struct.pack("!H", value.source_port))
    protocol += attribute(_PROTO_DST, struct.pack("!H", value.destination_port))
    return nested(kind, nested(_TUPLE_IP, addresses), nested(_TUPLE_PROTO, protocol))


def parse_tuple(data: bytes) -> Tuple:
    """The inverse, from inside the attribute."""
    values = attribute_map(data)
    addresses, protocol = attribute_map(values[_TUPLE_IP]), attribute_map(values[_TUPLE_PROTO])
    family = socket.AF_INET if _V4_SRC in addresses else socket.AF_INET6
    source, destination = (_V4_SRC, _V4_DST) if family == socket.AF_INET else (_V6_SRC, _V6_DST)
    return Tuple(
        family,
        protocol[_PROTO_NUM][0],
        socket.inet_ntop(family, addresses[source]),
        int.from_bytes(protocol.get(_PROTO_SRC, b"\0"), "big"),
        socket.inet_ntop(family, addresses[destination]),
        int.from_bytes(protocol.get(_PROTO_DST, b"\0"), "big"),
    )


def render_flow(flow: Flow) -> bytes:
    """What a request about exactly this flow carries."""
    payload = render_tuple(_TUPLE_ORIG, flow.original)
    if flow.zone:
        payload += attribute(_ZONE, struct.pack("!H", flow.zone))
    return payload + (attribute(_ID, flow.id) if flow.id else b"")


def parse_flow(payload: bytes) -> Flow:
    """A flow from the payload of a message, after its nfgenmsg."""
    values = attribute_map(payload[4:])
    zone = int.from_bytes(values.get(_ZONE, b"\0"), "big")
    answered = bool(int.from_bytes(values.get(_STATUS, b"\0\0\0\2"), "big") & _SEEN_REPLY)
    original, reply = parse_tuple(values[_TUPLE_ORIG]), parse_tuple(values[_TUPLE_REPLY])
    return Flow(original, reply, zone, values.get(_ID, b""), answered)


def _header(family: int) -> bytes:
    return struct.pack("!BBH", family, 0, 0)


def render_filter(family: int, protocol: int, destination: str) -> bytes:
    """The part of a dump request that lets the kernel sort out (5.8 on); `destination` empty: any.

    By destination for IPv4 only: for IPv6 the kernel (seen in 6.18) takes the filter for its opposite.
    """
    flags, value = _MATCH_PROTOCOL, b""
    if destination and family == socket.AF_INET:
        flags |= _MATCH_DESTINATION
        value = nested(_TUPLE_IP, attribute(_V4_DST, socket.inet_pton(family, destination)))
    value += nested(_TUPLE_PROTO, attribute(_PROTO_NUM, bytes((protocol,))))
    wanted = attribute(_FILTER_ORIG_FLAGS, struct.pack("=I", flags))
    wanted += attribute(_FILTER_REPLY_FLAGS, struct.pack("=I", 0))
    return nested(_TUPLE_ORIG, value) + nested(_FILTER, wanted)


class ConntrackSocket:
    """Connection tracking of the namespace the calling thread is in when it is made. Needs CAP_NET_ADMIN."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(netlink.NETLINK_NETFILTER)

    def close(self) -> None:
        """Release the socket."""
        self._netlink.close()

    def __enter__(self) -> ConntrackSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def flows(self, family: int, protocol: int, destination: str = "") -> list[Flow]:
        """The flows of that protocol (to that original destination)."""
        return self._dump(family, protocol, destination, b"")

    def unanswered(self, family: int, protocol: int) -> list[Flow]:
        """The flows of that protocol to which no packet came back yet (kernels before 5.15 send all to choose from)."""
        status = attribute(_STATUS, bytes(4)) + attribute(_STATUS_MASK, struct.pack("!I", _SEEN_REPLY))
        return [flow for flow in self._dump(family, protocol, "", status) if not flow.answered]

    def _dump(self, family: int, protocol: int, destination: str, more: bytes) -> list[Flow]:
        payload = _header(family) + render_filter(family, protocol, destination) + more
        found = []
        for message in self._netlink.query(Message(_SUBSYSTEM << 8 | _GET, NLM_F_DUMP, payload)):
            if message.payload[0] != family:
                continue
            flow = parse_flow(message.payload)
            # Kernels before 5.8 pay no heed to the filter.
            if flow.original.protocol == protocol and destination in ("", flow.original.destination):
                found.append(flow)
        return found

    def delete(self, flow: Flow) -> bool:
        """Forget a flow: its next packet is a new connection. False if it was gone."""
        payload = _header(flow.original.family) + render_flow(flow)
        try:
            self._netlink.request(Message(_SUBSYSTEM << 8 | _DELETE, 0, payload))
        except OSError as error:
            if netlink.is_absent(error):
                return False
            raise
        return True
