"""Images in a cluster: loaded by the command line, run on every node, used like any container."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import imagemaker as make
from tests.cluster.conftest import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-images")]

MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: box}
spec:
  replicas: 2
  selector: {matchLabels: {app: box}}
  template:
    metadata: {labels: {app: box}}
    spec:
      containers:
        - name: box
          image: test/box:1
          ports: [{containerPort: 8080}]
          volumeMounts: [{name: data, mountPath: /data}]
          readinessProbe: {httpGet: {path: /index.html, port: 8080}}
      volumes: [{name: data, persistentVolumeClaim: {claimName: box}}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: box}
spec: {accessModes: [ReadWriteMany], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Service
metadata: {name: box}
spec:
  selector: {app: box}
  ports: [{port: 80, targetPort: 8080}]
"""


def test_a_loaded_image_serves(cluster: Cluster, tmp_path: Path) -> None:
    """`image load`, a Deployment of it on both nodes, its Service by name, exec, logs; a claim that both pods share, to
    which a user who is not root writes; `image rm`."""
    config = {"Cmd": ["httpd", "-f", "-v", "-p", "8080", "-h", "/www"], "User": "web", "Env": ["PATH=/bin"]}
    site = make.layer(("www", None, 0o755), ("www/index.html", b"from an image\n", 0o644))
    source = make.layout(tmp_path / "layout", "test/box:1", [make.busybox(), site], config)
    archive = make.docker_archive(source, "test/box:1", tmp_path / "box.tar")
    assert cluster.fairlead("image", "load", str(archive)).stdout == "docker.io/test/box:1\n"
    assert "docker.io/test/box:1" in cluster.fairlead("image", "list").stdout
    cluster.apply(MANIFEST)
    cluster.kubectl("rollout", "status", "deployment/box", "--timeout=60s")
    pod, other = (item["metadata"]["name"] for item in cluster.get("pods", "-l", "app=box")["items"])
    cluster.kubectl("exec", pod, "--", "sh", "-c", "echo shared > /data/file")
    assert cluster.kubectl("exec", other, "--", "cat", "/data/file") == "shared\n"
    assert cluster.kubectl("exec", pod, "--", "id", "-u").strip() == "1000"
    answer = cluster.kubectl("exec", pod, "--", "wget", "-qO-", "http://box.default.svc.cluster.local/index.html")
    assert answer == "from an image\n"
    cluster.wait_for(lambda: "response:200" in cluster.kubectl("logs", "-l", "app=box", "--prefix=false"), "its log")
    cluster.kubectl("delete", "deployment,pvc", "box", "--wait=true")
    assert cluster.fairlead("image", "rm", "test/box:1").stdout == "docker.io/test/box:1 is gone.\n"
    refused = cluster.fairlead("image", "rm", "test/box:1", check=False)
    assert refused.returncode == 1
    assert "there is no image docker.io/test/box:1" in refused.stderr
