"""Where an object is kept and in what form.

Key: `<group or "core">/<plural>/<namespace or nothing>/<name>`. Value: the object as JSON without its resourceVersion
(that is the record's `modified`), written so that `metadata` opens at a place known for the kind; the resourceVersion
is spliced in there when the object is served, without decoding it. A kind served in several groups has one stored form.
Invariant: `decode(resource, record)` and `orjson.loads(served(resource, record))` are the same object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from fairlead.api import autoscaling, kinds
from fairlead.api.kinds import TWINS, Resource
from fairlead.registry import events
from fairlead.store.interface import Record

Object = dict[str, Any]

_CONVERSIONS: dict[Resource, tuple[Callable[[Object], Object], Callable[[Object], Object]]] = {
    kinds.EVENTS_V1: (events.to_core, events.from_core),
    kinds.HORIZONTALPODAUTOSCALERS_V1: (autoscaling.to_v2, autoscaling.to_v1),
}
"""Into the form in which objects of a resource are kept, and back."""


def stored_resource(resource: Resource) -> Resource:
    """The resource in whose form objects of this one are kept."""
    return TWINS.get(resource, resource)


def prefix_of(resource: Resource, namespace: str = "") -> str:
    """The prefix of the keys of a resource; of one namespace if one is given."""
    kept = stored_resource(resource)
    prefix = f"{kept.group or 'core'}/{kept.plural}/"
    return f"{prefix}{namespace}/" if namespace else prefix


def key_of(resource: Resource, namespace: str, name: str) -> str:
    """The key of one object."""
    kept = stored_resource(resource)
    return f"{kept.group or 'core'}/{kept.plural}/{namespace if kept.namespaced else ''}/{name}"


def _head(kind: str, api_version: str) -> bytes:
    return b'{"kind":%b,"apiVersion":%b,"metadata":{' % (orjson.dumps(kind), orjson.dumps(api_version))


_HEADS = {resource: _head(resource.kind, resource.api_version) for resource in kinds.RESOURCES}


def encode(resource: Resource, obj: Object) -> bytes:
    """The stored form of an object in the form of `resource`. Its resourceVersion is left out."""
    kept = stored_resource(resource)
    if kept is not resource:
        obj = _CONVERSIONS[resource][0](obj)
    version = kept.api_version if kept.definition is None else kept.definition.stored_api_version
    metadata = {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}
    rest = {key: value for key, value in obj.items() if key not in {"kind", "apiVersion", "metadata"}}
    return orjson.dumps({"kind": kept.kind, "apiVersion": version, "metadata": metadata, **rest})


def served(resource: Resource, record: Record) -> bytes:
    """The object as clients get it, encoded."""
    kept = stored_resource(resource)
    if kept is not resource:
        return orjson.dumps(decode(resource, record))
    if kept.definition is not None:
        return _served_custom(kept, record)
    head = _HEADS[kept]
    return b'%b"resourceVersion":"%d",%b' % (head, record.modified, record.value[len(head) :])


def _served_custom(resource: Resource, record: Record) -> bytes:
    """A custom object: stored in its definition's storage version (of then), and defaulted as its schema is now."""
    definition = resource.definition
    stored = _head(resource.kind, definition.stored_api_version)
    if definition.node.has_defaults or not record.value.startswith(stored):
        return orjson.dumps(decode(resource, record))
    head = _head(resource.kind, resource.api_version)
    return b'%b"resourceVersion":"%d",%b' % (head, record.modified, record.value[len(stored) :])


def decode(resource: Resource, record: Record) -> Object:
    """The object as clients get it, decoded; the caller may change it."""
    obj: Object = orjson.loads(record.value)
    obj["metadata"]["resourceVersion"] = str(record.modified)
    if resource.definition is not None:
        obj["apiVersion"] = resource.api_version
        resource.definition.default(obj)
    return obj if stored_resource(resource) is resource else _CONVERSIONS[resource][1](obj)


def copy(obj: Object) -> Object:
    """A deep copy (encode and decode: several times quicker than copy.deepcopy)."""
    result: Object = orjson.loads(orjson.dumps(obj))
    return result


def without_nulls(value: Any) -> Any:
    """The same JSON without members that are null, at any depth: to Kubernetes they are absent."""
    if isinstance(value, dict):
        return {key: without_nulls(member) for key, member in value.items() if member is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value
