"""From what is and what should be to a transaction. Pure.

Two ways lead to a `Delta`: comparing two whole states (at start, after a stranger's change), and the `Ledger`, which
turns a change of some services' pieces into the delta of the whole at the cost of those pieces. `transaction` puts a
delta into the order the kernel accepts. Invariant: `apply(transaction(delta(a, b)), a) == b`; `delta(a, a)` is empty.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TypeVar

import msgspec

from fairlead.discovery.model import ServiceKey
from fairlead.linux.nft.datatypes import Fields
from fairlead.linux.nft.objects import Chain, Element, Set, TableState
from fairlead.linux.nft.transaction import (
    AddElements,
    Change,
    DropChain,
    DropElements,
    DropSet,
    DropTable,
    PutChain,
    PutSet,
    PutTable,
    SetRules,
    Transaction,
)
from fairlead.proxy.claims import Watched
from fairlead.proxy.nftables.desired import VACANT, Piece

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Delta(msgspec.Struct):
    """What differs: before and after, by name; None where there is nothing."""

    chains: dict[str, tuple[Chain | None, Chain | None]] = {}
    sets: dict[str, tuple[Set | None, Set | None]] = {}
    elements: dict[str, dict[Fields, tuple[Element | None, Element | None]]] = {}

    def __bool__(self) -> bool:
        return bool(self.chains or self.sets or self.elements)


def _differing(before: dict[K, V], after: dict[K, V]) -> dict[K, tuple[V | None, V | None]]:
    found: dict[K, tuple[V | None, V | None]] = {}
    for key, old in before.items():
        new = after.get(key)
        if new != old:
            found[key] = (old, new)
    for key, new in after.items():
        if key not in before:
            found[key] = (None, new)
    return found


def delta(before: TableState, after: TableState) -> Delta:
    """What differs between two states."""
    elements = {}
    for name in before.elements.keys() | after.elements.keys():
        found = _differing(before.elements.get(name, {}), after.elements.get(name, {}))
        if found:
            elements[name] = found
    return Delta(_differing(before.chains, after.chains), _differing(before.sets, after.sets), elements)


def needs_rebuild(d: Delta, before: TableState) -> bool:
    """Whether only a new table will do: a set or a base chain would have to change what it is."""
    if not before.whole:
        return True
    for old, new in d.sets.values():
        if old is not None and new is not None:
            return True
    return any(old is not None and new is not None and old.hook != new.hook for old, new in d.chains.values())


def transaction(d: Delta, known_sets: dict[str, Set]) -> Transaction:
    """The changes that make a delta true. `known_sets`: the sets that exist before or after, by name."""
    changes: list[Change] = []
    changes += [PutSet(new) for old, new in d.sets.values() if old is None and new is not None]
    fresh = [new for old, new in d.chains.values() if old is None and new is not None]
    changes += _new_chains([chain for chain in fresh if chain.hook is None])
    for old, new in d.chains.values():
        if old is not None and new is not None:
            changes.append(SetRules(new.name, new.rules))
    for name, found in d.elements.items():
        gone_with_set = name in d.sets and d.sets[name][1] is None and not known_sets[name].verdicts
        keys = tuple(key for key, (old, _) in found.items() if old is not None)
        if keys and not gone_with_set:
            changes.append(DropElements(known_sets[name], keys))
    for name in sorted(d.elements, key=lambda name: _urgency(known_sets[name])):
        added = tuple(new for _, new in d.elements[name].values() if new is not None)
        if added:
            changes.append(AddElements(known_sets[name], added))
    # Packets meet a new table only when all is in it, also if the transaction has to be cut.
    changes += _new_chains([chain for chain in fresh if chain.hook is not None])
    # Rules of one chain may lead to another: all are emptied before the first goes.
    gone = [old for old, new in d.chains.values() if old is not None and new is None]
    changes += [SetRules(chain.name, ()) for chain in gone if chain.rules]
    changes += [DropChain(chain.name) for chain in gone]
    changes += [DropSet(old.name) for old, new in d.sets.values() if old is not None and new is None]
    return tuple(changes)


def _new_chains(chains: list[Chain]) -> list[Change]:
    rules: list[Change] = [SetRules(chain.name, chain.rules, fresh=True) for chain in chains if chain.rules]
    return [*(PutChain(chain) for chain in chains), *rules]


def _urgency(entry: Set) -> int:
    """Endpoints before what leads to them (verdicts, and ports in sets), and this before the sets of addresses, where
    what is left is refused."""
    return 0 if entry.data else 1 if entry.verdicts or len(entry.key) > 1 else 2


def reconcile(before: TableState | None, after: TableState) -> Transaction:
    """The changes from what the kernel holds to what it should hold; empty if there are none."""
    if before is not None:
        d = delta(before, after)
        if not d and before.whole:
            return ()
        if not needs_rebuild(d, before):
            return transaction(d, {**before.sets, **after.sets})
    start: tuple[Change, ...] = (PutTable(after.comment),)
    if before is not None:
        start = (PutTable(), DropTable(), PutTable(after.comment))
    return start + transaction(delta(TableState(), after), after.sets)


class Ledger:
    """The desired table, kept up to date piece by piece."""

    def __init__(self) -> None:
        self._chains: Watched[str, Chain] = Watched()
        self._sets: Watched[str, Set] = Watched()
        self._elements: dict[str, Watched[Fields, Element]] = {}

    def replace(self, replaced: Iterable[tuple[ServiceKey, Piece, Piece]]) -> Delta:
        """Owners' pieces are replaced: (owner, old piece, new piece). Returns what that changes in the whole."""
        touched = self._claim(replaced)
        elements = {name: found for name in sorted(touched) if (found := _present(self._elements[name].finish()))}
        return Delta(self._chains.finish(), self._sets.finish(), elements)

    def take(self, replaced: Iterable[tuple[ServiceKey, Piece, Piece]]) -> None:
        """As `replace`, for whoever compares the whole anyway."""
        for name in self._claim(replaced):
            self._elements[name].dismiss()
        self._chains.dismiss()
        self._sets.dismiss()

    def _claim(self, replaced: Iterable[tuple[ServiceKey, Piece, Piece]]) -> set[str]:
        """The sets in which something may be different now."""
        touched: set[str] = set()
        for owner, old, new in replaced:
            self._chains.replace(owner, {c.name: c for c in old.chains}, {c.name: c for c in new.chains})
            self._sets.replace(owner, {s.name: s for s in old.sets}, {s.name: s for s in new.sets})
            before, after = _by_set(old), _by_set(new)
            for name in before.keys() | after.keys():
                watched = self._elements.get(name)
                if watched is None:
                    watched = self._elements[name] = Watched()
                watched.replace(owner, before.get(name, {}), after.get(name, {}))
                touched.add(name)
        return touched

    def set(self, name: str) -> Set | None:
        """The set of that name, as it should be."""
        return self._sets.claims.value(name)

    def chain(self, name: str) -> Chain | None:
        """The chain of that name, as it should be."""
        return self._chains.claims.value(name)

    def state(self, comment: str = "") -> TableState:
        """The whole desired table."""
        chains = {name: chain for name, (_, chain) in self._chains.claims.held.items()}
        sets = {name: entry for name, (_, entry) in self._sets.claims.held.items()}
        elements: dict[str, dict[Fields, Element]] = {n: {} for n, s in sets.items() if not s.timeout_seconds}
        for name, watched in self._elements.items():
            if name in sets:
                held = watched.claims.held.items()
                elements[name] = {key: element for key, (_, element) in held if element.data != VACANT}
        return TableState(chains, sets, elements, comment)


def _present(
    found: dict[Fields, tuple[Element | None, Element | None]],
) -> dict[Fields, tuple[Element | None, Element | None]]:
    """What becomes different in the kernel, which knows nothing of vacant keys."""
    real = {}
    for key, (old, new) in found.items():
        before = old if old is None or old.data != VACANT else None
        after = new if new is None or new.data != VACANT else None
        if before != after:
            real[key] = (before, after)
    return real


def _by_set(piece: Piece) -> dict[str, dict[Fields, Element]]:
    found: dict[str, dict[Fields, Element]] = {}
    for name, element in piece.elements:
        found.setdefault(name, {})[element.key] = element
    return found
