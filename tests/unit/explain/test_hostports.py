"""hostPorts: the rules that lead to a pod, who has the port instead, and a node port that is one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fairlead.api.events import WatchEvent
from fairlead.api.kinds import SERVICES
from fairlead.discovery.fold import fold
from fairlead.explain import path, pod
from fairlead.explain.evidence import Evidence
from fairlead.explain.question import parse_origin, parse_target
from fairlead.explain.report import Report
from tests.unit.explain.world import PODS, WEB, Object, a_pod, evidence, node_kernel, pod_kernel, snapshot

replace = msgspec.structs.replace


def ported(**status: Any) -> Object:
    """web-1 with port 8088 of its node."""
    made = a_pod("web-1", "n1", "10.244.1.3", {"app": "web"}, ready=not status)
    made["spec"]["containers"][0]["ports"] = [{"containerPort": 8080, "hostPort": 8088}]
    made["status"] |= status or {"containerStatuses": [{"name": "c", "state": {"running": {}}}]}
    return made


def rule(port: int, address: str, number: int, at: str = "") -> Object:
    """As nft lists it."""
    match = {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": port}
    parts: list[Object] = [{"match": match}, {"dnat": {"addr": address, "port": number}}]
    if at:
        left = {"payload": {"protocol": "ip", "field": "daddr"}}
        parts.insert(1, {"match": {"op": "==", "left": left, "right": at}})
    return {"rule": {"family": "ip", "table": "fairlead-hostports", "chain": "ports", "expr": parts}}


def of_pod(it: Object, *rules: Object, **more: Any) -> Report:
    """`explain pod/web-1`."""
    kernels = {"n1": replace(node_kernel(1), ruleset=rules), "n2": node_kernel(2)}
    world = evidence(pods=(PODS[0], it, PODS[2]), kernels=kernels, pod_kernels={"web-1": pod_kernel(it)}, **more)
    return pod.explain(world, parse_target(("pod/web-1",), "shop"))


def test_the_rules_that_lead_to_it() -> None:
    """Shown; missing, or another's, is the cause."""
    report = of_pod(ported(), rule(8088, "10.244.1.3", 8080))
    assert report.works, report.verdict
    assert "n1:8088/tcp → 10.244.1.3:8080" in [line for hop in report.hops for line in hop.lines]
    for rules in ((), (rule(8088, "10.244.1.9", 8080),), (rule(8089, "10.244.1.3", 8080),)):
        cause = of_pod(ported(), *rules).cause
        assert cause is not None and cause.id == "FL086"
    sidecar = ported()
    sidecar["spec"]["initContainers"] = [{"name": "s", "ports": [{"containerPort": 53, "hostPort": 5353}]}]
    cause = of_pod(sidecar, rule(8088, "10.244.1.3", 8080)).cause
    assert cause is not None and "5353/tcp" in cause.text


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("FailedScheduling", "0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports."),
        (
            "FailedCreatePodSandBox",
            "Failed to create pod sandbox: hostPort 8088/TCP is taken by another pod of this node",
        ),
    ],
)
def test_who_has_it_instead(reason: str, message: str) -> None:
    """Not scheduled for it, or not started on the node it was put on."""
    it = ported(phase="Pending", containerStatuses=[{"name": "c", "state": {"waiting": {}}}])
    if reason == "FailedScheduling":
        del it["spec"]["nodeName"]
        it["status"]["conditions"].append({"type": "PodScheduled", "status": "False", "message": message})
    told = {"involvedObject": {"uid": "web-1"}, "reason": reason, "message": message}
    cause = of_pod(it, events=(told,)).cause
    assert cause is not None and cause.id == "FL087"
    assert "hostPort 8088/TCP" in cause.text


def test_a_sandbox_that_cannot_be_made() -> None:
    """What the node says of it is the cause."""
    message = "Failed to create pod sandbox: no space left on device"
    told = {"involvedObject": {"uid": "web-1"}, "reason": "FailedCreatePodSandBox", "message": message}
    cause = of_pod(ported(phase="Pending", containerStatuses=[]), events=(told,)).cause
    assert cause is not None and (cause.id, cause.text) == ("FL015", message)


@pytest.mark.parametrize(("at", "found"), [("", True), ("172.29.0.1", True), ("127.0.0.1", False)])
def test_a_node_port_that_is_a_host_port(at: str, found: bool) -> None:
    """Packets go to that pod, unless it has the port at another address."""
    service = {
        **WEB,
        "spec": WEB["spec"] | {"type": "NodePort", "ports": [WEB["spec"]["ports"][0] | {"nodePort": 30080}]},
    }
    view = fold(snapshot(), [WatchEvent("MODIFIED", SERVICES, service)], True)[0]
    kernel = replace(node_kernel(1, view), ruleset=(rule(30080, "10.244.1.9", 80, at),))
    world: Evidence = evidence(snapshot=view, services=(service,), kernels={"n1": kernel, "n2": node_kernel(2, view)})
    origin = parse_origin("pod/client", "shop")
    cause = path.explain(world, replace(parse_target(("svc/web",), "shop"), origin=origin, via="nodeport")).cause
    assert (cause is not None and cause.id == "FL088") is found, cause
