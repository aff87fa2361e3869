"""A quick yes to clean objects: one msgspec Struct type per definition, built from the schema on first use.

Stands under `fields`. Invariant: what a checker accepts, the walk in `fields` would return unchanged and without a
word; what it refuses may still be right (a null, a quantity or time not in its canonical form), so only a yes counts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any

import msgspec

from fairlead.api.schema import Schema, Type, named

_CANONICAL_QUANTITY = r"^(0|[1-9][0-9]{0,2}(m|k|M|G|Ki|Mi|Gi)?)\Z"
_CANONICAL_DAY = r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
_INT32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]

_SCALARS: dict[str, Any] = {
    "string": str,
    "boolean": bool,
    "int32": _INT32,
    "int64": Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)],
    "double": float,
    "bytes": bytes,
    "Time": Annotated[str, msgspec.Meta(pattern=_CANONICAL_DAY + r"Z\Z")],
    "MicroTime": Annotated[str, msgspec.Meta(pattern=_CANONICAL_DAY + r"\.[0-9]{6}Z\Z")],
    "Quantity": Annotated[str, msgspec.Meta(pattern=_CANONICAL_QUANTITY)],
    "IntOrString": _INT32 | str,
    "any": Any,
}


class _RecursiveError(Exception):
    """A definition contains itself; such objects are always walked."""


_structs: dict[str, Any] = {}
_IN_PROGRESS = object()


def _python_type(of: Type) -> Any:
    if of.item is not None:
        item: Any = _python_type(of.item)
        container: Any = list if of.form == "list" else dict
        return container[item] if of.form == "list" else container[str, item]
    return _struct(of.definition) if of.form == "object" else _SCALARS[of.form]


def _struct(name: str) -> Any:
    known = _structs.get(name)
    if known is _IN_PROGRESS:
        raise _RecursiveError
    if known is not None:
        return known
    _structs[name] = _IN_PROGRESS
    try:
        fields: list[tuple[str, Any, Any]] = []
        names: dict[str, str] = {}
        for index, field in enumerate(named(name).fields.values()):
            of = _python_type(field.type)
            fields.append((f"f{index}", of if of is Any else of | msgspec.UnsetType, msgspec.UNSET))
            names[f"f{index}"] = field.name
    except _RecursiveError:
        del _structs[name]
        raise
    _structs[name] = made = msgspec.defstruct(
        name.rpartition(".")[2], fields, rename=names, forbid_unknown_fields=True, gc=False, eq=False
    )
    return made


@cache
def checker(name: str) -> Callable[[Any], bool]:
    """A function that says True of a clean object of that definition."""
    try:
        of = _struct(name)
    except _RecursiveError:
        return _never
    convert, refused = msgspec.convert, msgspec.ValidationError

    def accepts(value: Any) -> bool:
        try:
            convert(value, of)
        except refused:
            return False
        return True

    return accepts


def _never(value: Any) -> bool:
    return False


def warm(schemas: list[Schema]) -> None:
    """Build the checkers now, so that a process forked afterwards has them."""
    for schema in schemas:
        checker(schema.name)({})
