"""Who wants what in the kernel, and what has become different about it. Pure.

Stands under the backends' ledgers. Two Services may want the same key (an address the API gave twice, an endpoint that
both have): the owner that sorts first has its way, the others wait for it to go. Invariant: the outcome depends only on
who wants what now, not on the order in which they came.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from fairlead.discovery.model import ServiceKey

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Claims(Generic[K, V]):
    """Who wants which value for a key. The owner that sorts first has its way; the others wait."""

    def __init__(self) -> None:
        self.held: dict[K, tuple[ServiceKey, V]] = {}
        self._rivals: dict[K, dict[ServiceKey, V]] = {}

    def claim(self, owner: ServiceKey, key: K, value: V) -> None:
        holder = self.held.get(key)
        if holder is None or holder[0] == owner:
            self.held[key] = (owner, value)
        elif owner < holder[0]:
            self._rivals.setdefault(key, {})[holder[0]] = holder[1]
            self.held[key] = (owner, value)
        else:
            self._rivals.setdefault(key, {})[owner] = value

    def release(self, owner: ServiceKey, key: K) -> None:
        rivals = self._rivals.get(key)
        if rivals is not None and owner in rivals:
            del rivals[owner]
        elif self.held[key][0] == owner:
            if rivals:
                heir = min(rivals)
                self.held[key] = (heir, rivals.pop(heir))
            else:
                del self.held[key]
        if rivals is not None and not rivals:
            del self._rivals[key]

    def value(self, key: K) -> V | None:
        holder = self.held.get(key)
        return None if holder is None else holder[1]


class Watched(Generic[K, V]):
    """Claims, and what has become different about them since `begin`."""

    def __init__(self) -> None:
        self.claims: Claims[K, V] = Claims()
        self.before: dict[K, V | None] = {}

    def replace(self, owner: ServiceKey, old: dict[K, V], new: dict[K, V]) -> None:
        for key, value in old.items():
            if new.get(key) != value:
                self.before.setdefault(key, self.claims.value(key))
                if key not in new:
                    self.claims.release(owner, key)
        held, before = self.claims.held, self.before
        for key, value in new.items():
            if old.get(key) == value:
                continue
            holder = held.get(key)
            if holder is None:  # as nearly always when Services come, so without calls
                before.setdefault(key, None)
                held[key] = (owner, value)
            else:
                before.setdefault(key, holder[1])
                self.claims.claim(owner, key, value)

    def dismiss(self) -> None:
        """Nobody asks what has become different."""
        self.before = {}

    def finish(self) -> dict[K, tuple[V | None, V | None]]:
        found = {}
        for key, old in self.before.items():
            new = self.claims.value(key)
            if old != new:
                found[key] = (old, new)
        self.before = {}
        return found
