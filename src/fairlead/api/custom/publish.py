"""Custom schemas as OpenAPI documents show them: v3 whole, v2 as far as old kubectls understand it.

Pure. Invariant: what is published is what is checked, but for rules that v2 has no words for.
"""

from __future__ import annotations

from typing import Any

from fairlead.api.kinds import Resource

Object = dict[str, Any]

_V2 = ("type", "format", "required")


def name_of(resource: Resource) -> str:
    """The definition's name in documents: `com.example.stable.v1.CronTab`."""
    return ".".join([*reversed(resource.group.split(".")), resource.version, resource.kind])


def v3(resource: Resource, metadata: Object) -> Object:
    """The schema of whole objects; `metadata` refers to ObjectMeta."""
    schema = dict(resource.definition.schema)
    schema["properties"] = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        **(schema.get("properties") or {}),
        "metadata": {"allOf": [metadata]},
    }
    return schema


def v2(resource: Resource, metadata: Object) -> Object:
    """As `v3`, in the few words that every kubectl understands; open where there is more to it."""
    made = _reduced(resource.definition.schema)
    made["properties"] = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        **(made.get("properties") or {}),
        "metadata": metadata,
    }
    return made


def _reduced(schema: Any) -> Object:
    if not isinstance(schema, dict):
        return {}
    made: Object = {key: schema[key] for key in _V2 if schema.get(key)}
    if schema.get("nullable") or schema.get("x-kubernetes-preserve-unknown-fields"):
        return {}  # old kubectls would refuse null, and fields that are not listed
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": "string", "format": "int-or-string"}
    if schema.get("properties"):
        made["properties"] = {name: _reduced(inner) for name, inner in schema["properties"].items()}
    if isinstance(schema.get("items"), dict):
        made["items"] = _reduced(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = _reduced(schema["additionalProperties"])
    return made
