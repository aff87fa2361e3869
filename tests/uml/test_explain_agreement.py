"""Real packets reach what `explain` names in mode ipvs, too: Services made up at random, asked from everywhere.

The other modes' are tests/cluster/test_explain_packets.py and test_explain_iptables.py, in whole clusters.
"""

from __future__ import annotations

import os
import random
import socket
import threading

from fairlead.discovery.model import Service, ServiceSnapshot
from fairlead.explain import path
from fairlead.explain.evidence import Evidence, Facts, NodeKernel, Object, PodKernel
from fairlead.explain.question import Origin, Question, Via
from fairlead.proxy.compile import compile_table
from fairlead.proxy.ipvs.backend import IpvsBackend
from fairlead.survey import sight
from tests.kernel.conftest import make_namespace  # noqa: F401  (the fixture)
from tests.kernel.proxy_lab import NODE, NODE_IP, OUTSIDE_IP, POD_A, POD_B, Lab, snapshot
from tests.kernel.test_proxy_agreement import OPTIONS, happened, lab, made_up  # noqa: F401  (the fixture)

PODS = (POD_A, POD_B)
PLACES = {POD_A: Origin("pod", POD_A, "shop"), "node": Origin("node", NODE), "outside": Origin("outside")}


def seen(lab: Lab, services: list[Service], view: ServiceSnapshot) -> Evidence:  # noqa: F811
    """The objects, and what the survey reads of the node and the pods."""
    asked = [ip for entry in services for ip in (*entry.cluster_ips, entry.load_balancer[0].ip)]
    with lab.at("node"):
        node = NodeKernel(
            mode="ipvs",
            iptables=sight.iptables(()),
            ipvs=sight.ipvs(),
            links=sight.links(),
            routes=sight.routes((*PODS, NODE_IP, OUTSIDE_IP)),
            sysctls=sight.sysctls(),
        )
    pods = {}
    for address in PODS:
        with lab.at(address):
            listening = sight.listeners(threading.get_native_id(), [os.getpid()])
            routes = sight.routes((*asked, NODE_IP, OUTSIDE_IP, *PODS))
            pods[address] = PodKernel(links=sight.links(), routes=routes, listeners=listening)
    return Evidence(
        facts=Facts(outside_ip=OUTSIDE_IP),
        snapshot=view,
        services=tuple({"metadata": {"name": s.key.name, "namespace": s.key.namespace}, "spec": {}} for s in services),
        pods=tuple(map(a_pod, PODS)),
        nodes=({"metadata": {"name": NODE}},),
        kernels={NODE: node},
        pod_kernels=pods,
    )


def a_pod(address: str) -> Object:
    """Its name and uid are its address, by which the lab calls its link."""
    return {
        "metadata": {"name": address, "namespace": "shop", "uid": address},
        "spec": {"nodeName": NODE},
        "status": {"phase": "Running", "podIP": address, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def reached(lab: Lab, listening: dict[str, socket.socket], place: str, address: str, port: int) -> set[str]:  # noqa: F811
    """The endpoints of a few connections, as many as round robin takes to get to each."""
    found = set()
    for _ in range(2 * len(PODS)):
        outcome = happened(lab, listening, place, address, port)
        if outcome.verdict != "forward":
            assert not found, f"{outcome.verdict} after {found}"
            break
        found.add(f"{outcome.destination}:{outcome.port}")
    return found


def test_packets_reach_what_is_predicted(lab: Lab) -> None:  # noqa: F811
    """From a pod, the node and outside, by cluster IP, node port and load balancer: the same endpoints, or none."""
    dice = random.Random(9)
    services = [made_up(number, dice) for number in range(4)]
    view = snapshot(*services)
    table, changed = compile_table(view, OPTIONS)
    with lab.at("node"):
        backend = IpvsBackend(OPTIONS)
        backend.start()
        backend.apply(table, changed)
    listening = {pod: lab.listen(pod) for pod in PODS}
    evidence, wrong, fates = seen(lab, services, view), [], set()
    for entry in services:
        port = entry.ports[0]
        ways: tuple[tuple[Via, str, int], ...] = (
            ("clusterip", entry.cluster_ips[0], port.port),
            ("nodeport", NODE_IP, port.node_port),
            ("lb", entry.load_balancer[0].ip, port.port),
        )
        for via, address, number in ways:
            for place, origin in PLACES.items():
                if via == "clusterip" and place == "outside":
                    continue  # whatever the network outside does with cluster IPs: no way to a Service (FL037)
                question = Question(kind="svc", name=entry.key.name, namespace="shop", origin=origin, via=via)
                report = path.explain(evidence, question)
                got, told = reached(lab, listening, place, address, number), set(report.endpoints)
                fates.add(bool(got))
                # A client that is held stays with one of them.
                same = got <= told and bool(got) == bool(told) if entry.affinity_seconds else got == told
                if not same or report.works != bool(got):
                    wrong.append(f"{question}: {got}, and not {told} ({report.verdict}) for {entry}")
    backend.stop()
    assert not wrong, "\n".join(wrong)
    assert fates == {True, False}
