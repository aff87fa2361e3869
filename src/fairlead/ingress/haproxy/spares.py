"""Backends in reserve: a Service that nobody routed to before is served without a reload. ◆ Pure.

HAProxy's backends are made when it starts. So its configuration holds some that stand for no Service yet; a new one
gets the next of them, by name in the maps, and its endpoints by commands. In: what is loaded and which sections a table
has. Out: what will be loaded. Invariant: a section has one backend at a time, and a backend one section.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from fairlead.ingress.servers import Place
from fairlead.ingress.table import Section, section_name

COUNT = 24
PLACES = 12
"""How many there are, and how many endpoints each has room for: 2 MB of memory, and a release of that many new Services
meets no reload."""

FREE = tuple(Place() for _ in range(PLACES))


class Loaded(msgspec.Struct, frozen=True):
    """What the running HAProxy has: backends of their own for `sections`, and reserves, some of them `lent`."""

    sections: frozenset[Section] = frozenset()
    lent: Mapping[Section, str] = {}

    @property
    def names(self) -> dict[Section, str]:
        """Every section that has a backend, and its name."""
        return {section: section_name(section) for section in self.sections} | dict(self.lent)

    @property
    def reserves(self) -> tuple[str, ...]:
        """The names of the reserves that stand for nothing."""
        taken = set(self.lent.values())
        return tuple(name for name in RESERVES if name not in taken)


RESERVES = tuple(f"reserve-{number}" for number in range(1, COUNT + 1))


def ordinary(section: Section) -> bool:
    """Whether a reserve can stand for it: a Service's port, treated in no special way."""
    return section.service is not None and section == Section(section.service, section.port, section.number)


def settle(before: Loaded, wanted: Iterable[Section]) -> Loaded | None:
    """The same backends for a table with these sections; None if it takes others. What a table has no more keeps its
    backend, but a reserve only until another needs it."""
    sections = set(wanted)
    lent = {section: name for section, name in before.lent.items() if section in sections}
    new = sorted((s for s in sections - before.sections if s not in lent), key=section_name)
    free = [name for name in RESERVES if name not in lent.values()]
    if len(new) > len(free) or not all(ordinary(section) for section in new):
        return None
    return Loaded(before.sections, lent | dict(zip(new, free, strict=False)))


def afresh(wanted: Iterable[Section]) -> Loaded:
    """Backends of their own for all, and all reserves free: what a reload makes."""
    return Loaded(frozenset(wanted))
