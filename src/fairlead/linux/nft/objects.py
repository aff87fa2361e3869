"""What a table holds, as values: chains with their rules, sets and maps with their elements.

Stands between whoever decides what a table should hold and the netlink codec. Invariant: two `TableState`s are equal
exactly if the kernel treats packets alike and lists the tables alike, but for the order of elements and for what
dynamic sets have learned.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from fairlead.linux.nft.datatypes import DataType, Fields
from fairlead.linux.nft.expressions import Expression, Verdict

NFPROTO_IPV4 = 2
NFPROTO_IPV6 = 10

FAMILIES = {"ip": NFPROTO_IPV4, "ip6": NFPROTO_IPV6}


class TableName(NamedTuple):
    """A table's identity: family (`ip` or `ip6`) and name."""

    family: str
    name: str


class Hook(NamedTuple):
    """Where a base chain is called from. `kind`: filter or nat. Its policy is always accept."""

    kind: Literal["filter", "nat"]
    point: Literal["prerouting", "input", "forward", "output", "postrouting"]
    priority: int


class Rule(msgspec.Struct, frozen=True):
    """One rule. The comment is shown in listings."""

    expressions: tuple[Expression, ...]
    comment: str = ""


class Chain(msgspec.Struct, frozen=True):
    """A chain with its rules in order; without a hook it is reached by jump or goto only."""

    name: str
    rules: tuple[Rule, ...] = ()
    hook: Hook | None = None


class Set(msgspec.Struct, frozen=True):
    """A set, or with `data` a map; `verdicts` says that its data are verdicts.

    `timeout_seconds` above 0 makes it dynamic: rules fill it, its elements are not part of a state.
    """

    name: str
    key: tuple[DataType, ...]
    data: tuple[DataType, ...] = ()
    verdicts: bool = False
    timeout_seconds: int = 0
    size: int = 0
    comment: str = ""


class Element(NamedTuple):
    """An element of a set (no data) or of a map. The comment is shown in listings."""

    key: Fields
    data: Fields | Verdict | None = None
    comment: str = ""


class TableState(msgspec.Struct):
    """All of one table. Mutable: it is the copy that follows the kernel."""

    chains: dict[str, Chain] = {}
    sets: dict[str, Set] = {}
    elements: dict[str, dict[Fields, Element]] = {}
    comment: str = ""
    whole: bool = True  # False: it holds objects of kinds or shapes this project never writes
