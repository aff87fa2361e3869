"""Defaulting: what an object means where it says nothing.

Stands between decoding and validation, on every create, update and patch. Changes the object in place and touches only
what is absent (or null). Invariant: applying twice changes nothing more.
Not here, because they depend on the cluster and not on the object: cluster IPs, node ports, IP families, the service
account of a pod, generated names (apply again once the name is there: a Namespace's label carries it).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fairlead.api import kinds
from fairlead.api.custom import default_crd
from fairlead.api.defaults.autoscaling import default_autoscaler, default_autoscaler_v1
from fairlead.api.defaults.cluster import default_namespace, default_node
from fairlead.api.defaults.data import default_secret
from fairlead.api.defaults.endpoints import default_endpoints, default_endpointslice
from fairlead.api.defaults.jobs import default_cronjob, default_job
from fairlead.api.defaults.networking import default_ingressclass, default_networkpolicy, default_priorityclass
from fairlead.api.defaults.pod import default_pod, qos_class
from fairlead.api.defaults.rbac import default_binding
from fairlead.api.defaults.service import default_service
from fairlead.api.defaults.sets import default_daemonset, default_replicationcontroller, default_statefulset
from fairlead.api.defaults.storage import default_claim, default_storageclass, default_volume
from fairlead.api.defaults.workloads import default_deployment, default_replicaset
from fairlead.api.kinds import Resource
from fairlead.api.limits import default_limitrange

__all__ = ["apply", "qos_class"]

_DEFAULTERS: dict[Resource, Callable[[dict[str, Any]], None]] = {
    kinds.NAMESPACES: default_namespace,
    kinds.NODES: default_node,
    kinds.PODS: default_pod,
    kinds.SERVICES: default_service,
    kinds.ENDPOINTS: default_endpoints,
    kinds.ENDPOINTSLICES: default_endpointslice,
    kinds.SECRETS: default_secret,
    kinds.LIMITRANGES: default_limitrange,
    kinds.PERSISTENTVOLUMES: default_volume,
    kinds.PERSISTENTVOLUMECLAIMS: default_claim,
    kinds.STORAGECLASSES: default_storageclass,
    kinds.REPLICASETS: default_replicaset,
    kinds.ROLEBINDINGS: default_binding,
    kinds.CLUSTERROLEBINDINGS: default_binding,
    kinds.DEPLOYMENTS: default_deployment,
    kinds.JOBS: default_job,
    kinds.HORIZONTALPODAUTOSCALERS: default_autoscaler,
    kinds.HORIZONTALPODAUTOSCALERS_V1: default_autoscaler_v1,
    kinds.INGRESSCLASSES: default_ingressclass,
    kinds.NETWORKPOLICIES: default_networkpolicy,
    kinds.PRIORITYCLASSES: default_priorityclass,
    kinds.CRONJOBS: default_cronjob,
    kinds.STATEFULSETS: default_statefulset,
    kinds.CUSTOMRESOURCEDEFINITIONS: default_crd,
    kinds.DAEMONSETS: default_daemonset,
    kinds.REPLICATIONCONTROLLERS: default_replicationcontroller,
}


def apply(resource: Resource, obj: dict[str, Any]) -> None:
    """Fill in `obj`, an object of `resource`, in place."""
    if resource.definition is not None:
        resource.definition.default(obj)
        return
    defaulter = _DEFAULTERS.get(resource)
    if defaulter is not None:
        defaulter(obj)
