"""The scale subresource: how many replicas are wanted and there are, whatever the kind.

Pure. Invariant: writing back the Scale that was read changes nothing.
"""

from __future__ import annotations

from typing import Any

from fairlead.api.errors import bad_request, conflict, invalid, unprocessable
from fairlead.api.kinds import REPLICATIONCONTROLLERS, Resource
from fairlead.api.selectors import LabelSelector

Object = dict[str, Any]

_METADATA = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def scale_of(resource: Resource, obj: Object) -> Object:
    """The `autoscaling/v1 Scale` of a workload, or of a custom object by its definition's paths."""
    metadata = obj["metadata"]
    if resource.definition is not None:
        paths = resource.definition.scale
        wanted, there = _at(obj, paths.spec) or 0, _at(obj, paths.status) or 0
        selector = _at(obj, paths.selector) if paths.selector else None
    else:
        wanted = (obj.get("spec") or {}).get("replicas", 0)
        there = (obj.get("status") or {}).get("replicas", 0)
        selector = _selector(obj).render()
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in _METADATA if key in metadata},
        "spec": {"replicas": wanted},
        "status": {"replicas": there, **({"selector": selector} if selector is not None else {})},
    }


def _at(obj: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        obj = obj.get(name) if isinstance(obj, dict) else None
    return obj


def _path(resource: Resource) -> tuple[str, ...]:
    return ("spec", "replicas") if resource.definition is None else resource.definition.scale.spec


def scaled_part(resource: Resource, scale: Object) -> Object:
    """The workload of which a Scale that is applied says only how many: what its applier wants of the workload."""
    whole: Object = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": scale.get("metadata") or {}}
    if "replicas" in (scale.get("spec") or {}):
        _set(whole, _path(resource), scale["spec"]["replicas"])
    return whole


def _set(obj: Object, path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        obj = obj.setdefault(name, {})
    obj[path[-1]] = value


def _selector(obj: Object) -> LabelSelector:
    """Of most kinds a LabelSelector, of a ReplicationController a plain map."""
    selector = (obj.get("spec") or {}).get("selector") or {}
    return LabelSelector.of({"matchLabels": selector} if obj.get("kind") == REPLICATIONCONTROLLERS.kind else selector)


def apply_scale(resource: Resource, obj: Object, scale: Object) -> Object:
    """The workload, scaled. StatusError 400, 409 or 422 for a Scale that is not for it, is stale, or is invalid."""
    metadata, given = obj["metadata"], scale.get("metadata") or {}
    name = metadata["name"]
    if given.get("name", name) != name:
        raise bad_request(f"the name of the object ({given['name']}) does not match the name on the URL ({name})")
    if given.get("uid") and given["uid"] != metadata["uid"]:
        why = f"Precondition failed: UID in precondition: {given['uid']}, UID in object meta: {metadata['uid']}"
        raise conflict(resource.plural, resource.group, name, why)
    if given.get("resourceVersion") and given["resourceVersion"] != metadata["resourceVersion"]:
        raise conflict(resource.plural, resource.group, name)
    replicas = (scale.get("spec") or {}).get("replicas") or 0
    if type(replicas) is not int:
        raise bad_request("spec.replicas must be an integer")
    if replicas < 0:
        error = invalid("spec.replicas", replicas, "must be greater than or equal to 0")
        raise unprocessable("Scale", "autoscaling", name, [error])
    _set(obj, _path(resource), replicas)
    return obj
