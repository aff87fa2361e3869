"""The workload kinds on a running cluster, in the shapes the Kubernetes documentation shows, driven by kubectl; and
whole manifests like the documentation's, seen to do what they are for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import Cluster
from tests.manifests.behaviour import Watcher

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-workloads")]

OURS = Path(__file__).parent.parent / "manifests" / "ours"
TEMPLATE = """
    metadata:
      labels: {{app: {app}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {{name: main, image: fairlead/host, command: {command}}}
"""
SLEEP = '["sh", "-c", "trap exit TERM; sleep infinity & wait"]'  # ends at once when told to


def manifest(kind: str, name: str, spec: str, *, command: str = SLEEP) -> str:
    """A workload whose pods are labeled with its name."""
    head = f"apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n"
    return f"{head}  selector: {{matchLabels: {{app: {name}}}}}\n{spec}  template:" + TEMPLATE.format(
        app=name, command=command
    )


def job(name: str, command: str, spec: str = "") -> str:
    """A Job."""
    template = (
        f"{{spec: {{restartPolicy: Never, containers: [{{name: main, image: fairlead/host, command: {command}}}]}}}}"
    )
    return f"apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n{spec}  template: {template}\n"


def pods(cluster: Cluster, app: str) -> list[dict[str, Any]]:
    """The pods of a workload that are not being deleted."""
    found = cluster.get("pods", "-l", f"app={app}")["items"]
    return [p for p in found if not p["metadata"].get("deletionTimestamp")]


def rolled_out(cluster: Cluster, what: str) -> None:
    cluster.kubectl("rollout", "status", what, "--timeout=60s")


def test_a_statefulset_keeps_names_order_and_history(cluster: Cluster) -> None:
    """Pods come in order, with names in DNS; an update reaches all, an undo goes back; scaling ends the last."""
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: db}\n"
    service += "spec: {clusterIP: None, selector: {app: db}, ports: [{port: 80}]}\n"
    cluster.apply(service + "---\n" + manifest("StatefulSet", "db", "  serviceName: db\n  replicas: 3\n"))
    rolled_out(cluster, "sts/db")
    made = sorted(pods(cluster, "db"), key=lambda p: p["metadata"]["creationTimestamp"])
    assert sorted(p["metadata"]["name"] for p in made) == ["db-0", "db-1", "db-2"]
    ready = [
        c["lastTransitionTime"] for p in pods(cluster, "db") for c in p["status"]["conditions"] if c["type"] == "Ready"
    ]
    assert ready == sorted(ready)
    found = cluster.wait_for(
        lambda: cluster.kubectl("exec", "db-0", "--", "sh", "-c", "hostname; getent hosts db-2.db"), "db-2 in DNS"
    )
    third = next(p for p in made if p["metadata"]["name"] == "db-2")
    assert found.split()[:2] == ["db-0", third["status"]["podIP"]]
    first = third["metadata"]["labels"]["controller-revision-hash"]

    cluster.kubectl("set", "env", "sts/db", "A=1")
    rolled_out(cluster, "sts/db")
    hashes = {p["metadata"]["labels"]["controller-revision-hash"] for p in pods(cluster, "db")}
    assert len(hashes) == 1
    assert first not in hashes
    assert cluster.kubectl("rollout", "history", "sts/db").split()[-4:] == ["1", "<none>", "2", "<none>"]
    cluster.kubectl("rollout", "undo", "sts/db")
    rolled_out(cluster, "sts/db")
    assert {p["metadata"]["labels"]["controller-revision-hash"] for p in pods(cluster, "db")} == {first}

    cluster.kubectl("scale", "sts/db", "--replicas=1")
    cluster.wait_for(lambda: [p["metadata"]["name"] for p in pods(cluster, "db")] == ["db-0"], "db-0 alone")
    cluster.kubectl("delete", "sts", "db", "--cascade=foreground", "--timeout=60s")
    assert not cluster.get("pods", "-l", "app=db")["items"]


def test_a_daemonset_is_on_every_node_that_fits(cluster: Cluster) -> None:
    """One pod a node; it leaves a node that is tainted NoExecute and comes back; an update reaches all."""
    cluster.apply(manifest("DaemonSet", "log", "  updateStrategy: {rollingUpdate: {maxUnavailable: 100%}}\n"))
    rolled_out(cluster, "ds/log")
    nodes = sorted(n["metadata"]["name"] for n in cluster.get("nodes")["items"])
    assert sorted(p["spec"]["nodeName"] for p in pods(cluster, "log")) == nodes
    cluster.kubectl("taint", "node", nodes[0], "dedicated=db:NoExecute")
    try:
        cluster.wait_for(
            lambda: [p["spec"]["nodeName"] for p in pods(cluster, "log")] == nodes[1:], "the taint's effect"
        )
        assert cluster.get("ds", "log")["status"]["desiredNumberScheduled"] == len(nodes) - 1
    finally:
        cluster.kubectl("taint", "node", nodes[0], "dedicated-")
    cluster.wait_for(lambda: len(pods(cluster, "log")) == len(nodes), "the pod's return")
    cluster.kubectl("set", "env", "ds/log", "A=1")
    rolled_out(cluster, "ds/log")
    cluster.kubectl("delete", "ds", "log")


def test_jobs_run_to_their_end(cluster: Cluster) -> None:
    """A simple, an indexed, a failing and a forgotten one; each pod's end is counted once."""
    indexed = "  completionMode: Indexed\n  completions: 3\n  parallelism: 2\n"
    cluster.apply(
        "---\n".join(
            [
                job("pi", '["echo", "3.14"]'),
                job("indexed", '["sh", "-c", "echo $JOB_COMPLETION_INDEX"]', indexed),
                job("fails", '["false"]', "  backoffLimit: 0\n"),
                job("brief", '["true"]', "  ttlSecondsAfterFinished: 0\n"),
            ]
        )
    )
    cluster.kubectl("wait", "--for=condition=complete", "job/pi", "job/indexed", "--timeout=60s")
    cluster.kubectl("wait", "--for=condition=failed", "job/fails", "--timeout=60s")
    assert cluster.kubectl("logs", "job/pi").strip() == "3.14"
    status = cluster.get("job", "indexed")["status"]
    assert (status["succeeded"], status["completedIndexes"]) == (3, "0-2")
    logs = cluster.kubectl("logs", "-l", "job-name=indexed").split()
    assert sorted(logs) == ["0", "1", "2"]
    failed = cluster.get("job", "fails")["status"]
    assert (failed["failed"], failed["conditions"][-1]["reason"]) == (1, "BackoffLimitExceeded")
    cluster.wait_for(lambda: "brief" not in cluster.kubectl("get", "jobs"), "the end of the Job with a TTL of 0")
    cluster.kubectl("delete", "jobs", "--all", "--timeout=60s")
    cluster.wait_for(lambda: not cluster.get("pods", "-l", "job-name")["items"], "the end of the Jobs' pods")


@pytest.mark.parametrize("policy", ["Failed", "TerminatingOrFailed"])
def test_a_pod_that_ends_is_replaced_then_or_before(cluster: Cluster, tmp_path: Path, policy: str) -> None:
    """podReplacementPolicy: a Job's pod that is deleted has its successor when it has ended, or as soon as it is told
    to; the first pod of the latter waits for that."""
    others = "while [ $(grep -c begun /out/log) -lt 2 ]; do sleep 0.1; done" if policy != "Failed" else "sleep 1"
    first = f"trap '{others}; echo ended >> /out/log; exit 1' TERM; while true; do sleep 0.1; done"
    text = f"echo begun >> /out/log; [ $(grep -c begun /out/log) -gt 1 ] && exit 0; {first}"
    mounts = [{"name": "out", "mountPath": "/out"}]
    main = {"name": "main", "image": "fairlead/host", "command": ["sh", "-c", text], "volumeMounts": mounts}
    volumes = [{"name": "out", "hostPath": {"path": str(tmp_path)}}]
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 60, "containers": [main], "volumes": volumes}
    made = {"podReplacementPolicy": policy, "template": {"spec": spec}}
    name = policy.lower()
    cluster.apply(json.dumps({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": made}))
    cluster.wait_for(lambda: (tmp_path / "log").read_text() == "begun\n", "the first pod")
    cluster.kubectl("delete", "pod", "-l", f"job-name={name}", "--wait=false")
    cluster.kubectl("wait", "--for=condition=complete", f"job/{name}", "--timeout=60s")
    cluster.wait_for(lambda: (tmp_path / "log").read_text().count("\n") == 3, "both ends")
    order = ["begun", "ended", "begun"] if policy == "Failed" else ["begun", "begun", "ended"]
    assert (tmp_path / "log").read_text().split() == order
    cluster.kubectl("delete", "job", name)


def test_a_deployment_keeps_to_its_bounds(cluster: Cluster) -> None:
    """Never fewer available than it may have, nor more pods; a step that does not get on is said, and undone; no more
    of the past is kept than was asked."""
    spec = (
        "  replicas: 3\n  progressDeadlineSeconds: 5\n  revisionHistoryLimit: 1\n"
        "  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}\n"
    )
    cluster.apply(manifest("Deployment", "web", spec.replace("Seconds: 5", "Seconds: 60")))
    rolled_out(cluster, "deploy/web")
    seen: list[tuple[int, int]] = []

    def is_through(generation: int) -> bool:
        status = cluster.get("deployment", "web")["status"]
        seen.append((status.get("availableReplicas", 0), status["replicas"]))
        return bool(
            status["observedGeneration"] == generation and status.get("updatedReplicas") == 3 == status["replicas"]
        )

    for number in (1, 2):
        cluster.kubectl("set", "env", "deploy/web", f"N={number}")
        generation = cluster.get("deployment", "web")["metadata"]["generation"]
        cluster.wait_for(lambda generation=generation: is_through(generation), f"update {number}: {seen}")
    assert all(available >= 3 and pods <= 4 for available, pods in seen), seen
    cluster.wait_for(lambda: len(cluster.get("rs", "-l", "app=web")["items"]) == 2, "one old ReplicaSet")

    cluster.apply(manifest("Deployment", "web", spec, command='["/no/such"]'))
    said = cluster.kubectl("rollout", "status", "deploy/web", "--timeout=60s", check=False)
    conditions = {c["type"]: c for c in cluster.get("deployment", "web")["status"]["conditions"]}
    assert conditions["Progressing"]["reason"] == "ProgressDeadlineExceeded", said
    assert cluster.get("deployment", "web")["status"]["availableReplicas"] == 3
    cluster.kubectl("rollout", "undo", "deploy/web")
    rolled_out(cluster, "deploy/web")
    cluster.kubectl("delete", "deployment", "web")


def test_a_statefulset_in_parallel_and_by_parts(cluster: Cluster) -> None:
    """All pods at once, though the first never gets ready; an update reaches only those from the partition on."""
    never = '["sh", "-c", "trap exit TERM; sleep infinity & wait"]'
    spec = "  serviceName: fast\n  replicas: 3\n  podManagementPolicy: Parallel\n"
    made = manifest("StatefulSet", "fast", spec, command=never)
    gated = made.replace(
        "      containers:", "      readinessGates: [{conditionType: example.com/never}]\n      containers:"
    )
    cluster.apply(gated)
    cluster.wait_for(lambda: len(pods(cluster, "fast")) == 3, "all of them")
    cluster.kubectl("delete", "statefulset", "fast")
    cluster.wait_for(lambda: not cluster.get("pods", "-l", "app=fast")["items"], "the end of them")
    parts = spec + "  updateStrategy: {rollingUpdate: {partition: 2}}\n"
    cluster.apply(manifest("StatefulSet", "fast", parts))
    rolled_out(cluster, "sts/fast")
    cluster.kubectl("set", "env", "sts/fast", "N=1")

    def new() -> list[str]:
        found = [p for p in pods(cluster, "fast") if p["spec"]["containers"][0].get("env")]
        return sorted(p["metadata"]["name"] for p in found)

    cluster.wait_for(lambda: new() == ["fast-2"], "the part")
    rolled_out(cluster, "sts/fast")
    assert new() == ["fast-2"]
    cluster.kubectl("patch", "sts", "fast", "-p", '{"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}}')
    cluster.wait_for(lambda: len(new()) == 3, "the rest")
    cluster.kubectl("delete", "statefulset", "fast")


def placed(name: str, **spec: Any) -> dict[str, Any]:
    """A pod with these wishes about its node."""
    container = {"name": "main", "image": "fairlead/host", "command": json.loads(SLEEP), **spec.pop("container", {})}
    labels = {"app": spec.pop("app", name), "set": "placed"}
    whole = {"terminationGracePeriodSeconds": 1, "containers": [container], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": whole}


def test_pods_go_where_they_wish(cluster: Cluster) -> None:
    """Node affinity, affinity and anti-affinity between pods, spread, tolerations; those that fit nowhere say why."""

    def near(app: str) -> list[dict[str, Any]]:
        return [{"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "kubernetes.io/hostname"}]

    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n2"]}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    spread = {"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", **near("spread")[0]}
    tolerates = [{"key": "for", "operator": "Equal", "value": "some", "effect": "NoSchedule"}]
    first = [
        placed("there", affinity={"nodeAffinity": {required: terms}}),
        placed("with-it", affinity={"podAffinity": {required: near("there")}}),
        placed("without-it", affinity={"podAntiAffinity": {required: near("there")}}),
        *(placed(f"spread-{n}", app="spread", topologySpreadConstraints=[spread]) for n in range(4)),
        placed("large", container={"resources": {"requests": {"cpu": "10000"}}}),
        placed("nowhere", nodeSelector={"kubernetes.io/hostname": "n9"}),
    ]
    cluster.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": first}))
    waiting = {"large": "Insufficient cpu", "nowhere": "didn't match Pod's node affinity/selector"}

    def nodes() -> dict[str, str]:
        found = cluster.get("pods", "-l", "set=placed")["items"]
        return {p["metadata"]["name"]: p["spec"].get("nodeName", "") for p in found}

    cluster.wait_for(lambda: sum(map(bool, nodes().values())) == len(first) - len(waiting), "their nodes")
    where = nodes()
    assert (where["there"], where["with-it"], where["without-it"]) == ("n2", "n2", "n1")
    assert sorted(where[f"spread-{n}"] for n in range(4)) == ["n1", "n1", "n2", "n2"]
    for name, why in waiting.items():
        cluster.wait_for(
            lambda name=name, why=why: why in cluster.kubectl("describe", "pod", name), f"why {name} waits"
        )

    cluster.kubectl("taint", "node", "n1", "for=some:NoSchedule")
    try:
        late = [placed("stranger"), placed("guest", tolerations=tolerates)]
        late[0]["spec"]["nodeSelector"] = late[1]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "n1"}
        cluster.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": late}))
        cluster.wait_for(lambda: nodes()["guest"] == "n1", "who tolerates the taint")
        cluster.wait_for(lambda: "untolerated taint" in cluster.kubectl("describe", "pod", "stranger"), "who does not")
    finally:
        cluster.kubectl("taint", "node", "n1", "for-")
    cluster.wait_for(lambda: nodes()["stranger"] == "n1", "room for who did not")
    cluster.kubectl("delete", "pods", "-l", "set=placed")


def test_a_cronjob_makes_jobs(cluster: Cluster) -> None:
    """On the minute, or by hand; a schedule that means nothing is refused."""
    cluster.kubectl(
        "create", "cronjob", "hello", "--image=fairlead/host", "--schedule=* * * * *", "--", "echo", "hello"
    )
    cluster.kubectl("create", "job", "now", "--from=cronjob/hello")
    cluster.kubectl("wait", "--for=condition=complete", "job/now", "--timeout=60s")
    refused = cluster._run(
        ["kubectl", "create", "cronjob", "x", "--image=x", "--schedule=61 * * * *", "--", "x"], False, None
    )
    assert "end of range (61) above maximum (59): 61" in refused.stderr
    last = cluster.wait_for(lambda: cluster.get("cronjob", "hello")["status"]["lastSuccessfulTime"], "a success", 75)
    assert last
    cluster.kubectl("delete", "cronjob", "hello")


def test_a_budget_holds_a_drain_back(cluster: Cluster) -> None:
    """While it allows nothing the pod stays, with 429 and the reason; once there is one more it goes."""
    cluster.apply(
        manifest("Deployment", "zk", "  replicas: 1\n")
        + "---\napiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: zk}\n"
        + "spec: {minAvailable: 1, selector: {matchLabels: {app: zk}}}\n"
    )
    rolled_out(cluster, "deploy/zk")
    cluster.wait_for(lambda: cluster.get("pdb", "zk")["status"]["currentHealthy"] == 1, "the budget's count")
    name = pods(cluster, "zk")[0]["metadata"]["name"]
    eviction = f'{{"apiVersion":"policy/v1","kind":"Eviction","metadata":{{"name":"{name}","namespace":"default"}}}}'
    command = ["kubectl", "create", "--raw", f"/api/v1/namespaces/default/pods/{name}/eviction", "-f", "-"]
    refused = cluster._run(command, False, eviction)
    assert "Cannot evict pod as it would violate the pod's disruption budget" in refused.stderr
    cluster.kubectl("scale", "deploy/zk", "--replicas=2")
    cluster.wait_for(lambda: cluster.get("pdb", "zk")["status"]["disruptionsAllowed"] == 1, "a disruption to spare")
    assert cluster._run(command, True, eviction).returncode == 0
    cluster.wait_for(lambda: name not in [p["metadata"]["name"] for p in pods(cluster, "zk")], "the eviction")
    cluster.kubectl("delete", "deploy/zk", "pdb/zk")


def test_a_replicationcontroller_is_a_replicaset(cluster: Cluster) -> None:
    """Made, scaled, healed and deleted as one."""
    spec = (
        "{replicas: 2, template: {metadata: {labels: {app: old}}, spec: {terminationGracePeriodSeconds: 1, containers: "
    )
    spec += f"[{{name: main, image: fairlead/host, command: {SLEEP}}}]}}}}}}"
    cluster.apply(f"apiVersion: v1\nkind: ReplicationController\nmetadata: {{name: old}}\nspec: {spec}\n")
    cluster.wait_for(lambda: cluster.get("rc", "old")["status"]["readyReplicas"] == 2, "two pods")
    cluster.kubectl("scale", "rc/old", "--replicas=1")
    cluster.wait_for(lambda: len(pods(cluster, "old")) == 1, "one pod")
    cluster.kubectl("delete", "rc", "old")
    cluster.wait_for(lambda: not cluster.get("pods", "-l", "app=old")["items"], "no pod")


def test_a_more_important_pod_makes_room(cluster: Cluster) -> None:
    """When nothing else helps, a pod of a lower priority goes, and says why."""
    cores = int(cluster.get("node", "n1")["status"]["allocatable"]["cpu"])
    cluster.kubectl("create", "priorityclass", "high", "--value=1000")
    container = (
        f"{{name: main, image: fairlead/host, command: {SLEEP}, resources: {{requests: {{cpu: {cores * 600}m}}}}}}"
    )
    low = "".join(
        f"---\napiVersion: v1\nkind: Pod\nmetadata: {{name: low-{n}, labels: {{app: low}}}}\n"
        f"spec: {{terminationGracePeriodSeconds: 1, containers: [{container}]}}\n"
        for n in (1, 2)
    )
    cluster.apply(low)
    cluster.kubectl("wait", "--for=condition=Ready", "pod", "-l", "app=low", "--timeout=60s")
    high = low[: low.index("---", 3)].replace("low-1", "high").replace("app: low", "app: high")
    cluster.apply(high.replace("spec: {", "spec: {priorityClassName: high, "))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/high", "--timeout=60s")
    assert len(pods(cluster, "low")) == 1
    cluster.wait_for(lambda: "Preempted by pod" in cluster.kubectl("get", "events"), "the event")
    cluster.kubectl("delete", "pod", "-l", "app in (low, high)")
    cluster.kubectl("delete", "priorityclass", "high")


CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: fleets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Fleet, plural: fleets, singular: fleet}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
    subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
"""


def test_a_budget_asks_custom_owners_how_many_they_want(cluster: Cluster) -> None:
    """By their subresource scale; when they want another number, it counts."""
    cluster.apply(CRD)
    cluster.kubectl("wait", "--for=condition=Established", "crd/fleets.example.com", "--timeout=60s")
    fleet = "apiVersion: example.com/v1\nkind: Fleet\nmetadata: {name: north}\nspec: {replicas: 3}\n"
    cluster.wait_for(lambda: cluster.apply(fleet) or True, "the kind")
    uid = cluster.get("fleet", "north")["metadata"]["uid"]
    owner = f"{{apiVersion: example.com/v1, kind: Fleet, name: north, uid: {uid}, controller: true}}"
    cluster.apply(
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: ship, labels: {{fleet: north}}, ownerReferences: [{owner}]}}\n"
        "spec: {containers: [{name: c, image: fairlead/host, command: [sleep, '1000']}]}\n---\n"
        "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: fleet}\n"
        "spec: {maxUnavailable: 1, selector: {matchLabels: {fleet: north}}}\n"
    )

    def expected() -> tuple[int, int]:
        status = cluster.get("pdb", "fleet").get("status") or {}
        return status.get("expectedPods", 0), status.get("desiredHealthy", 0)

    cluster.wait_for(lambda: expected() == (3, 2), "three of them")
    cluster.kubectl("scale", "fleet/north", "--replicas=5")
    cluster.wait_for(lambda: expected() == (5, 4), "five of them")
    cluster.kubectl("delete", "fleet", "north")


def test_manifests_like_the_documentation_s_behave(cluster: Cluster) -> None:
    """As `make manifests` sees it of the documentation's own: Services answer by name, StatefulSets are in order and
    have names, Jobs complete, values of ConfigMaps and Secrets are where they belong, Ingresses lead to Services."""
    watcher = Watcher(cluster, OURS)
    watcher.start_client()
    seen = {found.file: (found.outcome, found.seen) for found in map(watcher.watch, sorted(OURS.glob("*.yaml")))}
    assert {outcome for outcome, _ in seen.values()} == {"behaves"}, seen
    assert "Deployment greeter: 3 of 3 available; greeter answers by name on 80" in seen["service.yaml"][1]
    assert "2 pods in order; each by its own name" in seen["members.yaml"][1]
    assert seen["configuration.yaml"][1].endswith("6 value(s) of ConfigMaps or Secrets in their place")
    assert seen["batch.yaml"][1] == "Job parts: complete, 4 succeeded"
    assert "http://shop.example/cart leads to cart; http://shop.example/ leads to shelves" in seen["entrance.yaml"][1]


BUSY = '["sh", "-c", "while [ ! -e /tmp/stop ]; do :; done; trap exit TERM; sleep infinity & wait"]'


def test_what_pods_use_is_seen_and_scales_them(cluster: Cluster) -> None:
    """kubectl top; an autoscaler that measures makes more pods of what is too busy, and fewer when it is idle."""
    cluster.apply(manifest("Deployment", "busy", "  replicas: 1\n", command=BUSY))
    resources = '[{"op":"add","path":"/spec/template/spec/containers/0/resources","value":%s}]'
    amounts = '{"requests":{"cpu":"100m"},"limits":{"cpu":"200m"}}'
    cluster.kubectl("patch", "deploy", "busy", "--type=json", "-p", resources % amounts)
    rolled_out(cluster, "deploy/busy")
    name, cpu, memory = cluster.kubectl("top", "pod", "-l", "app=busy", "--no-headers").split()[:3]
    assert name.startswith("busy-")
    assert 50 < int(cpu.removesuffix("m")) < 400
    assert memory.endswith("Mi")
    shown = cluster.kubectl("top", "node", "--no-headers").splitlines()
    assert [line.split()[0] for line in shown] == ["n1", "n2"]
    target = {"type": "Utilization", "averageUtilization": 50}
    cluster.apply(
        f"""
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{name: busy}}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: busy}}
  maxReplicas: 2
  behavior: {{scaleDown: {{stabilizationWindowSeconds: 0}}}}
  metrics: [{{type: Resource, resource: {{name: cpu, target: {json.dumps(target)}}}}}]
"""
    )
    cluster.wait_for(lambda: len(pods(cluster, "busy")) == 2, "a second pod for a busy one", 120)
    assert "above target" in cluster.kubectl("describe", "hpa", "busy")

    def idle() -> bool:
        for pod in pods(cluster, "busy"):
            cluster.kubectl("exec", pod["metadata"]["name"], "--", "touch", "/tmp/stop", check=False)
        return len(pods(cluster, "busy")) == 1

    cluster.wait_for(idle, "one pod is enough when idle", 180)
    cluster.kubectl("delete", "hpa,deploy", "busy")
