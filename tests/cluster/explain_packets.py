"""Random Services and real connections to them: which endpoints they reach, to be compared with the prediction."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from fairlead.api.kinds import PODS, SERVICES
from fairlead.survey.nodeside import Request
from tests.cluster.explain_lab import Lab, is_ready, pod, service

COLORS = ("red", "green", "blue")
_PODS = 6


@contextmanager
def six_pods(lab: Lab) -> Iterator[None]:
    """Six pods on two nodes, each with some of three labels."""
    dice = random.Random(7)
    with ExitStack() as stack:
        for number in range(_PODS):
            each = pod(f"p{number}", f"n{1 + number % 2}", listen="tcp:0.0.0.0:8080 tcp:0.0.0.0:8081")
            each["metadata"]["labels"] = {color: "yes" for color in COLORS if dice.random() < 0.5}
            each["spec"]["containers"][0]["ports"] = [{"name": "one", "containerPort": 8080 + number % 2}]
            stack.enter_context(lab.made(PODS, each))
        for number in range(_PODS):
            lab.until(lambda number=number: is_ready(lab, f"p{number}"), f"p{number}")  # type: ignore[misc]
        yield


def spec_of(dice: random.Random) -> dict[str, Any]:
    """Some Service."""
    spec: dict[str, Any] = {
        "selector": dict.fromkeys(dice.sample(COLORS, dice.choice((1, 1, 2, 3))), "yes"),
        "type": dice.choice(("ClusterIP", "NodePort")),
        "ports": [{"port": dice.choice((80, 8080)), "targetPort": dice.choice((8080, 8081, "one"))}],
        "internalTrafficPolicy": dice.choice(("Cluster", "Cluster", "Local")),
    }
    if spec["type"] == "NodePort":
        spec["externalTrafficPolicy"] = dice.choice(("Cluster", "Local"))
    return spec


def compare(lab: Lab, seed: int) -> None:
    """One random Service: from pods and a node by cluster IP, from outside by each node's port."""
    spec, name = spec_of(random.Random(seed)), f"s{seed}"
    with lab.made(SERVICES, service(name, spec)):
        made = lab.get(SERVICES, name)
        lab.until(lambda: lab.endpoints(name) == _selected(lab, spec), "endpoints")
        lab.until(lambda: lab.explain(f"svc/{name}", "node/n2").outcome, "rules")
        port = made["spec"]["ports"][0]
        for origin, node in (("pod/client-1", "n1"), ("pod/client-2", "n2"), ("node/n1", "n1")):
            report = lab.explain(f"svc/{name}", origin, via="clusterip")
            seen = reached(lab, origin, node, made["spec"]["clusterIP"], port["port"])
            assert seen == set(report.endpoints), (origin, spec, report.verdict)
            assert bool(seen) == report.works, (origin, spec, report.verdict)
        if spec["type"] == "NodePort":
            for node in ("n1", "n2"):
                address = lab.config.node_ip(node)
                report = lab.explain(f"svc/{name}", "outside", via="nodeport", to=address)
                seen = reached(lab, "outside", node, address, port["nodePort"])
                assert seen == set(report.endpoints), (node, spec, report.verdict)


def _selected(lab: Lab, spec: dict[str, Any]) -> set[str]:
    """By the objects, without the code under test."""
    found = set()
    for number in range(_PODS):
        each = lab.pod(f"p{number}")
        if spec["selector"].items() <= each["metadata"]["labels"].items():
            found.add(each["status"]["podIP"])
    return found


def reached(lab: Lab, origin: str, node: str, address: str, port: int) -> set[str]:
    """The endpoints that real connections are translated to: as many as make it near certain to see every one."""
    found = set()
    request = Request(address, port, "TCP")
    at, uid = "" if origin == "outside" else node, ""
    if origin.startswith("pod/"):
        uid = lab.pod(origin[4:])["metadata"]["uid"]
    for number in range(64):
        done = lab.run(lab.here.request(at, uid, request))
        assert done is not None
        attempt, source_port = done
        if attempt.outcome != "connected":
            assert number == 0, f"connection {number} from {origin} to {address}:{port}: {attempt}"
            return set()
        found.add(lab.run(lab.here.tracked(node, request, source_port)))
    return found
