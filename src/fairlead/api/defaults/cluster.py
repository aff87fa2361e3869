"""Defaults of the kinds without a namespace: Namespace and Node."""

from __future__ import annotations

from typing import Any

from fairlead.api.defaults.absent import canonical_quantities, child, default_text

NAME_LABEL = "kubernetes.io/metadata.name"
NAMESPACE_FINALIZER = "kubernetes"


def default_namespace(obj: dict[str, Any]) -> None:
    """The label with its own name, the finalizer that keeps it until it is empty, phase Active.

    The finalizer is not put back once deletion has begun: removing it is how deletion ends.
    """
    metadata = child(obj, "metadata")
    if metadata.get("name"):
        child(metadata, "labels")[NAME_LABEL] = metadata["name"]
    if not metadata.get("deletionTimestamp"):
        spec = child(obj, "spec")
        if not spec.get("finalizers"):
            spec["finalizers"] = [NAMESPACE_FINALIZER]
    default_text(child(obj, "status"), "phase", "Active")


def default_node(obj: dict[str, Any]) -> None:
    """`podCIDR` and the first of `podCIDRs` say the same; what can be allocated is, unless told, all there is."""
    spec = child(obj, "spec")
    single, several = spec.get("podCIDR"), spec.get("podCIDRs")
    if single and (not several or several[0] != single):
        spec["podCIDRs"] = [single]
    elif several and not single:
        spec["podCIDR"] = several[0]
    status = obj.get("status")
    if status:
        canonical_quantities(status.get("capacity"))
        if status.get("allocatable") is None and status.get("capacity") is not None:
            status["allocatable"] = dict(status["capacity"])
        canonical_quantities(status.get("allocatable"))
