"""A cluster that is seen from elsewhere: by a kubeconfig alone, through the agents of its nodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.explain.report import Report
from fairlead.survey.eyes import AgentEyes
from tests.cluster.conftest import Cluster
from tests.cluster.explain_lab import Lab, healthy

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-explain")]


@pytest.fixture(scope="module")
def lab(cluster: Cluster) -> Iterator[Lab]:
    """The healthy world."""
    with healthy(cluster) as made:
        yield made


def both(lab: Lab, target: str, origin: str = "pod/client-1", **more: Any) -> tuple[Report, Report]:
    """The answer of this machine's own eyes, and of the agents'."""
    here = lab.explain(target, origin, **more)
    lab.eyes = AgentEyes(lab.client)
    try:
        return here, lab.explain(target, origin, **more)
    finally:
        lab.eyes = lab.here


@pytest.mark.parametrize(
    ("target", "origin", "more"),
    [
        ("svc/web", "pod/client-1", {}),
        ("svc/udp", "node/n2", {}),
        ("svc/web", "outside", {"via": "nodeport"}),
        ("pod/web-1", "pod/web-1", {}),
        ("dns web", "pod/guest.annex", {}),
    ],
)
def test_agents_see_what_is_seen_here(lab: Lab, target: str, origin: str, more: dict[str, Any]) -> None:
    """Every hop, line by line, but for how long a name server took."""
    here, there = both(lab, target, origin, **more)
    assert not there.unseen
    assert here.verdict == there.verdict
    for one, other in zip(here.hops, there.hops, strict=True):
        assert (one.name, one.state) == (other.name, other.state)
        assert [line.split("  (")[0] for line in one.lines] == [line.split("  (")[0] for line in other.lines]


def test_agents_see_a_fault_of_the_kernel(lab: Lab) -> None:
    """A rule of somebody else, quoted with its handle."""
    with lab.stranger(lab.node("n2"), "forward", "tcp dport 8080 drop"):
        here, there = both(lab, "svc/web")
    assert there.cause is not None and there.cause.id == "FL052"
    assert here.verdict == there.verdict


def test_real_requests_are_sent_by_the_agent(lab: Lab) -> None:
    """And followed by its connection tracking."""
    _, there = both(lab, "http://web/", probe=3)
    assert there.hops[-1].name == "probe"
    assert there.hops[-1].lines[-1] == "as predicted: 3 of 3 succeed"
    assert "→ 10.244." in there.hops[-1].lines[0]
    traced = [line for line in there.hops[-1].lines if line.startswith("traced: ip fairlead ")]
    assert any("verdict goto" in line for line in traced), there.hops[-1].lines
    assert "fairlead-trace" not in lab.on_node("n1", "nft", "list", "tables")


def test_an_agent_that_does_not_answer_is_said_so(lab: Lab) -> None:
    """The rest is judged, and what was not seen is named."""
    with lab.stopped_process("node-n2"):
        _, there = both(lab, "svc/web")
    assert there.works, there.verdict
    assert any("the agent of n2 does not answer" in each for each in there.unseen), there.unseen
    lab.settle()


def _elsewhere(lab: Lab, folder: Path, kubeconfig: Path) -> subprocess.CompletedProcess[str]:
    """The command line of somebody who has a kubeconfig and nothing else of the cluster."""
    environment = {**os.environ, "FAIRLEAD_STATE": str(folder), "KUBECONFIG": str(kubeconfig)}
    command = [sys.executable, "-m", "fairlead", "explain", "svc/web.lab", "--from", "pod/client-1.lab", "-o", "json"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_kubeconfig_is_enough(lab: Lab, tmp_path: Path) -> None:
    """The rules of the nodes are in the answer."""
    done = _elsewhere(lab, tmp_path, Path(lab.cluster.environment["KUBECONFIG"]))
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["unseen"] == []
    rules = next(hop for hop in document["hops"] if hop["name"] == "rules")
    assert any("# handle" in line for line in rules["evidence"])


def test_without_the_right_the_agents_are_not_asked(lab: Lab, tmp_path: Path) -> None:
    """Who may read objects only is told what right is missing."""
    kubectl = lab.cluster.kubectl
    kubectl("create", "serviceaccount", "reader", "-n", "lab")
    kubectl(
        "create",
        "clusterrole",
        "reads",
        "--verb=get,list,watch",
        "--resource=services,pods,nodes,namespaces,events,endpointslices.discovery.k8s.io",
    )
    kubectl("create", "clusterrolebinding", "reads", "--clusterrole=reads", "--serviceaccount=lab:reader")
    token = kubectl("create", "token", "reader", "-n", "lab").strip()
    config = json.loads(kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    config["users"][0]["user"] = {"token": token}
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    done = _elsewhere(lab, tmp_path, kubeconfig)
    document = json.loads(done.stdout)
    assert document["works"], document["verdict"]
    assert "it takes the right to get nodes/proxy" in document["unseen"][0]


def test_the_right_to_one_namespace_is_enough_for_its_objects(lab: Lab, tmp_path: Path) -> None:
    """What may not be listed is named, and no fault of the Service."""
    kubectl = lab.cluster.kubectl
    kubectl("create", "serviceaccount", "viewer", "-n", "lab")
    kubectl("create", "rolebinding", "viewer", "-n", "lab", "--clusterrole=view", "--serviceaccount=lab:viewer")
    config = json.loads(kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    config["users"][0]["user"] = {"token": kubectl("create", "token", "viewer", "-n", "lab").strip()}
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    document = json.loads(_elsewhere(lab, tmp_path, kubeconfig).stdout)
    assert document["works"], document["verdict"]
    assert len(document["prediction"]["endpoints"]) == 2
    assert {"nodes: you may not list them", "services: you may not list them everywhere"} <= set(document["unseen"])
