"""Merging an applied object into the live one, and pruning what its applier lets go of.

Between `shapes` and `owners`. Pure; neither input is changed, the result shares parts with both.
Invariant: `merge(x, x)` is `x`; every leaf of the applied object is in the merged one; items keep the applied order
among themselves, and live items that were not applied stay where they were.
"""

from __future__ import annotations

from typing import Any

from fairlead.api.apply.sets import MEMBER, Fields, is_member, render_element
from fairlead.api.apply.shapes import DICTS, KEYED, LEAF, LISTS, Shape

Object = dict[str, Any]


def check(shape: Shape, applied: Any, path: str = "") -> None:
    """Raises ValueError for an applied value whose associative lists have items without keys, or one key twice."""
    if shape.form in DICTS and type(applied) is dict:
        for name, value in applied.items():
            member = shape.member(name)
            if member is not None and member.form != LEAF:
                check(member, value, f"{path}.{name}")
    elif shape.form in LISTS and type(applied) is list:
        seen = set()
        for index, item in enumerate(applied):
            element = shape.key_of(item)
            if shape.form == KEYED and not (type(item) is dict and any(k in item for k in shape.given_keys)):
                keys = ", ".join(f'"{key}"' for key in shape.keys)
                raise ValueError(
                    f"{path}: element {index}: associative list with keys has an element that omits key field {keys}"
                )
            if element in seen:
                raise ValueError(f"{path}: duplicate entries for key {render_element(element)}")
            seen.add(element)
            if shape.item is not None:
                check(shape.item, item, path + render_element(element))


def merge(shape: Shape, live: Any, applied: Any) -> Any:
    """The live value with the applied one (that `check` found sound) in it."""
    form = shape.form
    if form in DICTS:
        if type(live) is not dict or type(applied) is not dict:
            return applied
        merged = dict(live)
        for name, value in applied.items():
            member = shape.member(name)
            merged[name] = value if member is None or name not in live else merge(member, live[name], value)
        return merged
    if form in LISTS and type(applied) is list:
        return _merge_items(shape, live if type(live) is list else [], applied)
    return applied


def _merge_items(shape: Shape, live: list[Any], applied: list[Any]) -> list[Any]:
    wanted = {shape.key_of(item): item for item in applied}
    there = [(shape.key_of(item), item) for item in live]
    before: dict[str, Any] = {}
    for element, item in there:
        before.setdefault(element, item)
    inner = shape.item
    assert inner is not None
    left = list(wanted)
    shared = [element for element in left if element in before]
    result: list[Any] = []
    placed = passed = 0

    def place(until: int) -> None:
        for element in left[placed:until]:
            item = wanted[element]
            result.append(merge(inner, before[element], item) if element in before else item)

    for element, item in there:
        if element not in wanted:
            result.append(item)
        elif passed < len(shared) and shared[passed] == element:
            until = left.index(element) + 1
            place(until)
            placed, passed = until, passed + 1
    place(len(left))
    return result


def prune(shape: Shape, value: Any, last: Fields, owned: Fields, kept: frozenset[str] = frozenset()) -> Any:
    """`value` without what is in `last` (what the applier had) and not in `owned` (what anyone has now).

    `kept` are members at this level that are never taken out whole.
    """
    if shape.form in DICTS and type(value) is dict:
        return _prune_members(shape, value, last, owned, kept)
    if shape.form in LISTS and type(value) is list:
        return _prune_items(shape, value, last, owned)
    return value


def _prune_members(shape: Shape, value: Object, last: Fields, owned: Fields, kept: frozenset[str]) -> Object:
    made = value
    for element, had in last.items():
        name = element[2:]
        if element[:2] != "f:" or name not in value:
            continue
        member = shape.member(name)
        if member is None:
            continue
        named = name in shape.fields  # a field of a struct is there as soon as something below it is
        have = owned.get(element)
        if (named or is_member(had)) and not (have is not None and named) and not is_member(have) and name not in kept:
            if made is value:
                made = dict(value)
            del made[name]
            continue
        if not had:
            continue
        pruned = prune(member, value[name], had, have or MEMBER)
        if pruned is not value[name]:
            if made is value:
                made = dict(value)
            made[name] = pruned
    return made


def _prune_items(shape: Shape, value: list[Any], last: Fields, owned: Fields) -> list[Any]:
    made: list[Any] = []
    same = True
    inner = shape.item
    assert inner is not None
    for item in value:
        element = shape.key_of(item)
        had, have = last.get(element), owned.get(element)
        if had is None:
            made.append(item)
        elif is_member(had) and not is_member(have):
            same = False
        else:
            pruned = prune(inner, item, had, have or MEMBER) if had else item
            same = same and pruned is item
            made.append(pruned)
    return value if same else made
