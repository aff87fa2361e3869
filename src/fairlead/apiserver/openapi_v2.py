"""OpenAPI v2 (Swagger), as JSON and in the protobuf form that older kubectls demand.

kubectl up to 1.26 validates manifests, finds merge keys and checks for dry-run with `/openapi/v2` in protobuf only, so
without this Debian's 1.20 can't apply anything. Pure. Invariant: `encode` knows every key `document` can make; an
unknown one is an error, not a gap.

The field numbers are those of gnostic's OpenAPIv2.proto. Definitions hold structure only, no descriptions.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from fairlead.api import schema
from fairlead.api.custom import publish
from fairlead.api.kinds import Resource

Object = dict[str, Any]

PROTOBUF_TYPES = (
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
)
_GVK = "x-kubernetes-group-version-kind"
_META = "meta.v1.ObjectMeta"
_SIMPLE: dict[str, Object] = {
    "string": {"type": "string"},
    "boolean": {"type": "boolean"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "double": {"type": "number", "format": "double"},
    "bytes": {"type": "string", "format": "byte"},
    "Time": {"type": "string", "format": "date-time"},
    "MicroTime": {"type": "string", "format": "date-time"},
    "Quantity": {"type": "string"},
    "IntOrString": {"type": "string", "format": "int-or-string"},
    "any": {},
}
_PATCH_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation", "force", "pretty")


def document(resources: Iterable[Resource], version: str) -> Object:
    """The Swagger document of the resources: their definitions and, for each, the path that can be patched."""
    definitions: dict[str, Object] = {}
    paths: dict[str, Object] = {}
    for resource in resources:
        gvk = {"group": resource.group, "kind": resource.kind, "version": resource.version}
        if resource.definition is None:
            name = schema.schema_of(resource).name
            _define(name, definitions)
            definitions[schema.long_name(name)].setdefault(_GVK, []).append(gvk)
        else:
            _define(_META, definitions)
            metadata = {"$ref": f"#/definitions/{schema.long_name(_META)}"}
            definitions[publish.name_of(resource)] = {**publish.v2(resource, metadata), _GVK: [gvk]}
        if resource.stored:
            parameters = [
                {"name": parameter, "in": "query", "type": "boolean" if parameter == "force" else "string"}
                for parameter in _PATCH_PARAMETERS
            ]
            place = "{namespace}" if resource.namespaced else ""
            operation = {"parameters": parameters, "responses": {"200": {"description": "OK"}}, _GVK: gvk}
            paths[resource.path(place, "{name}")] = {"patch": operation}
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "definitions": dict(sorted(definitions.items())),
    }


def _define(name: str, into: dict[str, Object]) -> None:
    """Add a definition and all it refers to."""
    long = schema.long_name(name)
    if long in into:
        return
    described = schema.named(name)
    made: Object = {"type": "object"}
    into[long] = made
    required = [field.name for field in described.fields.values() if field.required]
    if required:
        made["required"] = required
    made["properties"] = {field.name: _property(field, into) for field in described.fields.values()}


def _property(field: schema.Field, into: dict[str, Object]) -> Object:
    made = dict(_type(field.type, into))
    marks: dict[str, Any] = {
        "x-kubernetes-list-type": field.list_type,
        "x-kubernetes-list-map-keys": list(field.list_keys),
        "x-kubernetes-map-type": field.map_type,
        "x-kubernetes-patch-merge-key": field.merge_key,
        "x-kubernetes-patch-strategy": ",".join(field.strategy),
    }
    made.update({key: value for key, value in marks.items() if value})
    return made


def _type(of: schema.Type, into: dict[str, Object]) -> Object:
    if of.form == "object":
        _define(of.definition, into)
        return {"$ref": f"#/definitions/{schema.long_name(of.definition)}"}
    if of.form == "list":
        assert of.item is not None
        return {"type": "array", "items": _type(of.item, into)}
    if of.form == "map":
        assert of.item is not None
        return {"type": "object", "additionalProperties": _type(of.item, into)}
    return _SIMPLE[of.form]


# ---- the protobuf form


def encode(doc: Mapping[str, Any]) -> bytes:
    """The document as an `openapi.v2.Document` message."""
    out = _text(1, doc["swagger"])
    out += _message(2, _text(1, doc["info"]["title"]) + _text(2, doc["info"]["version"]))
    out += _message(8, b"".join(_named(2, path, _path_item(item)) for path, item in doc["paths"].items()))
    definitions = (_named(1, name, _schema(value)) for name, value in doc["definitions"].items())
    return out + _message(9, b"".join(definitions))


def _path_item(item: Mapping[str, Any]) -> bytes:
    operation = item["patch"]
    out = b"".join(_message(8, _message(1, _query_parameter(p))) for p in operation["parameters"])
    responses = (
        _named(1, code, _message(1, _text(1, response["description"])))
        for code, response in operation["responses"].items()
    )
    out += _message(9, b"".join(responses))
    return _message(8, out + _extension(13, _GVK, operation[_GVK]))


def _query_parameter(parameter: Mapping[str, Any]) -> bytes:
    """Parameter.non_body_parameter.query_parameter_sub_schema."""
    sub = _text(2, parameter["in"]) + _text(4, parameter["name"]) + _text(6, parameter["type"])
    return _message(2, _message(3, sub))


def _schema(value: Mapping[str, Any]) -> bytes:
    out = b""
    for key, item in value.items():
        write = _SCHEMA_FIELDS.get(key)
        if write is not None:
            out += write(item)
        elif key.startswith("x-"):
            out += _extension(31, key, item)
        else:
            raise ValueError(f"OpenAPI v2 schema key {key!r} has no protobuf form here")
    return out


_SCHEMA_FIELDS: dict[str, Callable[[Any], bytes]] = {
    "$ref": lambda v: _text(1, v),
    "format": lambda v: _text(2, v),
    "required": lambda v: b"".join(_text(19, name) for name in v),
    "additionalProperties": lambda v: _message(21, _message(1, _schema(v))),
    "type": lambda v: _message(22, _text(1, v)),
    "items": lambda v: _message(23, _message(1, _schema(v))),
    "properties": lambda v: _message(25, b"".join(_named(1, name, _schema(item)) for name, item in v.items())),
}


def _named(number: int, name: str, value: bytes) -> bytes:
    """A map entry: `{string name = 1; Value value = 2}`."""
    return _message(number, _text(1, name) + _message(2, value))


def _extension(number: int, name: str, value: Any) -> bytes:
    """A NamedAny whose value is YAML text (JSON is YAML)."""
    return _named(number, name, _message(2, orjson.dumps(value)))


def _text(number: int, value: str) -> bytes:
    return _message(number, value.encode())


def _message(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += struct.pack("B", value & 0x7F | 0x80)
        value >>= 7
    return out + struct.pack("B", value)
