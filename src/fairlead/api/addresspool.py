"""The addresses that Services of type LoadBalancer may get: ranges, as a flag names them. Pure.

Stands under `loadbalancer_plan`. Invariant: ranges do not overlap, so an address is in at most one of them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Container
from typing import NamedTuple

import msgspec

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Range(NamedTuple):
    """All addresses from `first` to `last`, both included; `text` is how it was written."""

    first: Address
    last: Address
    text: str

    def __contains__(self, address: object) -> bool:
        return (
            isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address)
            and address.version == self.first.version
            and int(self.first) <= int(address) <= int(self.last)
        )

    @property
    def size(self) -> int:
        """How many addresses."""
        return int(self.last) - int(self.first) + 1


class Pool(msgspec.Struct, frozen=True):
    """Ranges, in the order in which they are used up."""

    ranges: tuple[Range, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __str__(self) -> str:
        return ", ".join(entry.text for entry in self.ranges)

    def __contains__(self, address: object) -> bool:
        return any(address in entry for entry in self.ranges)

    def size(self, version: int) -> int:
        """How many addresses of that IP version there are."""
        return sum(entry.size for entry in self.ranges if entry.first.version == version)

    def first_free(self, version: int, taken: Container[Address]) -> Address | None:
        """The first address of that IP version that is not taken; None if all are. Takes as long as many are taken."""
        for entry in self.ranges:
            if entry.first.version != version:
                continue
            for number in range(int(entry.first), int(entry.last) + 1):
                address = type(entry.first)(number)
                if address not in taken:
                    return address
        return None


def parse_pool(text: str) -> Pool:
    """`A.B.C.D-E.F.G.H` and CIDRs, of either family, separated by commas. Raises ValueError that names the range."""
    ranges: list[Range] = []
    for part in (piece.strip() for piece in text.split(",")):
        if not part:
            continue
        made = _range(part)
        for other in ranges:
            if made.first in other or other.first in made:
                raise ValueError(f"{made.text} overlaps {other.text}")
        ranges.append(made)
    if not ranges:
        raise ValueError("no range of addresses is named; write e.g. 192.0.2.200-192.0.2.250 or 192.0.2.192/26")
    return Pool(tuple(ranges))


def _range(text: str) -> Range:
    try:
        first, dash, last = text.partition("-")
        if dash:
            low, high = ipaddress.ip_address(first.strip()), ipaddress.ip_address(last.strip())
            if low.version != high.version:
                raise ValueError(f"{low} and {high} are of different families")
            if int(low) > int(high):
                raise ValueError(f"{low} comes after {high}")
        else:
            network = ipaddress.ip_network(text)
            low, high = network[0], network[-1]
    except ValueError as error:
        raise ValueError(f"{text!r} is no range of addresses: {error}") from None
    for address in (low, high):
        if address.is_multicast or address.is_loopback or address.is_unspecified:
            raise ValueError(f"{text!r} is no range of addresses: {address} can be no load balancer's")
    return Range(low, high, text)
