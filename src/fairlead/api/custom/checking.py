"""Is a custom object valid? The rules on values of its schema, in upstream's words.

After pruning and defaults, before the store. Pure. Invariant: every error names the field by its path; an object in
which nothing is found has only values of the types its schema says.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import math
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

import orjson

from fairlead.api import times
from fairlead.api.custom import cel
from fairlead.api.custom.structural import LIST_KEYS, LIST_TYPE, Node
from fairlead.api.errors import (
    FieldError,
    duplicate,
    invalid,
    not_supported,
    required,
    too_long,
    too_many,
)

_TYPE_META = frozenset({"apiVersion", "kind", "metadata"})
_MAX_ERRORS = 100
_FREE = Node({})


def check(node: Node, value: Any, path: str = "", old: Any = cel.ABSENT) -> list[FieldError]:
    """What is wrong with a value (that was `old` before, for rules on changes). Rules are asked of what is sound."""
    errors: list[FieldError] = []
    _check(node, value, path, errors)
    if not errors and node.has_rules:
        if node.has_formats:
            value, old = _typed(node, value), _typed(node, old)
        _ask_rules(node, (value, old), path, errors)
    return errors[:_MAX_ERRORS]


def _typed(node: Node, value: Any) -> Any:
    """The value as rules see it: strings of some formats are times, durations and bytes."""
    if not node.has_formats:
        return value
    if node.type == "number" and isinstance(value, int):
        return float(value)
    if isinstance(value, str):
        return cel.typed(value, node.schema.get("format") or "")
    if isinstance(value, dict):
        inner = {name: node.properties.get(name) or node.additional for name in value}
        return {name: _typed(inner[name] or _FREE, member) for name, member in value.items()}
    if isinstance(value, list) and node.items is not None:
        return [_typed(node.items, item) for item in value]
    return value


def _ask_rules(node: Node, pair: tuple[Any, Any], path: str, errors: list[FieldError]) -> None:
    """The rules of a place and below it. What an item was before is known in lists with keys only."""
    if not node.has_rules:
        return
    value, old = pair
    if node.rules:
        errors.extend(cel.apply(node.rules, (_visible(value, path), _visible(old, path)), path, _type_name(value)))
    if isinstance(value, dict):
        prefix = f"{path}." if path else ""
        for name, member in value.items():
            inner = node.properties.get(name) or node.additional
            if inner is not None:
                before = old.get(name, cel.ABSENT) if isinstance(old, dict) else cel.ABSENT
                _ask_rules(inner, (member, before), prefix + name, errors)
    elif isinstance(value, list) and node.items is not None:
        keys = node.schema.get(LIST_KEYS) or ()
        known = {_keys(item, keys): item for item in old} if keys and isinstance(old, list) else {}
        for index, item in enumerate(value):
            before = known.get(_keys(item, keys), cel.ABSENT) if keys else cel.ABSENT
            _ask_rules(node.items, (item, before), f"{path}[{index}]", errors)


def _keys(item: Any, keys: Sequence[str]) -> tuple[Any, ...]:
    return tuple(item.get(key) if isinstance(item, dict) else None for key in keys)


def _visible(value: Any, path: str) -> Any:
    """Of an object's metadata rules see the name alone."""
    if path or not isinstance(value, dict) or not isinstance(value.get("metadata"), dict):
        return value
    names = {key: name for key, name in value["metadata"].items() if key in ("name", "generateName")}
    return {**value, "metadata": names}


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


def _fits(node: Node, value: Any) -> bool:
    given = _type_name(value)
    if node.int_or_string:
        return given in ("integer", "string")
    return not node.type or given == node.type or (node.type == "number" and given == "integer")


def _check(node: Node, value: Any, path: str, errors: list[FieldError]) -> None:
    if value is None and node.schema.get("nullable"):
        return
    if not _fits(node, value):
        wanted = "integer,string" if node.int_or_string else node.type
        given = _type_name(value)
        text = f'{path or "<root>"} in body must be of type {wanted}: "{given}"'
        errors.append(FieldError("FieldValueTypeInvalid", path, given, text))
        return
    _check_value(node, value, path, errors)
    if type(value) is dict:
        _check_members(node, value, path, errors)
    elif type(value) is list:
        if node.items is not None:
            for index, item in enumerate(value):
                _check(node.items, item, f"{path}[{index}]", errors)
        _check_keys(node, value, path, errors)
    _check_alternatives(node, value, path, errors)


def _check_members(node: Node, value: Mapping[str, Any], path: str, errors: list[FieldError]) -> None:
    prefix = f"{path}." if path else ""
    schema = node.schema
    errors.extend(required(prefix + name) for name in node.required if name not in value)
    for name, member in value.items():
        inner = node.properties.get(name) or node.additional
        if inner is not None and not (not path and name in _TYPE_META):
            _check(inner, member, prefix + name, errors)
    if node.embedded:
        errors.extend(
            required(prefix + name, "must not be empty") for name in ("apiVersion", "kind") if not value.get(name)
        )
    least, most = schema.get("minProperties"), schema.get("maxProperties")
    if least is not None and len(value) < least:
        errors.append(invalid(path, value, f"{path} in body should have at least {least} properties"))
    if most is not None and len(value) > most:
        errors.append(too_many(path, len(value), most))


def _check_value(node: Node, value: Any, path: str, errors: list[FieldError]) -> None:
    schema = node.schema
    enum = schema.get("enum")
    if enum is not None and value not in enum:
        errors.append(not_supported(path, value, [each if isinstance(each, str) else str(each) for each in enum]))
    if isinstance(value, str):
        _check_string(node, value, path, errors)
    elif isinstance(value, list):
        least, most = schema.get("minItems"), schema.get("maxItems")
        if least is not None and len(value) < least:
            errors.append(invalid(path, len(value), f"{path} in body should have at least {least} items"))
        if most is not None and len(value) > most:
            errors.append(too_many(path, len(value), most))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _check_number(schema, value, path, errors)


def _check_string(node: Node, value: str, path: str, errors: list[FieldError]) -> None:
    schema = node.schema
    least, most = schema.get("minLength"), schema.get("maxLength")
    if least is not None and len(value) < least:
        errors.append(invalid(path, value, f"{path} in body should be at least {least} chars long"))
    if most is not None and len(value) > most:
        errors.append(too_long(path, most))
    if node.pattern is not None and node.pattern.search(value) is None:
        errors.append(invalid(path, value, f"{path} in body should match '{schema['pattern']}'"))
    form = schema.get("format")
    known = _FORMATS.get(form or "")
    if known is not None and not known(value):
        text = f"{path} in body must be of type {form}: {orjson.dumps(value).decode()}"
        errors.append(invalid(path, value, text))


def _check_number(schema: Mapping[str, Any], value: float, path: str, errors: list[FieldError]) -> None:
    most, least = schema.get("maximum"), schema.get("minimum")
    if most is not None:
        exclusive = schema.get("exclusiveMaximum")
        if value >= most if exclusive else value > most:
            how = "less than" if exclusive else "less than or equal to"
            errors.append(invalid(path, value, f"{path} in body should be {how} {_number(most)}"))
    if least is not None:
        exclusive = schema.get("exclusiveMinimum")
        if value <= least if exclusive else value < least:
            how = "greater than" if exclusive else "greater than or equal to"
            errors.append(invalid(path, value, f"{path} in body should be {how} {_number(least)}"))
    step = schema.get("multipleOf")
    if step and not math.isclose(value / step, round(value / step), rel_tol=1e-12):
        errors.append(invalid(path, value, f"{path} in body should be a multiple of {_number(step)}"))
    limit = {"int32": 2**31, "int64": 2**63}.get(schema.get("format") or "")
    if limit and not -limit <= value < limit:
        errors.append(invalid(path, value, f"{path} in body must be of type {schema['format']}"))


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


def _check_keys(node: Node, value: list[Any], path: str, errors: list[FieldError]) -> None:
    kind = node.schema.get(LIST_TYPE)
    if kind not in ("set", "map"):
        return
    keys = node.schema.get(LIST_KEYS) or ()
    seen = set()
    for index, item in enumerate(value):
        mark = {key: item.get(key) for key in keys} if kind == "map" and isinstance(item, dict) else item
        text = orjson.dumps(mark, option=orjson.OPT_SORT_KEYS)
        if text in seen:
            errors.append(duplicate(f"{path}[{index}]", mark))
        seen.add(text)


def _check_alternatives(node: Node, value: Any, path: str, errors: list[FieldError]) -> None:
    where = path or "<root>"
    for word, choices in node.alternatives.items():
        found = [check(choice, value, path) for choice in choices]
        good = sum(not problems for problems in found)
        if word == "allOf":
            for problems in found:
                errors.extend(problems)
        elif word == "anyOf" and not good:
            errors.append(invalid(path, value, f"{where} in body must validate at least one schema (anyOf)"))
        elif word == "oneOf" and good != 1:
            text = f"{where} in body must validate one and only one schema (oneOf). Found "
            errors.append(invalid(path, value, text + ("none valid" if not good else f"{good} valid alternatives")))
        elif word == "not" and good:
            errors.append(invalid(path, value, f"{where} in body must not validate the schema (not)"))


def _parses(parse: Callable[[str], Any]) -> Callable[[str], bool]:
    def fits(text: str) -> bool:
        try:
            parse(text)
        except (ValueError, binascii.Error):
            return False
        return True

    return fits


_DURATION = re.compile(r"[-+]?(\d+(\.\d*)?\s*(ns|us|µs|ms|s|m|h|d|w|[a-z]+))+|0")
_FORMATS: dict[str, Callable[[str], bool]] = {
    "date-time": _parses(times.parse),
    "date": _parses(date.fromisoformat),
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "cidr": lambda text: "/" in text and _parses(lambda t: ipaddress.ip_network(t, strict=False))(text),
    "uuid": _parses(uuid.UUID),
    "byte": _parses(lambda text: base64.b64decode(text, validate=True)),
    "email": lambda text: re.fullmatch(r"[^@\s]+@[^@\s]+", text) is not None,
    "hostname": lambda text: (
        re.fullmatch(r"(?=.{1,255}$)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?", text) is not None
    ),
    "uri": lambda text: re.match(r"[A-Za-z][A-Za-z0-9+.-]*:|/", text) is not None,
    "mac": lambda text: re.fullmatch(r"([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}", text) is not None,
    "duration": lambda text: _DURATION.fullmatch(text) is not None,
}
