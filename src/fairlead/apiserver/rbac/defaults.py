"""The policy a cluster starts with: upstream's ClusterRoles, Roles and bindings, and those of fairlead's own parts.

Data, made into objects by `objects`. Names, rules and aggregation labels are upstream's
(`plugin/pkg/auth/authorizer/rbac/bootstrappolicy`); what is fairlead's own is called `system:fairlead:…`. Invariant:
nothing here gives one of the cluster's parts more than it does.

A rule is written `(verbs, API groups, resources)` or `(verbs, API groups, resources, names)`, words separated by
spaces, `core` for the group without a name; or `(verbs, paths)`.
"""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
Rule = tuple[str, ...]

GROUP = "rbac.authorization.k8s.io"
VERSION = f"{GROUP}/v1"
BOOTSTRAPPING = {"kubernetes.io/bootstrapping": "rbac-defaults"}
AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"

_READ = "get list watch"
_CHANGE = "create delete deletecollection patch update"
_ALL_VERBS = f"{_CHANGE} {_READ}"
_EVENTS: Rule = ("create patch update", "core events.k8s.io", "events")
_WORKLOADS = "daemonsets deployments deployments/rollback deployments/scale"
_WORKLOADS += " replicasets replicasets/scale statefulsets statefulsets/scale"
_OLD_WORKLOADS = "daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets"
_OLD_WORKLOADS += " replicasets/scale replicationcontrollers/scale"
_SIGNERS = ("certificates.k8s.io", "signers")
_REVIEWS: tuple[Rule, ...] = (
    ("create", "authentication.k8s.io", "tokenreviews"),
    ("create", "authorization.k8s.io", "subjectaccessreviews"),
)

AGGREGATED: dict[str, str] = {"admin": "", "edit": "admin", "view": "edit"}
"""Roles that are made of others, by the label aggregate-to-<name>; and which role they are a part of themselves."""

PARTS: dict[str, tuple[str, tuple[Rule, ...]]] = {
    "system:aggregate-to-admin": (
        "admin",
        (
            ("create", "authorization.k8s.io", "localsubjectaccessreviews"),
            (_ALL_VERBS, GROUP, "rolebindings roles"),
        ),
    ),
    "system:aggregate-to-edit": (
        "edit",
        (
            (_READ, "core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
            ("impersonate", "core", "serviceaccounts"),
            (_CHANGE, "core", "pods pods/attach pods/exec pods/portforward pods/proxy"),
            ("create", "core", "pods/eviction"),
            (
                _CHANGE,
                "core",
                "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets "
                "serviceaccounts services services/proxy",
            ),
            ("create", "core", "serviceaccounts/token"),
            (_CHANGE, "apps", _WORKLOADS),
            (_CHANGE, "autoscaling", "horizontalpodautoscalers"),
            (_CHANGE, "batch", "cronjobs jobs"),
            (_CHANGE, "extensions", _OLD_WORKLOADS),
            (_CHANGE, "policy", "poddisruptionbudgets"),
            (_CHANGE, "networking.k8s.io", "ingresses networkpolicies"),
            (_ALL_VERBS, "coordination.k8s.io", "leases"),
        ),
    ),
    "system:aggregate-to-view": (
        "view",
        (
            (
                _READ,
                "core",
                "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers "
                "replicationcontrollers/scale serviceaccounts services services/status",
            ),
            (
                _READ,
                "core",
                "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status "
                "resourcequotas resourcequotas/status",
            ),
            (_READ, "core", "namespaces"),
            (_READ, "discovery.k8s.io", "endpointslices"),
            (
                _READ,
                "apps",
                "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status "
                "replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
            ),
            (_READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
            (_READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
            (
                _READ,
                "extensions",
                "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses "
                "ingresses/status networkpolicies replicasets replicasets/scale replicasets/status "
                "replicationcontrollers/scale",
            ),
            (_READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
            (_READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
            (_READ, "metrics.k8s.io", "nodes pods"),
        ),
    ),
}
"""ClusterRole → the aggregated role it is a part of, and its rules."""

ROLES: dict[str, tuple[Rule, ...]] = {
    "cluster-admin": (("*", "*", "*"), ("*", "*")),
    "system:auth-delegator": _REVIEWS,
    "system:basic-user": (
        ("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
        ("create", "authentication.k8s.io", "selfsubjectreviews"),
    ),
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": (
        ("create", "certificates.k8s.io", "certificatesigningrequests/nodeclient"),
    ),
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": (
        ("create", "certificates.k8s.io", "certificatesigningrequests/selfnodeclient"),
    ),
    "system:certificates.k8s.io:kube-apiserver-client-approver": (
        ("approve", *_SIGNERS, "kubernetes.io/kube-apiserver-client"),
    ),
    "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver": (
        ("approve", *_SIGNERS, "kubernetes.io/kube-apiserver-client-kubelet kubernetes.io/kubelet-serving"),
    ),
    "system:certificates.k8s.io:kubelet-serving-approver": (("approve", *_SIGNERS, "kubernetes.io/kubelet-serving"),),
    "system:certificates.k8s.io:legacy-unknown-approver": (("approve", *_SIGNERS, "kubernetes.io/legacy-unknown"),),
    "system:discovery": (
        (
            "get",
            "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/",
        ),
    ),
    "system:kube-aggregator": ((_READ, "core", "endpoints services"),),
    "system:kube-controller-manager": (
        _EVENTS,
        ("create", "coordination.k8s.io", "leases"),
        ("get update", "coordination.k8s.io", "leases", "kube-controller-manager"),
        ("create", "core", "secrets serviceaccounts"),
        ("delete", "core", "secrets"),
        ("get", "core", "configmaps namespaces secrets serviceaccounts"),
        ("update", "core", "secrets serviceaccounts"),
        *_REVIEWS,
        ("list watch", "*", "*"),
        ("create", "core", "serviceaccounts/token"),
    ),
    "system:kube-dns": (("list watch", "core", "endpoints services"),),
    "system:kube-scheduler": (
        _EVENTS,
        ("create", "coordination.k8s.io", "leases"),
        ("get update", "coordination.k8s.io", "leases", "kube-scheduler"),
        (_READ, "core", "nodes"),
        (f"delete {_READ}", "core", "pods"),
        ("create", "core", "bindings pods/binding"),
        ("patch update", "core", "pods/status"),
        (_READ, "core", "replicationcontrollers services"),
        (_READ, "apps extensions", "replicasets"),
        (_READ, "apps", "statefulsets"),
        (_READ, "policy", "poddisruptionbudgets"),
        (_READ, "core", "persistentvolumeclaims persistentvolumes"),
        *_REVIEWS,
        (_READ, "storage.k8s.io", "csinodes"),
        (_READ, "core", "namespaces"),
        (_READ, "storage.k8s.io", "csidrivers"),
        (_READ, "storage.k8s.io", "csistoragecapacities"),
    ),
    "system:kubelet-api-admin": (
        (_READ, "core", "nodes"),
        ("proxy", "core", "nodes"),
        ("*", "core", "nodes/log nodes/metrics nodes/proxy nodes/stats"),
    ),
    "system:monitoring": (("get", "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*"),),
    "system:node": (
        ("create", "authentication.k8s.io", "tokenreviews"),
        ("create", "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
        (_READ, "core", "services"),
        (f"create {_READ}", "core", "nodes"),
        ("patch update", "core", "nodes/status"),
        ("patch update", "core", "nodes"),
        ("create patch update", "core", "events"),
        (_READ, "core", "pods"),
        ("create delete", "core", "pods"),
        ("patch update", "core", "pods/status"),
        ("create", "core", "pods/eviction"),
        (_READ, "core", "configmaps secrets"),
        ("get", "core", "persistentvolumeclaims persistentvolumes"),
        ("get", "core", "endpoints"),
        (f"create {_READ}", "certificates.k8s.io", "certificatesigningrequests"),
        ("create delete get patch update", "coordination.k8s.io", "leases"),
        ("get", "storage.k8s.io", "volumeattachments"),
        ("create", "core", "serviceaccounts/token"),
        ("get patch update", "core", "persistentvolumeclaims/status"),
        (_READ, "storage.k8s.io", "csidrivers"),
        ("create delete get patch update", "storage.k8s.io", "csinodes"),
        (_READ, "node.k8s.io", "runtimeclasses"),
    ),
    "system:node-bootstrapper": ((f"create {_READ}", "certificates.k8s.io", "certificatesigningrequests"),),
    "system:node-problem-detector": (("get", "core", "nodes"), ("patch", "core", "nodes/status"), _EVENTS),
    "system:node-proxier": (
        ("list watch", "core", "endpoints services"),
        (_READ, "core", "nodes"),
        _EVENTS,
        ("list watch", "discovery.k8s.io", "endpointslices"),
        ("list watch", "networking.k8s.io", "servicecidrs"),
    ),
    "system:persistent-volume-provisioner": (
        ("create delete get list watch", "core", "persistentvolumes"),
        ("get list update watch", "core", "persistentvolumeclaims"),
        (_READ, "storage.k8s.io", "storageclasses"),
        ("watch", "core", "events"),
        _EVENTS,
    ),
    "system:public-info-viewer": (("get", "/healthz /livez /readyz /version /version/"),),
    "system:service-account-issuer-discovery": (("get", "/.well-known/openid-configuration /openid/v1/jwks"),),
    "system:volume-scheduler": (
        ("get list patch update watch", "core", "persistentvolumes"),
        (_READ, "storage.k8s.io", "storageclasses"),
        ("get list patch update watch", "core", "persistentvolumeclaims"),
    ),
    # fairlead's own parts. The controllers are one process with one identity: the namespace controller and the garbage
    # collector among them must see and delete whatever there is, as upstream's must.
    "system:fairlead:controllers": (
        ("get list watch patch update delete deletecollection", "*", "*"),
        (
            "create",
            "core",
            "configmaps endpoints events namespaces persistentvolumeclaims persistentvolumes pods pods/binding "
            "pods/eviction replicationcontrollers secrets serviceaccounts serviceaccounts/token services",
        ),
        ("create", "events.k8s.io", "events"),
        ("create", "apps", "controllerrevisions daemonsets deployments replicasets statefulsets"),
        ("create", "batch", "jobs"),
        ("create", "coordination.k8s.io", "leases"),
        ("create", "discovery.k8s.io", "endpointslices"),
        ("create", "networking.k8s.io", "ingressclasses"),
        ("create", "gateway.networking.k8s.io", "gatewayclasses"),
        ("create", "apiextensions.k8s.io", "customresourcedefinitions"),
        ("create", "rbac.authorization.k8s.io", "rolebindings"),
        ("create", "networking.k8s.io", "ipaddresses servicecidrs"),
        ("create", "policy", "poddisruptionbudgets"),
        ("create", "scheduling.k8s.io", "priorityclasses"),
        ("create", "storage.k8s.io", "storageclasses"),
        ("approve", *_SIGNERS, "kubernetes.io/kube-apiserver-client-kubelet kubernetes.io/kubelet-serving"),
        (
            "sign",
            *_SIGNERS,
            "kubernetes.io/kube-apiserver-client kubernetes.io/kube-apiserver-client-kubelet "
            "kubernetes.io/kubelet-serving",
        ),
        ("get", "/healthz /livez /readyz /metrics"),
    ),
    "system:fairlead:node": (
        ("list watch", "core", "endpoints namespaces services"),
        ("list watch", "discovery.k8s.io", "endpointslices"),
        ("list watch", "networking.k8s.io", "servicecidrs"),
        (_READ, "core", "nodes"),
        ("create patch update", "events.k8s.io", "events"),
        ("get", "core", "configmaps", "fairlead-config"),
        ("get", "/fairlead/address"),
    ),
    # A machine that joins: what kubeadm gives its group of bootstrappers.
    "system:fairlead:joining": (
        ("get", "core", "nodes"),
        ("get", "core", "configmaps", "fairlead-config"),
        ("get", "/fairlead/address"),
    ),
    "system:fairlead:cluster-info": (("get", "core", "configmaps", "cluster-info"),),
    "system:fairlead:dns": (
        ("list watch", "core", "namespaces pods services"),
        ("list watch", "discovery.k8s.io", "endpointslices"),
    ),
    "system:fairlead:ingress": (
        ("list watch", "core", "configmaps namespaces nodes secrets services"),
        ("list watch", "discovery.k8s.io", "endpointslices"),
        ("list watch", "networking.k8s.io", "ingressclasses ingresses"),
        ("patch", "networking.k8s.io", "ingresses/status"),
        ("create patch", "core", "events"),
        (
            "list watch",
            "gateway.networking.k8s.io",
            "backendtlspolicies gatewayclasses gateways grpcroutes httproutes referencegrants tlsroutes",
        ),
        (
            "patch",
            "gateway.networking.k8s.io",
            "backendtlspolicies/status gatewayclasses/status gateways/status grpcroutes/status httproutes/status"
            " tlsroutes/status",
        ),
    ),
    # The Services that Gateways are reached by, beside the ingress; bound in its namespace only.
    "system:fairlead:gateways": (("create delete patch", "core", "services"),),
}

BINDINGS: dict[str, tuple[str, ...]] = {
    "cluster-admin": ("Group system:masters",),
    "system:basic-user": ("Group system:authenticated",),
    "system:discovery": ("Group system:authenticated",),
    "system:kube-controller-manager": ("User system:kube-controller-manager",),
    "system:kube-dns": ("ServiceAccount kube-dns kube-system",),
    "system:kube-scheduler": ("User system:kube-scheduler",),
    "system:monitoring": ("Group system:monitoring",),
    "system:node": (),
    "system:node-proxier": ("User system:kube-proxy",),
    "system:public-info-viewer": ("Group system:authenticated", "Group system:unauthenticated"),
    "system:service-account-issuer-discovery": ("Group system:serviceaccounts",),
    "system:volume-scheduler": ("User system:kube-scheduler",),
    "system:fairlead:controllers": ("User system:kube-controller-manager",),
    "system:fairlead:node": ("Group system:nodes",),
    "system:fairlead:dns": ("ServiceAccount kube-dns kube-system",),
    "system:fairlead:cluster-info": ("Group system:unauthenticated", "Group system:authenticated"),
    "system:fairlead:joining": ("Group system:bootstrappers",),
    "system:node-bootstrapper": ("Group system:bootstrappers",),
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": ("Group system:bootstrappers",),
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": ("Group system:nodes",),
    "system:fairlead:ingress": ("ServiceAccount fairlead-ingress kube-system",),
}
"""ClusterRoleBinding, of the ClusterRole of the same name → its subjects."""


def objects() -> list[Object]:
    """All of it, as objects to be created. Aggregated roles carry the rules that their parts give them."""
    made = [_cluster_role(name, rules) for name, rules in ROLES.items()]
    for name, (whole, rules) in PARTS.items():
        made.append(_cluster_role(name, rules, {f"{AGGREGATE}{whole}": "true"}))
    for name, whole in AGGREGATED.items():
        role = _cluster_role(name, _aggregate(name), {f"{AGGREGATE}{whole}": "true"} if whole else {})
        role["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {f"{AGGREGATE}{name}": "true"}}]}
        made.append(role)
    made += [_binding(name, subjects) for name, subjects in BINDINGS.items()]
    return made


def _aggregate(name: str) -> tuple[Rule, ...]:
    """As the upkeep aggregates: the parts by name, none twice."""
    parts = {part: rules for part, (whole, rules) in PARTS.items() if whole == name}
    parts |= {part: _aggregate(part) for part, whole in AGGREGATED.items() if whole == name}
    return tuple(dict.fromkeys(rule for part in sorted(parts) for rule in parts[part]))


def _metadata(name: str, labels: dict[str, str]) -> Object:
    return {"name": name, "labels": {**BOOTSTRAPPING, **labels}, "annotations": {AUTOUPDATE: "true"}}


def _cluster_role(name: str, rules: tuple[Rule, ...], labels: dict[str, str] | None = None) -> Object:
    metadata = _metadata(name, labels or {})
    return {"apiVersion": VERSION, "kind": "ClusterRole", "metadata": metadata, "rules": [_rule(r) for r in rules]}


def _rule(rule: Rule) -> Object:
    words = [part.split() for part in rule]
    if len(words) == 2:
        return {"verbs": words[0], "nonResourceURLs": words[1]}
    groups = ["" if group == "core" else group for group in words[1]]
    made: Object = {"verbs": words[0], "apiGroups": groups, "resources": words[2]}
    if len(words) == 4:
        made["resourceNames"] = words[3]
    return made


def _binding(name: str, subjects: tuple[str, ...]) -> Object:
    made: Object = {
        "apiVersion": VERSION,
        "kind": "ClusterRoleBinding",
        "metadata": _metadata(name, {}),
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
    }
    if subjects:
        made["subjects"] = [_subject(*subject.split()) for subject in subjects]
    return made


def _subject(kind: str, name: str, namespace: str = "") -> Object:
    if kind == "ServiceAccount":
        return {"kind": kind, "name": name, "namespace": namespace}
    return {"apiGroup": GROUP, "kind": kind, "name": name}
