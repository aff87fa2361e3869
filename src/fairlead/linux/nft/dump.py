"""What the kernel says a table holds, read into values: the inverse of `transaction`'s rendering.

Stands between the socket and whoever compares. Invariant: `parse_…(render_…(x)) == x`; what this project never writes
does not parse to anything it writes, and marks the state as not whole.
"""

from __future__ import annotations

import struct

from fairlead.linux.netlink import attribute_map, attributes
from fairlead.linux.nft import datatypes, transaction
from fairlead.linux.nft.datatypes import Fields, parse_fields, parse_types
from fairlead.linux.nft.expressions import Verdict, parse_expressions, parse_verdict
from fairlead.linux.nft.objects import Chain, Element, Hook, Rule, Set

_POINTS = {number: name for name, number in transaction.HOOK_POINTS.items()}
_SET_KNOWN_FLAGS = transaction.SET_MAP | transaction.SET_TIMEOUT | transaction.SET_EVAL


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _user_data(data: bytes) -> dict[int, bytes]:
    found, position = {}, 0
    while position + 2 <= len(data):
        kind, length = data[position], data[position + 1]
        found[kind] = data[position + 2 : position + 2 + length]
        position += 2 + length
    return found


def table_of(payload: bytes) -> tuple[int, str]:
    """The family and the table a message of any kind is about; an empty name if it names none."""
    name = ""
    for kind, data in attributes(payload[4:]):
        if kind == 1:
            name = _text(data)
            break
    return payload[0], name


def parse_table_comment(payload: bytes) -> str:
    """The comment of a NEWTABLE message."""
    user = _user_data(attribute_map(payload[4:]).get(6, b""))
    return _text(user.get(0, b""))


def parse_chain(payload: bytes) -> tuple[str, Chain | None]:
    """(table, chain without rules) of a NEWCHAIN message; None for a kind of base chain this project never makes."""
    values = attribute_map(payload[4:])
    table, name = _text(values[1]), _text(values[3])
    if 4 not in values:
        return table, Chain(name)
    hook = attribute_map(values[4])
    kind, point = _text(values.get(7, b"filter")), _POINTS.get(_number(hook[1]))
    if kind not in ("filter", "nat") or point is None or _number(values.get(5, b"\1")) != 1:
        return table, None
    priority = struct.unpack("!i", hook[2])[0]
    return table, Chain(name, (), Hook(kind, point, priority))  # type: ignore[arg-type]


def parse_rule(payload: bytes) -> tuple[str, str, Rule]:
    """(table, chain, rule) of a NEWRULE message."""
    values = attribute_map(payload[4:])
    user = _user_data(values.get(7, b""))
    rule = Rule(parse_expressions(values.get(4, b"")), _text(user.get(0, b"")))
    return _text(values[1]), _text(values[2]), rule


def parse_set(payload: bytes) -> tuple[str, str, Set | None]:
    """(table, name, set) of a NEWSET message; None for the set if its shape is not one this project writes."""
    values = attribute_map(payload[4:])
    table, name = _text(values[1]), _text(values[2])
    flags = _number(values.get(3, b""))
    user = _user_data(values.get(13, b""))
    key = parse_types(_number(values[4]), user.get(transaction.UDATA_KEY_TYPEOF, b""))
    data: tuple[datatypes.DataType, ...] | None = ()
    verdicts = False
    if flags & transaction.SET_MAP:
        verdicts = _number(values[6]) == transaction.DATA_VERDICT
        if not verdicts:
            data = parse_types(_number(values[6]), user.get(transaction.UDATA_DATA_TYPEOF, b""))
    size = attribute_map(values.get(9, b"")).get(1, b"")
    dynamic = flags & (transaction.SET_EVAL | transaction.SET_TIMEOUT)
    timeout = _number(values.get(11, b""))
    both = transaction.SET_EVAL | transaction.SET_TIMEOUT
    if key is None or data is None or flags & ~_SET_KNOWN_FLAGS or dynamic not in (0, both) or timeout % 1000:
        return table, name, None
    comment = _text(user.get(transaction.UDATA_SET_COMMENT, b""))
    return table, name, Set(name, key, data, verdicts, timeout // 1000, _number(size), comment)


def parse_element(entry: Set, data: bytes) -> Element:
    """One NFTA_LIST_ELEM of a set of that shape."""
    key: Fields = ()
    value: Fields | Verdict | None = None
    comment = ""
    for kind, body in attributes(data):
        if kind == 1:
            key = parse_fields(entry.key, body[4:])
        elif kind == 2:
            value = parse_verdict(body[4:]) if entry.verdicts else parse_fields(entry.data, body[4:])
        elif kind == 6:
            comment = _text(_user_data(body).get(0, b""))
    return Element(key, value, comment)


def parse_elements(entry: Set, payload: bytes) -> list[Element]:
    """The elements of a NEWSETELEM message."""
    listed = attribute_map(payload[4:]).get(3, b"")
    return [parse_element(entry, body) for _, body in attributes(listed)]
