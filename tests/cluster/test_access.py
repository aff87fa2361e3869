"""Into a running cluster, and kept out of it: port-forward, proxies, cp, attach, and what its parts may do."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-access")]

MANIFEST = """
apiVersion: v1
kind: Namespace
metadata: {name: inside}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: inside}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: fairlead/host
        command: [python3, -c]
        args:
        - |
          import http.server
          class Answer(http.server.BaseHTTPRequestHandler):
              def do_GET(self):
                  self.send_response(200); self.end_headers(); self.wfile.write(b"you asked " + self.path.encode())
          http.server.HTTPServer(("", 8080), Answer).serve_forever()
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: inside}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: inside}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: inside}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: reader}]
---
apiVersion: v1
kind: Pod
metadata: {name: echo, namespace: inside}
spec:
  serviceAccountName: reader
  containers:
  - {name: c, image: fairlead/host, stdin: true, command: [sh, -c, "while read l; do echo got $l; done; sleep 1000"]}
"""


@pytest.fixture(scope="module")
def inside(cluster: Cluster) -> Cluster:
    """A Deployment behind a Service, and a pod that answers on its standard input."""
    cluster.apply(MANIFEST)
    cluster.kubectl("-n", "inside", "rollout", "status", "deployment/web", "--timeout=60s")
    cluster.kubectl("-n", "inside", "wait", "--for=condition=Ready", "pod/echo", "--timeout=60s")
    return cluster


@contextlib.contextmanager
def running(cluster: Cluster, *words: str) -> Iterator[int]:
    """A kubectl that goes on; the port it says it listens on."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(["kubectl", *words], env=cluster.environment, stdout=pipe, stderr=pipe, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert found, process.communicate(timeout=10)
        yield int(found.group(1))
    finally:
        process.kill()
        process.communicate()


def fetch(url: str) -> str:
    """GET, past any proxy of the environment."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize("target", ["deploy/web", "svc/web", "pod"])
def test_port_forward(inside: Cluster, target: str) -> None:
    """To a pod, to a Deployment's, to a Service's by the Service's port."""
    port = "80" if target == "svc/web" else "8080"
    if target == "pod":
        target = inside.kubectl("-n", "inside", "get", "pod", "-l", "app=web", "-o", "name").strip()
    with running(inside, "-n", "inside", "port-forward", target, f":{port}") as local:
        for path in ("/a", "/b?c=d"):
            assert fetch(f"http://127.0.0.1:{local}{path}") == f"you asked {path}"


def test_proxies(inside: Cluster) -> None:
    """The Service, the pod and the node's kubelet through the API server, raw and through kubectl proxy."""
    base = "/api/v1/namespaces/inside"
    pod = inside.kubectl("-n", "inside", "get", "pod", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}")
    assert inside.kubectl("get", "--raw", f"{base}/services/web:http/proxy/x?y=z") == "you asked /x?y=z"
    assert inside.kubectl("get", "--raw", f"{base}/pods/{pod}:8080/proxy/x") == "you asked /x"
    assert inside.kubectl("get", "--raw", "/api/v1/nodes/n2/proxy/healthz") == "ok"
    with running(inside, "proxy", "--port=0") as local:
        assert fetch(f"http://127.0.0.1:{local}{base}/services/web:80/proxy/") == "you asked /"
    assert "control plane" in inside.kubectl("cluster-info")


def test_cp_both_ways_and_attach(inside: Cluster, tmp_path: Path) -> None:
    """Files there and back are the same; what is typed into attach reaches the process."""
    (tmp_path / "there").mkdir()
    data = bytes(range(256)) * 4000
    (tmp_path / "there" / "data").write_bytes(data)
    inside.kubectl("cp", str(tmp_path / "there"), "inside/echo:/tmp/there")
    inside.kubectl("cp", "inside/echo:/tmp/there", str(tmp_path / "back"))
    assert (tmp_path / "back" / "data").read_bytes() == data
    command = ["timeout", "3", "kubectl", "-n", "inside", "attach", "-i", "echo"]
    done = subprocess.run(command, env=inside.environment, input="hello\n", capture_output=True, text=True, check=False)
    assert "got hello" in done.stdout


def test_a_pod_has_the_rights_of_its_service_account(inside: Cluster) -> None:
    """With its mounted token: what `view` gives in its namespace, nothing elsewhere, no Secrets."""
    script = """
    D=/var/run/secrets/kubernetes.io/serviceaccount
    ask() { curl -sS --max-time 5 --cacert $D/ca.crt -H "Authorization: Bearer $(cat $D/token)" \
      -o /dev/null -w '%{http_code} ' https://$KUBERNETES_SERVICE_HOST$1; }
    ask /api/v1/namespaces/inside/pods; ask /api/v1/namespaces/inside/secrets; ask /api/v1/pods; ask /version
    """
    said = inside.kubectl("-n", "inside", "exec", "echo", "--", "sh", "-c", script)
    assert said.split() == ["200", "403", "403", "200"]


def test_a_secret_may_hold_a_token(inside: Cluster) -> None:
    """Of a ServiceAccount that is there, good for what that may do; it ends with its Secret, that with the account."""
    inside.kubectl("-n", "inside", "create", "serviceaccount", "lasting")
    inside.kubectl(
        "-n", "inside", "create", "rolebinding", "lasting", "--clusterrole=view", "--serviceaccount=inside:lasting"
    )
    manifest = """
apiVersion: v1
kind: Secret
metadata: {name: NAME, namespace: inside, annotations: {kubernetes.io/service-account.name: ACCOUNT}}
type: kubernetes.io/service-account-token
"""
    for name in ("first", "second"):
        inside.apply(manifest.replace("NAME", name).replace("ACCOUNT", "lasting"))

    def held(name: str) -> dict[str, str]:
        return inside.get("-n", "inside", "secret", name).get("data") or {}

    token = base64.b64decode(inside.wait_for(lambda: held("first").get("token"), "a token in the Secret")).decode()
    assert base64.b64decode(held("first")["namespace"]) == b"inside"
    assert held("first")["ca.crt"] == held("second")["ca.crt"]

    def may(verb: str, what: str) -> bool:
        words = [
            "kubectl",
            "--kubeconfig=/dev/null",
            f"--server={server}",
            "--insecure-skip-tls-verify",
            f"--token={token}",
        ]
        return inside._run([*words, "-n", "inside", verb, what], False, None).returncode == 0

    server = inside.kubectl("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
    assert may("get", "pods")
    assert not may("get", "secrets")
    inside.kubectl("-n", "inside", "delete", "secret", "first")
    inside.wait_for(lambda: not may("get", "pods"), "the token ends with its Secret")
    inside.kubectl("-n", "inside", "delete", "serviceaccount", "lasting")
    inside.wait_for(
        lambda: "second" not in inside.kubectl("-n", "inside", "get", "secrets", "-o", "name"), "it goes, too"
    )
    inside.apply(manifest.replace("NAME", "third").replace("ACCOUNT", "nobody"))
    inside.wait_for(lambda: "third" not in inside.kubectl("-n", "inside", "get", "secrets", "-o", "name"), "of nobody")


def test_a_node_s_own_credentials_reach_no_further(inside: Cluster) -> None:
    """n1's kubeconfig: its own Node yes, n2's not, and no Secret that none of its pods uses."""
    inside.kubectl("-n", "inside", "create", "secret", "generic", "unused", "--from-literal=a=b")
    mine = str(inside.state / inside.name / "kubeconfig" / "n1.yaml")

    def as_node(*words: str) -> subprocess.CompletedProcess[str]:
        return inside._run(
            ["ip", "netns", "exec", f"fl-{inside.name}", "kubectl", f"--kubeconfig={mine}", *words], False, None
        )

    assert as_node("label", "node", "n1", "tested=yes").returncode == 0
    assert "cannot patch" in as_node("label", "node", "n2", "tested=yes").stderr
    assert "no relationship found" in as_node("-n", "inside", "get", "secret", "unused").stderr


def test_a_certificate_on_request(inside: Cluster, tmp_path: Path) -> None:
    """Asked for, approved, signed by the cluster's authority, and good for what RBAC gives its user; a node's own
    request needs nobody once nodes may."""
    key, asked = tmp_path / "eve.key", tmp_path / "eve.csr"
    ask = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subprocess.run([*ask, "-keyout", key, "-out", asked, "-subj", "/O=crew/CN=eve"], check=True, capture_output=True)
    request = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "eve"},
        "spec": {
            "request": base64.b64encode(asked.read_bytes()).decode(),
            "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"],
            "expirationSeconds": 3600,
        },
    }
    inside.apply(json.dumps(request))
    inside.kubectl("certificate", "approve", "eve")
    made = inside.wait_for(lambda: inside.get("csr", "eve")["status"].get("certificate"), "the certificate")
    certificate = tmp_path / "eve.crt"
    certificate.write_bytes(base64.b64decode(made))
    inside.kubectl("-n", "inside", "create", "rolebinding", "crew", "--clusterrole=view", "--group=crew")
    inside.kubectl("config", "set-credentials", "eve", f"--client-certificate={certificate}", f"--client-key={key}")
    as_eve = ("--user=eve",)
    assert "echo" in inside.kubectl(*as_eve, "-n", "inside", "get", "pods", "-o", "name")
    refused = inside._run(["kubectl", *as_eve, "get", "nodes"], False, None).stderr
    assert 'User "eve" cannot list resource "nodes"' in refused
    node = "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient"
    inside.kubectl("create", "clusterrolebinding", "renew", f"--clusterrole={node}", "--group=system:nodes")
    subject = "/O=system:nodes/CN=system:node:n1"
    subprocess.run([*ask, "-keyout", key, "-out", asked, "-subj", subject], check=True, capture_output=True)
    request["metadata"] = {"name": "n1"}
    request["spec"] |= {
        "request": base64.b64encode(asked.read_bytes()).decode(),
        "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
        "usages": ["client auth", "digital signature"],
    }
    mine = f"--kubeconfig={inside.state / inside.name / 'kubeconfig' / 'n1.yaml'}"
    command = ["ip", "netns", "exec", f"fl-{inside.name}", "kubectl", mine, "create", "-f", "-"]
    inside._run(command, True, json.dumps(request))
    inside.wait_for(lambda: inside.get("csr", "n1")["status"].get("certificate"), "the node's new certificate")


def test_the_cluster_s_parts_ask_for_nothing_they_may_not(inside: Cluster) -> None:
    """After all that, no part of the cluster itself was refused: its rights are enough."""
    log = (inside.state / inside.name / "log" / "control-plane.log").read_text()
    own = [line for line in log.splitlines() if "is forbidden" in line]
    parts = [line for line in own if re.search(r'User "system:(kube-|serviceaccount:kube-system|node:n2)', line)]
    assert parts == []


def test_default_policy_survives_a_restart_and_comes_back_when_deleted(inside: Cluster) -> None:
    """A deleted default is there again after a restart of the control plane; what was added to another stays."""
    inside.kubectl("delete", "clusterrolebinding", "system:discovery")
    extra = [{"op": "add", "path": "/rules/-", "value": {"apiGroups": ["x.y"], "resources": ["z"], "verbs": ["get"]}}]
    inside.kubectl("patch", "clusterrole", "system:basic-user", "--type=json", "-p", json.dumps(extra))
    pid = inside.status()["processes"]["control-plane"]
    os.kill(pid, signal.SIGKILL)
    inside.wait_for(lambda: inside.status()["processes"].get("control-plane", pid) != pid, "a new control plane")
    inside.wait_for(lambda: inside.get("clusterrolebinding", "system:discovery"), "the default binding")
    rules = inside.get("clusterrole", "system:basic-user")["rules"]
    assert [rule for rule in rules if rule.get("apiGroups") == ["x.y"]]
