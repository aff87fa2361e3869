"""What the schemas of Gateway API are made of: types, bounds, and the names that come up everywhere. ◆ Pure.

Source: Gateway API v1.5, standard channel; apiextensions v1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Schema = dict[str, Any]

LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = rf"{LABEL}(\.{LABEL})*"
TOKEN = r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$"
_UNTIL = "1970-01-01T00:00:00Z"
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]
CONTROLLER = rf"^{SUBDOMAIN}\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$"


def text(longest: int, pattern: str = "", shortest: int = 1, default: str | None = None) -> Schema:
    """A string of at most that many characters."""
    made: Schema = {"type": "string", "maxLength": longest}
    if shortest:
        made["minLength"] = shortest
    if pattern:
        made["pattern"] = pattern
    if default is not None:
        made["default"] = default
    return made


def choice(*values: Any, default: Any = None) -> Schema:
    """One of these values."""
    made: Schema = {"type": "integer" if isinstance(values[0], int) else "string", "enum": list(values)}
    return made if default is None else {**made, "default": default}


def number(lowest: int, highest: int | None = None, default: int | None = None) -> Schema:
    """An integer within these bounds."""
    made: Schema = {"type": "integer", "format": "int32", "minimum": lowest}
    if highest is not None:
        made["maximum"] = highest
    return made if default is None else {**made, "default": default}


def structure(required: str = "", rules: Iterable[tuple[str, str]] = (), /, **properties: Schema) -> Schema:
    """An object with these properties; the required ones by name, and rules with what to say when one does not hold."""
    made: Schema = {"type": "object", "properties": properties}
    if required:
        made["required"] = required.split()
    found = [{"rule": rule, "message": message} for rule, message in rules]
    return {**made, "x-kubernetes-validations": found} if found else made


def array(items: Schema, most: int, least: int = 0, kind: str = "atomic", keys: str = "") -> Schema:
    """A list of bounded length; of kind `map` with its keys."""
    made: Schema = {"type": "array", "items": items, "maxItems": most, "x-kubernetes-list-type": kind}
    if least:
        made["minItems"] = least
    if keys:
        made["x-kubernetes-list-map-keys"] = keys.split()
    return made


def mapping(most: int, value: Schema) -> Schema:
    """Names and values of the author's own."""
    return {"type": "object", "maxProperties": most, "additionalProperties": value}


NAME = text(253)
SECTION = text(253, f"^{SUBDOMAIN}$")
NAMESPACE = text(63, f"^{LABEL}$")
KIND = "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"
GROUPS = f"^$|^{SUBDOMAIN}$"
PORT = number(1, 65535)
HOST = text(253, rf"^(\*\.)?{SUBDOMAIN}$")
EXACT_HOST = text(253, f"^{SUBDOMAIN}$")
DURATION = {"type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"}


def group(default: str | None = None) -> Schema:
    """The group of an object that is referred to; empty for the core's."""
    return text(253, GROUPS, 0, default)


def kind(default: str | None = None) -> Schema:
    """The kind of an object that is referred to."""
    return text(63, KIND, 1, default)


def _condition() -> Schema:
    return structure(
        "lastTransitionTime message reason status type",
        lastTransitionTime={"type": "string", "format": "date-time"},
        message=text(32768, shortest=0),
        observedGeneration={"type": "integer", "format": "int64", "minimum": 0},
        reason=text(1024, "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"),
        status=choice("True", "False", "Unknown"),
        type=text(316, shortest=0),
    )


def conditions(*pending: str, least: int = 0) -> Schema:
    """Conditions by type; those that are `pending` stand there until a controller comes."""
    made = array(_condition(), 8, least, "map", "type")
    return {**made, "default": waiting(pending)} if pending else made


def waiting(types: Iterable[str]) -> list[dict[str, str]]:
    """Conditions that nobody has judged yet."""
    common = {"lastTransitionTime": _UNTIL, "message": "Waiting for controller", "reason": "Pending"}
    return [{**common, "status": "Unknown", "type": name} for name in types]
