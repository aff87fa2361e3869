"""Agents that are killed at any moment, nodes that stop and start: pods are adopted, made again, or certainly ended."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-restarts")]
Object = dict[str, Any]
ROUNDS = int(os.environ.get("SOAK_KILLS", "5"))


def pod(name: str, node: str) -> Object:
    """A pod on a node, with what is made and taken away for one: an init container, a volume, a port, a probe."""
    mount = [{"name": "v", "mountPath": "/v"}]
    main = {
        "name": "main",
        "image": "fairlead/host",
        "command": ["sh", "-c", "echo begun >> /v/log; trap exit TERM; sleep infinity & wait"],
        "volumeMounts": mount,
        "readinessProbe": {"exec": {"command": ["test", "-e", "/v/log"]}, "periodSeconds": 1, "timeoutSeconds": 10},
    }
    first = {"name": "first", "image": "fairlead/host", "command": ["true"], "volumeMounts": mount}
    spec = {
        "nodeName": node,
        "terminationGracePeriodSeconds": 2,
        "initContainers": [first],
        "containers": [main],
        "volumes": [{"name": "v", "emptyDir": {}}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"test": "kill"}}, "spec": spec}


def kill_agent(cluster: Cluster, node: str, but: int = 0) -> int:
    """SIGKILL to the node's agent, once there is another than `but`; which process it was."""

    def agent() -> int:
        pid: int = cluster.status()["processes"].get(f"node-{node}", but)
        return pid if pid != but else 0

    pid: int = cluster.wait_for(agent, f"an agent on {node}")
    os.kill(pid, signal.SIGKILL)
    return pid


def ready(cluster: Cluster, names: set[str]) -> bool:
    """These pods and no others are there, and they are ready."""
    found = cluster.get("pods", "-l", "test=kill")["items"]
    conditions = {
        p["metadata"]["name"]: {c["type"]: c["status"] for c in p["status"].get("conditions") or ()} for p in found
    }
    return conditions.keys() == names and all(c.get("Ready") == "True" for c in conditions.values())


def shims(cluster: Cluster, node: str) -> dict[str, int]:
    """The pods' shims on a node, by the pod's UID."""
    found = {}
    for file in (Path("/run/fairlead") / cluster.name / "nodes" / node / "pods").glob("*/shim.pid"):
        if Path("/proc", file.read_text(), "comm").exists():
            found[file.parent.name] = int(file.read_text())
    return found


def test_an_agent_killed_at_any_moment_adopts_its_pods(cluster: Cluster) -> None:
    """While pods come and go on its node it is killed again and again: in the end exactly those are there that should
    be, once each, none of those that ran before was restarted, and nothing of the others is left."""
    seed = int(os.environ.get("SEED", random.randrange(1 << 30)))
    print(f"SEED={seed}")
    dice = random.Random(seed)
    wanted = {"steady"}
    cluster.apply(json.dumps(pod("steady", "n1")))
    cluster.wait_for(lambda: ready(cluster, wanted), "the first pod")
    steady = cluster.get("pod", "steady")["status"]["containerStatuses"][0]["containerID"]
    killed = 0
    for number in range(ROUNDS):
        killed = kill_agent(cluster, "n1", killed)
        time.sleep(dice.uniform(0, 0.3))  # not a wait: another moment each time
        name = f"pod-{number}"
        cluster.apply(json.dumps(pod(name, "n1")))
        wanted.add(name)
        if number > 1:
            gone = dice.choice(sorted(wanted - {"steady", name}))
            cluster.kubectl("delete", "pod", gone, "--wait=false")
            wanted.discard(gone)
        time.sleep(dice.uniform(0, 0.5))
    cluster.wait_for(lambda: ready(cluster, wanted), f"{wanted}, seed {seed}")
    found = cluster.get("pods", "-l", "test=kill")["items"]
    status = next(p for p in found if p["metadata"]["name"] == "steady")["status"]["containerStatuses"][0]
    assert (status["containerID"], status["restartCount"]) == (steady, 0)
    uids = {p["metadata"]["uid"] for p in found}
    system = {p["metadata"]["uid"] for p in cluster.get("pods", "-A", "--field-selector=spec.nodeName=n1")["items"]}
    cluster.wait_for(lambda: uids <= shims(cluster, "n1").keys() <= system, "no other shim")
    for name in wanted:
        assert cluster.kubectl("exec", name, "-c", "main", "--", "grep", "-c", "begun", "/v/log") == "1\n"


def test_a_node_stops_and_starts(cluster: Cluster) -> None:
    """Agent and pods of a node are gone at once, as when it loses power: it comes back with its pods, made again."""
    cluster.apply(json.dumps(pod("again", "n2")))
    cluster.wait_for(lambda: ready_one(cluster, "again", 0), "the pod")
    kill_agent(cluster, "n2")
    for pid in shims(cluster, "n2").values():
        os.kill(pid, signal.SIGKILL)
    cluster.wait_for(lambda: ready_one(cluster, "again", 1), "the pod, made again")
    assert cluster.kubectl("exec", "again", "-c", "main", "--", "grep", "-c", "begun", "/v/log") == "2\n"
    status = cluster.get("pod", "again")["status"]
    assert status["initContainerStatuses"][0]["restartCount"] == 1, "what it needs was done again, too"
    assert status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 137


def ready_one(cluster: Cluster, name: str, restarts: int) -> bool:
    """The pod is ready, after so many restarts."""
    status = cluster.get("pod", name)["status"]
    conditions = {c["type"]: c["status"] for c in status["conditions"]}
    return bool(conditions["Ready"] == "True" and status["containerStatuses"][0]["restartCount"] == restarts)
