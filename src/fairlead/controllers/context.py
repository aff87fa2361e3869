"""What every controller is given: the client, one shared set of caches, recorders, options and the clock.

Stands between `run_controllers` and the controllers. Invariant: one watch per kind, however many controllers there
are; cached objects are shared and never changed.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import msgspec

from fairlead.api.addresspool import Pool
from fairlead.api.kinds import (
    CONFIGMAPS,
    CONTROLLERREVISIONS,
    CRONJOBS,
    CUSTOMRESOURCEDEFINITIONS,
    DAEMONSETS,
    DEPLOYMENTS,
    ENDPOINTS,
    ENDPOINTSLICES,
    HORIZONTALPODAUTOSCALERS,
    INGRESSES,
    IPADDRESSES,
    JOBS,
    LEASES,
    NAMESPACES,
    NETWORKPOLICIES,
    NODES,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    PODDISRUPTIONBUDGETS,
    PODS,
    REPLICASETS,
    REPLICATIONCONTROLLERS,
    RESOURCEQUOTAS,
    SECRETS,
    SERVICEACCOUNTS,
    SERVICECIDRS,
    SERVICES,
    STATEFULSETS,
    STORAGECLASSES,
    Resource,
)
from fairlead.client.events import EventRecorder, utc_now
from fairlead.client.informer import Cache, Handler, Informer
from fairlead.client.reflector import Watched
from fairlead.client.rest import Client
from fairlead.controllers.customkinds import CustomKinds

Object = dict[str, Any]

FOLLOWED: tuple[Resource, ...] = (
    NAMESPACES,
    NODES,
    LEASES,
    PODS,
    REPLICASETS,
    DEPLOYMENTS,
    SERVICES,
    ENDPOINTSLICES,
    ENDPOINTS,
    SERVICEACCOUNTS,
    CONFIGMAPS,
    SECRETS,
)
"""Followed from the start: what a cluster needs to become ready."""

LATER: tuple[Resource, ...] = (
    CUSTOMRESOURCEDEFINITIONS,
    CONTROLLERREVISIONS,
    STATEFULSETS,
    DAEMONSETS,
    REPLICATIONCONTROLLERS,
    JOBS,
    CRONJOBS,
    PODDISRUPTIONBUDGETS,
    HORIZONTALPODAUTOSCALERS,
    INGRESSES,
    NETWORKPOLICIES,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    STORAGECLASSES,
    RESOURCEQUOTAS,
    SERVICECIDRS,
    IPADDRESSES,
)
"""Followed once the first are known, so that a cluster starts no later for kinds it does not use itself."""


class ControllerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the controllers behave. Times are in seconds; defaults are upstream's."""

    advertise_address: str = ""  # of the API server; empty: where the servers' own Leases say they are
    advertise_port: int = 6443
    service_cidr: str = "10.96.0.0/16"  # the `kubernetes` Service takes its first address
    cluster_cidr: str = "10.244.0.0/16"
    secondary_service_cidr: str = ""  # of the other family, in a dual-stack cluster
    secondary_cluster_cidr: str = ""
    node_mask: int = 24
    load_balancer_pool: Pool = Pool()  # empty: Services of type LoadBalancer are left to others
    ca_pem: str = ""  # goes into kube-root-ca.crt of each namespace
    max_endpoints_per_slice: int = 100
    node_grace: float = 50.0  # without a renewed Lease before a node is Unknown
    node_startup_grace: float = 60.0  # the same for a node whose Lease was never seen
    eviction_seconds: float = 300.0  # on a node that is not ready, for pods that do not say
    orphan_quarantine: float = 40.0  # a pod's node must be gone that long before the pod is removed
    terminated_pods: int = 12500  # finished pods kept
    scheduler_name: str = "default-scheduler"
    now: Callable[[], datetime.datetime] = utc_now

    @property
    def service_cidrs(self) -> tuple[str, ...]:
        """One or two, the primary family's first."""
        return (self.service_cidr, *filter(None, (self.secondary_service_cidr,)))

    @property
    def cluster_cidrs(self) -> tuple[str, ...]:
        """One or two, the primary family's first."""
        return (self.cluster_cidr, *filter(None, (self.secondary_cluster_cidr,)))


class Context:
    """Shared by all controllers of one `run_controllers`."""

    def __init__(self, client: Client, options: ControllerOptions) -> None:
        self.client, self.options = client, options
        slim = {CONFIGMAPS: keep_metadata_but_root_ca, SECRETS: keep_metadata}
        self.informer = Informer(client, *(Watched(r) for r in FOLLOWED), transforms=slim)
        self.later = Informer(client, *(Watched(r) for r in LATER))
        self.customs = CustomKinds(client)
        self.later.on(CUSTOMRESOURCEDEFINITIONS, self.customs.on_definition)
        self._recorders: dict[str, EventRecorder] = {}

    def cache(self, resource: Resource) -> Cache:
        """The shared cache of a kind."""
        return self._informer_of(resource).cache(resource)

    def on(self, resource: Resource, handler: Handler) -> None:
        """Call `handler` after each change of an object of the kind, as `Informer.on`."""
        self._informer_of(resource).on(resource, handler)

    def _informer_of(self, resource: Resource) -> Informer:
        return self.later if resource in LATER else self.informer

    def recorder(self, component: str) -> EventRecorder:
        """The component's recorder; all of them are started and stopped together."""
        if component not in self._recorders:
            self._recorders[component] = EventRecorder(self.client, component, now=self.options.now)
        return self._recorders[component]

    @property
    def recorders(self) -> list[EventRecorder]:
        return list(self._recorders.values())

    def now(self) -> datetime.datetime:
        """The time in UTC."""
        return self.options.now()


def keep_metadata(obj: Object) -> Object:
    """What the garbage collector needs, without what may be large or secret."""
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": obj["metadata"]}


def keep_metadata_but_root_ca(obj: Object) -> Object:
    """As `keep_metadata`, but kube-root-ca.crt stays whole: it is kept true."""
    return obj if obj["metadata"]["name"] == "kube-root-ca.crt" else keep_metadata(obj)
