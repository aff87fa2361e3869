"""Pods in a running cluster, a row for each thing a pod's spec can ask for: made all at once, looked at one by one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.cluster.conftest import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-pods")]
Object = dict[str, Any]

WAIT = "while true; do sleep 0.1; done"
HTTP = "import http.server; http.server.HTTPServer(('', 8080), http.server.SimpleHTTPRequestHandler).serve_forever()"
GRPC = """
import concurrent.futures, grpc
class Health(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"\\x08\\x01")
server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers([Health()])
server.add_insecure_port("0.0.0.0:9000")
server.start()
server.wait_for_termination()
"""
ALLOCATE = "kept = [bytearray(1 << 20) for _ in range(200)]; print(len(kept))"
SCRATCH: Object = {"volumes": [{"name": "v", "emptyDir": {}}]}
MOUNT: Object = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}


class Row(NamedTuple):
    """A pod, and what shows that it is as it should be: of its object, of what it wrote."""

    container: Object
    spec: Object = {}
    shows: Callable[[Object], Any] = lambda pod: pod["status"]["phase"] == "Succeeded"
    says: Callable[[str], Any] | None = None
    metadata: Object = {}


def sh(text: str, **container: Any) -> Object:
    return {"command": ["sh", "-c", text], **container}


def python(code: str, **container: Any) -> Object:
    return {"command": [sys.executable, "-c", code], **container}


def once(spec: Object = SCRATCH, **more: Any) -> Object:
    return {"restartPolicy": "Never", **spec, **more}


def state(pod: Object, name: str = "main") -> Object:
    return next(s for s in pod["status"]["containerStatuses"] if s["name"] == name)


def condition(pod: Object, kind: str) -> Object:
    return next((c for c in pod["status"].get("conditions") or () if c["type"] == kind), {})


def ready(pod: Object) -> bool:
    return bool(condition(pod, "Ready").get("status") == "True")


def ended(code: int, **fields: Any) -> Callable[[Object], bool]:
    def check(pod: Object) -> bool:
        found = state(pod)["state"].get("terminated") or {}
        return bool(found.get("exitCode") == code and all(found.get(k) == v for k, v in fields.items()))

    return check


def well_told(pod: Object) -> bool:
    """Status fidelity: conditions with their times, qosClass, addresses, generation."""
    status = pod["status"]
    kinds = {"PodScheduled", "Initialized", "ContainersReady", "Ready", "PodReadyToStartContainers"}
    times = all(c["lastTransitionTime"] for c in status["conditions"])
    return bool(
        ready(pod)
        and kinds <= {c["type"] for c in status["conditions"]}
        and times
        and status["qosClass"] == "Guaranteed"
        and status["podIPs"] == [{"ip": status["podIP"]}]
        and status["hostIPs"] == [{"ip": status["hostIP"]}]
        and status["observedGeneration"] == pod["metadata"]["generation"]
        and status["startTime"]
    )


VOLUMES = once(
    {
        "volumes": [
            {"name": "ram", "emptyDir": {"medium": "Memory"}},
            {"name": "config", "configMap": {"name": "settings"}},
            {"name": "secret", "secret": {"secretName": "keys"}},
            {"name": "host", "hostPath": {"path": "/etc/passwd", "type": "File"}},
            {
                "name": "all",
                "projected": {
                    "sources": [
                        {"serviceAccountToken": {"path": "token", "audience": "here"}},
                        {"configMap": {"name": "settings"}},
                        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                    ]
                },
            },
        ]
    }
)
ROWS = {
    "init-containers-and-sidecars": Row(
        sh("cat /v/init", **MOUNT),
        once(
            initContainers=[
                {"name": "side", "restartPolicy": "Always", **sh(f"touch /v/side; {WAIT}", **MOUNT)},
                {"name": "first", **sh("while ! test -e /v/side; do sleep 0.05; done; echo done > /v/init", **MOUNT)},
            ]
        ),
        says=lambda log: log == "done\n",
    ),
    "post-start": Row(
        sh(
            "while ! test -e /v/hooked; do sleep 0.05; done; echo hooked",
            lifecycle={"postStart": {"exec": {"command": ["touch", "/v/hooked"]}}},
            **MOUNT,
        ),
        once(),
        says=lambda log: log == "hooked\n",
    ),
    "http-and-tcp-probes-after-startup": Row(
        python(
            f"import time; time.sleep(0.5); open('/tmp/up', 'w').close(); {HTTP}",
            startupProbe={
                "exec": {"command": ["test", "-e", "/tmp/up"]},
                "periodSeconds": 1,
                "failureThreshold": 60,
            },
            readinessProbe={"httpGet": {"port": 8080, "path": "/etc/"}, "periodSeconds": 1, "timeoutSeconds": 10},
            livenessProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1, "timeoutSeconds": 10},
        ),
        shows=lambda pod: ready(pod) and state(pod)["started"] and state(pod)["restartCount"] == 0,
    ),
    "grpc-probe": Row(
        python(GRPC, readinessProbe={"grpc": {"port": 9000}, "periodSeconds": 1, "timeoutSeconds": 10}), shows=ready
    ),
    "a-failing-liveness-probe": Row(
        sh(WAIT, livenessProbe={"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}),
        {"terminationGracePeriodSeconds": 1},
        shows=lambda pod: state(pod)["restartCount"] >= 1,
    ),
    "termination-message": Row(sh("echo why > /dev/termination-log; exit 4"), once(), shows=ended(4, message="why\n")),
    "crash-loop": Row(
        sh("exit 3"),
        shows=lambda pod: (
            state(pod)["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff"
            and state(pod)["lastState"]["terminated"]["exitCode"] == 3
        ),
    ),
    "out-of-memory": Row(
        python(ALLOCATE, resources={"limits": {"memory": "48Mi"}}), once(), shows=ended(137, reason="OOMKilled")
    ),
    "killed-by-a-signal": Row(
        sh("kill -9 $$$$"), once(shareProcessNamespace=True), shows=ended(137, signal=9, reason="Error")
    ),
    "active-deadline": Row(
        sh(WAIT),
        {"activeDeadlineSeconds": 1, "terminationGracePeriodSeconds": 1},
        shows=lambda pod: (pod["status"]["phase"], pod["status"].get("reason")) == ("Failed", "DeadlineExceeded"),
    ),
    "host-network": Row(
        sh(WAIT), {"hostNetwork": True}, lambda p: ready(p) and p["status"]["podIP"] == p["status"]["hostIP"]
    ),
    "shared-processes": Row(
        sh("while ! grep -q fl-pod /proc/1/comm; do sleep 0.1; done; echo shared"),
        once(shareProcessNamespace=True),
        says=lambda log: log == "shared\n",
    ),
    "security-context": Row(
        sh(
            "id -u; id -g; id -G; touch /x 2>/dev/null || echo read-only; grep -c . /v/x;"
            "grep NoNewPrivs /proc/self/status",
            securityContext={
                "runAsUser": 1234,
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            **MOUNT,
        ),
        once(
            securityContext={"runAsGroup": 2345, "fsGroup": 3456, "runAsNonRoot": True},
            initContainers=[{"name": "w", **sh("echo a > /v/x", **MOUNT), "securityContext": {"runAsUser": 99}}],
        ),
        says=lambda log: log.split() == ["1234", "2345", "2345", "3456", "read-only", "1", "NoNewPrivs:", "1"],
    ),
    "volumes": Row(
        sh(
            "cat /config/a /secret/b /all/a /all/labels; echo; test -s /all/token && grep -c root: /host;"
            "stat -f -c %T /ram",
            volumeMounts=[{"name": n, "mountPath": f"/{n}"} for n in ("ram", "config", "secret", "host", "all")],
        ),
        VOLUMES,
        says=lambda log: log.split() == ['onetwoonerow="volumes"', "1", "tmpfs"],
        metadata={"labels": {"row": "volumes"}},
    ),
    "status": Row(sh(WAIT, resources={"limits": {"cpu": "100m", "memory": "32Mi"}}), shows=well_told),
    "dns-default": Row(
        sh("grep -c 10.96.0.10 /etc/resolv.conf"), once(dnsPolicy="Default"), lambda p: p["status"]["phase"] == "Failed"
    ),
    "dns-none": Row(
        sh("cat /etc/resolv.conf"),
        once(
            dnsPolicy="None",
            dnsConfig={
                "nameservers": ["192.0.2.1"],
                "searches": ["a.example"],
                "options": [{"name": "ndots", "value": "2"}],
            },
        ),
        says=lambda log: (
            log.split("\n")[:3] == ["search a.example", "nameserver 192.0.2.1", "options ndots:2"]
            or log.split("\n")[:3] == ["nameserver 192.0.2.1", "search a.example", "options ndots:2"]
        ),
    ),
    "dns-cluster-first": Row(
        sh("grep -c 'nameserver 10.96.0.10' /etc/resolv.conf; getent hosts kubernetes.default.svc.cluster.local"),
        once(),
        says=lambda log: log.startswith("1\n10.96.0.1"),
    ),
    "dns-cluster-first-with-host-net": Row(
        sh("grep -c 'nameserver 10.96.0.10' /etc/resolv.conf"),
        once(dnsPolicy="ClusterFirstWithHostNet", hostNetwork=True),
        says=lambda log: log == "1\n",
    ),
    "host-names": Row(
        sh("hostname; hostname -f; grep -c 'one.example' /etc/hosts"),
        once(
            hostname="mine",
            subdomain="sub",
            hostAliases=[{"ip": "192.0.2.9", "hostnames": ["one.example", "two.example"]}],
        ),
        says=lambda log: log == "mine\nmine.sub.default.svc.cluster.local\n1\n",
    ),
    "host-name-as-fqdn": Row(
        sh("hostname"),
        once(hostname="mine", subdomain="sub", setHostnameAsFQDN=True),
        says=lambda log: log == "mine.sub.default.svc.cluster.local\n",
    ),
    "host-name-override": Row(
        sh("hostname"), once(hostnameOverride="over.ridden"), says=lambda log: log == "over.ridden\n"
    ),
    "topology-labels": Row(
        sh("cat /v/labels", volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        once(
            {
                "volumes": [
                    {
                        "name": "v",
                        "downwardAPI": {
                            "items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}],
                        },
                    }
                ],
                "nodeSelector": {"topology.kubernetes.io/zone": "west"},
            }
        ),
        says=lambda log: 'topology.kubernetes.io/zone="west"' in log,
    ),
}


LIVE = "cat /config/a /secret/a /all/a /all/b /down/labels; tail -c 20 /all/token"
"""What shows of a running pod's volumes."""


def live() -> list[Object]:
    """A pod that shows its volumes, with what they are of."""
    labels = {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}
    token = {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}
    both = [{"configMap": {"name": "live"}}, {"secret": {"name": "live", "items": [{"key": "a", "path": "b"}]}}, token]
    volumes = [
        {"name": "config", "configMap": {"name": "live"}},
        {"name": "secret", "secret": {"secretName": "live"}},
        {"name": "all", "projected": {"sources": both}},
        {"name": "down", **labels},
    ]
    mounts = [{"name": volume["name"], "mountPath": f"/{volume['name']}"} for volume in volumes]
    container = {"name": "main", "image": "fairlead/host", **sh(WAIT), "volumeMounts": mounts}
    spec = {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 1}
    metadata = {"name": "live", "labels": {"is": "old"}}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "live"}, "data": {"a": "old-map "}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "live"}, "stringData": {"a": "old-secret "}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec},
    ]


def crashing() -> Object:
    """A pod of which one container writes down when it starts, and ends; the other lets that be read."""
    one = {"name": "main", "image": "fairlead/host", **sh("date +%s.%N >> /v/starts; exit 3"), **MOUNT}
    other = {"name": "look", "image": "fairlead/host", **sh(WAIT), **MOUNT}
    spec = {**SCRATCH, "containers": [one, other], "terminationGracePeriodSeconds": 1}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "crashing"}, "spec": spec}


@pytest.fixture(scope="module")
def pods(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with the pods of all rows."""
    cluster.kubectl("label", "node", "n1", "topology.kubernetes.io/zone=west", "topology.kubernetes.io/region=far")
    cluster.kubectl("create", "configmap", "settings", "--from-literal=a=one")
    cluster.kubectl("create", "secret", "generic", "keys", "--from-literal=b=two")
    items = [*live(), crashing()]
    for name, row in ROWS.items():
        main = {"name": "main", **row.container}
        spec: Object = {"containers": [main], **row.spec}
        for container in (main, *spec.get("initContainers", ())):
            container["image"] = "fairlead/host"
        items.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **row.metadata}, "spec": spec})
    cluster.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    yield cluster


@pytest.mark.parametrize("name", ROWS)
def test_a_row(pods: Cluster, name: str) -> None:
    """The pod is, and says, what its spec means."""
    row = ROWS[name]
    pods.wait_for(lambda: row.shows(pods.get("pod", name)), f"{name}: {pods.get('pod', name)['status']}")
    if row.says is not None:
        log = pods.kubectl("logs", name, "-c", "main")
        assert row.says(log), log


def test_content_of_volumes_changes(pods: Cluster) -> None:
    """A pod sees its labels change; what it sees of ConfigMaps and Secrets is looked at once a minute, see below."""
    pods.wait_for(lambda: ready(pods.get("pod", "live")), "the pod")
    before = pods.kubectl("exec", "live", "--", "sh", "-c", LIVE)
    assert before.startswith('old-map old-secret old-map old-secret is="old"'), before
    pods.kubectl("patch", "configmap", "live", "-p", '{"data": {"a": "new-map "}}')
    pods.kubectl("patch", "secret", "live", "-p", '{"stringData": {"a": "new-secret "}}')
    pods.kubectl("label", "pod", "live", "is=new", "--overwrite")
    pods.wait_for(lambda: 'is="new"' in pods.kubectl("exec", "live", "--", "cat", "/down/labels"), "the label")


def test_readiness_gates(pods: Cluster) -> None:
    """A pod is not Ready before somebody says the condition it waits for."""
    spec = {"readinessGates": [{"conditionType": "example.com/go"}], "containers": [{"name": "main", **sh(WAIT)}]}
    spec["containers"][0]["image"] = "fairlead/host"
    pods.apply(json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "gated"}, "spec": spec}))
    pods.wait_for(lambda: condition(pods.get("pod", "gated"), "ContainersReady")["status"] == "True", "its container")
    assert condition(pods.get("pod", "gated"), "Ready")["reason"] == "ReadinessGatesNotReady"
    go = json.dumps({"status": {"conditions": [{"type": "example.com/go", "status": "True"}]}})
    pods.kubectl("patch", "pod", "gated", "--subresource=status", "--type=strategic", "-p", go)
    pods.wait_for(lambda: ready(pods.get("pod", "gated")), "the gate")


def test_pre_stop(pods: Cluster, tmp_path: Path) -> None:
    """The hook runs before the container is told to end."""
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo bye > /out/bye"]}}}
    container = {"name": "main", "image": "fairlead/host", **sh(WAIT, lifecycle=hook)}
    container["volumeMounts"] = [{"name": "out", "mountPath": "/out"}]
    spec = {"containers": [container], "volumes": [{"name": "out", "hostPath": {"path": str(tmp_path)}}]}
    spec["terminationGracePeriodSeconds"] = 2
    pods.apply(json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "leaving"}, "spec": spec}))
    pods.wait_for(lambda: ready(pods.get("pod", "leaving")), "the pod")
    pods.kubectl("delete", "pod", "leaving", "--wait=true")
    assert (tmp_path / "bye").read_text() == "bye\n"


def test_a_port_of_the_node(pods: Cluster) -> None:
    """Reached at the node's address from this machine and from pods; a second pod with the port goes elsewhere, a
    third nowhere; with the pod the way is gone."""
    port = [{"containerPort": 8080, "hostPort": 18080}]
    spec = {"containers": [{"name": "main", "image": "fairlead/host", **python(HTTP, ports=port)}]}
    spec["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    names = ["port-1", "port-2", "port-3"]
    for name in names:
        pods.apply(json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}))
    pods.wait_for(lambda: sum(ready(pods.get("pod", n)) for n in names) == 2, "two of them")
    found = [pods.get("pod", name) for name in names]
    assert {p["spec"].get("nodeName") for p in found} == {"n1", "n2", None}
    waiting = next(p for p in found if not p["spec"].get("nodeName"))
    assert "didn't have free ports for the requested pod ports" in condition(waiting, "PodScheduled")["message"]
    for pod in found:
        if pod["spec"].get("nodeName"):
            url = f"http://{pod['status']['hostIP']}:18080/"
            with urllib.request.urlopen(url, timeout=10) as answer:
                assert answer.status == 200
            assert "HTTP" in pods.kubectl("exec", "status", "--", "curl", "-sSI", "--max-time", "10", url)
    pods.kubectl("delete", "pod", *names, "--grace-period=1")
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=10)


def test_debug_a_pod(pods: Cluster) -> None:
    """kubectl debug: beside a container, seeing its processes; in a copy that shares them; on a node."""
    seen = pods.kubectl(
        "debug", "-i", "pod/status", "--image=fairlead/host", "--target=main", "-c", "look", "--",
        "sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline; hostname",
    )  # fmt: skip
    pods.wait_for(lambda: "status" in pods.kubectl("logs", "status", "-c", "look"), f"its log; attached: {seen}")
    assert WAIT in pods.kubectl("logs", "status", "-c", "look")
    refused = pods.kubectl("exec", "status", "-c", "look", "--", "true", check=False)
    assert refused == "", "it has ended, and is not started again"
    pods.kubectl(
        "debug", "pod/status", "--image=fairlead/host", "--copy-to=copy", "--share-processes", "-c", "look", "--",
        "sh", "-c", WAIT,
    )  # fmt: skip
    pods.wait_for(lambda: ready(pods.get("pod", "copy")), "the copy")
    assert pods.kubectl("exec", "copy", "-c", "look", "--", "cat", "/proc/1/comm") == "fl-pod\n"
    said = pods.kubectl(
        "debug", "node/n1", "--image=fairlead/host", "--", "sh", "-c", "ls -d /host/etc; ls /proc | wc -l"
    )
    name = said.split("pod ")[1].split()[0]
    pods.wait_for(lambda: "/host/etc" in pods.kubectl("logs", name), "what it saw")
    debugger = pods.get("pod", name)
    assert debugger["spec"]["hostPID"]
    assert debugger["status"]["podIP"] == pods.get("node", "n1")["status"]["addresses"][0]["address"]


def test_a_pod_waits_for_its_services(pods: Cluster) -> None:
    """By annotation: until one is there, and until another has a ready endpoint; meanwhile kubectl says for what."""
    wanted = {"fairlead.dev/wait-for-services": "there, backed=ready"}
    spec = {"containers": [{"name": "main", "image": "fairlead/host", **sh("echo $THERE_SERVICE_HOST; " + WAIT)}]}
    metadata = {"name": "later", "annotations": wanted}
    pods.apply(json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
    pods.wait_for(lambda: "WaitingForServices" in pods.kubectl("get", "pod", "later"), "the reason")
    found = condition(pods.get("pod", "later"), "fairlead.dev/ServicesFound")
    assert found["status"] == "False"
    assert "there" in found["message"]
    pods.kubectl("create", "service", "clusterip", "there", "--tcp=80")
    pods.kubectl("create", "service", "clusterip", "backed", "--tcp=80:8080")

    def missing() -> str:
        return str(condition(pods.get("pod", "later"), "fairlead.dev/ServicesFound").get("message"))

    pods.wait_for(lambda: "there" not in missing() and "backed" in missing(), f"one of them: {missing()}")
    assert "WaitingForServices" in pods.kubectl("get", "pod", "later")
    pods.kubectl("set", "selector", "service", "backed", "app=backed")
    pods.kubectl("label", "pod", "status", "app=backed")
    pods.wait_for(lambda: ready(pods.get("pod", "later")), "the other")
    address = pods.get("service", "there")["spec"]["clusterIP"]
    pods.wait_for(lambda: pods.kubectl("logs", "later") == f"{address}\n", "the variable of the one")
    pods.wait_for(lambda: "WaitingForServices" in pods.kubectl("describe", "pod", "later"), "the event")


def test_a_crash_loop_slows_down(pods: Cluster) -> None:
    """The first start after a failure comes at once, the second after 10 s, the third after 20 s."""

    def starts() -> list[float]:
        return list(map(float, pods.kubectl("exec", "crashing", "-c", "look", "--", "cat", "/v/starts").split()))

    pods.wait_for(lambda: len(starts()) >= 4, "the third start after a failure", 120)
    first, second, third, fourth = starts()[:4]
    assert third - second >= 9.9
    assert fourth - third >= 19.9
    assert first < second
    uid = pods.get("pod", "crashing")["metadata"]["uid"]
    waits = f"back-off 40s restarting failed container=main pod=crashing_default({uid})"
    pods.wait_for(lambda: waits in json.dumps(state(pods.get("pod", "crashing"))), "the next wait")


def test_content_of_volumes_has_changed(pods: Cluster) -> None:
    """Within the minute (and what a busy machine takes on top) after `test_content_of_volumes_changes`."""
    expected = 'new-map new-secret new-map new-secret is="new"'
    pods.wait_for(lambda: pods.kubectl("exec", "live", "--", "sh", "-c", LIVE).startswith(expected), "the changes", 120)
    assert state(pods.get("pod", "live"))["restartCount"] == 0


def test_a_token_is_renewed(pods: Cluster) -> None:
    """A node's agent that began anew knows no tokens: the running pod gets another one, and both are good."""
    read = ("exec", "live", "--", "cat", "/all/token")
    before = pods.kubectl(*read)
    os.kill(pods.status()["processes"][f"node-{pods.get('pod', 'live')['spec']['nodeName']}"], signal.SIGKILL)
    pods.wait_for(lambda: pods.kubectl(*read, check=False) not in ("", before), "another token")
    url = "https://kubernetes.default.svc/apis/authentication.k8s.io/v1/selfsubjectreviews"
    who = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})
    for token in (before, pods.kubectl(*read)):
        headers = ("-H", f"Authorization: Bearer {token}", "-H", "Content-Type: application/json")
        said = pods.kubectl("exec", "live", "--", "curl", "-sSk", *headers, "-d", who, url)
        assert "system:serviceaccount:default:default" in said, said
    assert state(pods.get("pod", "live"))["restartCount"] == 0


def test_nothing_of_them_is_left(pods: Cluster) -> None:
    """After the last: no process, no mount, no control group of any of them."""
    uids = [p["metadata"]["uid"] for p in pods.get("pods")["items"]]
    pods.kubectl("delete", "pods", "--all", "--grace-period=1", "--wait=true")

    def left() -> str:
        mounts = Path("/proc/self/mountinfo").read_text()
        groups = subprocess.run(["find", "/sys/fs/cgroup", "-name", "*-*"], capture_output=True, text=True, check=False)
        state = "\n".join(str(p) for p in (pods.state / pods.name / "nodes").glob("*/pods/*"))
        return "\n".join(uid for uid in uids if uid in mounts + groups.stdout + state)

    pods.wait_for(lambda: not left(), "everything to be gone")
