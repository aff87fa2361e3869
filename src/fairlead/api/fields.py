"""Do the fields of an object exist, and are their values of the right types?

Between `decode` and defaulting: every object a client sends passes here, whole or after a patch. A clean object (the
usual case) is recognized by `checkers` in microseconds; anything else is walked along its schema, which finds what is
unknown, drops it, and brings values into the form upstream's decoder and encoder would give them (null is absent,
quantities and times canonical). Invariant: the object of a report has no unknown field, no null where a value belongs,
and only values of the right types; checking it again reports nothing and changes nothing.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from fairlead.api import quantity, times
from fairlead.api.checkers import checker
from fairlead.api.decode import cannot_be_handled, go_name
from fairlead.api.errors import StatusError
from fairlead.api.kinds import Resource
from fairlead.api.schema import Schema, Type, schema_of

_UNKNOWN_LIMIT = 100
_INT_LIMITS = {"int32": 2**31, "int64": 2**63}
_GO_NAMES = {"boolean": "bool", "double": "float64", "bytes": "[]uint8", "Time": "string", "MicroTime": "string"}
_ZEROS: dict[str, Any] = {
    "string": "", "boolean": False, "int32": 0, "int64": 0, "double": 0, "bytes": None, "Time": None, "MicroTime": None,
    "Quantity": "0", "IntOrString": 0, "any": None, "list": None, "map": None,
}  # fmt: skip


class FieldReport(msgspec.Struct, frozen=True):
    """`object`: what of the object is known, in canonical form (it may share parts with what was checked).

    `unknown`: a message for each unknown field, in upstream's words: `unknown field "spec.foo"`.
    """

    object: dict[str, Any]
    unknown: tuple[str, ...] = ()


class _WrongTypeError(Exception):
    """A value that does not decode; the text is upstream's message."""


def check(resource: Resource, obj: dict[str, Any]) -> FieldReport:
    """The report on an object of a resource. Errors: StatusError 400 for a value of a wrong type, naming the field."""
    return check_schema(schema_of(resource), obj, resource.kind, resource.version)


def check_schema(schema: Schema, obj: dict[str, Any], kind: str = "", version: str = "") -> FieldReport:
    """As `check`, for any definition (`DeleteOptions`, `TokenRequest`, …); `kind` and `version` are for messages."""
    obj = _without_null_times(obj)
    if checker(schema.name)(obj):
        return FieldReport(obj)
    walk = _Walk()
    try:
        known = walk.object(schema, obj, "", ())
    except _WrongTypeError as error:
        kind = kind or schema.go_name
        raise cannot_be_handled(kind, version or schema.name.split(".")[-2], kind, str(error)) from None
    return FieldReport(known, tuple(walk.unknown))


def strict_error(kind: str, version: str, messages: tuple[str, ...] | list[str]) -> StatusError:
    """400 for field validation Strict. `messages`: unknown fields and `decode.duplicate_fields`."""
    return cannot_be_handled(kind, version, kind, "strict decoding error: " + ", ".join(messages))


def _without_null_times(obj: dict[str, Any]) -> dict[str, Any]:
    """Go clients send `creationTimestamp: null` in every metadata and template: that must not cost a walk."""
    metadata = obj.get("metadata")
    if type(metadata) is dict and metadata.get("creationTimestamp", obj) is None:
        obj = {**obj, "metadata": {key: value for key, value in metadata.items() if key != "creationTimestamp"}}
    spec = obj.get("spec")
    if type(spec) is dict and type(template := spec.get("template")) is dict:
        cleaned = _without_null_times(template) if "template" not in template else template
        if cleaned is not template:
            obj = {**obj, "spec": {**spec, "template": cleaned}}
    return obj


def _go_type(of: Type) -> str:
    if of.item is not None:
        return ("[]" if of.form == "list" else "map[string]") + _go_type(of.item)
    if of.form == "object":
        _, version, name = of.definition.rsplit(".", 2)
        return f"{version}.{name}"
    return _GO_NAMES.get(of.form, of.form)


class _Walk:
    """One pass over one object. `path` has indices (for people), `names` are the field names above (as Go says it)."""

    def __init__(self) -> None:
        self.unknown: list[str] = []

    def object(self, schema: Schema, value: dict[str, Any], path: str, names: tuple[str, ...]) -> dict[str, Any]:
        known: dict[str, Any] = {}
        fields = schema.fields
        prefix = f"{path}." if path else ""
        for key, item in value.items():
            field = fields.get(key)
            if field is None:
                if len(self.unknown) < _UNKNOWN_LIMIT:
                    self.unknown.append(f'unknown field "{prefix}{key}"')
            elif item is not None:
                found = self.value(field.type, item, prefix + key, (*names, key), schema)
                if found is not None or field.type.form == "any":
                    known[key] = found
        return known

    def value(self, of: Type, value: Any, path: str, names: tuple[str, ...], owner: Schema) -> Any:
        form = of.form
        if form == "string":
            if type(value) is str:
                return value
        elif form == "object":
            if type(value) is dict:
                return self.object(of.schema, value, path, names)
        elif form == "list":
            if type(value) is list and of.item is not None:
                item_type = of.item
                return [
                    _zero(item_type) if item is None else self.value(item_type, item, f"{path}[{index}]", names, owner)
                    for index, item in enumerate(value)
                ]
        elif form == "map":
            if type(value) is dict and of.item is not None:
                item_type = of.item
                return {
                    key: _zero(item_type)
                    if item is None
                    else self.value(item_type, item, f"{path}.{key}", names, owner)
                    for key, item in value.items()
                }
        elif form == "any":
            return value
        elif form == "boolean":
            if type(value) is bool:
                return value
        elif form in _INT_LIMITS:
            if type(value) is int and -_INT_LIMITS[form] <= value < _INT_LIMITS[form]:
                return value
        elif form == "double":
            if type(value) is int or type(value) is float:
                return value
        else:
            return self.special(of, value, path, names, owner)
        raise self.wrong(_go_type(of), value, path, names, owner)

    def special(self, of: Type, value: Any, path: str, names: tuple[str, ...], owner: Schema) -> Any:
        """The types with a decoder of their own."""
        form = of.form
        try:
            if form == "Quantity":
                return quantity.canonical(value)
            if form == "IntOrString":
                if type(value) is str or (type(value) is int and -(2**31) <= value < 2**31):
                    return value
                raise self.wrong("int32", value, path, names, owner)
            if type(value) is not str:
                raise self.wrong(_go_type(of), value, path, names, owner)
            if form == "bytes":
                return _base64(value)
            instant = times.parse(value)
            return times.render(instant) if form == "Time" else times.render_micro(instant)
        except (ValueError, TypeError) as error:
            raise _WrongTypeError(f"{path}: {error}") from None

    @staticmethod
    def wrong(go_type: str, value: Any, path: str, names: tuple[str, ...], owner: Schema) -> _WrongTypeError:
        given = go_name(value)
        if type(value) in (int, float) and go_type.startswith("int"):
            given = f"number {value}"  # of a right type, but not a value it can have
        elif type(value) is float:
            given = "number"
        where = f" ({path})" if "[" in path else ""
        return _WrongTypeError(
            f"json: cannot unmarshal {given} into Go struct field {owner.go_name}.{'.'.join(names)} "
            f"of type {go_type}{where}"
        )


def _zero(of: Type) -> Any:
    """What a null in a list or map becomes: the zero of its type, as in Go."""
    return {} if of.form == "object" else _ZEROS[of.form]


def _base64(value: str) -> str:
    """Bytes as Go would write them back: line breaks inside are ignored, anything else must be exact."""
    compact = value.replace("\n", "").replace("\r", "")
    try:
        base64.b64decode(compact, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"illegal base64 data: {error}") from None
    return compact
