"""Defaults of IngressClasses and NetworkPolicies."""

from __future__ import annotations

from typing import Any

from fairlead.api.defaults.absent import child, default_text


def default_ingressclass(obj: dict[str, Any]) -> None:
    """Parameters are cluster-wide unless told."""
    parameters = (obj.get("spec") or {}).get("parameters")
    if parameters is not None:
        default_text(parameters, "scope", "Cluster")


def default_networkpolicy(obj: dict[str, Any]) -> None:
    """TCP; it is about ingress, and about egress if it has rules for that."""
    spec = child(obj, "spec")
    child(spec, "podSelector")
    for direction in ("ingress", "egress"):
        for rule in spec.get(direction) or ():
            for port in rule.get("ports") or ():
                default_text(port, "protocol", "TCP")
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def default_priorityclass(obj: dict[str, Any]) -> None:
    """Its pods may make others go."""
    default_text(obj, "preemptionPolicy", "PreemptLowerPriority")
