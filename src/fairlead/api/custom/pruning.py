"""Custom objects made to fit their schema: what it does not know goes, what it has a default for comes.

Between decoding and validation. Pure. Invariant: pruning what was pruned, and defaulting what was defaulted, changes
nothing.
"""

from __future__ import annotations

from typing import Any

import orjson

from fairlead.api import fields, schema
from fairlead.api.custom.structural import Node

Object = dict[str, Any]

_TYPE_META = frozenset({"apiVersion", "kind", "metadata"})
_UNKNOWN_LIMIT = 100


def pruned(node: Node, obj: Object, kind: str, version: str) -> fields.FieldReport:
    """The object without unknown fields, and a message for each of them. StatusError 400 for metadata of the wrong
    type."""
    unknown: list[str] = []
    known = _members(node, obj, "", unknown, root=True)
    for name in ("apiVersion", "kind"):
        if name in obj:
            known[name] = obj[name]
    if obj.get("metadata") is not None:
        known["metadata"] = _metadata(obj["metadata"], "metadata", kind, version, unknown)
    return fields.FieldReport(known, tuple(unknown))


def _metadata(value: Any, path: str, kind: str, version: str, unknown: list[str]) -> Any:
    described = schema.of_kind("", "v1", "ConfigMap")
    report = fields.check_schema(described, {"metadata": value}, kind, version)
    prefix = path.removesuffix("metadata")
    unknown += [message.replace('"metadata', f'"{prefix}metadata', 1) for message in report.unknown]
    return report.object.get("metadata")


def _members(node: Node, value: Object, path: str, unknown: list[str], *, root: bool = False) -> Object:
    known: Object = {}
    prefix = f"{path}." if path else ""
    for name, member in value.items():
        if member is None:
            continue
        inner = node.properties.get(name) or node.additional
        if (root or node.embedded) and name in _TYPE_META:
            if not root:
                known[name] = member
        elif inner is not None:
            known[name] = _value(inner, member, prefix + name, unknown)
        elif node.preserve:
            known[name] = member
        elif len(unknown) < _UNKNOWN_LIMIT:
            unknown.append(f'unknown field "{prefix}{name}"')
    return known


def _value(node: Node, value: Any, path: str, unknown: list[str]) -> Any:
    if type(value) is dict:
        return _members(node, value, path, unknown)
    if type(value) is list and node.items is not None:
        items = node.items
        return [_value(items, item, f"{path}[{index}]", unknown) for index, item in enumerate(value)]
    return value


def default(node: Node, value: Any) -> None:
    """Fill in defaults, in place, wherever there is an object to hold them."""
    if not node.has_defaults:
        return
    if type(value) is dict:
        for name, inner in node.properties.items():
            if value.get(name) is None:
                if inner.default is None:
                    continue
                value[name] = orjson.loads(orjson.dumps(inner.default))
            default(inner, value[name])
        if node.additional is not None:
            for name, member in value.items():
                if name not in node.properties:
                    default(node.additional, member)
    elif type(value) is list and node.items is not None:
        for item in value:
            default(node.items, item)
