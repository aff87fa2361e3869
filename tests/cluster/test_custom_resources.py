"""Operators: a kopf operator with its own CustomResourceDefinition runs as a pod with a ServiceAccount; the garbage
collector, the namespace controller and a restart know custom resources."""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest
import yaml

from tests.cluster.conftest import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-custom")]

OPERATOR = """
import kopf
import kubernetes


@kopf.on.startup()
def begin(settings, **_):
    settings.posting.level = 30


@kopf.on.create("ephemeralvolumeclaims")
def create(spec, name, namespace, logger, **_):
    size = spec.get("size")
    if not size:
        raise kopf.PermanentError(f"Size must be set. Got {size!r}.")
    child = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-claim"}, "data": {"size": size}}
    kopf.adopt(child)
    made = kubernetes.client.CoreV1Api().create_namespaced_config_map(namespace, child)
    return {"claim-name": made.metadata.name}


@kopf.on.update("ephemeralvolumeclaims")
def update(spec, status, namespace, **_):
    name = status["create"]["claim-name"]
    kubernetes.client.CoreV1Api().patch_namespaced_config_map(name, namespace, {"data": {"size": spec["size"]}})


@kopf.on.field("ephemeralvolumeclaims", field="metadata.labels")
def relabel(new, status, namespace, **_):
    name = (status.get("create") or {}).get("claim-name")
    if name:
        body = {"metadata": {"labels": dict(new or {})}}
        kubernetes.client.CoreV1Api().patch_namespaced_config_map(name, namespace, body)
"""

DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: ephemeralvolumeclaims.kopf.example.com
spec:
  scope: Namespaced
  group: kopf.example.com
  names:
    kind: EphemeralVolumeClaim
    plural: ephemeralvolumeclaims
    singular: ephemeralvolumeclaim
    shortNames: [evcs, evc]
  versions:
    - name: v1
      served: true
      storage: true
      subresources: {status: {}}
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              properties:
                size: {type: string}
            status:
              type: object
              x-kubernetes-preserve-unknown-fields: true
      additionalPrinterColumns:
        - {name: Size, type: string, jsonPath: .spec.size}
"""

RIGHTS = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: operator, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: evc-operator}
rules:
  - {apiGroups: [kopf.example.com], resources: [ephemeralvolumeclaims, ephemeralvolumeclaims/status],
     verbs: [get, list, watch, patch, update]}
  - {apiGroups: [apiextensions.k8s.io], resources: [customresourcedefinitions], verbs: [get, list, watch]}
  - {apiGroups: [""], resources: [namespaces], verbs: [get, list, watch]}
  - {apiGroups: [""], resources: [configmaps], verbs: [get, create, patch]}
  - {apiGroups: ["", events.k8s.io], resources: [events], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: evc-operator}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: evc-operator}
subjects: [{kind: ServiceAccount, name: operator, namespace: default}]
"""


def claim(name: str, size: str, **metadata: object) -> str:
    """An EphemeralVolumeClaim."""
    return yaml.safe_dump(
        {
            "apiVersion": "kopf.example.com/v1",
            "kind": "EphemeralVolumeClaim",
            "metadata": {"name": name, **metadata},
            "spec": {"size": size},
        }
    )


@pytest.fixture(scope="module")
def operated(cluster: Cluster) -> Cluster:
    """The definition, and the operator running as a pod."""
    cluster.apply(DEFINITION)
    cluster.kubectl(
        "wait", "--for=condition=established", "crd/ephemeralvolumeclaims.kopf.example.com", "--timeout=10s"
    )
    cluster.apply(RIGHTS)
    code = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "operator-code"},
        "data": {"operator.py": OPERATOR},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "operator"},
        "spec": {
            "serviceAccountName": "operator",
            "containers": [
                {
                    "name": "operator",
                    "image": "fairlead/host",
                    "command": [sys.executable, "-m", "kopf", "run", "--standalone", "-A", "/code/operator.py"],
                    "volumeMounts": [{"name": "code", "mountPath": "/code"}],
                }
            ],
            "volumes": [{"name": "code", "configMap": {"name": "operator-code"}}],
        },
    }
    cluster.apply(yaml.safe_dump_all([code, pod]))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/operator", "--timeout=30s")
    return cluster


def size_of(cluster: Cluster, name: str) -> str:
    """What the operator wrote."""
    return cluster.kubectl("get", "cm", f"{name}-claim", "-o", "jsonpath={.data.size}", check=False)


def test_an_operator_runs_as_a_pod(operated: Cluster) -> None:
    """It sees its custom resource created and changed, writes its status, and its child goes with the owner."""
    operated.apply(claim("mine", "1G"))
    operated.wait_for(lambda: size_of(operated, "mine") == "1G", "the operator's ConfigMap")
    operated.wait_for(
        lambda: operated.get("evc", "mine")["status"]["create"] == {"claim-name": "mine-claim"}, "the handler's result"
    )
    operated.apply(claim("mine", "2G"))
    operated.wait_for(lambda: size_of(operated, "mine") == "2G", "the operator's update")
    operated.kubectl("label", "evc", "mine", "tier=gold")
    operated.wait_for(
        lambda: operated.get("cm", "mine-claim")["metadata"]["labels"] == {"tier": "gold"}, "the operator's label"
    )
    assert operated.kubectl("get", "evc", "--no-headers").split() == ["mine", "2G"]
    operated.kubectl("delete", "evc", "mine", "--timeout=20s")
    operated.wait_for(lambda: not size_of(operated, "mine"), "the child's collection")


def test_custom_owners_and_dependents(operated: Cluster) -> None:
    """A custom resource owned by a ConfigMap goes with it, and stays when it is orphaned."""
    for name, cascade in (("gone", "background"), ("kept", "orphan")):
        operated.kubectl("create", "configmap", f"{name}-owner")
        uid = operated.get("cm", f"{name}-owner")["metadata"]["uid"]
        owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": f"{name}-owner", "uid": uid}
        operated.apply(claim(name, "1G", ownerReferences=[owner]))
        operated.wait_for(lambda name=name: size_of(operated, name) == "1G", "the operator")
        operated.kubectl("delete", "configmap", f"{name}-owner", f"--cascade={cascade}")
    operated.wait_for(lambda: not operated.kubectl("get", "evc", "gone", "--ignore-not-found"), "the collection")
    operated.wait_for(lambda: "ownerReferences" not in operated.get("evc", "kept")["metadata"], "the orphan")


def test_a_namespace_takes_its_custom_resources_along(operated: Cluster) -> None:
    """Deleting a namespace deletes what is in it, held back by finalizers as anything else."""
    operated.kubectl("create", "namespace", "doomed")
    operated.kubectl("-n", "doomed", "apply", "-f", "-", stdin=claim("held", "1G", finalizers=["example.com/hold"]))
    operated.kubectl("delete", "namespace", "doomed", "--wait=false")
    said = operated.wait_for(
        lambda: [
            c["message"]
            for c in operated.get("namespace", "doomed")["status"]["conditions"]
            if c["type"] == "NamespaceContentRemaining" and c["status"] == "True"
        ],
        "the condition",
    )
    assert "ephemeralvolumeclaims.kopf.example.com has 1 resource instances" in said[0]
    remove = json.dumps([{"op": "remove", "path": "/metadata/finalizers"}])
    operated.kubectl("-n", "doomed", "patch", "evc", "held", "--type=json", "-p", remove)
    operated.kubectl("wait", "--for=delete", "namespace/doomed", "--timeout=30s")


def test_custom_resources_outlive_a_restart(operated: Cluster) -> None:
    """After a kill of the control plane kinds and objects are there again, and the operator goes on."""
    operated.apply(claim("steady", "1G"))
    operated.wait_for(lambda: size_of(operated, "steady") == "1G", "the operator")
    pid = operated.status()["processes"]["control-plane"]
    os.kill(pid, signal.SIGKILL)
    operated.wait_for(lambda: operated.status()["processes"].get("control-plane", pid) != pid, "a new control plane")
    operated.wait_for(lambda: operated.get("evc", "steady"), "its custom resources")
    operated.apply(claim("steady", "5G"))
    operated.wait_for(lambda: size_of(operated, "steady") == "5G", "the operator after the restart")
    operated.kubectl("delete", "crd", "ephemeralvolumeclaims.kopf.example.com", "--timeout=30s")
    operated.wait_for(lambda: not size_of(operated, "steady"), "the collection of what its objects owned")
