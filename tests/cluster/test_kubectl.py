"""The verbs of kubectl that need pods that run: every kubectl on PATH and in $KUBECTLS, one cluster for all."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import DEADLINE, Cluster
from tests.conformance.conftest import minor_of

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-kubectl")]

_NAMED = [path for path in os.environ.get("KUBECTLS", "").split(":") if path]
KUBECTLS = list({minor_of(path): path for path in [*_NAMED, shutil.which("kubectl") or "kubectl"]}.values())
ANSWER = """
import http.server, sys, os
print("begun", flush=True); print("to stderr", file=sys.stderr, flush=True)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("asked", self.path, flush=True)
        self.send_response(200); self.end_headers(); self.wfile.write(b"version " + os.environ["VERSION"].encode())
http.server.HTTPServer(("", 8080), Answer).serve_forever()
"""
SLEEP = ["sh", "-c", "trap exit TERM; echo the side is there; sleep infinity & wait"]  # ends at once when told to


class Kubectl:
    """One kubectl in a namespace of its own."""

    def __init__(self, path: str, cluster: Cluster, namespace: str, home: Path) -> None:
        self.path, self.cluster, self.namespace = path, cluster, namespace
        self.env = {**cluster.environment, "HOME": str(home)}
        self.minor = minor_of(path)

    def run(self, *words: str, stdin: str = "", code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a command; `code` is the exit code it must have (None: any but 0)."""
        command = [self.path, "-n", self.namespace, *words]
        done = subprocess.run(
            command, env=self.env, input=stdin, capture_output=True, text=True, timeout=120, check=False
        )
        good = done.returncode != 0 if code is None else done.returncode == code
        said = f"{' '.join(command)} → {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert good, f"{said}\n{self.cluster.logs()}"
        return done

    def __call__(self, *words: str, stdin: str = "") -> str:
        """Run a command that must succeed; its output."""
        return self.run(*words, stdin=stdin).stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects."""
        self("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def json(self, *words: str) -> Any:
        """What a command prints with -o json."""
        return json.loads(self(*words, "-o", "json"))

    @contextlib.contextmanager
    def start(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A command that goes on; ended in the end."""
        command = [self.path, "-n", self.namespace, *words]
        pipe = subprocess.PIPE
        running = subprocess.Popen(command, env=self.env, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True)
        alarm = threading.Timer(DEADLINE, running.kill)  # so that a line that never comes is an empty one
        alarm.start()
        try:
            yield running
        finally:
            alarm.cancel()
            running.terminate()
            running.communicate()


_counter = iter(range(1_000_000))


@pytest.fixture(params=KUBECTLS, ids=lambda path: f"{Path(path).name}-1.{minor_of(path)}")
def kubectl(request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path) -> Iterator[Kubectl]:
    """Each kubectl, in a namespace that goes with the test."""
    tool = Kubectl(request.param, cluster, f"v{next(_counter)}", tmp_path)
    cluster.kubectl("create", "ns", tool.namespace)
    yield tool
    cluster.kubectl("delete", "ns", tool.namespace, "--wait=false", check=False)


def deployment(name: str = "web", replicas: int = 1, version: str = "1") -> dict[str, Any]:
    """A Deployment whose pods answer over HTTP with their version, and talk in a second container."""
    labels = {"app": name}
    env = [{"name": "VERSION", "value": version}]
    answer = {"name": "main", "image": "fairlead/host", "command": ["python3", "-c", ANSWER], "env": env}
    ready = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    port = [{"name": "http", "containerPort": 8080}]
    containers = [
        {**answer, "ports": port, "readinessProbe": ready},
        {"name": "side", "image": "fairlead/host", "command": SLEEP},
    ]
    spec = {"terminationGracePeriodSeconds": 1, "containers": containers}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def pod(name: str, command: list[str], **spec: Any) -> dict[str, Any]:
    """A pod of one container."""
    container = {"name": "main", "image": "fairlead/host", "command": command}
    whole = {"terminationGracePeriodSeconds": 1, "containers": [container], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": whole}


def until(condition: Any, what: str) -> Any:
    """Wait until the condition gives something true; that."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {DEADLINE} s")


def test_rollouts(kubectl: Kubectl) -> None:
    """status, history with causes, undo to a revision, restart, pause and resume: of Deployments that run."""
    kubectl.apply(deployment())
    kubectl("annotate", "deploy/web", "kubernetes.io/change-cause=the first")
    assert "successfully rolled out" in kubectl("rollout", "status", "deploy/web", "--timeout=60s")
    kubectl("set", "env", "deploy/web", "-c", "main", "VERSION=2")
    kubectl("annotate", "deploy/web", "kubernetes.io/change-cause=the second", "--overwrite")
    assert "successfully rolled out" in kubectl("rollout", "status", "deploy/web", "--timeout=60s")
    rows = [line.split(None, 1) for line in kubectl("rollout", "history", "deploy/web").splitlines()[2:] if line]
    assert rows == [["1", "the first"], ["2", "the second"]]
    assert re.search(r"VERSION:\s+1\n", kubectl("rollout", "history", "deploy/web", "--revision=1"))
    kubectl("rollout", "undo", "deploy/web", "--to-revision=1")
    kubectl("rollout", "status", "deploy/web", "--timeout=60s")
    env = "jsonpath={.spec.template.spec.containers[0].env[0].value}"
    assert kubectl("get", "deploy/web", "-o", env) == "1"
    kubectl("rollout", "pause", "deploy/web")
    assert "paused" in kubectl.run("rollout", "undo", "deploy/web", code=None).stderr
    kubectl("set", "env", "deploy/web", "-c", "main", "VERSION=3")
    generation = kubectl.json("get", "deploy/web")["metadata"]["generation"]
    until(lambda: kubectl.json("get", "deploy/web")["status"].get("observedGeneration") == generation, "it was seen")
    assert len(kubectl.json("get", "rs")["items"]) == 2
    kubectl("rollout", "resume", "deploy/web")
    kubectl("rollout", "restart", "deploy/web")
    kubectl("rollout", "status", "deploy/web", "--timeout=60s")
    annotations = kubectl.json("get", "deploy/web")["spec"]["template"]["metadata"]["annotations"]
    assert "kubectl.kubernetes.io/restartedAt" in annotations


def test_logs(kubectl: Kubectl) -> None:
    """Of one container, of all, of a Deployment, by label; the last lines, since then, with times, of the run before,
    and as they come."""
    count = ["sh", "-c", "echo run; sleep 1; exit 1"]
    kubectl.apply(deployment(), pod("again", count, restartPolicy="Always"))
    kubectl("rollout", "status", "deploy/web", "--timeout=60s")
    assert sorted(kubectl("logs", "deploy/web", "-c", "main").splitlines()) == ["begun", "to stderr"]
    everything = kubectl("logs", "-l", "app=web", "--all-containers", "--prefix")
    assert re.search(r"^\[pod/web-\S+/side\] the side is there$", everything, re.M)
    assert re.search(r"^\[pod/web-\S+/main\] begun$", everything, re.M)
    assert len(kubectl("logs", "deploy/web", "-c", "main", "--tail=1").splitlines()) == 1
    assert re.match(
        r"\d{4}-\d\d-\d\dT[0-9:.]+Z the side is there$", kubectl("logs", "deploy/web", "-c", "side", "--timestamps")
    )
    assert kubectl("logs", "deploy/web", "-c", "side", "--since=1h") == "the side is there\n"
    assert kubectl("logs", "deploy/web", "-c", "side", "--since-time=2099-01-01T00:00:00Z") == ""
    assert kubectl("logs", "deploy/web", "-c", "side", "--limit-bytes=4") == "the "
    until(
        lambda: kubectl.json("get", "pod", "again")["status"]["containerStatuses"][0]["restartCount"], "it came again"
    )
    assert kubectl("logs", "again", "--previous") == "run\n"
    refused = kubectl.run("logs", "deploy/web", "-c", "side", "--previous", code=None).stderr
    assert 'previous terminated container "side" in pod' in refused
    with kubectl.start("logs", "-f", "deploy/web", "-c", "main", "--tail=1") as following:
        assert following.stdout is not None
        assert following.stdout.readline() in ("begun\n", "to stderr\n")
        kubectl("exec", "deploy/web", "-c", "main", "--", "curl", "-s", "127.0.0.1:8080/x")
        assert following.stdout.readline() == "asked /x\n"


def test_inside(kubectl: Kubectl, tmp_path: Path) -> None:
    """exec into a Deployment's pod, with stdin and exit code; cp there and back; attach."""
    echo = ["sh", "-c", "while read line; do echo got $line; done"]
    container = {"name": "main", "image": "fairlead/host", "command": echo, "stdin": True}
    kubectl.apply(deployment(), pod("echo", [], containers=[container]))
    kubectl("wait", "--for=condition=Ready", "pod/echo", "--timeout=60s")
    kubectl("rollout", "status", "deploy/web", "--timeout=60s")
    assert kubectl("exec", "-i", "deploy/web", "-c", "side", "--", "cat", stdin="through\n") == "through\n"
    assert kubectl.run("exec", "deploy/web", "-c", "side", "--", "sh", "-c", "exit 7", code=7)
    (tmp_path / "sent").write_bytes(bytes(range(256)) * 1000)
    kubectl("cp", str(tmp_path / "sent"), "echo:/tmp/sent")
    kubectl("cp", "echo:/tmp/sent", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == (tmp_path / "sent").read_bytes()
    with kubectl.start("attach", "-i", "echo") as attached:
        assert attached.stdin is not None and attached.stdout is not None
        attached.stdin.write("hello\n")
        attached.stdin.flush()
        assert any("got hello" in attached.stdout.readline() for _ in range(4))


@pytest.mark.parametrize("target", ["pod", "service", "deployment"])
def test_port_forward(kubectl: Kubectl, target: str) -> None:
    """To a pod, a Service (by its port) and a Deployment."""
    kubectl.apply(deployment())
    kubectl("expose", "deploy/web", "--port=80", "--target-port=http")
    kubectl("rollout", "status", "deploy/web", "--timeout=60s")
    name = kubectl("get", "pod", "-l", "app=web", "-o", "name").strip() if target == "pod" else f"{target}/web"
    with kubectl.start("port-forward", name, ":80" if target == "service" else ":8080") as forwarding:
        assert forwarding.stdout is not None
        match = re.search(r"127\.0\.0\.1:(\d+)", forwarding.stdout.readline())
        assert match is not None
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for _ in range(2):
            with opener.open(f"http://127.0.0.1:{match[1]}/", timeout=DEADLINE) as answer:
                assert answer.read() == b"version 1"


@pytest.mark.parametrize("cascade", ["background", "foreground", "orphan"])
def test_delete_cascades(kubectl: Kubectl, cascade: str) -> None:
    """background and foreground take the pods along (foreground before the owner goes); orphan leaves them."""
    made = deployment()
    made["spec"]["template"]["spec"]["containers"].pop(0)
    kubectl.apply(made)
    kubectl("rollout", "status", "deploy/web", "--timeout=60s")
    flag = f"--cascade={cascade}"
    if kubectl.minor < 20:
        flag = "--cascade=false" if cascade == "orphan" else "--cascade=true"
    kubectl("delete", "deploy/web", flag, "--timeout=60s")
    left = kubectl.json("get", "rs,pod", "-l", "app=web")["items"]
    if cascade == "orphan":
        assert sorted(item["kind"] for item in left) == ["Pod", "ReplicaSet"]
        assert not [item for item in left if item["kind"] == "ReplicaSet" and item["metadata"].get("ownerReferences")]
    elif cascade == "foreground":
        assert [item for item in left if item["kind"] == "ReplicaSet"] == []
    else:
        until(lambda: not kubectl.json("get", "rs,pod", "-l", "app=web")["items"], "its pods went")


def test_nodes_are_emptied(kubectl: Kubectl) -> None:
    """cordon, taint, drain (which leaves DaemonSets' pods alone) and uncordon."""
    node = "n2"
    made = deployment(replicas=2)
    made["spec"]["template"]["spec"]["containers"].pop(0)
    kubectl.apply(made)
    kubectl("rollout", "status", "deploy/web", "--timeout=60s")
    try:
        assert kubectl("cordon", node) == f"node/{node} cordoned\n"
        assert "SchedulingDisabled" in kubectl("get", "node", node)
        kubectl("drain", node, "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout=60s")
        pods = kubectl.json("get", "pod", "-l", "app=web")["items"]
        assert node not in [p["spec"]["nodeName"] for p in pods if not p["metadata"].get("deletionTimestamp")]
        kubectl("uncordon", node)
        kubectl("taint", "node", node, f"{kubectl.namespace}=yes:PreferNoSchedule")
        assert f"{kubectl.namespace}=yes:PreferNoSchedule" in kubectl("describe", "node", node)
        kubectl("taint", "node", node, f"{kubectl.namespace}-")
    finally:
        kubectl("uncordon", node)


def test_watching_with_selectors(kubectl: Kubectl) -> None:
    """-w shows what matches a label and stops showing what does no more; --watch-only; the kinds of events."""
    kubectl("create", "configmap", "a")
    kubectl("create", "configmap", "b")
    kubectl("label", "cm", "a", "color=red")
    with kubectl.start("get", "cm", "-l", "color=red", "-w", "--output-watch-events", "--no-headers") as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().split()[:2] == ["ADDED", "a"]
        kubectl("label", "cm", "b", "color=red")
        assert watching.stdout.readline().split()[:2] == ["ADDED", "b"]
        kubectl("label", "cm", "a", "color=blue", "--overwrite")
        assert watching.stdout.readline().split()[:2] == ["DELETED", "a"]
    with kubectl.start("get", "cm", "--watch-only", "--field-selector=metadata.name=c", "-o", "name") as watching:
        assert watching.stdout is not None

        def seen() -> bool:
            kubectl.run("delete", "cm", "c", "--ignore-not-found")
            kubectl("create", "configmap", "c")
            return True

        until(seen, "one was made")
        assert watching.stdout.readline() == "configmap/c\n"


def test_what_happened(kubectl: Kubectl) -> None:
    """Events as get, describe and (where kubectl knows it) `events` show them; `wait` for a field."""
    kubectl.apply(pod("p", SLEEP))
    kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=60s")
    until(lambda: "Started" in kubectl("get", "events", "--field-selector=involvedObject.name=p"), "it is said")
    assert "Scheduled" in kubectl("describe", "pod", "p")
    if kubectl.minor >= 26:
        assert "Started" in kubectl("events", "--for=pod/p")
    if kubectl.minor >= 23:
        kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pod/p", "--timeout=60s")
    kubectl("delete", "pod", "p", "--now", "--wait=false")
    if kubectl.minor >= 22:  # older ones fail when it is gone already
        kubectl("wait", "--for=delete", "pod/p", "--timeout=60s")


def test_running_and_exposing(kubectl: Kubectl) -> None:
    """`run --rm -i` shows what a command says; expose, scale, and reach it by its Service; `run --restart=Never`."""
    kubectl.apply(deployment())
    kubectl("expose", "deploy/web", "--port=80", "--target-port=http", "--name=front")
    kubectl("scale", "deploy/web", "--replicas=2", "--timeout=60s")
    kubectl("rollout", "status", "deploy/web", "--timeout=60s")
    said = kubectl("run", "ask", "--image=fairlead/host", "--restart=Never", "--rm", "-i", "--", "curl", "-s", "front")
    assert "version 1" in said
    assert kubectl.run("get", "pod", "ask", code=1)
    assert (
        len(kubectl.json("get", "endpointslice", "-l", "kubernetes.io/service-name=front")["items"][0]["endpoints"])
        == 2
    )


def test_kustomize(kubectl: Kubectl, tmp_path: Path) -> None:
    """apply -k, diff -k and delete -k of a directory that generates, prefixes and patches."""
    (tmp_path / "cm.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: '1'}\n")
    (tmp_path / "kustomization.yaml").write_text(
        "namePrefix: my-\ncommonLabels: {tier: front}\nresources: [cm.yaml]\n"
        "configMapGenerator:\n- name: made\n  literals: [x=y]\n"
    )
    kubectl("apply", "-k", str(tmp_path))
    names = kubectl("get", "cm", "-l", "tier=front", "-o", "name").split()
    assert names[0] == "configmap/my-a"
    assert re.fullmatch(r"configmap/my-made-\w+", names[1])
    assert kubectl("diff", "-k", str(tmp_path)) == ""
    (tmp_path / "cm.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: '2'}\n")
    assert '+  k: "2"' in kubectl.run("diff", "-k", str(tmp_path), code=1).stdout
    kubectl("delete", "-k", str(tmp_path))
    assert kubectl("get", "cm", "-l", "tier=front", "-o", "name") == ""


def test_pruning(kubectl: Kubectl, tmp_path: Path) -> None:
    """apply --prune deletes what left the manifests, also with an ApplySet where kubectl has them."""
    one, two = (
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": n, "labels": {"set": "x"}}} for n in "ab"
    )

    def files(*objects: dict[str, Any]) -> str:
        (tmp_path / "all.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))
        return str(tmp_path / "all.json")

    words = ["--prune", "-l", "set=x", "--prune-whitelist=core/v1/ConfigMap"]
    if kubectl.minor >= 26:
        words[-1] = "--prune-allowlist=core/v1/ConfigMap"
    kubectl("apply", "-f", files(one, two), *words)
    kubectl("apply", "-f", files(one), *words)
    assert kubectl("get", "cm", "-l", "set=x", "-o", "name") == "configmap/a\n"
    if kubectl.minor >= 27:
        kubectl("delete", "cm", "a")
        kubectl.env["KUBECTL_APPLYSET"] = "true"
        kubectl("apply", "-f", files(one, two), "--prune", "--applyset=parent")
        kubectl("apply", "-f", files(two), "--prune", "--applyset=parent")
        assert kubectl("get", "cm", "-l", "set=x", "-o", "name") == "configmap/b\n"


def test_a_whole_cluster_can_be_dumped(kubectl: Kubectl, tmp_path: Path) -> None:
    """cluster-info dump writes objects and logs; config shows and changes where kubectl goes."""
    kubectl.apply(pod("p", SLEEP))
    kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=60s")
    kubectl("cluster-info", "dump", f"--namespaces={kubectl.namespace}", f"--output-directory={tmp_path / 'dump'}")
    assert (tmp_path / "dump" / kubectl.namespace / "p" / "logs.txt").read_text().splitlines()[1].endswith("is there")
    context = kubectl("config", "current-context").strip()
    assert context in kubectl("config", "get-contexts", "-o", "name").split()
    shown = json.loads(kubectl("config", "view", "--minify", "-o", "json"))
    assert shown["clusters"][0]["cluster"]["server"].startswith("https://127.0.0.1:")
    assert "DATA+OMITTED" in json.dumps(shown)
