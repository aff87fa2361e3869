"""The proxy in a whole cluster: in another mode, and run by itself in a node."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.conftest import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-proxy")]

EXAMPLE = Path(__file__).parents[2] / "examples" / "01-a-service"


def in_node(cluster: Cluster, *command: str) -> str:
    """What a command says in the first node's network namespace."""
    done = subprocess.run(
        ["ip", "netns", "exec", f"fl-{cluster.name}-n1", *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def names(cluster: Cluster, count: int = 24) -> set[str]:
    """The pods that answer the client's requests to the Service."""
    script = f"for i in $(seq {count}); do curl -sS --max-time 5 http://web; done"
    lines = cluster.kubectl("-n", "shop", "exec", "client", "--", "sh", "-c", script).splitlines()
    assert len(lines) == count
    return {line.split()[0] for line in lines}


def test_a_cluster_in_iptables_mode(unstarted: Cluster) -> None:
    """The whole path works over iptables, the node's proxy tells of itself, and outlives another proxy's visit."""
    cluster = unstarted
    cluster.up("--proxy-mode", "iptables")
    cluster.kubectl("apply", "-f", str(EXAMPLE / "web.yaml"), "-f", str(EXAMPLE / "client.yaml"))
    cluster.kubectl("-n", "shop", "rollout", "status", "deployment/web", "--timeout=60s")
    cluster.kubectl("-n", "shop", "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
    assert len(names(cluster)) == 4
    assert in_node(cluster, "curl", "-sS", "127.0.0.1:10249/proxyMode") == "iptables"
    assert json.loads(in_node(cluster, "curl", "-sS", "127.0.0.1:10256/healthz"))["nodeEligible"] is True
    kubeconfig = str(cluster.state / cluster.name / "kubeconfig" / "n1.yaml")
    flags = ["--kubeconfig", kubeconfig, "--hostname-override", "n1", "--cluster-cidr", "10.244.0.0/16"]
    # By itself, in the other mode, in the node's place: the node's own proxy keeps its rules against it.
    said = in_node(cluster, sys.executable, "-m", "fairlead", "proxy", "--oneshot", *flags)
    assert "Services, mode nftables" in said
    cluster.wait_for(lambda: len(names(cluster)) == 4, "the Service after another proxy's visit")
