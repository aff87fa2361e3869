"""The proxy beside kube-proxy: the same Services on two nodes alike, the same connections, in both modes.

KUBE_PROXY names its program. Every difference must be one that `explained` names, each of which has its line in
docs/deviations.md. Services are made up at random (SEED changes them), and change while both run.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fairlead.proxy.config import complete, parse_configuration
from tests.kernel.conftest import make_namespace  # noqa: F401  (the fixture)
from tests.kernel.proxy_lab import NODE, NODE_IP, POD_B
from tests.kernel.resilience_lab import VIP, Stand, Traffic, standing
from tests.peers.nodes_lab import (
    FAR,
    SECOND_IP,
    Node,
    Object,
    Question,
    Seen,
    endpoints,
    made_up,
    node_object,
    peer,
    questions,
)

PEER = os.environ["KUBE_PROXY"]
SEED = int(os.environ.get("SEED", "1"))
COUNT = int(os.environ.get("PEER_CASES", "6"))
CATCHING_UP = 20.0


@pytest.fixture
def pair(make_namespace: Callable[[str], str], tmp_path: Path) -> Iterator[tuple[Node, Node]]:  # noqa: F811
    """A node for kube-proxy and one for fairlead."""
    made: list[Node] = []
    try:
        for name in ("theirs", "ours"):
            made.append(Node(lambda label, name=name: make_namespace(f"{name[0]}{label}"), tmp_path / name))  # type: ignore[misc]
        yield made[0], made[1]
    finally:
        for node in made:
            node.close()


@pytest.mark.parametrize("mode", ["nftables", "iptables"])
@pytest.mark.parametrize("seed", range(SEED, SEED + 2))
def test_connections_end_alike(pair: tuple[Node, Node], mode: str, seed: int) -> None:
    """At the same endpoints, with the same address of the client, refused, dropped: also after changes."""
    theirs, ours = pair
    dice = random.Random(seed)
    held: dict[str, tuple[Object, Object]] = {}
    for number in range(COUNT):
        held[f"s{number}"] = made_up(number, dice)
    for node in pair:
        for entry in held.values():
            node.write(*entry)
    theirs.stand.start_program("proxy", peer(PEER, mode))
    ours.stand.start_program("proxy", Stand.fairlead(mode))
    for node in pair:
        node.stand.until_healthy()
    agree(pair, mode, held)
    for name in dice.sample(sorted(held), COUNT // 2):
        number = int(name[1:])
        if dice.random() < 0.3:
            for node in pair:
                node.delete(*held[name])
            gone, _ = held.pop(name)
            assert not differences(pair, mode, questions(gone), gone), name
            continue
        service, _ = made_up(number, dice) if dice.random() < 0.4 else held[name]
        held[name] = (service, endpoints(name, dice))
        for node in pair:
            node.write(*held[name])
    agree(pair, mode, held)


def agree(pair: tuple[Node, Node], mode: str, held: dict[str, tuple[Object, Object]]) -> None:
    """Every question to every Service, until both have caught up with the API."""
    wrong = []
    for service, slice_ in held.values():
        found = differences(pair, mode, questions(service), service)
        if found:
            wrong.append(f"{service}\n{slice_}\n" + "\n".join(found))
    assert not wrong, "\n\n".join(wrong)


def differences(pair: tuple[Node, Node], mode: str, asked: list[Question], service: Object) -> list[str]:
    """What both do not do alike, and nobody explains."""
    end = time.monotonic() + CATCHING_UP
    while True:
        found = []
        left = []
        for question in asked:
            theirs, ours = (alike(node.outcomes(question), service) for node in pair)
            if theirs != ours and not explained(mode, question, service, theirs, ours):
                left.append(question)
                found.append(f"{question}: kube-proxy {set(theirs)}, here {set(ours)}")
        if not found or time.monotonic() > end:
            return found
        asked = left


def alike(outcomes: frozenset[Seen], service: Object) -> frozenset[Seen]:
    """With affinity one endpoint is chosen, and which one is chance: then only what happens counts."""
    if service["spec"]["sessionAffinity"] == "None" or len(outcomes) > 1:
        return outcomes
    return frozenset(seen._replace(endpoint="*" if seen.endpoint else "") for seen in outcomes)


def explained(mode: str, question: Question, service: Object, theirs: frozenset[Seen], ours: frozenset[Seen]) -> str:
    """Why they differ, or nothing."""
    verdicts = ({seen.verdict for seen in theirs}, {seen.verdict for seen in ours})
    external = question.address.startswith("203.0.113.")
    if mode == "iptables" and question.place == "node" and external and verdicts == ({"drop"}, {"reject"}):
        return "processes on the node are refused at external IPs without endpoints, too"
    itself = Seen("forward", question.place)
    there = {seen for seen in theirs if seen._replace(client="") == itself}
    if question.place == FAR and there and ours - {Seen("drop")} < theirs:
        return "a pod of another node that comes through this one and meets itself is not masqueraded"
    return ""


def test_the_default_configuration_is_taken(tmp_path: Path) -> None:
    """The file that kube-proxy writes itself is one for this proxy, too."""
    file = tmp_path / "config.yaml"
    subprocess.run([PEER, "--write-config-to", str(file)], check=True, capture_output=True)
    settings = complete(parse_configuration(file.read_text()), lambda: NODE)
    assert (settings.health.port, settings.metrics.port, settings.oom_score_adj) == (10256, 10249, -999)


CONFIGURATION = f"""
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {{kubeconfig: KUBECONFIG}}
hostnameOverride: {NODE}
mode: MODE
clusterCIDR: 10.244.0.0/16
detectLocalMode: ClusterCIDR
nodePortAddresses: [172.31.9.3/32]
healthzBindAddress: ""
metricsBindAddress: 127.0.0.1:10249
conntrack: {{maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
iptables: {{masqueradeAll: true, masqueradeBit: 9, localhostNodePorts: false, syncPeriod: 30s}}
nftables: {{masqueradeAll: true, masqueradeBit: 9, minSyncPeriod: 1s}}
oomScoreAdj: 7
"""


@pytest.mark.parametrize("mode", ["nftables", "iptables"])
def test_one_configuration_file_for_both(pair: tuple[Node, Node], mode: str) -> None:
    """It means the same: where node ports are, who is masqueraded."""
    service, _ = made_up(0, random.Random(0))
    service["spec"] |= {"type": "NodePort", "externalTrafficPolicy": "Cluster", "sessionAffinity": "None"}
    for port in service["spec"]["ports"]:
        port["nodePort"] = 30080
    service.pop("status", None)
    service["spec"].pop("loadBalancerSourceRanges", None)
    ready = endpoints("s0", random.Random(3))
    for entry in ready["endpoints"]:
        entry["conditions"] = {"ready": True}
    for node, program in zip(pair, ([PEER], [sys.executable, "-m", "fairlead", "proxy"]), strict=True):
        file = node.stand.folder / "proxy.yaml"
        file.write_text(CONFIGURATION.replace("KUBECONFIG", str(node.stand.kubeconfig)).replace("MODE", mode))
        node.write(service, ready)
        node.stand.start_program("proxy", [*program, "--config", str(file)])
        node.stand.until_healthy()
    agree(pair, mode, {"s0": (service, ready)})
    outcomes = pair[1].outcomes(Question("outside", "TCP", SECOND_IP, 30080))
    assert {seen.verdict for seen in outcomes} == {"forward"}
    assert {seen.verdict for seen in pair[1].outcomes(Question("outside", "TCP", NODE_IP, 30080))} == {"reject"}


@pytest.mark.parametrize("mode", ["nftables", "iptables"])
def test_takes_kube_proxys_place_under_traffic(
    make_namespace: Callable[[str], str],  # noqa: F811
    tmp_path: Path,
    mode: str,
) -> None:
    """kube-proxy ends, this proxy starts over what it left: no connection fails or is cut, nothing of kube-proxy's is
    left to send connections to endpoints of yesterday."""
    with standing(make_namespace, tmp_path) as stand:
        lab = stand.lab
        stand.start_api()
        stand.fill()
        assert stand.call("POST", "/api/v1/nodes", node_object(NODE, NODE_IP, "10.244.1.0/24", "z1")) == 201
        stand.start_program("proxy", peer(PEER, mode))
        stand.until_healthy()
        traffic = Traffic(lab)
        traffic.start()
        try:
            traffic.flowing()
            traffic.look()
            stand.kill("proxy", signal.SIGTERM)
            stand.start_proxy(mode)
            traffic.flowing()
            counts = traffic.look()
            assert (counts.failed, counts.cut, counts.lost, counts.misdelivered) == (0, 0, 0, 0), counts
            when = time.time()
            stand.endpoints(POD_B)
            stand.until_synced_after(when)
            traffic.allowed = {**traffic.allowed, VIP: {f"{POD_B}:8080"}}
            traffic.flowing()
            traffic.look()
            traffic.flowing()
            counts = traffic.look()
            assert (counts.failed, counts.misdelivered) == (0, 0), counts
        finally:
            traffic.stop()
        assert "table ip kube-proxy" not in lab.nft("list tables")
