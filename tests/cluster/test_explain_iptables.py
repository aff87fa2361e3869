"""A cluster whose proxy is in iptables mode: packets go where `explain` says, and rules missing, stale or of others are
named."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from fairlead.api.kinds import ENDPOINTSLICES, SERVICES
from tests.cluster.conftest import Cluster
from tests.cluster.explain_lab import Lab, endpoint_slice, healthy, service
from tests.cluster.explain_packets import compare, six_pods

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-explain-iptables")]

ALL = os.environ.get("FAULTS") == "all"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One world for all."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.up("--proxy-mode", "iptables")
        with healthy(cluster) as made, six_pods(made):
            yield made
    finally:
        cluster.down()


@pytest.mark.parametrize("seed", range(100, 130 if ALL else 102))
def test_packets_reach_what_is_predicted(lab: Lab, seed: int) -> None:
    """From pods and a node by cluster IP, from outside by each node's port: the same endpoints, or the same failure."""
    compare(lab, seed)


def test_the_rules_are_quoted(lab: Lab) -> None:
    """As iptables-save prints them, with nft's handles."""
    report = lab.explain("svc/web")
    assert report.works, report.verdict
    lines = [line for hop in report.hops if hop.name == "rules" for line in hop.lines]
    assert any("-A KUBE-SERVICES -d" in line and "# handle" in line for line in lines), lines


def _cause(lab: Lab, target: str = "svc/web") -> tuple[str, str]:
    report = lab.explain(target, via="clusterip")
    assert report.cause is not None, report.verdict
    return report.cause.id, report.verdict


def test_flushed_rules_are_missing(lab: Lab) -> None:
    """Without the agent nobody puts them back, and that is the cause."""
    with lab.stopped_process("node-n1"):
        lab.on_node("n1", "iptables", "-t", "nat", "-F")
        found, verdict = _cause(lab)
        assert found == "FL061", verdict
        assert "nothing translates" in verdict
    lab.until(lambda: lab.explain("svc/web").works, "rules again")


def test_stale_rules_are_told_apart(lab: Lab) -> None:
    """An endpoint that came while the agent stood still is lacking."""
    written = endpoint_slice("hand-1", "hand", lab.pod("web-1")["status"]["podIP"], 8080)
    with lab.made(SERVICES, service("hand", {"selector": None})), lab.made(ENDPOINTSLICES, written):
        lab.until(lambda: lab.explain("svc/hand", via="clusterip").works, "the Service")
        more = endpoint_slice("hand-2", "hand", lab.pod("web-2")["status"]["podIP"], 8080)
        with lab.stopped_process("node-n1"), lab.made(ENDPOINTSLICES, more):
            found, verdict = _cause(lab, "svc/hand")
            assert found == "FL061", verdict
            assert "its rules lack 10.244." in verdict
            assert "it has applied EndpointSlices up to revision" in verdict


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("-t filter {} FORWARD -p tcp --dport 8080 -j DROP", "FL052"),
        ("-t raw {} PREROUTING -p tcp -d 10.96.0.0/16 --dport 80 -j DROP", "FL052"),
        ("-t nat {} PREROUTING -p tcp -d {vip} --dport 80 -j DNAT --to-destination 192.0.2.1:80", "FL053"),
    ],
)
def test_rules_of_others_are_named(lab: Lab, rule: str, expected: str) -> None:
    """Put in with iptables as somebody would."""
    vip = lab.get(SERVICES, "web")["spec"]["clusterIP"]
    with lab.done(lab.node("n1"), "iptables " + rule.format("-I", vip=vip), "iptables " + rule.format("-D", vip=vip)):
        found, verdict = _cause(lab)
        assert found == expected, verdict


def test_a_policy_of_others_is_named(lab: Lab) -> None:
    """FORWARD DROP, as Docker sets it."""
    with lab.done(lab.node("n1"), "iptables -P FORWARD DROP", "iptables -P FORWARD ACCEPT"):
        found, verdict = _cause(lab)
        assert found == "FL052", verdict
        assert "iptables -t filter -P FORWARD ACCEPT" in verdict
