"""Links that carry packets inside of packets: VXLAN and WireGuard, their neighbors, and how they are made.

Stands beside links (linux/if_link.h, linux/neighbour.h, linux/ethtool.h). Invariant: as there, calls may be repeated.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import socket
import struct

from fairlead.linux import netlink
from fairlead.linux.links import Address, Link, Links
from fairlead.linux.netlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    attribute,
    attribute_map,
    attribute_string,
    attribute_u32,
    nested,
)

_RTM_NEWLINK, _RTM_NEWNEIGH, _RTM_DELNEIGH, _RTM_GETNEIGH = 16, 28, 29, 30
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO = 1, 3, 4, 18
_INFO_KIND, _INFO_DATA = 1, 2
_VXLAN_ID, _VXLAN_LEARNING, _VXLAN_PORT = 1, 7, 15
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_PERMANENT, _NTF_SELF = 0x80, 0x02
_IFINFO = struct.Struct("=BxHiII")
_NDMSG = struct.Struct("=BxxxiHBB")
_SIOCETHTOOL, _ETHTOOL_STXCSUM = 0x8946, 0x17


class Overlays:
    """Makes such links in one network namespace, through one netlink socket."""

    def __init__(self) -> None:
        self._netlink = netlink.NetlinkSocket(netlink.NETLINK_ROUTE)

    def close(self) -> None:
        """Release the socket; the links stay."""
        self._netlink.close()

    def ensure_vxlan(self, links: Links, name: str, *, vni: int, port: int, mtu: int, mac: str) -> Link:
        """A VXLAN link that learns nothing: whom it sends to is said by `set_vxlan_peer`. Not yet up."""
        link = links.get(name)
        if link is not None:
            return link
        data = attribute_u32(_VXLAN_ID, vni) + attribute(_VXLAN_LEARNING, b"\0")
        data += attribute(_VXLAN_PORT, struct.pack("!H", port))
        attributes = attribute_string(_IFLA_IFNAME, name) + attribute_u32(_IFLA_MTU, mtu)
        attributes += attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
        self._create(attributes + _info("vxlan", data))
        no_checksum_offload(name)
        return links.get(name) or _missing(name)

    def create_wireguard(self, name: str, mtu: int) -> bool:
        """A WireGuard link of the kernel's. False where the kernel has none."""
        try:
            attributes = attribute_string(_IFLA_IFNAME, name) + attribute_u32(_IFLA_MTU, mtu)
            self._create(attributes + _info("wireguard", b""))
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENODEV, errno.EPROTONOSUPPORT):
                return False
            raise
        return True

    def set_vxlan_peer(self, index: int, inner: Address, mac: str, remote: Address) -> None:
        """What is for `inner` goes to the link-layer address `mac`, and that to the machine `remote`."""
        raw = bytes.fromhex(mac.replace(":", ""))
        family = socket.AF_INET if inner.version == 4 else socket.AF_INET6
        neighbor = _NDMSG.pack(family, index, _NUD_PERMANENT, 0, 0)
        neighbor += attribute(_NDA_DST, inner.packed) + attribute(_NDA_LLADDR, raw)
        forwarding = _NDMSG.pack(socket.AF_BRIDGE, index, _NUD_PERMANENT, _NTF_SELF, 0)
        forwarding += attribute(_NDA_LLADDR, raw) + attribute(_NDA_DST, remote.packed)
        for payload in (neighbor, forwarding):
            self._netlink.request(Message(_RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, payload))

    def vxlan_peers(self, index: int) -> dict[str, Address]:
        """Link-layer address → the machine it is sent to."""
        found: dict[str, Address] = {}
        payload = _NDMSG.pack(socket.AF_BRIDGE, 0, 0, 0, 0)
        for message in self._netlink.query(Message(_RTM_GETNEIGH, NLM_F_DUMP, payload)):
            _, device, _, _, _ = _NDMSG.unpack_from(message.payload)
            values = attribute_map(message.payload[_NDMSG.size :])
            if device == index and _NDA_DST in values and _NDA_LLADDR in values:
                found[values[_NDA_LLADDR].hex(":")] = ipaddress.ip_address(values[_NDA_DST])
        return found

    def drop_vxlan_peers(self, index: int, keep: set[str]) -> None:
        """Forget whoever is not in `keep` (link-layer addresses)."""
        for family in (socket.AF_BRIDGE, socket.AF_INET, socket.AF_INET6):
            payload = _NDMSG.pack(family, 0, 0, 0, 0)
            for message in self._netlink.query(Message(_RTM_GETNEIGH, NLM_F_DUMP, payload)):
                kind, device, state, flags, _ = _NDMSG.unpack_from(message.payload)
                values = attribute_map(message.payload[_NDMSG.size :])
                mac = values.get(_NDA_LLADDR, b"").hex(":")
                if device != index or not state & _NUD_PERMANENT or mac in keep or _NDA_DST not in values:
                    continue
                gone = _NDMSG.pack(kind, device, state, flags, 0) + attribute(_NDA_DST, values[_NDA_DST])
                gone += attribute(_NDA_LLADDR, values[_NDA_LLADDR])
                try:
                    self._netlink.request(Message(_RTM_DELNEIGH, 0, gone))
                except OSError as error:
                    if not netlink.is_absent(error):
                        raise

    def _create(self, attributes: bytes) -> None:
        self._netlink.request(
            Message(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, _IFINFO.pack(0, 0, 0, 0, 0) + attributes)
        )


def no_checksum_offload(name: str) -> None:
    """The kernel finishes checksums itself before it hands packets to the link. Through NAT on the way, those that a
    VXLAN link leaves unfinished arrive wrong: ping passes, TCP never does."""
    buffer = bytearray(struct.pack("II", _ETHTOOL_STXCSUM, 0))
    import ctypes

    data = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    request = struct.pack("16sP", name.encode(), ctypes.addressof(data)).ljust(40, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control.fileno(), _SIOCETHTOOL, request)


def _info(kind: str, data: bytes) -> bytes:
    parts = [attribute_string(_INFO_KIND, kind)]
    if data:
        parts.append(attribute(_INFO_DATA | netlink.NLA_F_NESTED, data))
    return nested(_IFLA_LINKINFO, *parts)


def _missing(name: str) -> Link:
    raise FileNotFoundError(errno.ENODEV, "no such network link", name)
