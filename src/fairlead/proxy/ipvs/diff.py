"""From what is and what should be to changes of virtual servers, addresses and sets. Pure.

Invariant: carrying out the changes in their order leads from the state that was compared to the wanted one, and no
virtual server stands at an address before its sets say who may reach it. A destination that leaves while it has
connections gets weight 0, and goes when they have ended (graceful removal).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fairlead.discovery.model import ServiceKey
from fairlead.linux.ipset import Element
from fairlead.linux.ipvs import (
    Address,
    Change,
    Destination,
    DropDestination,
    DropServer,
    Load,
    NewServer,
    PutDestination,
    Server,
    Table,
)
from fairlead.proxy.claims import Watched
from fairlead.proxy.ipvs.desired import Piece
from fairlead.proxy.ipvs.layout import TYPES


class Changes(msgspec.Struct):
    """In the order they are to be carried out: elements in, addresses in, servers, addresses out, elements out."""

    added: dict[str, list[Element]] = {}
    addresses: list[str] = []
    servers: list[Change] = []
    addresses_gone: list[str] = []
    removed: dict[str, list[Element]] = {}

    def __len__(self) -> int:
        elements = sum(map(len, self.added.values())) + sum(map(len, self.removed.values()))
        return elements + len(self.addresses) + len(self.servers) + len(self.addresses_gone)


Wanted = tuple[Server, frozenset[Destination]]


class Ledger:
    """What should be there, kept up to date piece by piece."""

    def __init__(self) -> None:
        self._servers: Watched[Address, Wanted] = Watched()
        self._addresses: Watched[str, bool] = Watched()
        self._elements: Watched[tuple[str, Element], bool] = Watched()

    def replace(self, replaced: Iterable[tuple[ServiceKey, Piece, Piece]]) -> None:
        """Owners' pieces are replaced: (owner, old piece, new piece)."""
        for owner, old, new in replaced:
            self._servers.replace(owner, old.servers, new.servers)
            self._addresses.replace(owner, dict.fromkeys(old.addresses, True), dict.fromkeys(new.addresses, True))
            self._elements.replace(owner, dict.fromkeys(old.elements, True), dict.fromkeys(new.elements, True))

    def finish(self) -> tuple[dict[Address, tuple[Wanted | None, Wanted | None]], Changes]:
        """What has become different: servers before and after, all else as changes."""
        changes = Changes()
        for address, (_, new) in self._addresses.finish().items():
            (changes.addresses if new else changes.addresses_gone).append(address)
        for (name, element), (_, present) in self._elements.finish().items():
            (changes.added if present else changes.removed).setdefault(name, []).append(element)
        return self._servers.finish(), changes

    def servers(self) -> dict[Address, Wanted]:
        """Every virtual server."""
        return {at: wanted for at, (_, wanted) in self._servers.claims.held.items()}

    def addresses(self) -> set[str]:
        """Every address of the dummy link."""
        return set(self._addresses.claims.held)

    def elements(self) -> dict[str, set[Element]]:
        """Every set with its elements."""
        found: dict[str, set[Element]] = {name: set() for name in TYPES}
        for name, element in self._elements.claims.held:
            found[name].add(element)
        return found


def server_changes(
    at: Address, present: tuple[Server, dict[Destination, Load]] | None, wanted: Wanted | None
) -> list[Change]:
    """From the virtual server that is there to the one that should be."""
    if wanted is None:
        return [] if present is None else [DropServer(at)]
    server, destinations = wanted
    changes: list[Change] = []
    held: dict[Destination, Load] = {}
    if present is None:
        changes.append(NewServer(at, server))
    else:
        held = present[1]
        if present[0] != server:
            changes.append(NewServer(at, server, known=True))
    for destination in sorted(destinations):
        load = held.get(destination)
        if load is None:
            changes.append(PutDestination(at, destination))
        elif load.weight != 1:
            changes.append(PutDestination(at, destination, known=True))
    for destination, load in held.items():
        if destination in destinations:
            continue
        if at.protocol == "TCP" and load.active + load.inactive:
            if load.weight:
                changes.append(PutDestination(at, destination, 0, known=True))
        else:
            changes.append(DropDestination(at, destination))
    return changes


def is_end_of_leaving(change: Change, present: Table) -> bool:
    """Whether the change only takes away a destination that had no weight any more and has no connections left."""
    if not isinstance(change, DropDestination):
        return False
    load = present[change.at][1][change.destination]
    return not (load.weight or load.active or load.inactive)
