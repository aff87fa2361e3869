"""Validation: what is wrong with an object, and with a change to one.

Stands after defaulting and before the store: the registry gives a complete, defaulted object whose name is generated
and whose namespace is set, and refuses the write with 422 if anything comes back. An empty list means the object is
sound. Errors are values, in upstream's words, with upstream's paths. Nothing here knows what else is in the cluster.
Types and unknown fields were checked before (`fields.check`): a value found here has the type the schema says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fairlead.api import kinds
from fairlead.api.custom import validate_crd, validate_crd_update
from fairlead.api.errors import FieldError, not_supported, required
from fairlead.api.kinds import Resource
from fairlead.api.labels import check_dns1123_label, check_dns1123_subdomain, check_path_segment
from fairlead.api.validation.autoscaling import (
    validate_autoscaler,
    validate_autoscaler_status,
    validate_autoscaler_v1,
)
from fairlead.api.validation.certificates import validate_signing_request, validate_signing_request_status
from fairlead.api.validation.cluster import (
    validate_namespace,
    validate_namespace_status,
    validate_node,
    validate_node_update,
)
from fairlead.api.validation.data import (
    validate_configmap,
    validate_configmap_update,
    validate_secret,
    validate_secret_update,
)
from fairlead.api.validation.endpoints import validate_endpoints, validate_endpointslice
from fairlead.api.validation.ipam import (
    check_ipaddress_name,
    validate_ipaddress,
    validate_ipaddress_update,
    validate_servicecidr,
    validate_servicecidr_update,
)
from fairlead.api.validation.jobs import (
    validate_cronjob,
    validate_job,
    validate_job_status,
    validate_job_update,
)
from fairlead.api.validation.limitrange import validate_limitrange
from fairlead.api.validation.metadata import (
    UNQUALIFIED_FINALIZER,
    NameCheck,
    not_negative,
    validate_metadata,
    validate_metadata_update,
)
from fairlead.api.validation.networking import (
    validate_ingress,
    validate_ingress_update,
    validate_ingressclass,
    validate_ingressclass_update,
    validate_networkpolicy,
)
from fairlead.api.validation.pod import validate_pod_create, validate_pod_status
from fairlead.api.validation.pod_update import validate_pod_update
from fairlead.api.validation.policy import (
    validate_poddisruptionbudget,
    validate_poddisruptionbudget_status,
    validate_priorityclass,
    validate_priorityclass_update,
    validate_runtimeclass,
    validate_runtimeclass_update,
)
from fairlead.api.validation.quota import (
    validate_resourcequota,
    validate_resourcequota_status,
    validate_resourcequota_update,
)
from fairlead.api.validation.rbac import (
    validate_clusterrole,
    validate_clusterrolebinding,
    validate_clusterrolebinding_update,
    validate_role,
    validate_rolebinding,
    validate_rolebinding_update,
)
from fairlead.api.validation.records import (
    validate_event,
    validate_event_update,
    validate_lease,
    validate_review,
)
from fairlead.api.validation.service import validate_service, validate_service_status, validate_service_update
from fairlead.api.validation.sets import (
    validate_controllerrevision,
    validate_controllerrevision_update,
    validate_daemonset,
    validate_daemonset_status,
    validate_daemonset_update,
    validate_replicationcontroller,
    validate_replicationcontroller_status,
    validate_statefulset,
    validate_statefulset_status,
    validate_statefulset_update,
)
from fairlead.api.validation.storage import (
    validate_claim,
    validate_claim_update,
    validate_storageclass,
    validate_storageclass_update,
    validate_volume,
    validate_volume_update,
)
from fairlead.api.validation.workloads import (
    validate_deployment,
    validate_replicaset,
    validate_selector_unchanged,
    validate_workload_status,
)

__all__ = [
    "validate_binding",
    "validate_create",
    "validate_scale",
    "validate_status_update",
    "validate_update",
]

Object = Mapping[str, Any]

_NAME_CHECKS: dict[Resource, NameCheck] = {
    kinds.NAMESPACES: check_dns1123_label,
    kinds.SERVICES: check_dns1123_label,
    kinds.IPADDRESSES: check_ipaddress_name,
    kinds.EVENTS: check_path_segment,
    kinds.EVENTS_V1: check_path_segment,
    kinds.ROLES: check_path_segment,
    kinds.ROLEBINDINGS: check_path_segment,
    kinds.CLUSTERROLES: check_path_segment,
    kinds.CLUSTERROLEBINDINGS: check_path_segment,
}
_CREATE: dict[Resource, Callable[[Object], list[FieldError]]] = {
    kinds.NAMESPACES: validate_namespace,
    kinds.NODES: validate_node,
    kinds.PODS: validate_pod_create,
    kinds.SERVICES: validate_service,
    kinds.ENDPOINTS: validate_endpoints,
    kinds.ENDPOINTSLICES: validate_endpointslice,
    kinds.LIMITRANGES: validate_limitrange,
    kinds.RESOURCEQUOTAS: validate_resourcequota,
    kinds.PERSISTENTVOLUMES: validate_volume,
    kinds.PERSISTENTVOLUMECLAIMS: validate_claim,
    kinds.STORAGECLASSES: validate_storageclass,
    kinds.SERVICECIDRS: validate_servicecidr,
    kinds.IPADDRESSES: validate_ipaddress,
    kinds.CONFIGMAPS: validate_configmap,
    kinds.SECRETS: validate_secret,
    kinds.EVENTS: lambda obj: validate_event(kinds.EVENTS, obj),
    kinds.EVENTS_V1: lambda obj: validate_event(kinds.EVENTS_V1, obj),
    kinds.LEASES: validate_lease,
    kinds.CERTIFICATESIGNINGREQUESTS: validate_signing_request,
    kinds.ROLES: validate_role,
    kinds.ROLEBINDINGS: validate_rolebinding,
    kinds.CLUSTERROLES: validate_clusterrole,
    kinds.CLUSTERROLEBINDINGS: validate_clusterrolebinding,
    kinds.REPLICASETS: validate_replicaset,
    kinds.DEPLOYMENTS: validate_deployment,
    kinds.JOBS: validate_job,
    kinds.PODDISRUPTIONBUDGETS: validate_poddisruptionbudget,
    kinds.HORIZONTALPODAUTOSCALERS: validate_autoscaler,
    kinds.HORIZONTALPODAUTOSCALERS_V1: validate_autoscaler_v1,
    kinds.INGRESSES: validate_ingress,
    kinds.INGRESSCLASSES: validate_ingressclass,
    kinds.NETWORKPOLICIES: validate_networkpolicy,
    kinds.PRIORITYCLASSES: validate_priorityclass,
    kinds.RUNTIMECLASSES: validate_runtimeclass,
    kinds.CRONJOBS: validate_cronjob,
    kinds.STATEFULSETS: validate_statefulset,
    kinds.DAEMONSETS: validate_daemonset,
    kinds.REPLICATIONCONTROLLERS: validate_replicationcontroller,
    kinds.CONTROLLERREVISIONS: validate_controllerrevision,
    kinds.CUSTOMRESOURCEDEFINITIONS: validate_crd,
}
_UPDATE: dict[Resource, Callable[[Object, Object], list[FieldError]]] = {
    kinds.NAMESPACES: lambda new, _: validate_namespace(new),
    kinds.NODES: validate_node_update,
    kinds.PODS: validate_pod_update,
    kinds.SERVICES: validate_service_update,
    kinds.ENDPOINTS: validate_endpoints,
    kinds.ENDPOINTSLICES: validate_endpointslice,
    kinds.LIMITRANGES: lambda new, _: validate_limitrange(new),
    kinds.RESOURCEQUOTAS: validate_resourcequota_update,
    kinds.PERSISTENTVOLUMES: validate_volume_update,
    kinds.PERSISTENTVOLUMECLAIMS: validate_claim_update,
    kinds.STORAGECLASSES: validate_storageclass_update,
    kinds.SERVICECIDRS: validate_servicecidr_update,
    kinds.IPADDRESSES: validate_ipaddress_update,
    kinds.CONFIGMAPS: validate_configmap_update,
    kinds.SECRETS: validate_secret_update,
    kinds.EVENTS: lambda new, old: validate_event_update(kinds.EVENTS, new, old),
    kinds.EVENTS_V1: lambda new, old: validate_event_update(kinds.EVENTS_V1, new, old),
    kinds.LEASES: lambda new, _: validate_lease(new),
    kinds.ROLES: lambda new, _: validate_role(new),
    kinds.ROLEBINDINGS: validate_rolebinding_update,
    kinds.CLUSTERROLES: lambda new, _: validate_clusterrole(new),
    kinds.CLUSTERROLEBINDINGS: validate_clusterrolebinding_update,
    kinds.REPLICASETS: lambda new, old: validate_selector_unchanged(new, old) + validate_replicaset(new),
    kinds.DEPLOYMENTS: lambda new, old: validate_selector_unchanged(new, old) + validate_deployment(new),
    kinds.JOBS: validate_job_update,
    kinds.PODDISRUPTIONBUDGETS: lambda new, _: validate_poddisruptionbudget(new),
    kinds.HORIZONTALPODAUTOSCALERS: validate_autoscaler,
    kinds.HORIZONTALPODAUTOSCALERS_V1: validate_autoscaler_v1,
    kinds.INGRESSES: validate_ingress_update,
    kinds.INGRESSCLASSES: validate_ingressclass_update,
    kinds.NETWORKPOLICIES: lambda new, _: validate_networkpolicy(new),
    kinds.PRIORITYCLASSES: validate_priorityclass_update,
    kinds.RUNTIMECLASSES: validate_runtimeclass_update,
    kinds.CRONJOBS: lambda new, _: validate_cronjob(new),
    kinds.STATEFULSETS: validate_statefulset_update,
    kinds.DAEMONSETS: validate_daemonset_update,
    kinds.REPLICATIONCONTROLLERS: lambda new, _: validate_replicationcontroller(new),
    kinds.CONTROLLERREVISIONS: validate_controllerrevision_update,
    kinds.CUSTOMRESOURCEDEFINITIONS: validate_crd_update,
}
_STATUS: dict[Resource, Callable[[Object, Object], list[FieldError]]] = {
    kinds.CERTIFICATESIGNINGREQUESTS: validate_signing_request_status,
    kinds.NAMESPACES: lambda new, _: validate_namespace_status(new),
    kinds.NODES: validate_node_update,
    kinds.PODS: validate_pod_status,
    kinds.SERVICES: validate_service_status,
    kinds.RESOURCEQUOTAS: validate_resourcequota_status,
    kinds.REPLICASETS: validate_workload_status,
    kinds.DEPLOYMENTS: validate_workload_status,
    kinds.JOBS: validate_job_status,
    kinds.PODDISRUPTIONBUDGETS: validate_poddisruptionbudget_status,
    kinds.HORIZONTALPODAUTOSCALERS: validate_autoscaler_status,
    kinds.HORIZONTALPODAUTOSCALERS_V1: validate_autoscaler_status,
    kinds.STATEFULSETS: validate_statefulset_status,
    kinds.DAEMONSETS: validate_daemonset_status,
    kinds.REPLICATIONCONTROLLERS: validate_replicationcontroller_status,
}


def _of_kind(resource: Resource, errors: list[FieldError]) -> list[FieldError]:
    """What of the errors in its metadata counts for a kind."""
    if resource.definition is None and resource is not kinds.CUSTOMRESOURCEDEFINITIONS:
        return errors
    return [error for error in errors if error.detail != UNQUALIFIED_FINALIZER]


def validate_create(resource: Resource, obj: Object) -> list[FieldError]:
    """What is wrong with a new object."""
    if not resource.stored:
        return validate_review(resource, obj)
    check = _NAME_CHECKS.get(resource, check_dns1123_subdomain)
    errors = validate_metadata(obj.get("metadata") or {}, check, namespaced=resource.namespaced)
    errors = _of_kind(resource, errors)
    if resource.definition is not None:
        return [*errors, *resource.definition.check(obj)]
    validator = _CREATE.get(resource)
    return errors + validator(obj) if validator else errors


def validate_update(resource: Resource, new: Object, old: Object) -> list[FieldError]:
    """What is wrong with `new`, complete and defaulted, in the place of `old`."""
    errors = _of_kind(resource, validate_metadata_update(new.get("metadata") or {}, old.get("metadata") or {}))
    if resource.definition is not None:
        return [*errors, *resource.definition.check_change(new, old)]
    validator = _UPDATE.get(resource)
    return errors + validator(new, old) if validator else errors


def validate_status_update(resource: Resource, new: Object, old: Object) -> list[FieldError]:
    """What is wrong with `new`, written through the status subresource: its spec is `old`'s."""
    errors = _of_kind(resource, validate_metadata_update(new.get("metadata") or {}, old.get("metadata") or {}))
    if resource.definition is not None:
        return [*errors, *resource.definition.check_change(new, old)]
    validator = _STATUS.get(resource)
    return errors + validator(new, old) if validator else errors


def validate_binding(binding: Object) -> list[FieldError]:
    """What is wrong with a Binding of a pod to a node."""
    target = binding.get("target") or {}
    errors: list[FieldError] = []
    if target.get("kind") not in (None, "", "Node"):
        errors.append(not_supported("target.kind", target["kind"], ("Node", "<empty>")))
    if not target.get("name"):
        errors.append(required("target.name"))
    return errors


def validate_scale(scale: Object) -> list[FieldError]:
    """What is wrong with a Scale."""
    return not_negative((scale.get("spec") or {}).get("replicas"), "spec.replicas")
