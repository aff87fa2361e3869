"""One question from beginning to end: gather, explain, look again before an alarm, and with `--probe` try it for real.

Stands on top of the survey. Invariant: what may just have been a change on its way (rules or slices a moment behind the
API) is only reported if it is still so when looked at again.
"""

from __future__ import annotations

import asyncio

import msgspec

from fairlead.client import Client
from fairlead.discovery.model import ServiceKey, ServicePort
from fairlead.explain import entrance, lookups, path, pod
from fairlead.explain.evidence import Attempt, Evidence
from fairlead.explain.question import Question
from fairlead.explain.report import Hop, Report
from fairlead.explain.scene import lan_node, primary_address
from fairlead.survey.eyes import Eyes
from fairlead.survey.gather import gather
from fairlead.survey.nodeside import Request

_FLEETING = frozenset(
    {
        "FL017",
        "FL019",
        "FL044",
        "FL050",
        "FL051",
        "FL064",
        "FL065",
        "FL066",
        "FL070",
        "FL076",
        "FL080",
        "FL086",
        "FL090",
    }
)
_LOOK_AGAIN = (0.2, 0.5)  # seconds before the second and the third look
_EXPLAIN = {"svc": path.explain, "pod": pod.explain, "dns": lookups.explain}


async def answer(client: Client, eyes: Eyes, question: Question) -> Report:
    """The report on one question."""
    evidence = await gather(client, eyes, question)
    report = _EXPLAIN[question.kind](evidence, question)
    for pause in _LOOK_AGAIN:
        if not any(f.id in _FLEETING for f in report.findings if f.severity == "error"):
            break
        await asyncio.sleep(pause)
        evidence = await gather(client, eyes, question)
        report = _EXPLAIN[question.kind](evidence, question)
    question = entrance.settled(evidence, question)
    if question.probe and question.kind == "svc" and not evidence.api_problem:
        hop = await probe(eyes, evidence, question, report)
        report = msgspec.structs.replace(report, hops=(*report.hops, hop))
    return report


async def probe(eyes: Eyes, evidence: Evidence, question: Question, report: Report) -> Hop:
    """Real requests, compared with the prediction."""
    hop = Hop("probe")
    key = ServiceKey(question.namespace, question.name)
    service = evidence.snapshot.services.get(key)
    ports = [
        p for p in (service.ports if service else ()) if not question.port or question.port in (p.name, str(p.port))
    ]
    if question.via == "ingress":
        ports = _ingress_port(evidence, question)
    elif service is None or not service.cluster_ips:
        ports = []
    if not ports:
        hop.state = "skipped"
        hop.say("there is no address to send to")
        return hop
    attempts = []
    for number in range(question.probe):
        attempt = await _attempt(eyes, evidence, question, ports[0], trace=number == 0)
        if attempt is None:
            hop.state = "unseen"
            hop.say("nothing can be sent from there")
            return hop
        attempts.append(attempt)
    for attempt in attempts[:8]:
        at = f" → {attempt.endpoint}" if attempt.endpoint else ""
        detail = f": {attempt.detail}" if attempt.detail else ""
        hop.say(f"{attempt.outcome}{at} ({attempt.milliseconds:.1f} ms){detail}")
    for line in attempts[0].trace:
        hop.say(f"traced: {line}")
    judge(report, attempts, hop)
    return hop


def judge(report: Report, attempts: list[Attempt], hop: Hop) -> None:
    """Prediction against fact."""
    fine = [a for a in attempts if a.outcome in ("connected", "answered", "sent")]
    strange = {a.endpoint for a in fine if a.endpoint} - set(report.endpoints)
    if strange and report.endpoints:
        hop.find("FL097", f"requests reached {', '.join(sorted(strange))}, which was not predicted", "look again")
    elif report.works and len(fine) < len(attempts):
        bad = next(a for a in attempts if a not in fine)
        stopped = next((line for a in attempts for line in a.trace if "verdict drop" in line or "reject" in line), "")
        told = f"; stopped by {stopped}" if stopped else ""
        failed = f"{len(attempts) - len(fine)} of {len(attempts)} requests failed: {bad.outcome}{told}"
        hop.find("FL097", failed, "look again")
    elif not report.works and len(fine) == len(attempts) and not report.partly:
        hop.say("and yet the requests succeed by address")
    else:
        hop.say(f"as predicted: {len(fine)} of {len(attempts)} succeed")


def _ingress_port(evidence: Evidence, question: Question) -> list[ServicePort]:
    """The port that the ingress answers at; none if it has no address."""
    door = evidence.snapshot.services.get(entrance.OURS)
    if door is None or not door.load_balancer:
        return []
    return [port for port in door.ports if port.name == (question.scheme or "http")]


async def _attempt(
    eyes: Eyes, evidence: Evidence, question: Question, port: ServicePort, *, trace: bool
) -> Attempt | None:
    """One request, from where the question starts to where it is sent; None if nothing can be sent from there."""
    key = entrance.OURS if question.via == "ingress" else ServiceKey(question.namespace, question.name)
    service = evidence.snapshot.services[key]
    family = question.family or (service.ip_families[0] if service.ip_families else "IPv4")
    origin, start, uid = question.origin, "", ""
    if origin is not None and origin.kind == "pod":
        client = evidence.pod(origin.namespace, origin.name)
        if client is None:
            return None
        start, uid = str((client.get("spec") or {}).get("nodeName") or ""), client["metadata"]["uid"]
    elif origin is not None and origin.kind == "node":
        start = origin.name
    vip = next((ip for ip in service.cluster_ips if (":" in ip) == (family == "IPv6")), service.cluster_ips[0])
    at, address, asked = start, vip, port.port
    if question.via == "ingress":
        request = Request(
            service.load_balancer[0].ip, port.port, "TCP", question.url_path * (port.port == 80), question.host
        )
        done = await eyes.request(start, uid, request)
        return done[0] if done is not None else None  # which endpoint the ingress chose no table says
    if service.load_balancer and (question.via == "lb" or (question.via is None and not start)):
        address = service.load_balancer[0].ip
        at = start or lan_node(evidence, service, address)
    elif question.via == "nodeport" or not start:
        at = start or min(evidence.snapshot.nodes, default="")
        owner = {ip: n.name for n in evidence.snapshot.nodes.values() for ip in n.internal_ips}
        address, asked = question.to or primary_address(evidence, at, family), port.node_port
        at = owner.get(address, at)
    host = question.host or f"{question.name}.{question.namespace}"
    request = Request(address, asked, port.protocol, question.url_path, host)
    done = await eyes.request(start, uid, request, trace=trace)
    if done is None:
        return None
    attempt, source_port = done
    return attempt._replace(endpoint=await eyes.tracked(at, request, source_port))
