"""One question from beginning to end: gather, explain, look again before an alarm, and with `--probe` try it for real.

Stands on top of the survey. Invariant: what may just have been a change on its way (rules or slices a moment behind the
API) is only reported if it is still so when looked at again.
"""

from __future__ import annotations

import asyncio
from functools import partial

import msgspec

from fairlead.client import Client
from fairlead.discovery.model import ServiceKey, ServicePort
from fairlead.explain import lookups, path, pod
from fairlead.explain.evidence import Attempt, Evidence
from fairlead.explain.question import Question
from fairlead.explain.report import Hop, Report
from fairlead.explain.scene import primary_address
from fairlead.linux.namespaces import entered
from fairlead.linux.namespaces import path as namespace_path
from fairlead.survey import asking
from fairlead.survey.gather import Place, gather, inside_pod

_FLEETING = frozenset({"FL017", "FL019", "FL044", "FL050", "FL051", "FL070", "FL076", "FL080", "FL090"})
_LOOK_AGAIN = (0.2, 0.5)  # seconds before the second and the third look
_EXPLAIN = {"svc": path.explain, "pod": pod.explain, "dns": lookups.explain}


async def answer(client: Client, place: Place, question: Question) -> Report:
    """The report on one question."""
    evidence = await gather(client, place, question)
    report = _EXPLAIN[question.kind](evidence, question)
    for pause in _LOOK_AGAIN:
        if not any(f.id in _FLEETING for f in report.findings if f.severity == "error"):
            break
        await asyncio.sleep(pause)
        evidence = await gather(client, place, question)
        report = _EXPLAIN[question.kind](evidence, question)
    if question.probe and question.kind == "svc" and place.layout is not None:
        hop = await asyncio.to_thread(probe, place, evidence, question, report)
        report = msgspec.structs.replace(report, hops=(*report.hops, hop))
    return report


def probe(place: Place, evidence: Evidence, question: Question, report: Report) -> Hop:
    """Real requests, compared with the prediction."""
    hop = Hop("probe")
    key = ServiceKey(question.namespace, question.name)
    service = evidence.snapshot.services.get(key)
    ports = [
        p for p in (service.ports if service else ()) if not question.port or question.port in (p.name, str(p.port))
    ]
    if service is None or not ports or not service.cluster_ips:
        hop.state = "skipped"
        hop.say("there is no address to send to")
        return hop
    port = ports[0]
    family = question.family or (service.ip_families[0] if service.ip_families else "IPv4")
    vip = next((ip for ip in service.cluster_ips if (":" in ip) == (family == "IPv6")), service.cluster_ips[0])
    attempts = []
    for _ in range(question.probe):
        attempt = _attempt(place, evidence, question, vip, port)
        if attempt is None:
            hop.state = "unseen"
            hop.say("nothing can be sent from there")
            return hop
        attempts.append(attempt)
    for attempt in attempts[:8]:
        at = f" → {attempt.endpoint}" if attempt.endpoint else ""
        detail = f": {attempt.detail}" if attempt.detail else ""
        hop.say(f"{attempt.outcome}{at} ({attempt.milliseconds:.1f} ms){detail}")
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
        hop.find(
            "FL097", f"{len(attempts) - len(fine)} of {len(attempts)} requests failed: {bad.outcome}", "look again"
        )
    elif not report.works and len(fine) == len(attempts) and not report.partly:
        hop.say("and yet the requests succeed by address")
    else:
        hop.say(f"as predicted: {len(fine)} of {len(attempts)} succeed")


def _attempt(place: Place, evidence: Evidence, question: Question, vip: str, port: ServicePort) -> Attempt | None:
    assert place.layout is not None
    origin = question.origin
    at = ""
    if origin is not None and origin.kind == "pod":
        client = evidence.pod(origin.namespace, origin.name)
        if client is None:
            return None
        at = str((client.get("spec") or {}).get("nodeName") or "")
    elif origin is not None and origin.kind == "node":
        at = origin.name
    address, asked, protocol = vip, port.port, port.protocol
    if question.via == "nodeport" or not at:
        at = at or min(evidence.snapshot.nodes, default="")
        owner = {ip: n.name for n in evidence.snapshot.nodes.values() for ip in n.internal_ips}
        address, asked = question.to or primary_address(evidence, at, question.family or "IPv4"), port.node_port
        at = owner.get(address, at)
    host = question.host or f"{question.name}.{question.namespace}"
    send = partial(asking.connect, address, asked, protocol, question.url_path, host)
    if origin is not None and origin.kind == "pod":
        assert client is not None
        done = inside_pod(place, client, send)
    elif origin is not None and origin.kind == "node":
        with entered(namespace_path(place.layout.node_namespace(origin.name))):
            done = send()
    else:
        done = send()
    if done is None:
        return None
    attempt, source_port = done
    try:
        with entered(namespace_path(place.layout.node_namespace(at))):
            endpoint = asking.tracked_endpoint(protocol, address, asked, source_port)
    except OSError:
        endpoint = ""
    return Attempt(attempt.outcome, endpoint, attempt.milliseconds, attempt.detail)
