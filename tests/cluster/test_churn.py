"""Many pods at once, and many that come and go: they run, and leave nothing.

`make soak` does it with two hundred at once and a thousand in all; here there are fewer.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fairlead.linux import podcgroups
from tests import imagemaker as make
from tests.cluster.conftest import Cluster
from tests.holdings import held

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-churn")]
PODS = int(os.environ.get("SOAK_PODS", "30"))
CHURN = int(os.environ.get("SOAK_CHURN", "60"))
PATIENCE = 60.0 + PODS

MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 0
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 2
      volumes: [{{name: v, emptyDir: {{medium: Memory, sizeLimit: 1Mi}}}}]
      containers:
      - name: main
        image: {image}
        command: [sh, -c, "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"]
        resources: {{requests: {{cpu: 1m}}, limits: {{memory: 64Mi}}}}
        volumeMounts: [{{name: v, mountPath: /v}}]
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: 80}}]}}
"""


@pytest.fixture(scope="module")
def both(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """A cluster with a Deployment for each runtime, of no pods yet."""
    layout = make.layout(tmp_path_factory.mktemp("image") / "layout", "churn/box:1", [make.busybox()])
    cluster.fairlead("image", "load", str(layout))
    cluster.apply(MANIFEST.format(name="host", image="fairlead/host"))
    cluster.apply(MANIFEST.format(name="box", image="churn/box:1"))
    return cluster


def scale(cluster: Cluster, name: str, count: int) -> None:
    """Until so many are available, and no others are there."""
    cluster.kubectl("scale", f"deployment/{name}", f"--replicas={count}")

    def reached() -> bool:
        status: dict[str, Any] = cluster.get("deployment", name).get("status") or {}
        there = len(cluster.kubectl("get", "pods", "-l", f"app={name}", "-o", "name").split())
        return (status.get("availableReplicas", 0), there) == (count, count)

    cluster.wait_for(reached, f"{count} pods of {name}", PATIENCE)


def groups() -> set[str]:
    """The control groups of pods on this machine."""
    roots = {h.root / "fairlead-pods" for h in podcgroups.hierarchies().values()}
    return {str(p) for root in roots for p in (root.iterdir() if root.is_dir() else ()) if p.is_dir()}


def test_many_at_once(both: Cluster) -> None:
    """Half of each runtime, all available; and one of them can be looked into."""
    scale(both, "host", PODS // 2)
    scale(both, "box", PODS // 2)
    assert both.kubectl("exec", "deploy/box", "--", "cat", "/proc/1/comm").strip() == "sh"
    scale(both, "host", 0)
    scale(both, "box", 0)


def test_down_takes_them_along(unstarted: Cluster) -> None:
    """Pods that run when the cluster goes: no control group of theirs stays, and no process in the machine's PIDs."""
    unstarted.up("--nodes", "1")
    unstarted.apply(MANIFEST.format(name="host", image="fairlead/host"))
    scale(unstarted, "host", 2)
    mark = f"sleep 98{unstarted.name[1:]}".translate(str.maketrans("abcdef", "123456"))
    container = f"{{name: main, image: fairlead/host, command: [sh, -c, '{mark}; true']}}"
    text = f"apiVersion: v1\nkind: Pod\nmetadata: {{name: wide}}\nspec: {{hostPID: true, containers: [{container}]}}\n"
    unstarted.apply(text)
    unstarted.kubectl("wait", "--for=condition=Ready", "pod/wide", "--timeout=60s")
    uids = {p["metadata"]["uid"] for p in unstarted.get("pods")["items"]}
    assert uids & {Path(group).name for group in groups()}
    unstarted.fairlead("down", "--name", unstarted.name)
    assert not uids & {Path(group).name for group in groups()}
    assert subprocess.run(["pgrep", "-f", mark], capture_output=True, text=True, check=False).stdout == ""


def test_what_came_and_went_leaves_nothing(both: Cluster) -> None:
    """After all of them the cluster holds no more than before, of any kind."""
    for name in ("host", "box"):  # what is made once is made now
        scale(both, name, 2)
        scale(both, name, 0)
    before = held(both.name, both.state)
    assert before["processes"], "nothing could be counted"
    known: set[str] = set()
    batch = min(50, CHURN // 2)
    for number in range(CHURN // batch):
        name = ("host", "box")[number % 2]
        scale(both, name, batch)
        known |= {p["metadata"]["uid"] for p in both.get("pods", "-l", f"app={name}")["items"]}
        scale(both, name, 0)
    assert len(known) >= CHURN // batch * batch

    def more() -> dict[str, tuple[int, int]]:
        """What is held that was not: before, and now."""
        now = held(both.name, both.state)
        return {kind: (was, now[kind]) for kind, was in before.items() if now[kind] > was}

    both.wait_for(lambda: not more(), f"nothing more than {before}")
    both.wait_for(lambda: not {Path(group).name for group in groups()} & known, "no control group of theirs")
