"""Defaults of StatefulSets, DaemonSets and ReplicationControllers."""

from __future__ import annotations

from typing import Any

from fairlead.api.defaults.absent import child, default, default_text
from fairlead.api.defaults.pod import default_pod_spec
from fairlead.api.defaults.storage import default_claim_template


def default_template(spec: dict[str, Any]) -> None:
    """The pod template of a workload's spec."""
    template = spec.get("template")
    if template is not None:
        default_pod_spec(child(template, "spec"))


def default_statefulset(obj: dict[str, Any]) -> None:
    """One replica; ordered; a rolling update of all pods; ten old revisions."""
    spec = child(obj, "spec")
    default_text(spec, "podManagementPolicy", "OrderedReady")
    strategy = child(spec, "updateStrategy")
    default_text(strategy, "type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        default(child(strategy, "rollingUpdate"), "partition", 0)
    policy = child(spec, "persistentVolumeClaimRetentionPolicy")
    default_text(policy, "whenDeleted", "Retain")
    default_text(policy, "whenScaled", "Retain")
    default(spec, "replicas", 1)
    default(spec, "revisionHistoryLimit", 10)
    for claim in spec.get("volumeClaimTemplates") or ():
        default_claim_template(claim)
    default_template(spec)


def default_daemonset(obj: dict[str, Any]) -> None:
    """A rolling update node by node; ten old revisions."""
    spec = child(obj, "spec")
    strategy = child(spec, "updateStrategy")
    default_text(strategy, "type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = child(strategy, "rollingUpdate")
        default(rolling, "maxUnavailable", 1)
        default(rolling, "maxSurge", 0)
    default(spec, "revisionHistoryLimit", 10)
    default_template(spec)


def default_replicationcontroller(obj: dict[str, Any]) -> None:
    """One replica; selector and labels are the template's."""
    spec = child(obj, "spec")
    template = spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels")
    if labels:
        if not spec.get("selector"):
            spec["selector"] = dict(labels)
        metadata = child(obj, "metadata")
        if not metadata.get("labels"):
            metadata["labels"] = dict(labels)
    default(spec, "replicas", 1)
    default_template(spec)
