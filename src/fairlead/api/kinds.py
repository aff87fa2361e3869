"""The resources that are served, as data.

Everything that must know which kinds there are (routes, discovery, OpenAPI, client, controllers) reads `RESOURCES`;
custom resources come and go with their definitions, and are known to the registry that serves them and to whom it
tells.
Invariant: (group, version, plural) and (group, version, kind) are each unique.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Resource(msgspec.Struct, frozen=True):
    """One REST resource. `group` is empty for the core group; `subresources` are names below an object's path."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    stored: bool = True  # False: a virtual kind that can only be created (reviews)
    definition: Any = None  # of a custom resource: its `api.custom.Definition`, which is asked instead of the schema

    @property
    def singular(self) -> str:
        """The lower-case kind, as discovery gives it."""
        return self.kind.lower() if self.definition is None else str(self.definition.singular)

    @property
    def api_version(self) -> str:
        """`v1` or `apps/v1`, as objects carry it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_plural(self) -> str:
        """`services` or `deployments.apps`, as messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def list_kind(self) -> str:
        """`ServiceList`."""
        return f"{self.kind}List" if self.definition is None else str(self.definition.list_kind)

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The request path. An empty namespace of a namespaced resource means all namespaces."""
        parts = [f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


_ALL = ("all",)

NAMESPACES = Resource("", "v1", "Namespace", "namespaces", False, ("ns",), (), ("status", "finalize"))
NODES = Resource("", "v1", "Node", "nodes", False, ("no",), (), ("status", "proxy"))
PODS = Resource(
    "",
    "v1",
    "Pod",
    "pods",
    True,
    ("po",),
    _ALL,
    ("status", "log", "exec", "attach", "portforward", "proxy", "binding", "ephemeralcontainers", "eviction"),
)
SERVICES = Resource("", "v1", "Service", "services", True, ("svc",), _ALL, ("status", "proxy"))
ENDPOINTS = Resource("", "v1", "Endpoints", "endpoints", True, ("ep",))
CONFIGMAPS = Resource("", "v1", "ConfigMap", "configmaps", True, ("cm",))
SECRETS = Resource("", "v1", "Secret", "secrets", True)
SERVICEACCOUNTS = Resource("", "v1", "ServiceAccount", "serviceaccounts", True, ("sa",), (), ("token",))
EVENTS = Resource("", "v1", "Event", "events", True, ("ev",))
EVENTS_V1 = Resource("events.k8s.io", "v1", "Event", "events", True, ("ev",))
ENDPOINTSLICES = Resource("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", True)
LEASES = Resource("coordination.k8s.io", "v1", "Lease", "leases", True)
REPLICASETS = Resource("apps", "v1", "ReplicaSet", "replicasets", True, ("rs",), _ALL, ("status", "scale"))
DEPLOYMENTS = Resource("apps", "v1", "Deployment", "deployments", True, ("deploy",), _ALL, ("status", "scale"))
STATEFULSETS = Resource("apps", "v1", "StatefulSet", "statefulsets", True, ("sts",), _ALL, ("status", "scale"))
DAEMONSETS = Resource("apps", "v1", "DaemonSet", "daemonsets", True, ("ds",), _ALL, ("status",))
CONTROLLERREVISIONS = Resource("apps", "v1", "ControllerRevision", "controllerrevisions", True)
REPLICATIONCONTROLLERS = Resource(
    "", "v1", "ReplicationController", "replicationcontrollers", True, ("rc",), _ALL, ("status", "scale")
)
JOBS = Resource("batch", "v1", "Job", "jobs", True, (), _ALL, ("status",))
INGRESSES = Resource("networking.k8s.io", "v1", "Ingress", "ingresses", True, ("ing",), (), ("status",))
INGRESSCLASSES = Resource("networking.k8s.io", "v1", "IngressClass", "ingressclasses", False)
NETWORKPOLICIES = Resource("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", True, ("netpol",))
PRIORITYCLASSES = Resource("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", False, ("pc",))
RUNTIMECLASSES = Resource("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", False)
PODDISRUPTIONBUDGETS = Resource(
    "policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", True, ("pdb",), (), ("status",)
)
CRONJOBS = Resource("batch", "v1", "CronJob", "cronjobs", True, ("cj",), _ALL, ("status",))
CERTIFICATESIGNINGREQUESTS = Resource(
    "certificates.k8s.io",
    "v1",
    "CertificateSigningRequest",
    "certificatesigningrequests",
    False,
    ("csr",),
    (),
    ("status", "approval"),
)
ROLES = Resource("rbac.authorization.k8s.io", "v1", "Role", "roles", True)
ROLEBINDINGS = Resource("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", True)
CLUSTERROLES = Resource("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", False)
CLUSTERROLEBINDINGS = Resource("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", False)
SUBJECT_ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", False, stored=False
)
LOCAL_SUBJECT_ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", True, stored=False
)
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", False, stored=False)
HORIZONTALPODAUTOSCALERS = Resource(
    "autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", True, ("hpa",), _ALL, ("status",)
)
HORIZONTALPODAUTOSCALERS_V1 = Resource(
    "autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers", True, ("hpa",), _ALL, ("status",)
)
LIMITRANGES = Resource("", "v1", "LimitRange", "limitranges", True, ("limits",))
PERSISTENTVOLUMES = Resource("", "v1", "PersistentVolume", "persistentvolumes", False, ("pv",), (), ("status",))
PERSISTENTVOLUMECLAIMS = Resource(
    "", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True, ("pvc",), (), ("status",)
)
STORAGECLASSES = Resource("storage.k8s.io", "v1", "StorageClass", "storageclasses", False, ("sc",))
RESOURCEQUOTAS = Resource("", "v1", "ResourceQuota", "resourcequotas", True, ("quota",), (), ("status",))
SERVICECIDRS = Resource("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs", False, (), (), ("status",))
IPADDRESSES = Resource("networking.k8s.io", "v1", "IPAddress", "ipaddresses", False, ("ip",))
CUSTOMRESOURCEDEFINITIONS = Resource(
    "apiextensions.k8s.io",
    "v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
    False,
    ("crd", "crds"),
    ("api-extensions",),
    ("status",),
)
SELF_SUBJECT_ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", False, stored=False
)
SELF_SUBJECT_RULES_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", False, stored=False
)
SELF_SUBJECT_REVIEWS = Resource(
    "authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews", False, stored=False
)

RESOURCES: tuple[Resource, ...] = (
    NAMESPACES,
    NODES,
    PODS,
    SERVICES,
    ENDPOINTS,
    CONFIGMAPS,
    SECRETS,
    SERVICEACCOUNTS,
    EVENTS,
    EVENTS_V1,
    ENDPOINTSLICES,
    LEASES,
    REPLICASETS,
    DEPLOYMENTS,
    STATEFULSETS,
    DAEMONSETS,
    CONTROLLERREVISIONS,
    REPLICATIONCONTROLLERS,
    JOBS,
    CRONJOBS,
    PODDISRUPTIONBUDGETS,
    HORIZONTALPODAUTOSCALERS,
    HORIZONTALPODAUTOSCALERS_V1,
    INGRESSES,
    INGRESSCLASSES,
    NETWORKPOLICIES,
    PRIORITYCLASSES,
    RUNTIMECLASSES,
    CERTIFICATESIGNINGREQUESTS,
    ROLES,
    ROLEBINDINGS,
    CLUSTERROLES,
    CLUSTERROLEBINDINGS,
    SUBJECT_ACCESS_REVIEWS,
    LOCAL_SUBJECT_ACCESS_REVIEWS,
    TOKEN_REVIEWS,
    LIMITRANGES,
    RESOURCEQUOTAS,
    PERSISTENTVOLUMES,
    PERSISTENTVOLUMECLAIMS,
    STORAGECLASSES,
    SERVICECIDRS,
    IPADDRESSES,
    CUSTOMRESOURCEDEFINITIONS,
    SELF_SUBJECT_ACCESS_REVIEWS,
    SELF_SUBJECT_RULES_REVIEWS,
    SELF_SUBJECT_REVIEWS,
)

NODE_METRICS = Resource("metrics.k8s.io", "v1beta1", "NodeMetrics", "nodes", False, stored=False)
POD_METRICS = Resource("metrics.k8s.io", "v1beta1", "PodMetrics", "pods", True, stored=False)
MEASURED: tuple[Resource, ...] = (NODE_METRICS, POD_METRICS)
"""What is answered from the kubelets' measurements: it can be read, and that is all."""

TWINS: dict[Resource, Resource] = {EVENTS_V1: EVENTS, HORIZONTALPODAUTOSCALERS_V1: HORIZONTALPODAUTOSCALERS}
"""Resources whose objects are those of another one in another form."""

_BY_PLURAL = {(r.group, r.version, r.plural): r for r in RESOURCES}
_BY_KIND = {(r.api_version, r.kind): r for r in RESOURCES}


def by_plural(group: str, version: str, plural: str) -> Resource | None:
    """The resource served at that path, or None."""
    return _BY_PLURAL.get((group, version, plural))


def by_kind(api_version: str, kind: str) -> Resource | None:
    """The resource of objects with that apiVersion and kind, or None."""
    return _BY_KIND.get((api_version, kind))


def of_object(obj: dict[str, Any]) -> Resource | None:
    """The resource an object belongs to by its own apiVersion and kind, or None."""
    return by_kind(obj.get("apiVersion", ""), obj.get("kind", ""))
