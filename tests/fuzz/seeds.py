"""Right objects, small: what the fuzzing starts from, by kind (or by the subresource that takes another kind)."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

Object = dict[str, Any]

NAMESPACES = ("fz", "fz", "fz", "fz", "fz", "fz", "default", "gone")
NAMES = ("a", "b", "web", "web", "c")

_CONTAINER = {"name": "main", "image": "fairlead/host", "ports": [{"name": "http", "containerPort": 8080}]}
_POD = {"containers": [_CONTAINER], "volumes": [{"name": "v", "emptyDir": {}}]}
_TEMPLATE = {"metadata": {"labels": {"app": "web"}}, "spec": _POD}
_SELECTOR = {"matchLabels": {"app": "web"}}
_RULE = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
_ROLE_REF = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
_SUBJECT = {"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"}
_PATH = {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}}
_EVENT = {"involvedObject": {"kind": "Pod", "name": "web", "namespace": "fz"}, "reason": "Fuzzed", "type": "Normal"}
_PEM = b64encode(b"-----BEGIN CERTIFICATE REQUEST-----\neA==\n-----END CERTIFICATE REQUEST-----\n").decode()
_STRUCTURE = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "n": {"type": "integer", "default": 1, "x-kubernetes-validations": [{"rule": "self < 9"}]},
                "text": {"type": "string", "pattern": "^a*$"},
                "list": {
                    "type": "array",
                    "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                },
                "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            },
        },
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}


def definition(plural: str = "things", kind: str = "Thing") -> Object:
    """A CustomResourceDefinition."""
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _STRUCTURE},
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}},
        "additionalPrinterColumns": [{"name": "N", "type": "integer", "jsonPath": ".spec.n"}],
    }
    return {
        "metadata": {"name": f"{plural}.fuzz.example.com"},
        "spec": {
            "group": "fuzz.example.com",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind},
            "versions": [version],
        },
    }


def _named(*specs: Object, name: str = "web", **more: Any) -> list[Object]:
    made = [{"metadata": {"name": name, "labels": {"app": "web"}}, "spec": spec, **more} for spec in specs]
    return made + [{**obj, "metadata": {"name": "a"}} for obj in made]


def _flat(name: str = "web", **body: Any) -> list[Object]:
    return [{"metadata": {"name": name}, **body}, {"metadata": {"generateName": "g-"}, **body}]


SEEDS: dict[str, list[Object]] = {
    "Namespace": [{"metadata": {"name": name}} for name in ("fz", "gone")],
    "Node": _named({"podCIDR": "127.4.0.0/24"}, name="a", status={"conditions": [{"type": "Ready", "status": "True"}]}),
    "Pod": _named(
        _POD,
        {**_POD, "nodeName": "fz-node"},
        {"containers": [_CONTAINER], "initContainers": [{**_CONTAINER, "name": "i"}]},
    ),
    "Service": _named(
        {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]},
        {"type": "LoadBalancer", "ports": [{"port": 53, "protocol": "UDP", "name": "u"}, {"port": 53, "name": "t"}]},
        {"type": "ExternalName", "externalName": "example.com"},
        {"clusterIP": "None", "ports": [{"port": 1}]},
        {"ports": [{"port": 80}], "ipFamilyPolicy": "PreferDualStack", "sessionAffinity": "ClientIP"},
    ),
    "Endpoints": _flat(subsets=[{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 80}]}]),
    "ConfigMap": _flat(data={"a": "1"}, binaryData={"b": "eA=="}),
    "Secret": [
        *_flat(stringData={"a": "1"}),
        *_flat(name="b", type="kubernetes.io/tls", data={"tls.crt": "eA==", "tls.key": "eA=="}),
    ],
    "ServiceAccount": _flat(),
    "Event": [
        *_flat(**_EVENT),
        {
            "metadata": {"name": "b"},
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "action": "x",
            "reportingController": "fuzz",
            "reportingInstance": "f",
            "regarding": {"kind": "Pod", "namespace": "fz"},
            "reason": "r",
            "type": "Normal",
        },
    ],
    "EndpointSlice": _flat(
        addressType="IPv4", endpoints=[{"addresses": ["192.0.2.7"]}], ports=[{"port": 80, "name": ""}]
    ),
    "Lease": _named({"holderIdentity": "me", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"}),
    "ReplicaSet": _named({"selector": _SELECTOR, "template": _TEMPLATE}),
    "Deployment": _named({"selector": _SELECTOR, "template": _TEMPLATE, "replicas": 2}),
    "StatefulSet": _named({"selector": _SELECTOR, "template": _TEMPLATE, "serviceName": "web"}),
    "DaemonSet": _named({"selector": _SELECTOR, "template": _TEMPLATE}),
    "ControllerRevision": _flat(revision=1, data={"a": 1}),
    "ReplicationController": _named({"selector": {"app": "web"}, "template": _TEMPLATE}),
    "Job": _named(
        {"template": {"spec": {**_POD, "restartPolicy": "Never"}}, "completions": 2, "completionMode": "Indexed"}
    ),
    "CronJob": _named(
        {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": {"spec": {**_POD, "restartPolicy": "Never"}}}}}
    ),
    "PodDisruptionBudget": _named({"selector": _SELECTOR, "minAvailable": "50%"}),
    "Ingress": _named(
        {"rules": [{"host": "a.example.com", "http": {"paths": [_PATH]}}], "tls": [{"hosts": ["a.example.com"]}]}
    ),
    "IngressClass": _named({"controller": "example.com/x"}),
    "NetworkPolicy": _named(
        {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "127.0.0.0/8", "except": ["127.1.0.0/16"]}}]}]}
    ),
    "PriorityClass": _flat(value=10),
    "RuntimeClass": _flat(handler="fairlead"),
    "CertificateSigningRequest": _named(
        {"request": _PEM, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}
    ),
    "Role": _flat(rules=[_RULE]),
    "RoleBinding": _flat(roleRef=_ROLE_REF, subjects=[_SUBJECT]),
    "ClusterRole": _flat(rules=[_RULE, {"nonResourceURLs": ["/x"], "verbs": ["get"]}], aggregationRule=None),
    "ClusterRoleBinding": _flat(roleRef=_ROLE_REF, subjects=[_SUBJECT]),
    "LimitRange": _named({"limits": [{"type": "Container", "default": {"cpu": "1"}, "max": {"cpu": "2"}}]}),
    "ServiceCIDR": _named({"cidrs": ["10.97.0.0/24"]}),
    "IPAddress": [
        {
            "metadata": {"name": "10.96.0.99"},
            "spec": {"parentRef": {"resource": "services", "namespace": "fz", "name": "web"}},
        }
    ],
    "CustomResourceDefinition": [definition(), definition("others", "Other")],
    "Thing": _named({"n": 3, "text": "aa", "list": [{"name": "x"}], "any": {"b": [1]}}),
    "HorizontalPodAutoscaler": _named(
        {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 3}
    ),
    "ResourceQuota": _named({"hard": {"pods": "50", "requests.cpu": "4", "count/configmaps": "99"}}),
    "PersistentVolumeClaim": _named(
        {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "x"}
    ),
    "PersistentVolume": _named(
        {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/nonexistent"}}
    ),
    "StorageClass": _flat(provisioner="example.com/none"),
    "SubjectAccessReview": [{"spec": {"user": "bob", "resourceAttributes": {"verb": "get", "resource": "pods"}}}],
    "LocalSubjectAccessReview": [
        {
            "metadata": {"namespace": "fz"},
            "spec": {"user": "b", "resourceAttributes": {"namespace": "fz", "verb": "get"}},
        }
    ],
    "SelfSubjectAccessReview": [{"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}],
    "SelfSubjectRulesReview": [{"spec": {"namespace": "fz"}}],
    "SelfSubjectReview": [{}],
    "TokenReview": [{"spec": {"token": "x.y.z", "audiences": ["a"]}}],
    "scale": [{"metadata": {"name": "web"}, "spec": {"replicas": 3}}],
    "binding": [{"metadata": {"name": "web"}, "target": {"kind": "Node", "name": "fz-node"}}],
    "eviction": [{"metadata": {"name": "web"}, "deleteOptions": {"gracePeriodSeconds": 0}}],
    "token": [{"spec": {"audiences": ["a"], "expirationSeconds": 600}}],
}
"""`scale`, `binding`, `eviction` and `token` are the subresources that take kinds of their own."""
