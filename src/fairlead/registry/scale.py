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


def scale_of(obj: Object) -> Object:
    """The `autoscaling/v1 Scale` of a workload."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    metadata = obj["metadata"]
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in _METADATA if key in metadata},
        "spec": {"replicas": spec.get("replicas", 0)},
        "status": {
            "replicas": status.get("replicas", 0),
            "selector": _selector(obj).render(),
        },
    }


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
    obj.setdefault("spec", {})["replicas"] = replicas
    return obj
