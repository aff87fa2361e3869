"""Defaulting, kind by kind: what is written, and what it comes to mean."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fairlead.api import defaults, kinds

CONTAINER = {
    "name": "c",
    "image": "nginx",
    "imagePullPolicy": "Always",
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "resources": {},
}
POD_SPEC = {
    "restartPolicy": "Always",
    "dnsPolicy": "ClusterFirst",
    "terminationGracePeriodSeconds": 30,
    "schedulerName": "default-scheduler",
    "securityContext": {},
}


def applied(resource: kinds.Resource, obj: dict[str, Any]) -> dict[str, Any]:
    """A copy of `obj`, defaulted; defaulting it again must change nothing."""
    once = copy.deepcopy(obj)
    defaults.apply(resource, once)
    twice = copy.deepcopy(once)
    defaults.apply(resource, twice)
    assert twice == once
    return once


SERVICE_CASES = {
    "a plain service": (
        {"ports": [{"port": 80}]},
        {
            "type": "ClusterIP",
            "sessionAffinity": "None",
            "internalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        },
    ),
    "null is absent, 0 is no target port": (
        {"type": None, "ports": [{"port": 53, "protocol": "UDP", "targetPort": 0}]},
        {
            "type": "ClusterIP",
            "sessionAffinity": "None",
            "internalTrafficPolicy": "Cluster",
            "ports": [{"port": 53, "protocol": "UDP", "targetPort": 53}],
        },
    ),
    "affinity by client IP": (
        {"sessionAffinity": "ClientIP"},
        {
            "type": "ClusterIP",
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
            "internalTrafficPolicy": "Cluster",
        },
    ),
    "affinity config without affinity is dropped": (
        {"sessionAffinity": "None", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}},
        {"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"},
    ),
    "a node port": (
        {"type": "NodePort", "internalTrafficPolicy": "Local"},
        {
            "type": "NodePort",
            "sessionAffinity": "None",
            "externalTrafficPolicy": "Cluster",
            "internalTrafficPolicy": "Local",
        },
    ),
    "external IPs make a cluster IP reachable": (
        {"externalIPs": ["192.0.2.1"]},
        {
            "type": "ClusterIP",
            "externalIPs": ["192.0.2.1"],
            "sessionAffinity": "None",
            "externalTrafficPolicy": "Cluster",
            "internalTrafficPolicy": "Cluster",
        },
    ),
    "a load balancer": (
        {"type": "LoadBalancer", "externalTrafficPolicy": "Local"},
        {
            "type": "LoadBalancer",
            "sessionAffinity": "None",
            "externalTrafficPolicy": "Local",
            "internalTrafficPolicy": "Cluster",
            "allocateLoadBalancerNodePorts": True,
        },
    ),
    "an external name has no policies": (
        {"type": "ExternalName", "externalName": "example.com"},
        {"type": "ExternalName", "externalName": "example.com", "sessionAffinity": "None"},
    ),
}


@pytest.mark.parametrize(("given", "expected"), SERVICE_CASES.values(), ids=SERVICE_CASES)
def test_service(given, expected) -> None:
    """A Service says its type, protocols, target ports, affinity and policies."""
    assert applied(kinds.SERVICES, {"spec": given})["spec"] == expected


def test_load_balancer_ip_mode() -> None:
    """An ingress address of a load balancer is a virtual IP unless told otherwise."""
    status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "x"}, {"ip": "::1", "ipMode": "Proxy"}]}}
    service = applied(kinds.SERVICES, {"spec": {"type": "LoadBalancer"}, "status": status})
    assert [i.get("ipMode") for i in service["status"]["loadBalancer"]["ingress"]] == ["VIP", None, "Proxy"]


def test_pod() -> None:
    """A pod with one container says everything upstream would say."""
    pod = applied(kinds.PODS, {"spec": {"containers": [{"name": "c", "image": "nginx"}]}})
    assert pod["spec"] == {**POD_SPEC, "enableServiceLinks": True, "containers": [CONTAINER]}


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.25", "IfNotPresent"),
        ("registry:5000/nginx", "Always"),
        ("registry:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:" + "0" * 64, "IfNotPresent"),
        ("nginx:latest@sha256:" + "0" * 64, "Always"),
        ("fairlead/host", "Always"),
    ],
)
def test_pull_policy(image, policy) -> None:
    """Only the tag `latest`, said or implied, is pulled always."""
    pod = applied(kinds.PODS, {"spec": {"containers": [{"name": "c", "image": image}]}})
    assert pod["spec"]["containers"][0]["imagePullPolicy"] == policy


CONTAINER_CASES = {
    "ports": ({"ports": [{"containerPort": 80}]}, {"ports": [{"containerPort": 80, "protocol": "TCP"}]}),
    "probe": (
        {"readinessProbe": {"httpGet": {"port": 80}}},
        {
            "readinessProbe": {
                "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                "timeoutSeconds": 1,
                "periodSeconds": 10,
                "successThreshold": 1,
                "failureThreshold": 3,
            }
        },
    ),
    "probe with own times": (
        {"livenessProbe": {"exec": {"command": ["x"]}, "periodSeconds": 2, "failureThreshold": 1}},
        {
            "livenessProbe": {
                "exec": {"command": ["x"]},
                "timeoutSeconds": 1,
                "periodSeconds": 2,
                "successThreshold": 1,
                "failureThreshold": 1,
            }
        },
    ),
    "downward API": (
        {"env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]},
        {"env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP", "apiVersion": "v1"}}}]},
    ),
    "lifecycle": (
        {"lifecycle": {"preStop": {"httpGet": {"port": "http"}}}},
        {"lifecycle": {"preStop": {"httpGet": {"port": "http", "path": "/", "scheme": "HTTP"}}}},
    ),
    "requests follow limits, in canonical form": (
        {"resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}, "requests": {"cpu": "100m"}}},
        {
            "resources": {
                "limits": {"cpu": "500m", "memory": "1Gi"},
                "requests": {"cpu": "100m", "memory": "1Gi"},
            }
        },
    ),
}


@pytest.mark.parametrize(("given", "expected"), CONTAINER_CASES.values(), ids=CONTAINER_CASES)
def test_container(given, expected) -> None:
    """Ports, probes, variables, hooks and resources of a container."""
    pod = applied(kinds.PODS, {"spec": {"containers": [{"name": "c", "image": "nginx", **given}]}})
    assert pod["spec"]["containers"] == [{**CONTAINER, **expected}]


def test_host_network_takes_host_ports() -> None:
    """With the node's network every container port is a host port; in templates it is left open."""
    container = {"name": "c", "image": "x:1", "ports": [{"containerPort": 80}]}
    pod = applied(kinds.PODS, {"spec": {"hostNetwork": True, "containers": [container]}})
    assert pod["spec"]["containers"][0]["ports"] == [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]
    template = {"spec": {"hostNetwork": True, "containers": [copy.deepcopy(container)]}}
    found = applied(kinds.REPLICASETS, {"spec": {"template": template}})["spec"]["template"]
    assert found["spec"]["containers"][0]["ports"] == [{"containerPort": 80, "protocol": "TCP"}]


VOLUME_CASES = {
    "nothing said is an empty directory": ({}, {"emptyDir": {}}),
    "secret": ({"secret": {"secretName": "s"}}, {"secret": {"secretName": "s", "defaultMode": 420}}),
    "config map": ({"configMap": {"name": "c"}}, {"configMap": {"name": "c", "defaultMode": 420}}),
    "host path": ({"hostPath": {"path": "/x"}}, {"hostPath": {"path": "/x", "type": ""}}),
    "projected": (
        {"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
        {
            "projected": {
                "defaultMode": 420,
                "sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}],
            }
        },
    ),
    "downward API": (
        {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {
            "downwardAPI": {
                "defaultMode": 420,
                "items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name", "apiVersion": "v1"}}],
            }
        },
    ),
}


@pytest.mark.parametrize(("given", "expected"), VOLUME_CASES.values(), ids=VOLUME_CASES)
def test_volume(given, expected) -> None:
    """File modes, token lifetimes, and the empty directory."""
    pod = applied(kinds.PODS, {"spec": {"volumes": [{"name": "v", **given}]}})
    assert pod["spec"]["volumes"] == [{"name": "v", **expected}]


def test_pod_names_its_account_and_addresses_twice() -> None:
    """Old and new field names of the same thing agree."""
    pod = applied(kinds.PODS, {"spec": {"serviceAccount": "a"}, "status": {"podIP": "10.244.0.2"}})
    assert pod["spec"]["serviceAccountName"] == "a"
    assert pod["status"]["podIPs"] == [{"ip": "10.244.0.2"}]


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ([{}], "BestEffort"),
        ([{"requests": {"cpu": "1"}}], "Burstable"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}}], "Guaranteed"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Mi"}}], "Burstable"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}}, {}], "Burstable"),
    ],
)
def test_qos_class(resources, expected) -> None:
    """Guaranteed only if every container's limits are set and equal to its requests."""
    assert defaults.qos_class({"spec": {"containers": [{"resources": r} for r in resources]}}) == expected


def test_deployment() -> None:
    """A deployment rolls by quarters; its template is defaulted as a pod, without what only pods get."""
    given = {"template": {"spec": {"containers": [{"name": "c", "image": "nginx"}]}}}
    assert applied(kinds.DEPLOYMENTS, {"spec": given})["spec"] == {
        "replicas": 1,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
        "template": {"spec": {**POD_SPEC, "containers": [CONTAINER]}},
    }
    recreate = applied(kinds.DEPLOYMENTS, {"spec": {"replicas": 0, "strategy": {"type": "Recreate"}}})["spec"]
    assert (recreate["replicas"], recreate["strategy"]) == (0, {"type": "Recreate"})


def test_replicaset() -> None:
    """One replica, unless zero was meant."""
    assert applied(kinds.REPLICASETS, {"spec": {}})["spec"] == {"replicas": 1}
    assert applied(kinds.REPLICASETS, {"spec": {"replicas": 0}})["spec"] == {"replicas": 0}


def test_secret() -> None:
    """Opaque; stringData wins over data and is gone."""
    secret = applied(kinds.SECRETS, {"data": {"a": "eA=="}, "stringData": {"a": "yes", "b": "é"}})
    assert secret == {"type": "Opaque", "data": {"a": "eWVz", "b": "w6k="}}


def test_namespace() -> None:
    """Its name as a label and the finalizer, which is not put back once deletion has begun."""
    namespace = applied(kinds.NAMESPACES, {"metadata": {"name": "shop", "labels": {"a": "b"}}})
    assert namespace == {
        "metadata": {"name": "shop", "labels": {"a": "b", "kubernetes.io/metadata.name": "shop"}},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }
    ending = {"metadata": {"name": "shop", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"finalizers": []}}
    assert applied(kinds.NAMESPACES, ending)["spec"] == {"finalizers": []}


def test_node() -> None:
    """Both forms of the pod network agree, and what is allocatable is the capacity."""
    node = applied(kinds.NODES, {"spec": {"podCIDR": "10.244.0.0/24"}, "status": {"capacity": {"memory": "1024Mi"}}})
    assert node["spec"]["podCIDRs"] == ["10.244.0.0/24"]
    assert node["status"] == {"capacity": {"memory": "1Gi"}, "allocatable": {"memory": "1Gi"}}


def test_endpoints_and_slices() -> None:
    """Ports speak TCP; a slice's port has a name, be it empty."""
    endpoints = applied(kinds.ENDPOINTS, {"subsets": [{"ports": [{"port": 80}]}]})
    assert endpoints["subsets"][0]["ports"] == [{"port": 80, "protocol": "TCP"}]
    found = applied(kinds.ENDPOINTSLICES, {"ports": [{"port": 80}, {"name": "dns", "protocol": "UDP", "port": 53}]})
    assert found["ports"] == [
        {"port": 80, "name": "", "protocol": "TCP"},
        {"name": "dns", "protocol": "UDP", "port": 53},
    ]


@pytest.mark.parametrize("resource", kinds.RESOURCES, ids=lambda r: r.group_plural)
def test_every_kind_takes_an_empty_object(resource) -> None:
    """Defaulting never fails, whatever is missing."""
    applied(resource, {})
    applied(resource, {"metadata": None, "spec": None, "status": None})
