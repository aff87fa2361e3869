"""Which of the addresses are mine now: the rankings, and what was heard of the others. Pure; the clock is an argument.

The first of a ranking has the address. Only who has one beats, so a quiet LAN stays quiet; the others listen. A node
that does not claim, for `patience` seconds, what it is the first for is passed over, for that address; one of which
nothing at all was heard meanwhile is passed over for all. As soon as it is heard again, it has its right again.

Invariant: with the same ranking everywhere and every beat heard, an address has one owner after `patience` at most;
what is not heard, or not yet known, makes two owners for a moment and never none for longer than `patience` per
node that is gone and not yet known to be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from fairlead.announce.election import Address


class Claims:
    """One node's view. Times are seconds of one clock."""

    def __init__(self, me: str, patience: float) -> None:
        self._me, self._patience = me, patience
        self._since: dict[tuple[str, Address], float] = {}  # when a claim was heard last, or first missed
        self._heard: dict[str, float] = {}
        self._silent: set[str] = set()
        self._left: set[str] = set()

    def heard(self, node: str, addresses: Iterable[Address], now: float) -> None:
        """A beat: the node has these addresses."""
        self._heard[node] = now
        self._silent.discard(node)
        self._left.discard(node)
        for address in addresses:
            self._since[node, address] = now

    def left(self, node: str) -> None:
        """The node said that it stops answering; no need for patience."""
        self._left.add(node)

    def decide(self, rankings: Mapping[Address, tuple[str, ...]], now: float) -> tuple[frozenset[Address], float]:
        """The addresses that are mine, and when to decide again at the latest."""
        mine: set[Address] = set()
        again = math.inf
        asked: set[tuple[str, Address]] = set()
        for address, ranking in rankings.items():
            for node in ranking:
                if node == self._me:
                    mine.add(address)
                    break
                if node in self._left or node in self._silent:
                    continue
                asked.add((node, address))
                due = self._since.setdefault((node, address), now) + self._patience
                if now < due:
                    again = min(again, due)
                    break
                if now - self._heard.get(node, -math.inf) >= self._patience:
                    self._silent.add(node)
        for forgotten in self._since.keys() - asked:
            del self._since[forgotten]
        return frozenset(mine), again
