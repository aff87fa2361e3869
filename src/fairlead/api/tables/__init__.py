"""Tables: objects as `kubectl get` prints them.

Stands between the registry's objects and the API server's replies. What a column is called, its priority (1 = only with
`-o wide`) and what its cells say are upstream's, because people and scripts read them. Invariant: every row has as
many cells as there are columns. Source: kubernetes `pkg/printers/internalversion`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

from fairlead.api import kinds
from fairlead.api.kinds import Resource
from fairlead.api.tables import (
    autoscaling,
    certificates,
    cluster,
    config,
    events,
    jobs,
    network,
    networking,
    pods,
    policy,
    rbac,
    sets,
    storage,
    workloads,
)
from fairlead.api.tables.cells import Printer, plain

Include = Literal["Metadata", "Object", "None"]

_PRINTERS: dict[Resource, Printer] = {
    kinds.NAMESPACES: cluster.NAMESPACES,
    kinds.NODES: cluster.NODES,
    kinds.PODS: pods.PODS,
    kinds.SERVICES: network.SERVICES,
    kinds.ENDPOINTS: network.ENDPOINTS,
    kinds.ENDPOINTSLICES: network.ENDPOINTSLICES,
    kinds.SERVICECIDRS: network.SERVICECIDRS,
    kinds.IPADDRESSES: network.IPADDRESSES,
    kinds.CONFIGMAPS: config.CONFIGMAPS,
    kinds.SECRETS: config.SECRETS,
    kinds.SERVICEACCOUNTS: config.SERVICEACCOUNTS,
    kinds.LEASES: config.LEASES,
    kinds.EVENTS: events.EVENTS,
    kinds.EVENTS_V1: events.EVENTS,
    kinds.CERTIFICATESIGNINGREQUESTS: certificates.SIGNING_REQUESTS,
    kinds.ROLEBINDINGS: rbac.BINDINGS,
    kinds.CLUSTERROLEBINDINGS: rbac.BINDINGS,
    kinds.REPLICASETS: workloads.REPLICASETS,
    kinds.DEPLOYMENTS: workloads.DEPLOYMENTS,
    kinds.STATEFULSETS: sets.STATEFULSETS,
    kinds.DAEMONSETS: sets.DAEMONSETS,
    kinds.REPLICATIONCONTROLLERS: sets.REPLICATIONCONTROLLERS,
    kinds.JOBS: jobs.JOBS,
    kinds.PODDISRUPTIONBUDGETS: policy.PODDISRUPTIONBUDGETS,
    kinds.HORIZONTALPODAUTOSCALERS: autoscaling.AUTOSCALERS,
    kinds.HORIZONTALPODAUTOSCALERS_V1: autoscaling.AUTOSCALERS_V1,
    kinds.PERSISTENTVOLUMES: storage.VOLUMES,
    kinds.PERSISTENTVOLUMECLAIMS: storage.CLAIMS,
    kinds.STORAGECLASSES: storage.STORAGECLASSES,
    kinds.RESOURCEQUOTAS: policy.RESOURCEQUOTAS,
    kinds.PRIORITYCLASSES: policy.PRIORITYCLASSES,
    kinds.RUNTIMECLASSES: policy.RUNTIMECLASSES,
    kinds.INGRESSES: networking.INGRESSES,
    kinds.INGRESSCLASSES: networking.INGRESSCLASSES,
    kinds.NETWORKPOLICIES: networking.NETWORKPOLICIES,
    kinds.CRONJOBS: jobs.CRONJOBS,
    kinds.CONTROLLERREVISIONS: sets.CONTROLLERREVISIONS,
    kinds.CUSTOMRESOURCEDEFINITIONS: plain(),
}
_DEFAULT = plain()


def table(
    resource: Resource,
    objs: Iterable[dict[str, Any]],
    now: datetime,
    *,
    include: Include = "Metadata",
    list_meta: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The `meta.k8s.io/v1` Table of `objs`, with ages as of `now`.

    `include` says what a row carries beside its cells; `list_meta` is the list's metadata (resourceVersion, continue).
    """
    printer = _PRINTERS.get(resource, _DEFAULT) if resource.definition is None else resource.definition.printer
    rows = []
    for obj in objs:
        row: dict[str, Any] = {"cells": printer.cells(obj, now)}
        conditions = printer.conditions(obj)
        if conditions:
            row["conditions"] = conditions
        row["object"] = _carried(resource, obj, include)
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": dict(list_meta or {}),
        "columnDefinitions": printer.definitions,
        "rows": rows,
    }


def _carried(resource: Resource, obj: dict[str, Any], include: Include) -> dict[str, Any] | None:
    if include == "None":
        return None
    if include == "Object":
        return {"kind": resource.kind, "apiVersion": resource.api_version, **obj}
    metadata = obj.get("metadata") or {}
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
