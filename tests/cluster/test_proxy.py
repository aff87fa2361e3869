"""The proxy in a whole cluster: in another mode, and run by itself in a node."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fairlead.linux import cgroups, namespaces
from fairlead.linux.conntrack import ConntrackSocket
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


def test_a_cluster_with_accelerated_sockets(unstarted: Cluster) -> None:
    """Pods' connections have no translation on their way, the node's processes still reach the Service, status says
    so; when a node's agent is killed the rules serve, and sockets are accelerated again when it is back. Nothing is
    left."""
    cluster = unstarted
    cluster.up("--accelerate", "socket")
    cluster.kubectl("apply", "-f", str(EXAMPLE / "web.yaml"), "-f", str(EXAMPLE / "client.yaml"))
    cluster.kubectl("-n", "shop", "rollout", "status", "deployment/web", "--timeout=60s")
    cluster.kubectl("-n", "shop", "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
    accelerated = {"n1": "socket", "n2": "socket"}
    cluster.wait_for(
        lambda: cluster.status()["acceleration"] == accelerated, "both nodes say that sockets are accelerated"
    )
    assert "sockets  of pods on n1: accelerated" in cluster.fairlead("status", "--name", cluster.name).stdout
    assert len(names(cluster)) == 4
    address = cluster.get("-n", "shop", "service", "web")["spec"]["clusterIP"]
    node = cluster.get("-n", "shop", "pod", "client")["spec"]["nodeName"]
    assert not translated(cluster, node, address)
    assert "web-" in in_node(cluster, "curl", "-sS", f"http://{address}")
    assert "fairlead_proxy_accelerated 1.0" in in_node(cluster, "curl", "-sS", "127.0.0.1:10249/metrics")
    os.kill(cluster.status()["processes"][f"node-{node}"], signal.SIGKILL)
    cluster.wait_for(lambda: len(names(cluster)) == 4, "the Service after the agent was killed")
    cluster.wait_for(lambda: cluster.status()["acceleration"] == accelerated, "sockets accelerated again")
    group = cgroups.path(cluster.name)
    assert group is not None
    assert (group / node / "cgroup.procs").read_text()
    cluster.down()
    assert not group.exists()


def translated(cluster: Cluster, node: str, address: str) -> int:
    """How many TCP flows to this address the node's rules had to translate."""
    namespace = namespaces.path(f"fl-{cluster.name}-{node}")
    with namespaces.entered(namespace), ConntrackSocket() as kernel:
        return len(kernel.flows(socket.AF_INET, socket.IPPROTO_TCP, address))


@pytest.mark.skipif(Path("/proc/net/ip_vs").exists(), reason="this kernel has ip_vs: nothing to refuse")
def test_ipvs_is_refused_where_the_kernel_has_it_not(unstarted: Cluster) -> None:
    """By name, with the way out, before anything is made."""
    done = unstarted.fairlead("up", "--name", unstarted.name, "--proxy-mode", "ipvs", check=False)
    wanted = (
        "--proxy-mode ipvs is not possible: this kernel has no ip_vs; run: modprobe ip_vs, or use --proxy-mode nftables"
    )
    assert (done.returncode, wanted in done.stderr) == (1, True), done.stderr
    assert not (unstarted.state / unstarted.name).exists()
    assert namespaces.names(f"fl-{unstarted.name}") == []
