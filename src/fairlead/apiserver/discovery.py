"""Discovery documents: which groups, versions, resources and verbs there are, in every form clients ask for.

Pure functions of the resource table; the server caches their bytes. Invariant: the legacy documents, both aggregated
ones and what dispatch serves are made from the same rows, so they can't disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from fairlead.api.kinds import MEASURED, RESOURCES, Resource
from fairlead.api.version import GIT_VERSION, MAJOR, MINOR

# Upstream's order of preference (the priorities of its APIServices); kubectl resolves ambiguous names in this order.
_GROUP_ORDER = (
    "",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "rbac.authorization.k8s.io",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
)
STORED_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_STATUS_VERBS = ("get", "patch", "update")
AGGREGATED_TYPES = {
    "v2": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    "v2beta1": "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
}


class Subresource(msgspec.Struct, frozen=True):
    """What a subresource takes: its own kind (empty: the resource's) and its verbs."""

    verbs: tuple[str, ...]
    kind: str = ""
    group: str = ""
    version: str = ""
    older: tuple[str, ...] = ()  # versions of the kind that are the same, and that older clients send


SUBRESOURCES: dict[str, Subresource] = {
    "status": Subresource(_STATUS_VERBS),
    "scale": Subresource(_STATUS_VERBS, "Scale", "autoscaling", "v1"),
    "approval": Subresource(_STATUS_VERBS),
    "ephemeralcontainers": Subresource(_STATUS_VERBS),
    "finalize": Subresource(("update",)),
    "log": Subresource(("get",)),
    "exec": Subresource(("create", "get"), "PodExecOptions", "", "v1"),
    "attach": Subresource(("create", "get"), "PodAttachOptions", "", "v1"),
    "portforward": Subresource(("create", "get"), "PodPortForwardOptions", "", "v1"),
    "proxy": Subresource(
        ("create", "delete", "get", "patch", "update"), "ProxyOptions", "", "v1"
    ),  # of the resource's kind
    "binding": Subresource(("create",), "Binding", "", "v1"),
    "eviction": Subresource(("create",), "Eviction", "policy", "v1", older=("policy/v1beta1",)),
    "token": Subresource(("create",), "TokenRequest", "authentication.k8s.io", "v1"),
}


def verbs_of(resource: Resource, subresource: str = "") -> tuple[str, ...]:
    """The verbs a resource (or a subresource of it) takes."""
    if subresource:
        return SUBRESOURCES[subresource].verbs
    if resource in MEASURED:
        return ("get", "list")
    if not resource.stored:
        return ("create",)
    if resource.plural == "namespaces":
        return tuple(verb for verb in STORED_VERBS if verb != "deletecollection")
    return STORED_VERBS


def groups(resources: Sequence[Resource] = RESOURCES) -> dict[str, dict[str, list[Resource]]]:
    """group → version → resources, in order of preference."""
    found: dict[str, dict[str, list[Resource]]] = {}
    order = {group: index for index, group in enumerate(_GROUP_ORDER)}
    for resource in sorted(resources, key=lambda r: order.get(r.group, len(order))):
        found.setdefault(resource.group, {}).setdefault(resource.version, []).append(resource)
    return found


def version_document(go_version: str = "", platform: str = "linux/amd64") -> dict[str, Any]:
    """`/version`."""
    return {
        "major": MAJOR,
        "minor": MINOR,
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": go_version,
        "compiler": "cpython",
        "platform": platform,
    }


def api_versions(server_address: str) -> dict[str, Any]:
    """`/api`, legacy form."""
    addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses}


def api_group_list(resources: Sequence[Resource] = RESOURCES) -> dict[str, Any]:
    """`/apis`, legacy form."""
    found = [_group(group, versions) for group, versions in groups(resources).items() if group]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}


def api_group(group: str, resources: Sequence[Resource] = RESOURCES) -> dict[str, Any] | None:
    """`/apis/<group>`, or None if there is no such group."""
    versions = groups(resources).get(group) if group else None
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, versions)} if versions else None


def _group(group: str, versions: dict[str, list[Resource]]) -> dict[str, Any]:
    found = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": found, "preferredVersion": found[0]}


def api_resource_list(group: str, version: str, served: Sequence[Resource] = RESOURCES) -> dict[str, Any] | None:
    """`/api/v1` or `/apis/<group>/<version>`, or None if it isn't served."""
    resources = groups(served).get(group, {}).get(version)
    if resources is None:
        return None
    rows: list[dict[str, Any]] = []
    for resource in resources:
        row: dict[str, Any] = {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": list(verbs_of(resource)),
        }
        if resource.short_names:
            row["shortNames"] = list(resource.short_names)
        if resource.categories:
            row["categories"] = list(resource.categories)
        rows.append(row)
        for name, sub in _subresources(resource):
            rows.append(
                {
                    "name": f"{resource.plural}/{name}",
                    "singularName": "",
                    "namespaced": resource.namespaced,
                    **({"group": sub.group, "version": sub.version} if sub.group else {}),
                    "kind": sub.kind or resource.kind,
                    "verbs": list(sub.verbs),
                }
            )
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": rows,
    }


def _subresources(resource: Resource) -> Iterator[tuple[str, Subresource]]:
    for name in sorted(resource.subresources):
        sub = SUBRESOURCES[name]
        yield name, msgspec.structs.replace(sub, kind=f"{resource.kind}ProxyOptions") if name == "proxy" else sub


def aggregated(core: bool, form: Literal["v2", "v2beta1"], served: Sequence[Resource] = RESOURCES) -> dict[str, Any]:
    """An APIGroupDiscoveryList: of `/api` (only the core group) or of `/apis` (all the others)."""
    items = []
    for group, versions in groups(served).items():
        if bool(group) == core:
            continue
        rows = [
            {"version": version, "resources": [_aggregated(r) for r in resources], "freshness": "Current"}
            for version, resources in versions.items()
        ]
        items.append({"metadata": {"name": group, "creationTimestamp": None} if group else {}, "versions": rows})
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{form}",
        "metadata": {},
        "items": items,
    }


def _aggregated(resource: Resource) -> dict[str, Any]:
    subresources = [
        {
            "subresource": name,
            "responseKind": {
                "group": sub.group if sub.kind else resource.group,
                "version": sub.version if sub.kind else resource.version,
                "kind": sub.kind or resource.kind,
            },
            "verbs": list(sub.verbs),
        }
        for name, sub in _subresources(resource)
    ]
    return {
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(verbs_of(resource)),
        **({"shortNames": list(resource.short_names)} if resource.short_names else {}),
        **({"categories": list(resource.categories)} if resource.categories else {}),
        **({"subresources": subresources} if subresources else {}),
    }
