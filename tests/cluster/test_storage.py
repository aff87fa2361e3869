"""Volumes on a running cluster, in the shapes the documentation shows: StatefulSet Basics, volumes made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-storage")]

BASICS = """
apiVersion: v1
kind: Service
metadata: {name: nginx}
spec: {clusterIP: None, ports: [{port: 80, name: web}], selector: {app: nginx}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  serviceName: nginx
  replicas: 2
  selector: {matchLabels: {app: nginx}}
  template:
    metadata: {labels: {app: nginx}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: nginx
        image: fairlead/host
        command: [python3, -m, http.server, "80", --directory, /usr/share/nginx/html]
        volumeMounts: [{name: www, mountPath: /usr/share/nginx/html}]
  volumeClaimTemplates:
  - metadata: {name: www}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"""


def pod(name: str, volume: str) -> str:
    """A pod with one volume at /data."""
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {{name: c, image: fairlead/host, command: [sleep, infinity], volumeMounts: [{{name: d, mountPath: /data}}]}}
  volumes: [{{name: d, {volume}}}]
---
"""


def claim(name: str, storage_class: str, size: str = "1Gi") -> str:
    return f"""
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}}}
spec: {{storageClassName: {storage_class}, accessModes: [ReadWriteOnce], resources: {{requests: {{storage: {size}}}}}}}
---
"""


def names(cluster: Cluster, what: str) -> set[str]:
    return {item["metadata"]["name"] for item in cluster.get(what)["items"]}


def phase(cluster: Cluster, what: str, name: str) -> Any:
    return (cluster.get(what, name).get("status") or {}).get("phase")


def test_a_statefulset_keeps_its_data(cluster: Cluster) -> None:
    """As in the tutorial: what a pod wrote is there for the next of its name; claims stay when it is scaled down, and
    go with it where the retention policy says so, and so do their directories."""
    cluster.apply(BASICS)
    cluster.kubectl("rollout", "status", "sts/web", "--timeout=60s")
    assert names(cluster, "pvc") == {"www-web-0", "www-web-1"}
    for ordinal in (0, 1):
        write = f"hostname > /usr/share/nginx/html/index.html; test $(hostname) = web-{ordinal}"
        cluster.kubectl("exec", f"web-{ordinal}", "--", "sh", "-c", write)
    cluster.kubectl("delete", "pod", "-l", "app=nginx")
    cluster.kubectl("rollout", "status", "sts/web", "--timeout=60s")
    for ordinal in (0, 1):
        cluster.wait_for(
            lambda n=ordinal: (
                cluster.kubectl("exec", f"web-{n}", "--", "curl", "-sf", "http://localhost/").strip() == f"web-{n}"
            ),
            f"what web-{ordinal} wrote",
        )
    cluster.kubectl("scale", "sts", "web", "--replicas=1")
    cluster.wait_for(lambda: names(cluster, "pods") == {"web-0"}, "one pod")
    assert names(cluster, "pvc") == {"www-web-0", "www-web-1"}
    policy = '{"spec":{"persistentVolumeClaimRetentionPolicy":{"whenDeleted":"Delete","whenScaled":"Delete"}}}'
    cluster.kubectl("patch", "sts", "web", "-p", policy)
    cluster.kubectl("scale", "sts", "web", "--replicas=2")
    cluster.kubectl("rollout", "status", "sts/web", "--timeout=60s")
    said = cluster.kubectl("exec", "web-1", "--", "curl", "-sf", "http://localhost/")
    assert said.strip() == "web-1"
    directories = cluster.state / cluster.name / "volumes"
    assert len(list(directories.iterdir())) == 2
    cluster.kubectl("scale", "sts", "web", "--replicas=1")
    cluster.wait_for(lambda: names(cluster, "pvc") == {"www-web-0"}, "the claim to go with its pod")
    cluster.kubectl("delete", "sts", "web")
    cluster.wait_for(lambda: not names(cluster, "pvc") and not names(cluster, "pv"), "the claim to go with the set")
    cluster.wait_for(lambda: not list(directories.iterdir()), "the directories to go with their volumes")


def test_a_volume_made_by_hand(cluster: Cluster, tmp_path: Path) -> None:
    """A claim gets the smallest that fits, which is kept when the claim goes; a claim in use does not go."""
    for name, size in (("big", "10Gi"), ("fits", "2Gi"), ("small", "1Mi")):
        cluster.apply(
            f"""
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}}}
spec:
  storageClassName: manual
  capacity: {{storage: {size}}}
  accessModes: [ReadWriteOnce]
  hostPath: {{path: {tmp_path / name}, type: DirectoryOrCreate}}
"""
        )
    cluster.apply(claim("task", "manual") + pod("task", "persistentVolumeClaim: {claimName: task}"))
    cluster.kubectl("wait", "pod/task", "--for=condition=Ready", "--timeout=60s")
    assert cluster.get("pvc", "task")["spec"]["volumeName"] == "fits"
    cluster.kubectl("exec", "task", "--", "sh", "-c", "echo kept > /data/file")
    assert (tmp_path / "fits" / "file").read_text() == "kept\n"
    cluster.kubectl("delete", "pvc", "task", "--wait=false")
    assert cluster.get("pvc", "task")["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    cluster.kubectl("delete", "pod", "task")
    cluster.wait_for(lambda: phase(cluster, "pv", "fits") == "Released", "the volume to be left")
    assert (tmp_path / "fits" / "file").exists()
    cluster.kubectl("delete", "pv", "big", "fits", "small")


def test_pods_wait_for_their_claims(cluster: Cluster) -> None:
    """And say for what; they run once it is there. A node affinity of a volume is a pod's."""
    cluster.apply(
        pod("missing", "persistentVolumeClaim: {claimName: late}")
        + claim("never", '""', "9Ti")
        + pod("unbound", "persistentVolumeClaim: {claimName: never}")
    )
    for name, why in (
        ("missing", 'persistentvolumeclaim "late" not found'),
        ("unbound", "pod has unbound immediate PersistentVolumeClaims"),
    ):
        said = f"0/2 nodes are available: {why}."
        cluster.wait_for(lambda t=said: t in cluster.kubectl("get", "events"), f"an event that {name} waits")
        cluster.wait_for(
            lambda n=name, t=said: (
                t
                in [
                    c.get("message")
                    for c in cluster.get("pod", n)["status"]["conditions"]
                    if c["type"] == "PodScheduled"
                ]
            ),
            f"a condition that {name} waits",
        )
    cluster.apply(claim("late", "standard"))
    cluster.kubectl("wait", "pod/missing", "--for=condition=Ready", "--timeout=60s")
    cluster.kubectl("delete", "pod", "missing", "unbound")
    cluster.kubectl("delete", "pvc", "late", "never")
    cluster.apply(
        """
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: local}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: on-n2}
spec:
  storageClassName: local
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  local: {path: /tmp}
  nodeAffinity:
    required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [n2]}]}]}
---
"""
        + claim("local", "local")
        + pod("local", "persistentVolumeClaim: {claimName: local, readOnly: true}")
    )
    cluster.kubectl("wait", "pod/local", "--for=condition=Ready", "--timeout=60s")
    assert cluster.get("pod", "local")["spec"]["nodeName"] == "n2"
    assert "Read-only" in cluster.kubectl("exec", "local", "--", "sh", "-c", "touch /data/x 2>&1; true")
    cluster.kubectl("delete", "pod,pvc", "local")
    cluster.kubectl("delete", "pv/on-n2", "sc/local")


def test_an_ephemeral_volume_lives_as_long_as_its_pod(cluster: Cluster) -> None:
    """Its claim is the pod's; a claim can be made larger where its class says so."""
    template = "{spec: {accessModes: [ReadWriteOncePod], resources: {requests: {storage: 1Mi}}}}"
    cluster.apply(pod("own", f"ephemeral: {{volumeClaimTemplate: {template}}}"))
    cluster.kubectl("wait", "pod/own", "--for=condition=Ready", "--timeout=60s")
    owner = cluster.get("pvc", "own-d")["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"]) == ("Pod", "own")
    cluster.apply(pod("thief", "persistentVolumeClaim: {claimName: own-d}"))
    said = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
    cluster.wait_for(lambda: said in cluster.kubectl("get", "events"), "the second pod to be kept away")
    cluster.kubectl("delete", "pod", "thief")
    cluster.kubectl("patch", "pvc", "own-d", "-p", '{"spec":{"resources":{"requests":{"storage":"5Mi"}}}}')
    cluster.wait_for(lambda: cluster.get("pvc", "own-d")["status"]["capacity"] == {"storage": "5Mi"}, "more room")
    cluster.kubectl("delete", "pod", "own")
    cluster.wait_for(lambda: "own-d" not in names(cluster, "pvc"), "the claim to go, too")
    cluster.wait_for(lambda: not names(cluster, "pv"), "the volume to go, too")
