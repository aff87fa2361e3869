"""From the bytes of a request body to the plain dict of an object.

The first step of every write: bytes → dict → `fields.check` → defaults → validation. Invariant: what comes out is a
JSON object; everything else is refused with 400 in the words of upstream's decoder.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from fairlead.api.errors import StatusError, bad_request
from fairlead.api.kinds import Resource

_SHOWN_BYTES = 30


def decode_json(body: bytes, kind: str = "") -> dict[str, Any]:
    """The JSON object in `body`. With `kind`, errors name what was expected.

    Errors: StatusError 400 for anything that is not one JSON object.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _unrecognized(kind, f"couldn't get version/kind; json parse error: {_position(error)}", body) from None
    if type(value) is dict:
        return value
    what = f"couldn't get version/kind; json parse error: json: cannot unmarshal {go_name(value)} into an object"
    raise _unrecognized(kind, what, body)


def _position(error: orjson.JSONDecodeError) -> str:
    if not error.doc:
        return "unexpected end of JSON input"
    return f"{error.msg.split(':')[0]} at line {error.lineno}, column {error.colno}"


def _unrecognized(kind: str, why: str, body: bytes) -> StatusError:
    subject = f"the object provided is unrecognized (must be of type {kind})" if kind else "the body is unrecognized"
    text = body[:_SHOWN_BYTES].decode("utf-8", "replace")
    shown = (text if text.isprintable() else body[:_SHOWN_BYTES].hex()) or "<empty>"
    return bad_request(f"{subject}: {why} ({shown}{' ...' if len(body) > _SHOWN_BYTES else ''})")


def go_name(value: Any) -> str:
    """The JSON type of a decoded value as Go's decoder words it in its errors: `string`, `number`, `bool`, …"""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int):
        return "number"
    if isinstance(value, float):
        return f"number {value!r}"
    return "array" if isinstance(value, list) else "object"


class _Counted(dict[str, Any]):
    """A decoded JSON object that remembers which of its keys were given more than once."""

    __slots__ = ("repeated",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated: list[str] = []
        if len(self) != len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen and key not in self.repeated:
                    self.repeated.append(key)
                seen.add(key)


def duplicate_fields(body: bytes) -> list[str]:
    """What field validation says of keys given twice in one object: `duplicate field "spec.type"`, outermost first.

    `body` must be valid JSON (`decode_json` accepted it); the last of the duplicates is the one that counts.
    """
    found = False

    def notice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        value = dict(pairs)
        if len(value) != len(pairs):
            found = True
        return value

    try:
        json.loads(body, object_pairs_hook=notice)
    except (ValueError, RecursionError):
        return []
    if not found:
        return []
    messages: list[str] = []
    _collect(json.loads(body, object_pairs_hook=_Counted), "", messages)
    return messages


def _collect(value: Any, path: str, messages: list[str]) -> None:
    if isinstance(value, _Counted):
        prefix = f"{path}." if path else ""
        messages += [f'duplicate field "{prefix}{key}"' for key in value.repeated]
        for key, item in value.items():
            _collect(item, prefix + key, messages)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _collect(item, f"{path}[{index}]", messages)


def identify(resource: Resource, obj: dict[str, Any], kind: str = "", api_version: str = "") -> None:
    """Make `obj` carry the apiVersion and kind the request path stands for, in place.

    Missing ones are filled in, as upstream does. `kind` and `api_version` name another type than the resource's own,
    for bodies of subresources (`Scale` of `autoscaling/v1`, `TokenRequest`, `Binding`, `Eviction`).
    Errors: StatusError 400 when the object says it is something else.
    """
    kind = kind or resource.kind
    expected = api_version or resource.api_version
    given_kind, given_version = obj.get("kind"), obj.get("apiVersion")
    for name, value in (("kind", given_kind), ("apiVersion", given_version)):
        if value is not None and not isinstance(value, str):
            raise bad_request(
                f"couldn't get version/kind; json parse error: json: cannot unmarshal {go_name(value)} into Go struct "
                f"field .{name} of type string"
            )
    if given_kind and given_kind != kind:
        version = (given_version or expected).rpartition("/")[2]
        raise cannot_be_handled(given_kind, version, kind, f'this path takes kind "{kind}" of {expected}')
    if given_version and given_version != expected:
        raise bad_request(
            f"the API version in the data ({given_version}) does not match the expected API version ({expected})"
        )
    obj["kind"], obj["apiVersion"] = kind, expected


def cannot_be_handled(given: str, version: str, kind: str, why: str) -> StatusError:
    """400 as upstream words it when a body does not decode: `Service in version "v1" cannot be handled as a …`."""
    return bad_request(f'{given} in version "{version}" cannot be handled as a {kind}: {why}')
