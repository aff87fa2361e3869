"""Strategic merge patch: a merge that knows which lists are maps in disguise.

Stands in the PATCH path for `application/strategic-merge-patch+json` (what kubectl sends for built-in kinds). The
schema says by which key the items of a list are the same item, and which lists and objects are replaced whole; the
patch steers with `$patch: replace|delete`, `$retainKeys`, `$setElementOrder/<list>`, `$deleteFromPrimitiveList/<list>`.
Behaves as k8s.io/apimachinery `pkg/util/strategicpatch`. Invariant: applying a patch twice is applying it once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from fairlead.api.errors import StatusError, bad_request
from fairlead.api.schema import Field, Schema, Type

_MARKER = "$patch"
_RETAIN = "$retainKeys"
_ORDER = "$setElementOrder"
_DELETE = "$deleteFromPrimitiveList"
_DIRECTIVES = (_RETAIN, _ORDER, _DELETE)


def strategic_merge(doc: dict[str, Any], patch: Any, schema: Schema) -> dict[str, Any]:
    """`doc` with `patch` merged into it, guided by the schema of the document.

    Errors: StatusError 400 for a patch that is malformed or does not fit the document's lists, 422 for lists of lists.
    """
    if not isinstance(patch, dict):
        raise bad_request("error decoding patch: a strategic merge patch must be a JSON object")
    return _merge_map(
        orjson.loads(orjson.dumps(doc)), orjson.loads(orjson.dumps(patch)), Type("object", None, schema.name)
    )


def _field(of: Type | None, key: str) -> Field | None:
    """How a member of a value of that type merges; None where the schema says nothing."""
    if of is None or of.form == "any":
        return None
    if of.form == "map":
        return Field(key, of.item) if of.item is not None else None
    if of.form != "object":
        return None
    return of.schema.fields.get(key)  # an unknown one merges plainly; the check that follows will name it


def _text(value: Any) -> str:
    return orjson.dumps(value).decode()


def _no_merge_key(item: Any, key: str) -> StatusError:
    return bad_request(f"map: {_text(item)} does not contain declared merge key: {key}")


def _unknown_directive(directive: Any, patch: Any) -> StatusError:
    return bad_request(f"unknown patch type: {directive} in map: {_text(patch)}")


def _merge_map(original: dict[str, Any], patch: dict[str, Any], of: Type | None) -> dict[str, Any]:
    directed = _MARKER in patch
    directive = patch.pop(_MARKER, None)
    if directive == "replace":
        return {key: _clean(value) for key, value in patch.items() if value is not None}
    if directive == "delete":
        return {}
    if directed:
        raise _unknown_directive(directive, patch)
    _retain_keys(original, patch)
    _merge_ordered_lists(original, patch, of)
    for key in sorted(patch, key=lambda k: not k.startswith(_DELETE)):  # first the removals
        value, deletes = patch[key], key.startswith(_DELETE)
        if deletes:
            key = _list_name(key, _DELETE, "invalid patch format of primitive list")
        if value is None:
            original.pop(key, None)
            continue
        current = original.get(key)
        if current is None or type(current) is not type(value) or not isinstance(value, dict | list):
            if not deletes:
                _set_or_drop(original, key, value)
            continue
        field = _field(of, key)
        if isinstance(value, dict):
            replaced = field is not None and "replace" in field.strategy
            original[key] = _clean(value) if replaced else _merge_map(current, value, field.type if field else None)
        elif deletes:
            gone = {_identity(item) for item in value}
            original[key] = [item for item in current if _identity(item) not in gone]
        elif field is not None and "merge" in field.strategy:
            original[key] = _merge_list(current, value, field)
        else:
            original[key] = _clean(value)
    return original


def _retain_keys(original: dict[str, Any], patch: dict[str, Any]) -> None:
    """`$retainKeys` lists all the members the object may have; the others go."""
    if _RETAIN not in patch:
        return
    listed = patch.pop(_RETAIN)
    if not isinstance(listed, list):
        raise bad_request("invalid patch format of retainKeys")
    for key, value in patch.items():
        if value is not None and not key.startswith((_DELETE, _ORDER)) and key not in listed:
            raise bad_request("invalid patch format of retainKeys")
    for key in [key for key in original if key not in listed]:
        del original[key]


def _list_name(directive: str, prefix: str, message: str) -> str:
    start, slash, name = directive.partition("/")
    if start != prefix or not slash:
        raise bad_request(message)
    return name


def _merge_ordered_lists(original: dict[str, Any], patch: dict[str, Any], of: Type | None) -> None:
    """`$setElementOrder/ports`: merge the list, then give its items the order the patch's author saw."""
    for directive in [key for key in patch if key.startswith(_ORDER)]:
        order = patch.pop(directive)
        name = _list_name(directive, _ORDER, "invalid patch format of setElementOrder list")
        current, wanted = original.get(name), patch.get(name)
        for given in (order, current, wanted):
            if given is not None and not isinstance(given, list):
                raise bad_request("invalid patch format of setElementOrder list")
        if order is None:
            raise bad_request("invalid patch format of setElementOrder list")
        field = _field(of, name)
        merge_key = field.merge_key if field else ""
        _check_order(wanted or [], order, merge_key)
        if current is None and wanted is None:
            continue
        if wanted is None:
            merged = current or []
        elif current is None:
            merged = _clean(wanted)
        elif field is not None and "merge" in field.strategy:
            merged = _merge_list(current, wanted, field)
        else:
            merged = _clean(wanted)
        patch.pop(name, None)
        original[name] = _ordered(merged, order, current or [], merge_key)


def _check_order(wanted: list[Any], order: list[Any], merge_key: str) -> None:
    """The items of the patch must appear in the order list, in the same order."""
    if not wanted or not order:
        return
    positions = iter([_key_of(item, merge_key) for item in order])
    for item in wanted:
        if isinstance(item, dict) and _MARKER in item:
            continue
        if _key_of(item, merge_key) not in positions:  # consumes the iterator up to the match
            raise bad_request(
                f"The order in patch list:\n{_text(wanted)}\n doesn't match {_ORDER} list:\n{_text(order)}\n"
            )


def _merge_list(current: list[Any], wanted: list[Any], field: Field) -> list[Any]:
    if not current and not wanted:
        return current
    if not _list_of_maps(current, wanted):
        return _ordered(_unique([*current, *wanted]), wanted, current, "")
    merge_key, item_type = field.merge_key, field.type.item
    if not merge_key:
        raise bad_request(f"cannot merge lists without merge key for {field.name}")
    merged, additions = _apply_item_directives(current, wanted, merge_key)
    server_order = list(merged)
    for item in additions:
        key = _key_of(item, merge_key)
        for index, candidate in enumerate(merged):
            if _MARKER not in candidate and merge_key in candidate and _key_of(candidate, merge_key) == key:
                merged[index] = _merge_map(candidate, item, item_type)
                break
        else:
            merged.append(_clean(item))
    return _ordered(merged, additions, server_order, merge_key)


def _apply_item_directives(
    current: list[Any], wanted: list[Any], merge_key: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What is left of the list after `$patch: delete` and `$patch: replace` items, and the items to merge into it."""
    additions: list[dict[str, Any]] = []
    replace = False
    for item in wanted:
        directive = item.get(_MARKER)
        if _MARKER not in item:
            additions.append(item)
        elif directive == "delete":
            gone = _key_of(item, merge_key)
            current = [old for old in current if merge_key not in old or _key_of(old, merge_key) != gone]
        elif directive == "replace":
            replace = True
        elif directive == "merge":
            raise bad_request("merging lists cannot yet be specified in the patch")
        else:
            raise _unknown_directive(directive, item)
    return (_clean(additions), []) if replace else (current, additions)


def _list_of_maps(current: list[Any], wanted: list[Any]) -> bool:
    forms = {_form(item) for item in (*current, *wanted)}
    if "list" in forms:
        raise StatusError(422, "Invalid", "lists of lists are not supported")
    if len(forms) > 1:
        raise bad_request(f"list element types are not identical: {_text([current, wanted])}")
    return forms == {"dict"}


def _form(value: Any) -> str:
    return type(value).__name__


def _identity(value: Any) -> Any:
    """A hashable that tells JSON values apart, also 1 from true."""
    return _text(value) if isinstance(value, dict | list) else (_form(value), value)


def _key_of(item: Any, merge_key: str) -> Any:
    """What makes two items the same: the value of the merge key, or for plain values the value."""
    if not merge_key:
        return _identity(item)
    if not isinstance(item, dict):
        raise bad_request(f"value {_text(item)} of a list with merge key {merge_key} is not a map")
    if merge_key not in item:
        raise _no_merge_key(item, merge_key)
    return _identity(item[merge_key])


def _unique(items: Iterable[Any]) -> list[Any]:
    return list({_identity(item): item for item in items}.values())


def _ordered(merged: list[Any], patch_order: list[Any], server_order: list[Any], merge_key: str) -> list[Any]:
    """Items of the patch in the patch's order, the others in the server's; a server item goes before the patch's items
    it stood before, otherwise after them."""
    in_patch = _positions(patch_order, merge_key)
    on_server = _positions(server_order, merge_key)
    from_patch = [item for item in merged if _key_of(item, merge_key) in in_patch]
    others = [item for item in merged if _key_of(item, merge_key) not in in_patch]
    from_patch.sort(key=lambda item: in_patch[_key_of(item, merge_key)])
    others.sort(key=lambda item: on_server.get(_key_of(item, merge_key), len(on_server)))
    result: list[Any] = []
    left, right = 0, 0
    while left < len(others) and right < len(from_patch):
        mine, theirs = (
            on_server.get(_key_of(others[left], merge_key)),
            on_server.get(_key_of(from_patch[right], merge_key)),
        )
        if mine is not None and theirs is not None and mine < theirs:
            result.append(others[left])
            left += 1
        else:
            result.append(from_patch[right])
            right += 1
    return [*result, *others[left:], *from_patch[right:]]


def _positions(items: list[Any], merge_key: str) -> dict[Any, int]:
    positions: dict[Any, int] = {}
    for index, item in enumerate(items):
        positions.setdefault(_key_of(item, merge_key), index)
    return positions


def _clean(value: Any) -> Any:
    """The value as it enters the document: without nulls (they meet nothing to remove) and without instructions."""
    return _cleaned(value)[0]


def _cleaned(value: Any) -> tuple[Any, bool]:
    """The clean value, and whether it enters the document at all: what carries `$patch` was only an instruction."""
    if isinstance(value, dict):
        if _MARKER in value:
            return None, False
        members = [(key, item) for key, item in value.items() if item is not None and not key.startswith(_DIRECTIVES)]
        pairs = ((key, *_cleaned(item)) for key, item in members)
        return {key: item for key, item, keep in pairs if keep}, True
    if isinstance(value, list):
        return [item for item, keep in map(_cleaned, value) if keep], True
    return value, True


def _set_or_drop(target: dict[str, Any], key: str, value: Any) -> None:
    kept, keep = _cleaned(value)
    if keep:
        target[key] = kept
    else:
        target.pop(key, None)
