"""What columns and cells are made of: shared by every kind's table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import msgspec

from fairlead.api import times
from fairlead.api.errors import StatusError
from fairlead.api.selectors import LabelSelector

NONE = "<none>"
UNSET = "<unset>"
UNKNOWN = "<unknown>"

CellMaker = Callable[[dict[str, Any], datetime], list[Any]]


class Column(msgspec.Struct, frozen=True):
    """One column. Priority 0 is always shown, 1 only in wide output."""

    name: str
    description: str
    priority: int = 0
    type: str = "string"
    format: str = ""

    def definition(self) -> dict[str, Any]:
        """As the Table's `columnDefinitions` have it."""
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        }


def no_conditions(_: dict[str, Any]) -> list[dict[str, str]]:
    """Most rows have none."""
    return []


class Printer:
    """How one kind is printed: its columns, and the function from an object to its cells."""

    def __init__(
        self,
        columns: tuple[Column, ...],
        cells: CellMaker,
        conditions: Callable[[dict[str, Any]], list[dict[str, str]]] = no_conditions,
    ) -> None:
        self.definitions = [column.definition() for column in columns]
        self.cells, self.conditions = cells, conditions


NAME = Column("Name", "The object's name, unique in its namespace and kind.", format="name")
AGE = Column("Age", "How long ago the object was created.")


def name(obj: dict[str, Any]) -> str:
    """The object's name."""
    return str((obj.get("metadata") or {}).get("name") or "")


def since(text: str | None, now: datetime) -> str:
    """The age of a timestamp as people read it; `<unknown>` when there is none."""
    if not text:
        return UNKNOWN
    try:
        return times.human_duration(now - times.parse(text))
    except ValueError:
        return UNKNOWN


def age(obj: dict[str, Any], now: datetime) -> str:
    """The age of the object."""
    return since((obj.get("metadata") or {}).get("creationTimestamp"), now)


def pairs(labels: dict[str, str] | None) -> str:
    """`a=b,c=d` in order of keys, or `<none>`."""
    return ",".join(f"{key}={value or ''}" for key, value in sorted((labels or {}).items())) or NONE


def selector(value: dict[str, Any] | None) -> str:
    """A label selector as `-l` takes it, `<none>`, or `<error>` for one that selects nothing sensible."""
    try:
        return LabelSelector.of(value or {}).render() or NONE
    except StatusError:
        return "<error>"


def containers(template: dict[str, Any] | None) -> tuple[str, str]:
    """The names and the images of a pod template's containers, each joined by commas."""
    found = ((template or {}).get("spec") or {}).get("containers") or ()
    return ",".join(c.get("name") or "" for c in found), ",".join(c.get("image") or "" for c in found)


def listed(items: Iterable[str], *, at_most: int = 3) -> str:
    """`a,b,c + 2 more...`, or `<unset>` when there is nothing."""
    every = list(items)
    text = ",".join(every[:at_most])
    if len(every) > at_most:
        return f"{text} + {len(every) - at_most} more..."
    return text or UNSET


def plain() -> Printer:
    """For kinds without columns of their own: the name and when the object was created."""
    created = Column("Created At", "When the object was created.", type="date")
    return Printer((NAME, created), lambda obj, _: [name(obj), (obj.get("metadata") or {}).get("creationTimestamp")])
