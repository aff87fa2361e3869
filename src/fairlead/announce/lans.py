"""The links at which addresses are answered for: which they are, and the sockets on one of them.

Stands between linux and the announcer. Invariant: a `Lan` is of one link as it was when it was opened; a link that
changed is another one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from fairlead.announce.election import Address
from fairlead.announce.frames import ETHERTYPE_ARP, ETHERTYPE_BEAT, ETHERTYPE_IPV6
from fairlead.linux.links import Interface, Link, Links
from fairlead.linux.packets import PacketSocket, SolicitedGroups

_NO_MAC = "00:00:00:00:00:00"  # the loopback's


class Lan:
    """Sockets on one link."""

    def __init__(self, link: Link) -> None:
        """Raises OSError: PermissionError without CAP_NET_RAW, ENODEV if the link is gone."""
        self.link, self.mac = link, bytes.fromhex(link.mac.replace(":", ""))
        self.arp = PacketSocket(link.name, ETHERTYPE_ARP)
        try:
            self.beats = PacketSocket(link.name, ETHERTYPE_BEAT)
        except BaseException:
            self.arp.close()
            raise
        self.solicitations: PacketSocket | None = None
        self._groups: SolicitedGroups | None = None

    def listen_ipv6(self) -> PacketSocket:
        """Hear solicitations, too. Raises OSError."""
        if self.solicitations is None:
            self.solicitations = PacketSocket(self.link.name, ETHERTYPE_IPV6, solicitations_only=True)
        return self.solicitations

    def be_asked(self, addresses: set[ipaddress.IPv6Address]) -> None:
        """Be in the multicast groups at which these addresses are asked for. Raises OSError."""
        if addresses and self._groups is None:
            self._groups = SolicitedGroups(self.link.index)
        if self._groups is not None:
            self._groups.set(addresses)

    def sockets(self) -> list[PacketSocket]:
        """Those that are read."""
        return [one for one in (self.arp, self.beats, self.solicitations) if one is not None]

    def close(self) -> None:
        """Hear and say no more."""
        for one in self.sockets():
            one.close()
        if self._groups is not None:
            self._groups.close()


def place(
    links: Links, addresses: Iterable[Address], interfaces: tuple[str, ...], home: tuple[Address, ...]
) -> dict[Address, tuple[Link, ...]]:
    """The links at which each address is to be answered for, as things are now."""
    present = {link.index: link for link in links.list() if link.up and len(link.mac) == 17 and link.mac != _NO_MAC}
    networks = {link: list(found) for index, found in links.all_addresses().items() if (link := present.get(index))}
    if interfaces:
        named = tuple(link for link in present.values() if link.name in interfaces)
        return dict.fromkeys(addresses, named)
    return {address: fitting(address, networks, home) for address in addresses}


def answered_anyway(links: Links, addresses: Iterable[Address], root: Path = Path("/proc/sys")) -> list[Address]:
    """Those of the IPv4 addresses for which this node's kernel answers by itself, whoever has them: they are on one of
    its links (as with kube-proxy in mode ipvs), and arp_ignore lets it."""
    held = {one.ip for found in links.all_addresses().values() for one in found}
    at_risk: list[Address] = [address for address in addresses if address.version == 4 and address in held]
    if not at_risk or int((root / "net/ipv4/conf/all/arp_ignore").read_text()) > 0:
        return []
    return at_risk


def fitting(
    address: Address, networks: Mapping[Link, Collection[Interface]], home: tuple[Address, ...]
) -> tuple[Link, ...]:
    """The links with another address in the network of `address`; if there are none, those with one of `home`. Pure.

    A link that has the address itself only holds it (kube-proxy's kube-ipvs0)."""
    near = tuple(
        link for link, found in networks.items() if any(address in one.network and one.ip != address for one in found)
    )
    return near or tuple(link for link, found in networks.items() if any(one.ip in home for one in found))
