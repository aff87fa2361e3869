"""What the socket balancer may take over from the rules, and the order in which its maps change. Pure.

Stands between the service table and the maps. There are no transactions here: a socket may connect between any two
writes. Invariant: at every moment a connect finds an endpoint that was right before the change or is after it, or
nothing, and then the rules have it; after the change only endpoints that are right.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from fairlead.discovery.model import ServiceKey
from fairlead.linux.bpf.assembler import MapShape
from fairlead.proxy.claims import Watched
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.table import Forwarding, NodePlace, ServiceTable, Target

SERVICES, ENDPOINTS, MEMBERS = "services", "endpoints", "members"
ORIGINS, DATAGRAM_ORIGINS, FLOWS = "origins", "dgram_origins", "flows"

ORIGIN_SLOTS = 65536

SHAPES = {
    SERVICES: MapShape(20, 4),  # address, port, protocol → how many endpoints
    ENDPOINTS: MapShape(24, 20),  # …, slot → address, port
    MEMBERS: MapShape(40, 4),  # address, port, protocol, endpoint's address and port → 1
    # The socket's place → socket, endpoint's address and port, what was asked for. Sockets are numbered as they come,
    # so who has the place now is one of the last so many; a map that keeps the most recent would cost three quarters of
    # a connect's program.
    ORIGINS: MapShape(4, 48, recent=True, slots=True),
    DATAGRAM_ORIGINS: MapShape(32, 20, recent=True),  # socket, endpoint's address and port → what was asked for
    FLOWS: MapShape(32, 20, recent=True),  # socket, address, port, protocol → the endpoint chosen before
}

PROTOCOLS = {"TCP": 6, "UDP": 17}


class At(NamedTuple):
    """A virtual IP's port."""

    address: str
    protocol: str
    port: int


Targets = tuple[Target, ...]
Pieces = dict[At, Targets]


class Step(NamedTuple):
    """Writes to one map: elements put, or keys dropped."""

    map: str
    act: Literal["put", "drop"]
    elements: tuple[tuple[bytes, bytes], ...]


def pieces_of(options: ProxyOptions, place: NodePlace, entries: Iterable[Forwarding]) -> Pieces:
    """One Service's ports and where sockets of this node's pods go; no targets where the rules have to decide."""
    found: dict[At, Forwarding] = {}
    for entry in entries:
        if entry.is_node_port or entry.protocol not in PROTOCOLS:
            continue
        at = At(entry.address, entry.protocol, entry.port)
        if entry.sources == "any":
            found.setdefault(at, entry)
        elif _pods_are_told(place, entry):
            found[at] = entry
    return {at: entry.targets if _exact(options, entry) else () for at, entry in found.items()}


def _pods_are_told(place: NodePlace, entry: Forwarding) -> bool:
    """Whether the rules can tell pods from others: only then is the short cut for them."""
    pods = place.pods
    return bool(pods.interface) or any((":" in cidr) == (entry.family == "IPv6") for cidr in pods.cidrs)


def _exact(options: ProxyOptions, entry: Forwarding) -> bool:
    """Whether a connect to an endpoint, chosen anew, with the pod's own address, is just what the rules would do."""
    hidden = entry.masquerade == "always" or (options.masquerade_all and entry.via == "cluster IP")
    return entry.verdict == "forward" and not (entry.affinity_seconds or entry.allowed or hidden)


class Ledger:
    """Which targets each port should have, over all Services. Of two with one address, the first by name has it."""

    def __init__(self, options: ProxyOptions) -> None:
        self._options = options
        self._ports: Watched[At, Targets] = Watched()

    def replace(self, before: ServiceTable, after: ServiceTable, keys: Iterable[ServiceKey]) -> tuple[Step, ...]:
        """These Services' entries are replaced: the steps that make the maps so."""
        for key in keys:
            old = pieces_of(self._options, before.node, before.services.get(key, ()))
            new = pieces_of(self._options, after.node, after.services.get(key, ()))
            self._ports.replace(key, old, new)
        return tuple(_merged(steps_of({at: (old or (), new or ()) for at, (old, new) in self._ports.finish().items()})))

    def steps(self) -> tuple[Step, ...]:
        """The steps that fill empty maps."""
        return tuple(_merged(steps_of({at: ((), targets) for at, (_, targets) in self._ports.claims.held.items()})))

    @property
    def size(self) -> int:
        """How many elements the largest map has, at most, also in the middle of a change."""
        return sum(1 + len(targets) for _, targets in self._ports.claims.held.values())


def steps_of(changes: dict[At, tuple[Targets, Targets]]) -> Iterator[Step]:
    """From the old to the new targets of each port, in an order that holds the invariant: first less is promised, then
    endpoints are written, then more is promised, then what nobody asks for any more goes."""
    shrunk = [at for at, (old, new) in changes.items() if new and len(new) < len(old)]
    gone = [at for at, (old, new) in changes.items() if old and not new]
    grown = [at for at, (old, new) in changes.items() if len(new) > len(old)]
    yield Step(SERVICES, "drop", tuple((service_key(at), b"") for at in gone))
    puts, drops, come, leave = [], [], [], []
    for at, (old, new) in changes.items():
        key = service_key(at)
        puts += [
            (endpoint_key(at, slot), endpoint_value(target))
            for slot, target in enumerate(new)
            if slot >= len(old) or _place(old[slot]) != _place(target)
        ]
        drops += [(endpoint_key(at, slot), b"") for slot in range(len(new), len(old))]
        if at.protocol == "UDP":
            before, after = dict.fromkeys(map(endpoint_value, old)), dict.fromkeys(map(endpoint_value, new))
            come += [(key + value, _ONE) for value in after if value not in before]
            leave += [(key + value, b"") for value in before if value not in after]
    # An endpoint that leaves is overwritten where it was, and no flow may go on to it, before fewer are promised.
    yield Step(MEMBERS, "put", tuple(come))
    yield Step(ENDPOINTS, "put", tuple(puts))
    yield Step(MEMBERS, "drop", tuple(leave))
    yield Step(SERVICES, "put", tuple((service_key(at), _count(changes[at][1])) for at in (*shrunk, *grown)))
    yield Step(ENDPOINTS, "drop", tuple(drops))


def _merged(steps: Iterable[Step]) -> Iterator[Step]:
    return (step for step in steps if step.elements)


def _place(target: Target) -> tuple[str, int]:
    return target.address, target.port


_ONE = struct.pack("=I", 1)
_MAPPED = bytes(10) + b"\xff\xff"


def address_bytes(address: str) -> bytes:
    """16 bytes; an IPv4 address as sockets of IPv6 write it (RFC 4291 §2.5.5.2), so that those find it, too."""
    packed = ipaddress.ip_address(address).packed
    return packed if len(packed) == 16 else _MAPPED + packed


def service_key(at: At) -> bytes:
    """The key of SERVICES."""
    return address_bytes(at.address) + struct.pack("!H", at.port) + struct.pack("=H", PROTOCOLS[at.protocol])


def endpoint_key(at: At, slot: int) -> bytes:
    """The key of ENDPOINTS."""
    return service_key(at) + struct.pack("=I", slot)


def endpoint_value(target: Target) -> bytes:
    """The value of ENDPOINTS."""
    return address_bytes(target.address) + struct.pack("!HH", target.port, 0)


def _count(targets: Targets) -> bytes:
    return struct.pack("=I", len(targets))
