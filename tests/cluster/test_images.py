"""Images in a cluster: loaded by the command line, run on every node, used like any container."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

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


# bcrypt of "secret"
PASSWORDS = "user:$2b$05$K81AEGpFx3wlFxTX8Vculuo70jSHHIW.1mOAaKaFKSWBXRi8SxZKG\n"
REGISTRY = """
version: 0.1
log: {level: error}
http: {addr: "127.0.0.1:5000"}
auth: {htpasswd: {realm: test, path: /config/passwords}}
storage: {filesystem: {rootdirectory: /data}}
"""
PUSH = (
    "skopeo --insecure-policy copy --quiet --dest-tls-verify=false --dest-creds user:secret "
    "oci:/layout:box docker://127.0.0.1:5000/team/box:1"
)


def on_first_node(name: str, container: dict[str, Any], **spec: Any) -> str:
    """A pod there, as a manifest."""
    spec = {"nodeSelector": {"kubernetes.io/hostname": "n1"}, "containers": [{"name": "main", **container}], **spec}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def test_a_private_registry(cluster: Cluster, tmp_path: Path) -> None:
    """A registry in the node's network that asks for a password: a pod without it is refused, and kubectl says so; one
    with an imagePullSecret runs; the registry's image by its digest is pulled again although it is there."""
    make.layout(tmp_path / "layout", "box", [make.busybox()], {"Cmd": ["echo", "from the registry"]})
    cluster.kubectl("create", "configmap", "registry", f"--from-literal=config.yml={REGISTRY}",
                    f"--from-literal=passwords={PASSWORDS}")  # fmt: skip
    volumes = [
        {"name": "config", "configMap": {"name": "registry"}},
        {"name": "data", "emptyDir": {}},
        {"name": "layout", "hostPath": {"path": str(tmp_path / "layout")}},
    ]
    serves = {
        "image": "fairlead/host",
        "command": [make.registry_program(), "serve", "/config/config.yml"],
        "volumeMounts": [{"name": volume["name"], "mountPath": f"/{volume['name']}"} for volume in volumes],
    }
    cluster.apply(on_first_node("registry", serves, hostNetwork=True, volumes=volumes))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/registry", "--timeout=60s")
    cluster.wait_for(lambda: cluster.kubectl("exec", "registry", "--", "sh", "-c", f"{PUSH} && echo pushed"), "a push")

    box = {"image": "127.0.0.1:5000/team/box:1"}
    cluster.apply(on_first_node("stranger", box))
    shown: list[str] = []

    def is_shown(reason: str) -> bool:
        shown.append(cluster.kubectl("get", "pod", "stranger", "--no-headers"))
        return reason in shown[-1]

    cluster.wait_for(lambda: is_shown("ErrImagePull") or is_shown("ImagePullBackOff"), f"ErrImagePull in {shown}")
    cluster.wait_for(lambda: is_shown("ImagePullBackOff"), f"ImagePullBackOff in {shown}")
    cluster.wait_for(lambda: "Back-off pulling image" in cluster.kubectl("describe", "pod", "stranger"), "the events")
    described = cluster.kubectl("describe", "pod", "stranger")
    assert "authentication required" in described
    assert "Error: ErrImagePull" in described

    cluster.kubectl("create", "secret", "docker-registry", "key", "--docker-server=127.0.0.1:5000",
                    "--docker-username=user", "--docker-password=secret")  # fmt: skip
    secrets = [{"name": "key"}]
    cluster.apply(on_first_node("friend", box, restartPolicy="Never", imagePullSecrets=secrets))
    cluster.wait_for(lambda: cluster.kubectl("logs", "friend") == "from the registry\n", "the friend's log")
    cluster.wait_for(lambda: "Successfully pulled image" in cluster.kubectl("describe", "pod", "friend"), "its event")
    digest = cluster.get("pod", "friend")["status"]["containerStatuses"][0]["imageID"].partition("@")[2]
    exact = {"image": f"127.0.0.1:5000/team/box@{digest}", "imagePullPolicy": "Always"}
    cluster.apply(on_first_node("exact", exact, restartPolicy="Never", imagePullSecrets=secrets))
    cluster.wait_for(lambda: cluster.kubectl("logs", "exact") == "from the registry\n", "the log of the digest's pod")
    never = {"image": "127.0.0.1:5000/team/other:1", "imagePullPolicy": "Never"}
    cluster.apply(on_first_node("never", never))
    cluster.wait_for(lambda: "ErrImageNeverPull" in cluster.kubectl("get", "pod", "never"), "the refusal to pull")

    cluster.fairlead("image", "rm", "127.0.0.1:5000/team/box:1")
    auths = tmp_path / "auths.json"
    key = base64.b64encode(b"user:secret").decode()
    auths.write_text(json.dumps({"auths": {"127.0.0.1:5000": {"auth": key}}}))
    pull = ["image", "pull", "127.0.0.1:5000/team/box:1", "--authfile", str(auths)]
    network = f"--net=/proc/{cluster.status()['processes']['node-n1']}/ns/net"
    done = subprocess.run(
        ["nsenter", network, sys.executable, "-m", "fairlead", *pull],
        env=cluster.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"127.0.0.1:5000/team/box:1 {digest}\n", done.stderr
    cluster.kubectl("delete", "pod", "stranger", "friend", "exact", "never", "registry", "--grace-period=1")


def test_what_an_image_may(cluster: Cluster, tmp_path: Path) -> None:
    """Capabilities, no_new_privs, the seccomp filter, a read-only root, masked paths, a limit of memory: crun's."""
    layout = make.layout(tmp_path / "layout", "test/rights:1", [make.busybox()], {"Env": ["PATH=/bin"]})
    cluster.fairlead("image", "load", str(layout))
    look = (
        "grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; touch /x || echo read-only; "
        "ls /sys/firmware | grep -c .; id -u; busybox tail /dev/zero"
    )
    container = {
        "image": "test/rights:1",
        "command": ["sh", "-c", look],
        "resources": {"limits": {"memory": "32Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsUser": 1234,
            "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    cluster.apply(on_first_node("rights", container, restartPolicy="Never"))

    def end() -> dict[str, Any]:
        found: dict[str, Any] = cluster.get("pod", "rights")["status"]["containerStatuses"][0]["state"]["terminated"]
        return found

    cluster.wait_for(end, "its end")
    said = cluster.kubectl("logs", "rights").split("\n")
    assert [line for line in said if "/x" not in line][:6] == [
        "CapBnd:\t0000000000000001",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "read-only",
        "0",
        "1234",
    ]
    assert (end()["reason"], end()["exitCode"]) == ("OOMKilled", 137)
    cluster.kubectl("delete", "pod", "rights")
