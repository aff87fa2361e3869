"""The findings that a laboratory reaches with difficulty, on evidence as data; the rest is in tests/cluster."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fairlead.discovery.choose import Backend
from fairlead.discovery.model import Endpoint, Service, ServiceKey, ServicePort
from fairlead.explain import listening, render
from fairlead.explain.evidence import Attempt, DNSAnswer, Evidence, LinkView, Listener, NodeKernel
from fairlead.explain.question import parse_target
from fairlead.explain.report import Hop, Report
from fairlead.explain.scene import Client, Scene
from fairlead.podnetwork.plan import link_name
from fairlead.survey.answering import judge
from tests.unit.explain.world import (
    PODS,
    SLICE,
    VIP,
    WEB,
    a_node,
    a_pod,
    a_slice,
    evidence,
    explain,
    node_kernel,
    pod_kernel,
    snapshot,
)

replace = msgspec.structs.replace


def node_1(**more: Any) -> dict[str, NodeKernel]:
    """The nodes, the first one changed."""
    return {"n1": replace(node_kernel(1), **more), "n2": node_kernel(2)}


def test_a_healthy_world_raises_no_finding() -> None:
    """Everything is as it should be, and said so with the endpoints."""
    report = explain(evidence())
    assert report.works, report.verdict
    assert report.findings == ()
    assert report.endpoints == ("10.244.1.3:8080", "10.244.2.3:8080")


def test_the_rule_that_translates_is_quoted() -> None:
    """The element that matches, and the rules of the chain it leads to."""
    lines = [line for hop in explain(evidence()).hops if hop.name == "rules" for line in hop.lines]
    assert any(line.startswith(f"svc-8 {{ {VIP} . tcp . 80") for line in lines), lines
    assert any(line.startswith("class-8 dnat ip to ip daddr") for line in lines), lines


RULES_BEHIND = snapshot(slices=(a_slice(("10.244.1.3", "n1"), ("10.244.2.9", "n2")),))
UNREADY = (PODS[0], a_pod("web-1", "n1", "10.244.1.3", {"app": "web"}, ready=False), PODS[2])
KNOWN = "kubernetes.default.svc.cluster.local."
SLOW = tuple(link for link in node_kernel(1).links if link.name != link_name("web-1"))
KUBE = {"chain": {"family": "ip", "table": "nat", "name": "KUBE-SERVICES"}}
POLICY = {"metadata": {"name": "wall", "namespace": "shop"}, "spec": {"podSelector": {"matchLabels": {"app": "web"}}}}


@pytest.mark.parametrize(
    ("id_", "works", "world"),
    [
        ("FL050", False, evidence(kernels=node_1(tables={"IPv4": None}))),
        ("FL051", False, evidence(kernels={"n1": node_kernel(1, RULES_BEHIND), "n2": node_kernel(2)})),
        ("FL017", False, evidence(snapshot=snapshot(slices=()), slices=())),
        ("FL018", True, evidence(pods=UNREADY)),
        ("FL054", True, evidence(kernels=node_1(ruleset=(KUBE,)))),
        ("FL060", True, evidence(snapshot=snapshot(ready=False), nodes=(a_node(1, ready=False), a_node(2)))),
        ("FL061", True, evidence(processes={"node-n1": "stopped"})),
        ("FL073", True, evidence(kernels=node_1(sysctls={"net.ipv4.conf.all.rp_filter": "1"}))),
        (
            "FL078",
            True,
            evidence(kernels=node_1(links=(*SLOW, LinkView(link_name("web-1"), True, 1400, "fl0", True)))),
        ),
        ("FL091", False, evidence(kernels=node_1(conntrack=(1000, 1000)))),
        ("FL096", True, evidence(policies=(POLICY,))),
        (
            "FL044",
            False,
            evidence(answers=(DNSAnswer("10.96.0.10", "web.shop.svc.cluster.local.", "NOERROR", ("10.96.0.9",)),)),
        ),
    ],
)
def test_findings(id_: str, works: bool, world: Evidence) -> None:
    """Each is found, and only errors break the path."""
    report = explain(world)
    assert id_ in [finding.id for finding in report.findings], report.verdict
    assert report.works is works, report.verdict


def test_what_was_not_seen_is_no_fault() -> None:
    """Without any kernel the objects alone are judged, and the report says what it did not see."""
    world = evidence(kernels={}, pod_kernels={}, answers=(), processes={}, unseen=("no node's kernel",))
    report = explain(world)
    assert report.works
    assert "as far as could be seen" in report.verdict
    assert "not seen: no node's kernel" in render.text(report)


def test_some_endpoints_work_and_some_do_not() -> None:
    """The verdict says for how many."""
    kernels = {pod["metadata"]["uid"]: pod_kernel(pod) for pod in PODS}
    kernels["web-2"] = replace(kernels["web-2"], listeners=())
    report = explain(evidence(pod_kernels=kernels))
    assert not report.works
    assert report.verdict.startswith("works for 1 of 2, broken at hop")
    assert report.cause is not None
    assert report.cause.id == "FL080"


def test_output_without_color_has_no_escapes_and_with_color_the_same_words() -> None:
    """A pipe gets plain text; the verdict is the first line."""
    report = explain(evidence(kernels=node_1(tables={"IPv4": None})))
    plain = render.text(report)
    assert "\x1b" not in plain
    assert plain.splitlines()[0] == f"✗ {report.verdict}"
    assert "\x1b[" in render.text(report, color=True)


def test_a_terminal_is_kept_to() -> None:
    """Rows are broken between words, none is lost; of very many those in the middle are left out, never a finding's."""
    hop = Hop("rules", lines=[f"row {number} of evidence" for number in range(100)] + ["→ the end"])
    hop.find(
        "FL051", "the rules on n1 " + "still send to 10.244.2.9:8080 and " * 9 + "lack the rest", "see " * 40 + "it"
    )
    report = Report(question="svc/web", hops=(hop,))
    rows = render.text(report, width=80).splitlines()[1:]
    assert all(len(row) <= 80 for row in rows), rows
    shown = " ".join(" ".join(row.split()[1:]) for row in rows)
    assert hop.findings[0].text in shown and hop.findings[0].remedy in shown
    assert "row 0 of" in shown and "→ the end" in shown and "row 50 of" not in shown and "78 more" in shown
    whole = render.text(report)
    assert all(line in whole for line in hop.lines) and hop.findings[0].text in whole


WITHOUT = "no answer"


@pytest.mark.parametrize(
    ("asked", "said", "found"),
    [
        ("dns a.example", (("a.example.shop.svc.cluster.local.", "SERVFAIL"),), "FL047"),
        ("dns a.example", (("a.example.", "SERVFAIL"),), "FL047"),
        ("dns a.example", (("a.example.shop.svc.cluster.local.", WITHOUT), (KNOWN, "NOERROR")), "FL047"),
        ("svc/web", (("web.shop.svc.cluster.local.", "SERVFAIL"),), "FL044"),
        ("svc/web", (("web.shop.svc.cluster.local.", WITHOUT), (KNOWN, "NOERROR")), "FL040"),
    ],
)
def test_names_outside_that_nobody_answers(asked: str, said: tuple[tuple[str, str], ...], found: str) -> None:
    """The DNS lives, and those it forwards to do not; of the cluster's own names that is no reason."""
    answers = tuple(DNSAnswer("10.96.0.10", name, rcode) for name, rcode in said)
    report = explain(evidence(answers=answers), asked)
    assert report.cause is not None and report.cause.id == found, report.verdict


def test_a_low_ndots() -> None:
    """The name goes out before it is found; with the usual ndots it does not."""
    conf = pod_kernel(PODS[0]).resolv_conf
    assert conf is not None
    low = replace(pod_kernel(PODS[0]), resolv_conf=conf.replace("ndots:5", "ndots:1"))
    kernels = {pod["metadata"]["uid"]: pod_kernel(pod) for pod in PODS} | {"client": low}
    answers = (
        DNSAnswer("10.96.0.10", "web.shop.", "NXDOMAIN"),
        DNSAnswer("10.96.0.10", "web.shop.svc.cluster.local.", "NOERROR", (VIP,)),
    )
    report = explain(evidence(pod_kernels=kernels, answers=answers), "http://web.shop/")
    assert report.works and "FL048" in report.verdict
    assert "call it web.shop.svc.cluster.local," in report.findings[0].remedy


def test_a_target_port_named_for_another_protocol() -> None:
    """It is said which, not that the name is missing."""
    pod = a_pod("web-1", "n1", "10.244.1.3", {"app": "web"})
    pod["spec"]["containers"][0]["ports"] = [{"name": "http", "containerPort": 8080}]
    ports = [{"name": "http", "port": 80, "targetPort": "http", "protocol": "UDP"}]
    asked = {**WEB, "spec": WEB["spec"] | {"ports": ports}}
    view = snapshot(service=asked, slices=())
    cause = explain(evidence(snapshot=view, services=(asked,), slices=(), pods=(PODS[0], pod))).cause
    assert cause is not None and cause.id == "FL016"
    assert "is the name of a TCP port of the pods, and the Service's port is UDP" in cause.text


def test_one_pod_is_told_of_and_how_many_are_like_it() -> None:
    """Why, by which probe, since when."""
    probe = {"httpGet": {"port": 8080, "path": "/ready"}}
    pods = []
    for number in range(3):
        pod = a_pod(f"web-{number}", "n1", f"10.244.1.{number + 3}", {"app": "web"}, ready=False)
        pod["spec"]["containers"][0]["readinessProbe"] = probe
        pod["status"]["conditions"][0]["lastTransitionTime"] = "2024-01-01T00:00:00Z"
        pods.append(pod)
    said = "Readiness probe failed: HTTP probe failed with statuscode: 503"
    events = ({"involvedObject": {"uid": "web-0"}, "message": said},)
    cause = explain(evidence(snapshot=snapshot(slices=()), slices=(), pods=(PODS[0], *pods), events=events)).cause
    assert cause is not None and cause.id == "FL012"
    assert cause.text == (
        "none of 3 pods is ready: pod/web-0: readiness probe (GET :8080/ready) fails, not ready since "
        "2024-01-01T00:00:00Z: HTTP probe failed with statuscode: 503 (and 2 more of this kind)"
    )


def test_a_picture() -> None:
    """Mermaid: a box per hop, quotes escaped."""
    picture = render.mermaid(explain(evidence()))
    assert picture.startswith("flowchart LR\n")
    assert '"" ' not in picture


@pytest.mark.parametrize(
    ("attempts", "found"),
    [
        ([Attempt("connected", "10.244.1.3:8080")], False),
        ([Attempt("connected", "10.244.9.9:8080")], True),
        ([Attempt("timeout")], True),
    ],
)
def test_prediction_is_held_to_facts(attempts: list[Attempt], found: bool) -> None:
    """A request that goes elsewhere, or fails where it should work, is a finding."""
    hop = Hop("probe")
    judge(explain(evidence()), attempts, hop)
    assert [f.id for f in hop.findings] == (["FL097"] if found else [])


def test_the_world_is_what_it_says() -> None:
    """The fixture's own objects agree with each other."""
    assert WEB["spec"]["clusterIP"] in str(node_kernel(1).tables["IPv4"])
    assert len(SLICE["endpoints"]) == 2


def test_an_agent_that_is_behind_is_told_with_its_revision() -> None:
    """What it confirmed, against the newest slice of the Service."""
    newest = SLICE | {"metadata": SLICE["metadata"] | {"resourceVersion": "40"}}
    kernels = {"n1": node_kernel(1, RULES_BEHIND), "n2": node_kernel(2)}
    report = explain(evidence(slices=(newest,), applied={"n1": 38}, kernels=kernels))
    assert "up to revision 38, and the Service's newest is 40" in report.verdict
    told = explain(evidence(slices=(newest,), applied={"n1": 41}, kernels=kernels)).verdict
    assert "revision" not in told


def test_accelerated_sockets_are_said_to_be_so() -> None:
    """The rules are quoted all the same: they hold for all other packets, and lead to the same endpoints."""
    report = explain(evidence(facts=replace(evidence().facts, accelerate="socket")))
    assert report.works
    lines = [line for hop in report.hops if hop.name == "rules" for line in hop.lines]
    assert any("--accelerate socket" in line for line in lines), lines


def test_a_program_of_one_family() -> None:
    """It is said which family it listens by, and what would take both."""
    hop = Hop("process")
    pod = a_pod("web-1", "n1", "fd00::3", {"app": "web"})
    view = replace(pod_kernel(pod), listeners=(Listener("TCP", "0.0.0.0", 8080, 7, "web", "S"),))
    world = evidence(pods=(pod,), pod_kernels={"web-1": view})
    scene = Scene(parse_target(("svc/web",), "shop"), world, "clusterip", Client("n1", "fd00::2"), WEB, a_service())
    backend = Backend(Endpoint("fd00::3", node="n1", ready=True), 8080)
    listening.examine(scene, ServicePort("http", "TCP", 80, 8080), backend, hop)
    assert [f.id for f in hop.findings] == ["FL084"]
    assert "by IPv4 only, not on fd00::3" in hop.findings[0].text and "[::]" in hop.findings[0].remedy


def a_service() -> Service:
    """The Service, for a scene by hand."""
    return Service(ServiceKey("shop", "web"))
