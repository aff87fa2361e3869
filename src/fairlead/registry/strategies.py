"""Which strategy each kind has."""

from __future__ import annotations

from fairlead.api import kinds
from fairlead.api.kinds import Resource
from fairlead.registry.classes import Ingresses, NetworkPolicies, PriorityClasses
from fairlead.registry.customs import CustomObjects, Definitions
from fairlead.registry.jobs import Jobs
from fairlead.registry.namespaces import Namespaces
from fairlead.registry.pods import Pods
from fairlead.registry.policies import Policies
from fairlead.registry.services import Services
from fairlead.registry.signing import SigningRequests
from fairlead.registry.storage import Claims, Volumes
from fairlead.registry.strategy import (
    CreatedByPut,
    EndpointSlices,
    Generational,
    Leases,
    Nodes,
    ReplicationControllers,
    ReturnedWhenDeleted,
    Strategy,
    Surroundings,
    Workloads,
)

_SPECIAL: dict[Resource, type[Strategy]] = {
    kinds.NAMESPACES: Namespaces,
    kinds.NODES: Nodes,
    kinds.PODS: Pods,
    kinds.SERVICES: Services,
    kinds.ENDPOINTS: CreatedByPut,
    kinds.SERVICEACCOUNTS: ReturnedWhenDeleted,
    kinds.RESOURCEQUOTAS: ReturnedWhenDeleted,
    kinds.EVENTS: CreatedByPut,
    kinds.EVENTS_V1: CreatedByPut,
    kinds.ENDPOINTSLICES: EndpointSlices,
    kinds.LEASES: Leases,
    kinds.CUSTOMRESOURCEDEFINITIONS: Definitions,
    kinds.SERVICECIDRS: Workloads,
    kinds.IPADDRESSES: Generational,
    kinds.CERTIFICATESIGNINGREQUESTS: SigningRequests,
    kinds.ROLES: Policies,
    kinds.ROLEBINDINGS: Policies,
    kinds.CLUSTERROLES: Policies,
    kinds.CLUSTERROLEBINDINGS: Policies,
    kinds.REPLICASETS: Workloads,
    kinds.DEPLOYMENTS: Workloads,
    kinds.JOBS: Jobs,
    kinds.PODDISRUPTIONBUDGETS: Workloads,
    kinds.HORIZONTALPODAUTOSCALERS: Generational,
    kinds.HORIZONTALPODAUTOSCALERS_V1: Generational,
    kinds.INGRESSES: Ingresses,
    kinds.INGRESSCLASSES: Generational,
    kinds.NETWORKPOLICIES: NetworkPolicies,
    kinds.PRIORITYCLASSES: PriorityClasses,
    kinds.PERSISTENTVOLUMES: Volumes,
    kinds.PERSISTENTVOLUMECLAIMS: Claims,
    kinds.CRONJOBS: Workloads,
    kinds.STATEFULSETS: Workloads,
    kinds.DAEMONSETS: Workloads,
    kinds.REPLICATIONCONTROLLERS: ReplicationControllers,
}


class Strategies:
    """One for each stored resource; for custom ones they are made when asked for."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._built_in = {r: _SPECIAL.get(r, Strategy)(r, around) for r in kinds.RESOURCES if r.stored}

    def of(self, resource: Resource) -> Strategy | None:
        """The resource's strategy; None if it is not kept."""
        if resource.definition is not None:
            return CustomObjects(resource, self._around)
        return self._built_in.get(resource)
