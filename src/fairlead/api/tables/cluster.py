"""The tables of Nodes and Namespaces."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fairlead.api.tables.cells import AGE, NAME, NONE, UNKNOWN, Column, Printer, age, name

_ROLE_PREFIX = "node-role.kubernetes.io/"
_ROLE = "kubernetes.io/role"


def _namespace(namespace: dict[str, Any], now: datetime) -> list[Any]:
    return [name(namespace), (namespace.get("status") or {}).get("phase") or "", age(namespace, now)]


NAMESPACES = Printer((NAME, Column("Status", "Whether the namespace is in use or being deleted."), AGE), _namespace)


def _status(node: dict[str, Any]) -> str:
    conditions = (node.get("status") or {}).get("conditions") or ()
    ready = [c for c in conditions if c.get("type") == "Ready"]
    word = "Unknown" if not ready else "Ready" if ready[-1].get("status") == "True" else "NotReady"
    return word + (",SchedulingDisabled" if (node.get("spec") or {}).get("unschedulable") else "")


def _roles(node: dict[str, Any]) -> str:
    labels = (node.get("metadata") or {}).get("labels") or {}
    roles = {key.removeprefix(_ROLE_PREFIX) for key in labels if key.startswith(_ROLE_PREFIX)}
    roles.add(labels.get(_ROLE) or "")
    return ",".join(sorted(roles - {""})) or NONE


def _address(node: dict[str, Any], kind: str) -> str:
    for address in (node.get("status") or {}).get("addresses") or ():
        if address.get("type") == kind:
            return str(address.get("address") or "")
    return NONE


def _node(node: dict[str, Any], now: datetime) -> list[Any]:
    info = (node.get("status") or {}).get("nodeInfo") or {}
    return [
        name(node),
        _status(node),
        _roles(node),
        age(node, now),
        info.get("kubeletVersion") or "",
        _address(node, "InternalIP"),
        _address(node, "ExternalIP"),
        info.get("osImage") or UNKNOWN,
        info.get("kernelVersion") or UNKNOWN,
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


NODES = Printer(
    (
        NAME,
        Column("Status", "Whether the node is ready, and takes new pods."),
        Column("Roles", "What the node is for."),
        AGE,
        Column("Version", "The version of the node's agent."),
        Column("Internal-IP", "The node's address within the cluster.", 1),
        Column("External-IP", "The node's address outside of the cluster.", 1),
        Column("OS-Image", "The node's operating system.", 1),
        Column("Kernel-Version", "The node's kernel.", 1),
        Column("Container-Runtime", "What runs the node's containers.", 1),
    ),
    _node,
)
