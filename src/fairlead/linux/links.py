"""Links, addresses, neighbours and routes over rtnetlink (linux/rtnetlink.h, linux/if_link.h).

Stands on netlink; podnetwork applies its plans through it. Invariant: the `ensure_*` calls may be repeated: what is
already so stays untouched, what is gone counts as deleted.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from fairlead.linux import namespaces, netlink
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

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 17, 18, 19
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER = 1, 3, 4, 10
_IFLA_LINKINFO, _IFLA_NET_NS_FD = 18, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_INFO_SLAVE_KIND, _IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_INFO_PEER = 1
_IFLA_BRPORT_MODE = 4  # hairpin
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_TABLE = 1, 4, 5, 7, 15
_LOOPBACK = 1  # the index of every network namespace's own
_IFF_UP = 1
_IFF_NOARP = 0x80
_RT_TABLE_MAIN = 254
_RTPROT_FAIRLEAD = 0xF1  # routes of ours carry a protocol number of their own
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_RTN_UNICAST = 1
_RTNH_F_ONLINK = 4

_IFINFO = struct.Struct("=BxHiII")
_IFA_F_NODAD = 0x02
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Link(msgspec.Struct, frozen=True):
    """A network interface. `master` is the index of the bridge it is a port of, 0 for none."""

    index: int
    name: str
    mac: str
    mtu: int
    up: bool
    master: int = 0


class Route(msgspec.Struct, frozen=True):
    """A unicast route of the main table. `gateway` None: directly on the link `device` (an index). `onlink`: the
    gateway is on that link, whatever other routes say. `source`: what processes here send from, if they don't say."""

    destination: Network
    gateway: Address | None
    device: int
    ours: bool = True
    onlink: bool = False
    source: Address | None = None


class Links:
    """Links, addresses and routes of one network namespace, through one netlink socket."""

    def __init__(self, namespace: Path | str | int | None = None) -> None:
        if namespace is None:
            self._netlink = netlink.NetlinkSocket(netlink.NETLINK_ROUTE)
        else:
            with namespaces.entered(namespace):
                self._netlink = netlink.NetlinkSocket(netlink.NETLINK_ROUTE)

    def close(self) -> None:
        """Release the socket; the links stay."""
        self._netlink.close()

    def __enter__(self) -> Links:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, name: str) -> Link | None:
        """The link of that name, or None."""
        payload = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + attribute_string(_IFLA_IFNAME, name)
        try:
            answers = list(self._netlink.query(Message(_RTM_GETLINK, 0, payload)))
        except OSError as error:
            if netlink.is_absent(error):
                return None
            raise
        return _link(answers[0].payload)

    def index(self, name: str) -> int:
        """The index of the link. Raises FileNotFoundError naming it."""
        return self._existing(name).index

    def list(self) -> list[Link]:
        """Every link of the namespace."""
        payload = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        return [_link(m.payload) for m in self._netlink.query(Message(_RTM_GETLINK, NLM_F_DUMP, payload))]

    def ensure_bridge(self, name: str, mac: str = "") -> Link:
        """A bridge of that name, up. A fixed MAC keeps neighbours' caches right when ports come and go."""
        link = self.get(name)
        if link is not None:
            if not link.up:
                self.set_up(link.index)
            return link
        attributes = attribute_string(_IFLA_IFNAME, name)
        attributes += nested(_IFLA_LINKINFO, attribute_string(_IFLA_INFO_KIND, "bridge"))
        if mac:
            attributes += attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
        self._request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, _IFINFO.pack(0, 0, 0, _IFF_UP, _IFF_UP) + attributes)
        return self._existing(name)

    def ensure_dummy(self, name: str) -> Link:
        """A link that leads nowhere, down and without ARP, to hold addresses that shall be this machine's."""
        if (link := self.get(name)) is not None:
            return link
        info = nested(_IFLA_LINKINFO, attribute_string(_IFLA_INFO_KIND, "dummy"))
        header = _IFINFO.pack(0, 0, 0, _IFF_NOARP, _IFF_NOARP)
        self._request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, header + attribute_string(_IFLA_IFNAME, name) + info)
        return self._existing(name)

    def create_veth(
        self,
        name: str,
        peer: str,
        *,
        peer_namespace: int | None = None,
        master: int = 0,
        mtu: int = 0,
        mac: str = "",
        peer_mac: str = "",
        hairpin: bool = False,
    ) -> None:
        """A veth pair: `name` here and up, `peer` in the namespace behind the descriptor (or here), still down; with
        `hairpin` as of `set_hairpin`.

        Raises FileExistsError when a name is taken.
        """
        # IFF_UP on a peer in another namespace is refused (ENOTCONN): it is set from inside.
        far = attribute_string(_IFLA_IFNAME, peer)
        near = attribute_string(_IFLA_IFNAME, name)
        if peer_namespace is not None:
            far += attribute_u32(_IFLA_NET_NS_FD, peer_namespace)
        if mtu:
            far += attribute_u32(_IFLA_MTU, mtu)
            near += attribute_u32(_IFLA_MTU, mtu)
        if mac:
            near += attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
        if peer_mac:
            far += attribute(_IFLA_ADDRESS, bytes.fromhex(peer_mac.replace(":", "")))
        if master:
            near += attribute_u32(_IFLA_MASTER, master)
        peer_header = _IFINFO.pack(0, 0, 0, 0, 0)
        data = attribute(_IFLA_INFO_DATA | netlink.NLA_F_NESTED, attribute(_VETH_INFO_PEER, peer_header + far))
        info = nested(_IFLA_LINKINFO, attribute_string(_IFLA_INFO_KIND, "veth"), data)
        header = _IFINFO.pack(0, 0, 0, _IFF_UP, _IFF_UP)
        messages = [Message(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, header + near + info)]
        if hairpin:
            messages.append(_hairpin(name))
        try:
            self._netlink.request(*messages)
        except OSError as error:
            if error.errno == errno.EEXIST:
                raise FileExistsError(errno.EEXIST, "network link exists", name) from error
            raise

    def set_up(self, index: int) -> None:
        """Bring a link up."""
        self._netlink.request(_up(index))

    def furnish(self, index: int, addresses: Sequence[Interface], routes: Sequence[Route]) -> None:
        """The loopback link and this one are up, and have these addresses and routes: what `set_up`, `ensure_address`
        and `ensure_route` do, at one go."""
        given = (_address(index, address) for address in addresses)
        ways = (Message(_RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, _route(route)) for route in routes)
        self._netlink.request(_up(_LOOPBACK), _up(index), *given, *ways)

    def set_mtu(self, index: int, mtu: int) -> None:
        """The largest packet a link takes, in bytes."""
        self._request(_RTM_SETLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + attribute_u32(_IFLA_MTU, mtu))

    def set_hairpin(self, name: str) -> None:
        """Let a bridge port send a frame back to where it came from: a pod that reaches itself through a Service."""
        self._netlink.request(_hairpin(name))

    def delete(self, name: str) -> bool:
        """Remove a link (of a veth pair, both ends). False if there was none."""
        payload = _IFINFO.pack(0, 0, 0, 0, 0) + attribute_string(_IFLA_IFNAME, name)
        try:
            self._request(_RTM_DELLINK, 0, payload)
        except OSError as error:
            if netlink.is_absent(error):
                return False
            raise
        return True

    def addresses(self, index: int) -> set[Interface]:
        """The addresses of a link, with their prefix lengths."""
        return self.all_addresses().get(index, set())

    def all_addresses(self) -> dict[int, set[Interface]]:
        """The addresses of every link that has some, by its index."""
        found: dict[int, set[Interface]] = {}
        for message in self._netlink.query(Message(_RTM_GETADDR, NLM_F_DUMP, _IFADDR.pack(0, 0, 0, 0, 0))):
            _, prefix, _, _, device = _IFADDR.unpack_from(message.payload)
            values = attribute_map(message.payload[_IFADDR.size :])
            raw = values.get(_IFA_LOCAL) or values[_IFA_ADDRESS]
            found.setdefault(device, set()).add(ipaddress.ip_interface((raw, prefix)))
        return found

    def ensure_address(self, index: int, address: Interface) -> None:
        """The link has that address."""
        self._netlink.request(_address(index, address))

    def delete_address(self, index: int, address: Interface) -> bool:
        """The link has that address no more. False if it had not."""
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        payload = _IFADDR.pack(family, address.network.prefixlen, 0, _SCOPE_UNIVERSE, index)
        payload += attribute(_IFA_LOCAL, address.ip.packed) + attribute(_IFA_ADDRESS, address.ip.packed)
        try:
            self._request(_RTM_DELADDR, 0, payload)
        except OSError as error:
            if netlink.is_absent(error):
                return False
            raise
        return True

    def routes(self) -> Iterator[Route]:
        """The IPv4 and IPv6 unicast routes of the main table that leave by one link."""
        for family in (socket.AF_INET, socket.AF_INET6):
            payload = _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
            for message in self._netlink.query(Message(_RTM_GETROUTE, NLM_F_DUMP, payload)):
                _, length, _, _, table, protocol, _, kind, flags = _RTMSG.unpack_from(message.payload)
                values = attribute_map(message.payload[_RTMSG.size :])
                if table != _RT_TABLE_MAIN or kind != _RTN_UNICAST or _RTA_OIF not in values:
                    continue
                width = 4 if family == socket.AF_INET else 16
                network = ipaddress.ip_network((values.get(_RTA_DST, bytes(width)), length))
                gateway = ipaddress.ip_address(values[_RTA_GATEWAY]) if _RTA_GATEWAY in values else None
                device = struct.unpack("=I", values[_RTA_OIF])[0]
                source = ipaddress.ip_address(values[_RTA_PREFSRC]) if _RTA_PREFSRC in values else None
                ours = protocol == _RTPROT_FAIRLEAD
                yield Route(network, gateway, device, ours, bool(flags & _RTNH_F_ONLINK), source)

    def ensure_route(self, route: Route) -> None:
        """The main table has that route, marked as ours."""
        self._request(_RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, _route(route))

    def delete_route(self, route: Route) -> bool:
        """Remove a route. False if there was none."""
        try:
            self._request(_RTM_DELROUTE, 0, _route(route))
        except OSError as error:
            if netlink.is_absent(error):
                return False
            raise
        return True

    def _existing(self, name: str) -> Link:
        link = self.get(name)
        if link is None:
            raise FileNotFoundError(errno.ENODEV, "no such network link", name)
        return link

    def _request(self, kind: int, flags: int, payload: bytes) -> None:
        self._netlink.request(Message(kind, flags, payload))


def _up(index: int) -> Message:
    return Message(_RTM_SETLINK, 0, _IFINFO.pack(0, 0, index, _IFF_UP, _IFF_UP))


def _hairpin(name: str) -> Message:
    kind = attribute_string(_IFLA_INFO_SLAVE_KIND, "bridge")
    mode = nested(_IFLA_INFO_SLAVE_DATA, attribute(_IFLA_BRPORT_MODE, b"\1"))
    info = attribute_string(_IFLA_IFNAME, name) + nested(_IFLA_LINKINFO, kind, mode)
    return Message(_RTM_NEWLINK, 0, _IFINFO.pack(0, 0, 0, 0, 0) + info)


def _address(index: int, address: Interface) -> Message:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    raw = address.ip.packed
    # IPv6 addresses are ours alone: without the search for duplicates they can be used at once.
    flags = _IFA_F_NODAD if address.version == 6 else 0
    payload = _IFADDR.pack(family, address.network.prefixlen, flags, _SCOPE_UNIVERSE, index)
    payload += attribute(_IFA_LOCAL, raw) + attribute(_IFA_ADDRESS, raw)
    return Message(_RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, payload)


def _route(route: Route) -> bytes:
    family = socket.AF_INET if route.destination.version == 4 else socket.AF_INET6
    scope = _SCOPE_UNIVERSE if route.gateway is not None or family == socket.AF_INET6 else _SCOPE_LINK
    flags = _RTNH_F_ONLINK if route.onlink else 0
    payload = _RTMSG.pack(
        family, route.destination.prefixlen, 0, 0, _RT_TABLE_MAIN, _RTPROT_FAIRLEAD, scope, _RTN_UNICAST, flags
    )
    if route.destination.prefixlen:
        payload += attribute(_RTA_DST, route.destination.network_address.packed)
    payload += attribute_u32(_RTA_OIF, route.device)
    if route.gateway is not None:
        payload += attribute(_RTA_GATEWAY, route.gateway.packed)
    if route.source is not None:
        payload += attribute(_RTA_PREFSRC, route.source.packed)
    return payload


def _link(payload: bytes) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack_from(payload)
    values = attribute_map(payload[_IFINFO.size :])
    return Link(
        index=index,
        name=values[_IFLA_IFNAME].rstrip(b"\0").decode(),
        mac=values.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=struct.unpack("=I", values[_IFLA_MTU])[0],
        up=bool(flags & _IFF_UP),
        master=struct.unpack("=I", values[_IFLA_MASTER])[0] if _IFLA_MASTER in values else 0,
    )
