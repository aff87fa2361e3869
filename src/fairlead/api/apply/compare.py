"""Which fields an object has, and which differ between two: objects to sets of fields, along their shape.

Between `shapes` and `owners`. Written for speed: every write of every object passes here, so equal parts are found
equal by one comparison of dicts and never walked. Invariant: `changes(shape, x, x)` is empty; the fields of a new part
are exactly those that its removal removes, and more (a removal also names the structs on the way).
"""

from __future__ import annotations

from typing import Any

from fairlead.api.apply.sets import MEMBER, Fields
from fairlead.api.apply.shapes import DICTS, KEYED, LEAF, LISTS, MAP, Shape

Object = dict[str, Any]

APPLIED, ADDED, REMOVED = range(3)
"""Which parents count as fields of their own: those of lists' items; of maps and lists, too; all."""


def fields_of(shape: Shape, obj: Object, mode: int = APPLIED, without: tuple[str, ...] = ()) -> Fields:
    """The fields of a whole object; `without` some at its root."""
    whole = _members(shape, obj, mode)
    for name in without:
        whole.pop(f"f:{name}", None)
    if not whole.get("f:metadata", whole):
        del whole["f:metadata"]  # there is nothing in it that can be owned
    if mode != APPLIED:
        whole.pop(".", None)
    return whole


def _members(shape: Shape, value: dict[str, Any], mode: int) -> Fields:
    fields, item = shape.fields, shape.item
    found: Fields = {}
    if mode and (item is not None or mode == REMOVED) and value:
        found["."] = MEMBER
    for name, member in value.items():
        known = fields.get(name)
        if known is not None:
            element, inner = known
            found[element] = MEMBER if inner.form == LEAF else _fields(inner, member, mode)
        elif item is not None:
            node = MEMBER if item.form == LEAF else _fields(item, member, mode)
            if node and "." not in node:
                node["."] = MEMBER
            found[f"f:{name}"] = node
    return found


def _fields(shape: Shape, value: Any, mode: int) -> Fields:
    """The node of a value: empty for one that is a field itself. Always a dict of its own unless empty."""
    form = shape.form
    if form == LEAF:
        return MEMBER
    if form in DICTS:
        return _members(shape, value, mode) if type(value) is dict and value else MEMBER
    if type(value) is not list or not value:
        return MEMBER
    found: Fields = {".": MEMBER} if mode else {}
    key_of, item = shape.key_of, shape.item
    if form == KEYED and item is not None and item.form != LEAF:
        for each in value:
            element = key_of(each)
            if element in found:
                found[element] = MEMBER  # twice the same key: one field, whole
            else:
                node = found[element] = _members(item, each, mode) if type(each) is dict else {}
                node["."] = MEMBER
    else:
        for each in value:
            found[key_of(each)] = MEMBER
    return found


def without_empty_lists(fields: Fields, shape: Shape, obj: Object) -> Fields:
    """A set without associative lists that have no items: an applier does not own those."""
    made = fields
    for name, value in obj.items():
        known = shape.fields.get(name)
        element, inner = known if known is not None else (f"f:{name}", shape.item)
        if inner is None or element not in fields:
            continue
        if inner.form in LISTS and value == []:
            made = {key: node for key, node in made.items() if key != element}
        elif inner.form == MAP and type(value) is dict and fields[element]:
            node = without_empty_lists(fields[element], inner, value)
            if node is not fields[element]:
                made = {**made, element: node}
                if not node:
                    del made[element]
    return made


def changes(shape: Shape, old: Object, new: Object) -> tuple[Fields, Fields]:
    """What is new or different, and what is gone, from `old` to `new`."""
    changed: Fields = {}
    removed: Fields = {}
    _compare_members(shape, old, new, changed, removed)
    return changed, removed


def _compare_members(shape: Shape, old: Object, new: Object, changed: Fields, removed: Fields) -> None:
    fields, item = shape.fields, shape.item
    for name, after in new.items():
        before = old.get(name)
        if before == after and before is not None:
            continue
        known = fields.get(name)
        if known is not None:
            element, inner = known
        elif item is not None:
            element, inner = f"f:{name}", item
        else:
            continue
        if before is None:
            node = _fields(inner, after, ADDED)
            changed[element] = node if known is not None or not node or "." in node else {".": MEMBER, **node}
        else:
            _compare(inner, element, (before, after), changed, removed)
    for name, before in old.items():
        if name in new:
            continue
        known = fields.get(name)
        if known is not None:
            removed[known[0]] = _fields(known[1], before, REMOVED)
        elif item is not None:
            removed[f"f:{name}"] = _fields(item, before, REMOVED)


def _compare(shape: Shape, element: str, pair: tuple[Any, Any], changed: Fields, removed: Fields) -> None:
    """Compare two different values at `element`; what differs goes into the sets of the level above."""
    form = shape.form
    before, after = pair
    if form != LEAF:
        fresh: Fields = {}
        gone: Fields = {}
        if form in DICTS:
            apart = type(before) is dict and type(after) is dict
            if apart:
                _compare_members(shape, before, after, fresh, gone)
        else:
            apart = type(before) is list and type(after) is list
            if apart:
                _compare_items(shape, before, after, fresh, gone)
        if apart:
            if fresh:
                changed[element] = fresh
            if gone:
                removed[element] = gone
            return
    changed[element] = MEMBER


def _compare_items(shape: Shape, before: list[Any], after: list[Any], changed: Fields, removed: Fields) -> None:
    was, now = grouped(shape, before), grouped(shape, after)
    item = shape.item
    assert item is not None
    for element, items in now.items():
        old = was.get(element)
        if old == items:
            continue
        if old is None:
            node = _fields(item, items[0], ADDED) if len(items) == 1 else MEMBER
            changed[element] = {**node, ".": MEMBER} if node else MEMBER
        elif len(items) == 1 and len(old) == 1:
            _compare(item, element, (old[0], items[0]), changed, removed)
        else:
            changed[element] = MEMBER
    for element, items in was.items():
        if element not in now:
            removed[element] = _fields(item, items[0], REMOVED) if len(items) == 1 else MEMBER


def grouped(shape: Shape, items: list[Any]) -> dict[str, list[Any]]:
    """A list's items by path element, in order."""
    found: dict[str, list[Any]] = {}
    for item in items:
        found.setdefault(shape.key_of(item), []).append(item)
    return found
