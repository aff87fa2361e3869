"""Protobuf request bodies, as kubectl ≥ 1.32 and controllers in Go send them, into the dict the JSON form would give.

A body is `k8s\\0` and a `runtime.Unknown` envelope that names the type and holds the message. The messages' field
numbers are `data/protobuf.json`, derived by `tools/derive_protobuf.py`. In its types: `*` marks a pointer (there a zero
was meant, elsewhere it is what Go writes for "not set"), `!` a field whose zero shows in JSON, `=` a struct whose
fields belong to the outer object, `~` a wrapped list of strings; otherwise the grammar of `schema`.
Invariant: what comes out has only known fields of the right types (`fields.check` finds nothing to say).
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import orjson

from fairlead.api import times
from fairlead.api.errors import StatusError, bad_request, unsupported_media_type
from fairlead.api.schema import kind_definition

MAGIC = b"k8s\0"
MEDIA_TYPE = "application/vnd.kubernetes.protobuf"

_DATA = Path(__file__).with_name("data") / "protobuf.json"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OPTIONS = ("DeleteOptions", "CreateOptions", "UpdateOptions", "PatchOptions", "Status")
_UNSET = object()
_MAX_DEPTH = 100

Wire = int | bytes  # a varint's value, or the bytes of anything else
Decode = Callable[[Wire, int], Any]


class _MalformedError(Exception):
    """The bytes are not a message of the expected type."""


def decode(body: bytes) -> dict[str, Any]:
    """The object in a protobuf body, with its apiVersion and kind.

    Errors: StatusError 400 if the body is malformed, 415 if its type has no protobuf form here.
    """
    if not body.startswith(MAGIC):
        raise bad_request("the provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    try:
        envelope = _members(memoryview(body)[len(MAGIC) :])
        api_version, kind, raw, content_type = "", "", b"", ""
        for number, value in envelope:
            if number == 1:
                for part, text in _members(_bytes(value)):
                    if part == 1:
                        api_version = _text(text)
                    elif part == 2:
                        kind = _text(text)
            elif number == 2:
                raw = bytes(_bytes(value))
            elif number == 4:
                content_type = _text(value)
        if content_type == "application/json":
            decoded = orjson.loads(raw)
            if not isinstance(decoded, dict):
                raise _MalformedError("not an object")
            return {"apiVersion": api_version, "kind": kind, **decoded}
        message = _message_of(api_version, kind)
        return {"apiVersion": api_version, "kind": kind, **message(raw, 0)}
    except (_MalformedError, UnicodeDecodeError, orjson.JSONDecodeError, OverflowError, struct.error) as error:
        raise bad_request(f"the body is not a well-formed protobuf message: {error}") from None


def _message_of(api_version: str, kind: str) -> Callable[[Wire, int], dict[str, Any]]:
    if not kind or not api_version:
        raise bad_request("Object 'Kind' or 'apiVersion' is missing in a protobuf body")
    name = f"meta.v1.{kind}" if kind in _OPTIONS else kind_definition(api_version, kind)
    if name is None or name not in _messages():
        raise _no_form(api_version, kind)
    return _message(name)


def _no_form(api_version: str, kind: str) -> StatusError:
    return unsupported_media_type(f'{api_version}, Kind={kind} has no protobuf form here; send "application/json"')


@cache
def _messages() -> dict[str, dict[str, tuple[str, str]]]:
    found: dict[str, dict[str, tuple[str, str]]] = orjson.loads(_DATA.read_bytes())["messages"]
    return found


# --- the wire: RFC-less, but documented at protobuf.dev/programming-guides/encoding


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise _MalformedError("it ends inside a number")
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & 0xFFFFFFFFFFFFFFFF, position
        shift += 7


def _members(data: memoryview | bytes) -> list[tuple[int, Wire]]:
    """Field number and raw value of every member of a message, in order."""
    data = memoryview(data)
    members: list[tuple[int, Wire]] = []
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, position = _varint(data, position)
            members.append((number, value))
            continue
        if wire_type == 2:
            size, position = _varint(data, position)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise _MalformedError(f"wire type {wire_type} of field {number}")
        if position + size > len(data):
            raise _MalformedError(f"it ends inside field {number}")
        members.append((number, bytes(data[position : position + size])))
        position += size
    return members


def _bytes(value: Wire) -> bytes:
    if isinstance(value, int):
        raise _MalformedError("a number where bytes belong")
    return value


def _number(value: Wire) -> int:
    if not isinstance(value, int):
        raise _MalformedError("bytes where a number belongs")
    return value - 2**64 if value >= 2**63 else value


def _text(value: Wire) -> str:
    return _bytes(value).decode()


# --- values of one field


def _int32(value: Wire, depth: int) -> int:
    low = _number(value) & 0xFFFFFFFF
    return low - 2**32 if low >= 2**31 else low


def _double(value: Wire, depth: int) -> float:
    found: float = struct.unpack("<d", _bytes(value))[0]
    return found


def _instant(value: Wire) -> datetime | None:
    """seconds = 1, nanos = 2; an empty message is Go's zero time."""
    parts = dict(_members(_bytes(value)))
    if not parts:
        return None
    nanos = _number(parts.get(2, 0))
    return _EPOCH + timedelta(seconds=_number(parts.get(1, 0)), microseconds=nanos // 1000)


def _time(value: Wire, depth: int) -> Any:
    instant = _instant(value)
    return _UNSET if instant is None else times.render(instant)


def _micro_time(value: Wire, depth: int) -> Any:
    instant = _instant(value)
    return _UNSET if instant is None else times.render_micro(instant)


def _quantity(value: Wire, depth: int) -> str:
    return _text(dict(_members(_bytes(value))).get(1, b"")) or "0"


def _int_or_string(value: Wire, depth: int) -> int | str:
    parts = dict(_members(_bytes(value)))
    return _text(parts.get(3, b"")) if parts.get(1, 0) == 1 else _int32(parts.get(2, 0), depth)


def _any(value: Wire, depth: int) -> Any:
    raw = _bytes(dict(_members(_bytes(value))).get(1, b""))
    return orjson.loads(raw) if raw else _UNSET


def _strings(value: Wire, depth: int) -> list[str]:
    return [_text(item) for number, item in _members(_bytes(value)) if number == 1]


_SCALARS: dict[str, tuple[Decode, Any]] = {
    "string": (lambda value, _: _text(value), ""),
    "boolean": (lambda value, _: _number(value) != 0, False),
    "int32": (_int32, 0),
    "int64": (lambda value, _: _number(value), 0),
    "double": (_double, 0.0),
    "bytes": (lambda value, _: base64.b64encode(_bytes(value)).decode(), ""),
    "Time": (_time, _UNSET),
    "MicroTime": (_micro_time, _UNSET),
    "Quantity": (_quantity, "0"),
    "IntOrString": (_int_or_string, 0),
    "any": (_any, _UNSET),
    "~": (_strings, _UNSET),
}


class _Member(msgspec.Struct, frozen=True):
    """How one field number is read: `form` is `one`, `list`, `map` or `inline`; `zero` is what is dropped."""

    name: str
    form: str
    decode: Decode
    zero: Any


def _decoder(of: str) -> tuple[Decode, Any]:
    if of.startswith("#"):
        name = of[1:]
        return (lambda value, depth: _message(name)(value, depth + 1)), _UNSET
    return _SCALARS[of]


def _member(name: str, of: str) -> _Member:
    flag = of[0] if of[0] in "*!=" else ""
    of = of[len(flag) :]
    form = {"[]": "list", "{}": "map"}.get(of[:2], "inline" if flag == "=" else "one")
    read, zero = _decoder(of[2:] if form in ("list", "map") else of)
    return _Member(name, form, read, _UNSET if flag in ("*", "!") else zero)


@cache
def _message(name: str) -> Callable[[Wire, int], dict[str, Any]]:
    members = {int(number): _member(*entry) for number, entry in _messages()[name].items()}

    def read(value: Wire, depth: int) -> dict[str, Any]:
        if depth > _MAX_DEPTH:
            raise _MalformedError("it is nested too deeply")
        found: dict[str, Any] = {}
        for number, wire in _members(_bytes(value)):
            member = members.get(number)
            if member is None:
                continue  # a field of a newer version than ours: unknown, as unset
            if member.form == "map":
                parts = dict(_members(_bytes(wire)))
                entry = member.decode(parts.get(2, b""), depth)
                found.setdefault(member.name, {})[_text(parts.get(1, b""))] = None if entry is _UNSET else entry
                continue
            decoded = member.decode(wire, depth)
            if member.form == "list":
                found.setdefault(member.name, []).append(None if decoded is _UNSET else decoded)
            elif member.form == "inline":
                found.update(decoded)
            elif decoded is not _UNSET and decoded != member.zero:
                found[member.name] = decoded
        return found

    return read
