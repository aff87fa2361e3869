"""Packets → answers, so that a question asked before costs one look-up. Pure.

Stands before the chain of plugins. The key is a packet without its id, so flags, EDNS and the case of the name are part
of it; the value is an answer without its id. Invariants: an answer that depends on a (namespace, service) is gone once
that is forgotten, one that is kept briefly at the next `tick`; memory is bounded. It is a memo of the zone, not a
cache: nothing of the cluster's in it is ever older than the zone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from fairlead.dns.answer import Value

Depends = tuple[tuple[str, str], ...]
_Dependants = dict[str, dict[str, set[bytes]]]
MAX_KEY = 320  # bytes: a question of the longest name with an OPT record


class ByClient:
    """Two answers to one packet: `theirs` for the pods of `namespace`, whose resolver means something else by it, and
    `plain` for all others; None: not known."""

    __slots__ = ("namespace", "plain", "theirs")

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.plain: Value | None = None
        self.theirs: Value | None = None


Entry = Value | ByClient


class Mirror(Protocol):
    """Somebody who wants to know what `young` holds, and is told before it is gone."""

    def put(self, key: bytes, value: Entry) -> None:
        """It is remembered now."""

    def drop(self, key: bytes, value: Entry) -> None:
        """It is forgotten."""

    def clear(self, young: Mapping[bytes, Entry]) -> None:
        """All of it is."""


class Table:
    """Two generations. When `young` is full it becomes `old` and what was old is dropped; what is asked again moves to
    `young`. So what is used stays, and nothing is ever evicted one by one. `young` stays the same object: the server's
    loop looks into it directly, or through a `mirror`."""

    def __init__(self, size: int = 20_000) -> None:
        self.size = size
        self.young: dict[bytes, Entry] = {}
        self._old: dict[bytes, Entry] = {}
        self._young_dependants: _Dependants = {}
        self._old_dependants: _Dependants = {}
        self._depends: dict[bytes, Depends] = {}
        self.brief: list[bytes] = []
        self.mirror: Mirror | None = None

    def __len__(self) -> int:
        return len(self.young) + len(self._old)

    def recall(self, key: bytes) -> Entry | None:
        """The answer to a packet that is not in `young`, if it was known a generation ago."""
        value = self._old.pop(key, None)
        if value is not None:
            self.put(key, value, self._depends.get(key, ()))
        return value

    def put(self, key: bytes, value: Entry, depends: Depends = (), *, briefly: bool = False) -> None:
        """Remember an answer until what it depends on is forgotten; `briefly`: no longer than to the next `tick`."""
        if len(key) > MAX_KEY:
            return
        if len(self.young) >= self.size:
            self._age()
        if self.mirror is not None:
            if (before := self.young.get(key)) is not None:
                self.mirror.drop(key, before)
            self.mirror.put(key, value)
        self.young[key] = value
        if briefly:
            self.brief.append(key)
        if depends:
            self._depends[key] = depends
            for namespace, service in depends:
                self._young_dependants.setdefault(namespace, {}).setdefault(service, set()).add(key)

    def put_for(
        self, key: bytes, namespace: str, value: Value, depends: Depends, *, theirs: bool, briefly: bool = False
    ) -> None:
        """Remember an answer for the clients of a namespace (`theirs`), or for all but them."""
        entry = self.young.get(key)
        if not isinstance(entry, ByClient) or entry.namespace != namespace:
            entry = ByClient(namespace)
        if theirs:
            entry.theirs = value
        else:
            entry.plain = value
        self.put(key, entry, depends, briefly=briefly)

    def tick(self) -> None:
        """Forget what was kept briefly."""
        keys, self.brief = self.brief, []
        self._drop(keys)

    def _age(self) -> None:
        for key in self._old:
            self._depends.pop(key, None)
        self._old = dict(self.young)
        self._clear_young()
        self._old_dependants, self._young_dependants = self._young_dependants, {}

    def forget_service(self, namespace: str, service: str) -> None:
        """The Service changed, came or went."""
        for dependants in (self._young_dependants, self._old_dependants):
            services = dependants.get(namespace)
            if services is not None:
                self._drop(services.pop(service, ()))

    def forget_namespace(self, namespace: str) -> None:
        """The namespace came or went, and with it every name in it."""
        for dependants in (self._young_dependants, self._old_dependants):
            for keys in dependants.pop(namespace, {}).values():
                self._drop(keys)

    def _drop(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            value = self.young.pop(key, None)
            if value is not None and self.mirror is not None:
                self.mirror.drop(key, value)
            self._old.pop(key, None)
            for namespace, service in self._depends.pop(key, ()):
                for dependants in (self._young_dependants, self._old_dependants):
                    services = dependants.get(namespace)
                    found = services.get(service) if services is not None else None
                    if services is None or found is None:
                        continue
                    found.discard(key)
                    if not found:
                        del services[service]
                        if not services:
                            del dependants[namespace]

    def clear(self) -> None:
        """Forget everything."""
        self._clear_young()
        self._old.clear()
        self._young_dependants.clear()
        self._old_dependants.clear()
        self._depends.clear()
        self.brief.clear()

    def _clear_young(self) -> None:
        if self.mirror is not None:
            self.mirror.clear(self.young)
        self.young.clear()
