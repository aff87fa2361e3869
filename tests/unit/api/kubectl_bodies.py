"""Records the bodies a real kubectl sends: an HTTP server on loopback that answers just enough for `kubectl create`.

Used by the tests of protobuf decoding; run as a script it rewrites their recorded bodies:
`python -m tests.unit.api.kubectl_bodies KUBECTL > tests/unit/api/data/kubectl_bodies.json`.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec

COMMANDS = (
    "create deployment web --image=nginx --replicas=0 --port=80",
    "create configmap settings --from-literal=a=1 --from-literal=empty=",
    "create secret generic keys --from-literal=password=hunter2",
    "create secret docker-registry pull --docker-server=r --docker-username=u --docker-password=p",
    "create namespace shop",
    "create service clusterip web --tcp=80:8080 --tcp=5678",
    "create service nodeport web --tcp=80:http --node-port=30080",
    "create service externalname out --external-name=example.com",
    "create serviceaccount robot",
    "create token robot --duration=1h --bound-object-kind=Secret --bound-object-name=keys --audience=a",
    "create ingress web --rule=foo.com/bar*=web:80,tls=my-cert --class=nginx --annotation=a=b",
    "create job hello --image=busybox -- echo hi",
    "create cronjob hello --image=busybox --schedule=*/1_*_*_*_* -- date",
    "create quota mine --hard=cpu=1,memory=1G,pods=2 --scopes=BestEffort",
    "create poddisruptionbudget web --selector=app=web --min-available=50%",
    "create priorityclass high --value=1000 --description=high",
    "create role reader --verb=get,list --resource=pods --resource-name=a",
    "create clusterrole reader --verb=get --non-resource-url=/logs/*",
    "create rolebinding readers --role=reader --user=u --serviceaccount=ns:robot",
    "create clusterrolebinding readers --clusterrole=reader --group=g",
    "autoscale deployment web --min=2 --max=5 --cpu-percent=80",
    "auth can-i list pods",
    "auth can-i --list",
    "auth whoami",
)

GROUPS = {
    "apps/v1": [("deployments", "Deployment"), ("deployments/scale", "Scale")],
    "batch/v1": [("jobs", "Job"), ("cronjobs", "CronJob")],
    "networking.k8s.io/v1": [("ingresses", "Ingress")],
    "policy/v1": [("poddisruptionbudgets", "PodDisruptionBudget")],
    "rbac.authorization.k8s.io/v1": [("roles", "Role"), ("rolebindings", "RoleBinding")],
    "autoscaling/v2": [("horizontalpodautoscalers", "HorizontalPodAutoscaler")],
    "autoscaling/v1": [("horizontalpodautoscalers", "HorizontalPodAutoscaler")],
    "authorization.k8s.io/v1": [("selfsubjectaccessreviews", "SelfSubjectAccessReview")],
    "authentication.k8s.io/v1": [("selfsubjectreviews", "SelfSubjectReview")],
    "scheduling.k8s.io/v1": [("priorityclasses", "PriorityClass")],
}
CORE = [("pods", "Pod"), ("services", "Service"), ("serviceaccounts", "ServiceAccount"), ("configmaps", "ConfigMap")]
VERBS = ["create", "get", "list", "delete"]


class Body(msgspec.Struct):
    """One request that carried a body."""

    method: str
    path: str
    content_type: str
    body: bytes


def _resources(group_version: str, entries: list[tuple[str, str]]) -> dict[str, Any]:
    resources: list[dict[str, Any]] = [
        {"name": n, "singularName": "", "kind": k, "namespaced": True, "verbs": VERBS} for n, k in entries
    ]
    for resource in resources:
        if resource["kind"] == "Scale":
            resource |= {"group": "autoscaling", "version": "v1", "verbs": ["get", "patch", "update"]}
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}


def _answer(path: str) -> dict[str, Any] | None:
    path = path.partition("?")[0]
    if path == "/version":
        return {"major": "1", "minor": "33", "gitVersion": "v1.33.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/api/v1":
        return _resources("v1", CORE)
    if path == "/apis":
        groups: dict[str, list[dict[str, str]]] = {}
        for group_version in GROUPS:
            group, _, version = group_version.partition("/")
            groups.setdefault(group, []).append({"groupVersion": group_version, "version": version})
        entries = [{"name": g, "versions": v, "preferredVersion": v[0]} for g, v in groups.items()]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": entries}
    if path.startswith("/apis/") and path.removeprefix("/apis/") in GROUPS:
        name = path.removeprefix("/apis/")
        return _resources(name, GROUPS[name])
    if path.endswith("/deployments/web/scale"):
        return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": "web", "namespace": "default"}}
    if path.endswith("/deployments/web"):
        return {"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "web", "namespace": "default"}}
    return None


@contextmanager
def recorder() -> Iterator[tuple[str, list[Body]]]:
    """A server on loopback: its URL, and the bodies it has been sent so far."""
    bodies: list[Body] = []

    class Handler(BaseHTTPRequestHandler):
        def reply(self, code: int, answer: dict[str, Any]) -> None:
            payload = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def do_GET(self) -> None:
            answer = _answer(self.path)
            failure = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            self.reply(200 if answer else 404, answer or failure)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            bodies.append(Body(self.command, self.path, self.headers.get("Content-Type", ""), body))
            self.reply(201, {"kind": "Status", "apiVersion": "v1", "status": "Success"})

        do_DELETE = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", bodies
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def run(kubectl: str, url: str, command: str) -> str:
    """Let that kubectl send its request; what it thinks of the answer does not matter. Gives what it prints."""
    with tempfile.TemporaryDirectory() as home:
        arguments = [kubectl, "--server", url, "--cache-dir", home, "--namespace", "default"]
        words = [word.replace("_", " ") if "schedule" in word else word for word in command.split()]
        environment = {"HOME": home, "PATH": "/usr/bin:/bin", "KUBECONFIG": str(Path(home, "none"))}
        done = subprocess.run([*arguments, *words], env=environment, capture_output=True, timeout=60, check=False)
    return done.stdout.decode()


def main() -> None:
    recorded = []
    with recorder() as (url, bodies):
        for command in COMMANDS:
            bodies.clear()
            run(sys.argv[1], url, command)
            if not bodies:
                print(f"nothing was sent by: {command}", file=sys.stderr)
            for body in list(bodies):
                shown = run(sys.argv[1], url, command.replace(" -- ", " --dry-run=client -o json -- ", 1)
                            if " -- " in command else f"{command} --dry-run=client -o json")  # fmt: skip
                recorded.append({
                    "command": command,
                    "path": body.path,
                    "content_type": body.content_type,
                    "body": base64.b64encode(body.body).decode(),
                    "object": json.loads(shown) if shown.startswith("{") else None,
                })  # fmt: skip
    print(json.dumps(recorded, indent=1))


if __name__ == "__main__":
    main()
