"""Which fields a list or watch may select by, per resource, and their values in an object.

Stands under `selectors`. Every resource has metadata.name and (if namespaced) metadata.namespace; some have more.
Invariant: `supported_field` accepts the labels upstream's conversion functions accept (pkg/apis/*/conversion.go), and
`selectable_fields` gives the fields upstream's registries compute (pkg/registry/*/strategy.go).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fairlead.api.errors import bad_request
from fairlead.api.kinds import Resource

Object = Mapping[str, Any]
_Extract = Callable[[Object], dict[str, str]]


def _pod(obj: Object) -> dict[str, str]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    ips = status.get("podIPs")
    return {
        "spec.nodeName": spec.get("nodeName") or "",
        "spec.restartPolicy": spec.get("restartPolicy") or "",
        "spec.schedulerName": spec.get("schedulerName") or "",
        "spec.serviceAccountName": spec.get("serviceAccountName") or "",
        "spec.hostNetwork": "true" if spec.get("hostNetwork") else "false",
        "status.phase": status.get("phase") or "",
        "status.podIP": (ips[0].get("ip") or "") if ips else status.get("podIP") or "",
        "status.nominatedNodeName": status.get("nominatedNodeName") or "",
    }


def _service(obj: Object) -> dict[str, str]:
    spec = obj.get("spec") or {}
    return {"spec.clusterIP": spec.get("clusterIP") or "", "spec.type": spec.get("type") or ""}


def _node(obj: Object) -> dict[str, str]:
    return {"spec.unschedulable": "true" if (obj.get("spec") or {}).get("unschedulable") else "false"}


def _namespace(obj: Object) -> dict[str, str]:
    return {"status.phase": (obj.get("status") or {}).get("phase") or ""}


def _secret(obj: Object) -> dict[str, str]:
    return {"type": obj.get("type") or ""}


_REFERENCE = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")


def _event(obj: Object) -> dict[str, str]:
    """Both forms of an Event (core and events.k8s.io) give the same fields."""
    reference = obj.get("involvedObject") or obj.get("regarding") or {}
    fields = {f"involvedObject.{name}": reference.get(name) or "" for name in _REFERENCE}
    controller = obj.get("reportingComponent") or obj.get("reportingController") or ""
    source = obj.get("source") or obj.get("deprecatedSource") or {}
    fields["reason"] = obj.get("reason") or ""
    fields["reportingComponent"] = controller
    fields["source"] = source.get("component") or controller
    fields["type"] = obj.get("type") or ""
    return fields


def _replicas(obj: Object) -> dict[str, str]:
    return {"status.replicas": str((obj.get("status") or {}).get("replicas") or 0)}


def _job(obj: Object) -> dict[str, str]:
    return {"status.successful": str((obj.get("status") or {}).get("succeeded") or 0)}


def _signing_request(obj: Object) -> dict[str, str]:
    return {"spec.signerName": (obj.get("spec") or {}).get("signerName") or ""}


class _Fields:
    """What may be selected by: label as a client writes it → label as `extract` gives it."""

    def __init__(self, extract: _Extract, *names: str, **renamed: str) -> None:
        self.extract = extract
        self.labels = {name: name for name in ("metadata.name", *names)}
        self.labels.update({name.replace("__", "."): target for name, target in renamed.items()})


_SPECIFIC: dict[tuple[str, str], _Fields] = {
    ("", "pods"): _Fields(
        _pod,
        "metadata.namespace",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",  # accepted by upstream, where it is always empty
        "status.nominatedNodeName",
        spec__host="spec.nodeName",  # the name of very old clients
    ),
    ("", "services"): _Fields(_service, "metadata.namespace", "spec.clusterIP", "spec.type"),
    ("", "nodes"): _Fields(_node, "spec.unschedulable"),
    ("", "namespaces"): _Fields(_namespace, "status.phase"),
    ("", "secrets"): _Fields(_secret, "metadata.namespace", "type"),
    ("", "replicationcontrollers"): _Fields(_replicas, "metadata.namespace", "status.replicas"),
    ("", "events"): _Fields(
        _event,
        "metadata.namespace",
        *(f"involvedObject.{name}" for name in _REFERENCE),
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
    ("events.k8s.io", "events"): _Fields(
        _event,
        "metadata.namespace",
        "reason",
        "type",
        reportingController="reportingComponent",
        **{f"regarding__{name}": f"involvedObject.{name}" for name in _REFERENCE},
    ),
    ("batch", "jobs"): _Fields(_job, "metadata.namespace", "status.successful"),
    ("certificates.k8s.io", "certificatesigningrequests"): _Fields(_signing_request, "spec.signerName"),
}


def _text_at(value: Any, path: tuple[str, ...]) -> str:
    """The text form of a scalar member; empty if it is not there."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else ""


def supported_field(resource: Resource, label: str) -> str:
    """The name `selectable_fields` uses for a field as a client names it. Errors: StatusError 400 if unsupported."""
    specific = _SPECIFIC.get((resource.group, resource.plural))
    if specific is None:
        if label in ("metadata.name", "metadata.namespace"):
            return label
        if resource.definition is not None:
            if label in resource.definition.selectable:
                return label
            raise bad_request(f"field label not supported: {label}")
        raise bad_request(
            f'"{label}" is not a known field selector: only "metadata.name", "metadata.namespace"',
        )
    try:
        return specific.labels[label]
    except KeyError:
        raise bad_request(f"field label not supported: {label}") from None


def selectable_fields(resource: Resource, obj: Object) -> dict[str, str]:
    """The fields of an object a selector can look at, as text."""
    metadata = obj.get("metadata") or {}
    specific = _SPECIFIC.get((resource.group, resource.plural))
    fields = {} if specific is None else specific.extract(obj)
    if resource.definition is not None:
        fields = {label: _text_at(obj, path) for label, path in resource.definition.selectable.items()}
    fields["metadata.name"] = metadata.get("name") or ""
    if resource.namespaced:
        fields["metadata.namespace"] = metadata.get("namespace") or ""
    return fields
