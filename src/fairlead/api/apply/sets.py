"""Sets of fields, kept in the form in which the API shows them: nested `fieldsV1` dicts.

A key is a path element: `f:name` a member, `k:{"name":"web"}` an item by its keys, `v:"x"` an item by its value. A path
is in the set if its node is empty, or holds `.`; other nodes only lead to deeper ones. The root is in no set.
Between `compare` (which makes them) and `owners` (which gives and takes them). Pure: operations give new sets that may
share parts with the old ones, and give the very same object back where nothing changes; nobody changes a set in place.
Invariant: no node but a member is without children.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

Fields = dict[str, Any]

MEMBER: Fields = {}
"""The node of a path that is in the set, with nothing below."""


def is_member(node: Fields | None) -> bool:
    """Whether the path of this node is in the set."""
    return node is not None and (not node or "." in node)


def union(a: Fields, b: Fields) -> Fields:
    """What is in `a` or in `b`."""
    if not b or a is b:
        return a
    if not a:
        return b
    made: Fields | None = None
    for element, theirs in b.items():
        mine = a.get(element)
        if mine is None:
            joined = theirs
        elif element == ".":
            continue
        else:
            joined = _union_nodes(mine, theirs)
            if joined is mine:
                continue
        if made is None:
            made = dict(a)
        made[element] = joined
    return a if made is None else made


def _union_nodes(a: Fields, b: Fields) -> Fields:
    if not a and not b:
        return a
    if not a:
        return b if "." in b else {".": MEMBER, **b}
    if not b:
        return a if "." in a else {".": MEMBER, **a}
    return union(a, b)


def difference(a: Fields, b: Fields) -> Fields:
    """What is in `a` and not in `b`."""
    if not b:
        return a
    made: Fields | None = None
    for element, theirs in b.items():
        mine = a.get(element)
        if mine is None or element == ".":
            continue
        left = _subtract(mine, theirs)
        if left is mine:
            continue
        if made is None:
            made = dict(a)
        if left is None:
            del made[element]
        else:
            made[element] = left
    return a if made is None else made


def _subtract(a: Fields, b: Fields) -> Fields | None:
    taken = not b or "." in b
    if not a:
        return None if taken else a
    children = difference(a, b)
    if taken and "." in children:
        children = {element: node for element, node in children.items() if element != "."}
        return children or None
    if len(children) == 1 and "." in children:
        return MEMBER
    return children or None


def intersection(a: Fields, b: Fields) -> Fields:
    """What is in both."""
    made: Fields = {}
    for element, mine in a.items():
        theirs = b.get(element)
        if theirs is None or element == ".":
            continue
        both = intersection(mine, theirs) if mine and theirs else {}
        if is_member(mine) and is_member(theirs):
            made[element] = {".": MEMBER, **both} if both else MEMBER
        elif both:
            made[element] = both
    return made


def paths(fields: Fields) -> Iterator[str]:
    """Every path in the set, as messages write it: `.spec.ports[port=80,protocol="TCP"].name`."""
    return _paths(fields, "")


def _paths(fields: Fields, prefix: str) -> Iterator[str]:
    for element in sorted(fields):
        if element == ".":
            continue
        node = fields[element]
        path = prefix + render_element(element)
        if is_member(node):
            yield path
        yield from _paths(node, path)


def render_element(element: str) -> str:
    """One path element as messages write it."""
    kind, text = element[:2], element[2:]
    if kind == "f:":
        return f".{text}"
    if kind == "k:":
        keys = orjson.loads(text)
        return "[" + ",".join(f"{key}={orjson.dumps(keys[key]).decode()}" for key in sorted(keys)) + "]"
    if kind == "v:":
        return f"[={text}]"
    return f"[{text}]"


def is_sound(fields: Any) -> bool:
    """Whether a decoded `fieldsV1` is a set: dicts throughout, with path elements for keys."""
    if type(fields) is not dict:
        return False
    for element, node in fields.items():
        if element == ".":
            if node != {}:
                return False
            continue
        kind, text = element[:2], element[2:]
        if kind == "k:":
            if not _is_json(text, dict):
                return False
        elif kind == "v:":
            if not _is_json(text, object):
                return False
        elif kind == "i:":
            if not text.isdecimal():
                return False
        elif kind != "f:":
            return False
        if not is_sound(node):
            return False
    return True


def _is_json(text: str, wanted: type) -> bool:
    try:
        return isinstance(orjson.loads(text), wanted)
    except orjson.JSONDecodeError:
        return False
