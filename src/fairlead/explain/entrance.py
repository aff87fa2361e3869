"""The hop of the Ingress: which rule takes a request from outside, and to which Service. Pure.

Asks the ingress' own compiler and route table (`ingress.ingresses`, `ingress.table`), so it cannot disagree with what
is served. Invariant: what is wrong with the Ingress that takes the request is an error; with others, nothing.
"""

from __future__ import annotations

import difflib
from typing import NamedTuple

import msgspec

from fairlead.discovery.model import ServiceKey
from fairlead.explain.evidence import Evidence, Object
from fairlead.explain.question import Question
from fairlead.explain.report import Hop
from fairlead.explain.scene import pod_ip
from fairlead.ingress.ingresses import CLASS_ANNOTATION, Classes, Compiled, compile_ingresses
from fairlead.ingress.table import ANY, Frontend, Request, Route, Section, arrange, covers, decide

OURS = ServiceKey("kube-system", "fairlead-ingress")


class Way(NamedTuple):
    """A request, and what takes it: `route` None: nothing does."""

    host: str
    path: str
    secure: bool
    compiled: Compiled
    route: Route | None = None

    @property
    def section(self) -> Section | None:
        """Where it ends, if it is one place."""
        return self.route.destinations[0][1] if self.route is not None else None


def find(evidence: Evidence, question: Question) -> Way:
    """What takes the question's request: that of its URL, or the first that leads to its Service."""
    classes = {c["metadata"]["name"]: c for c in evidence.ingress_classes}
    controllers = sorted({str((c.get("spec") or {}).get("controller") or "") for c in classes.values()})

    def pem_of(namespace: str, name: str) -> tuple[str, str]:
        why = evidence.secrets.get(f"{namespace}/{name}", "was not looked at")
        return ("", why) if why else ("fits", "")

    best: Way | None = None
    for controller in controllers or [Classes().controller]:
        compiled = compile_ingresses(
            evidence.ingresses, classes, pem_of, evidence.snapshot, Classes(controller=controller)
        )
        secure = question.scheme == "https"
        frontend = Frontend("", 0, 0, arrange(compiled.https if secure else compiled.http, deep=False))
        if question.url_path:
            host, path = question.host.lower(), question.url_path
            way = Way(host, path, secure, compiled, decide(frontend, Request(host, path)))
        else:
            way = _leading_to(ServiceKey(question.namespace, question.name), compiled)
        if way.route is not None:
            return way
        best = best if best is not None and best.compiled.ours else way
    assert best is not None
    return best


def _leading_to(key: ServiceKey, compiled: Compiled) -> Way:
    for host, route in compiled.https:
        if any(section.service == key for _, section in route.destinations):
            plain = next((r for h, r in compiled.http if (h, r.match) == (host, route.match)), route)
            return Way(host, route.match.path, plain is not route and plain != route, compiled, route)
    return Way("", "", False, compiled)


def settled(evidence: Evidence, question: Question) -> Question:
    """The question with the way that a URL from outside takes: by Ingress, if one has a rule for its very host, or if
    the host can't be a Service's name."""
    outside = question.origin is None or question.origin.kind == "outside"
    if question.via is not None or not question.url_path or not outside:
        return question
    if question.namespace not in evidence.snapshot.namespaces:
        return msgspec.structs.replace(question, via="ingress")
    for ingress in evidence.ingresses:
        for rule in (ingress.get("spec") or {}).get("rules") or ():
            if rule.get("host") and covers(rule["host"].lower(), question.host.lower(), deep=False):
                return msgspec.structs.replace(question, via="ingress")
    return question


def door(evidence: Evidence) -> Object | None:
    """A pod of fairlead's own ingress that runs."""
    for pod in evidence.pods:
        labels = pod["metadata"].get("labels") or {}
        name = ServiceKey(pod["metadata"].get("namespace", ""), labels.get("app.kubernetes.io/name", ""))
        if name == OURS and pod_ip(pod) and (pod.get("status") or {}).get("phase") == "Running":
            return pod
    return None


def resolved(evidence: Evidence, question: Question) -> Question:
    """The question about the Service that the request ends at; as it is if it ends at none."""
    section = find(evidence, question).section
    if section is None or section.service is None:
        return question
    key = section.service
    return msgspec.structs.replace(
        question, namespace=key.namespace, name=key.name, port=section.port or str(section.number), protocol="TCP"
    )


def examine(evidence: Evidence, question: Question, hop: Hop) -> ServiceKey | None:
    """The rule that takes the request, with findings; the Service it leads to, None if it ends here."""
    way = find(evidence, question)
    asked = f"{question.host}{way.path}" if question.url_path else f"Service {question.namespace}/{question.name}"
    if way.route is None:
        _none(evidence, question, way, asked, hop)
        return None
    name = way.route.origin.removeprefix("Ingress ")
    ingress = next(i for i in evidence.ingresses if _name(i) == name)
    shown = "all hosts" if way.host == ANY else way.host
    hop.say(f"{way.route.origin}: {way.route.match.kind} {way.route.match.path} of {shown}")
    _problems(way, name, ingress, hop)
    _taken(evidence, ingress, hop)
    section = way.section
    if section is None or hop.broken:
        return None
    if section.redirect is not None:
        target = section.redirect.to or f"{section.redirect.scheme}://{shown}{way.path}"
        hop.say(f"→ answered with a redirection ({section.redirect.code}) to {target}")
        return None
    if section.service is not None:
        hop.say(f"→ Service {section.service}, port {section.port or section.number}")
    return section.service


def _none(evidence: Evidence, question: Question, way: Way, asked: str, hop: Hop) -> None:
    """Why no rule takes the request."""
    for ingress in evidence.ingresses:
        if (ingress["metadata"].get("namespace", ""), ingress["metadata"]["name"]) in way.compiled.ours:
            continue
        if _would_take(ingress, question):
            _no_class(evidence, ingress, hop)
            return
    hosts = sorted({host for host, _ in way.compiled.https})
    if question.url_path and any(covers(host, question.host.lower(), deep=False) for host in hosts):
        paths = sorted(
            {f"{r.match.kind} {r.match.path}" for h, r in way.compiled.https if covers(h, question.host, deep=False)}
        )
        hop.find(
            "FL102",
            f"no path of {question.host} takes {way.path} (it has {', '.join(paths)})",
            "add the path to the Ingress, or ask for one of these",
        )
        return
    close = difflib.get_close_matches(question.host, hosts, 1, 0.6) if question.url_path else []
    near = f"did you mean {close[0]}? " if close else ""
    has = f"(there are rules for {', '.join(hosts[:4])})" if hosts else "(there are no rules)"
    hop.find("FL101", f"no Ingress leads to {asked} {has}", f"{near}see: kubectl get ingress -A")


def _would_take(ingress: Object, question: Question) -> bool:
    for rule in (ingress.get("spec") or {}).get("rules") or ():
        host = (rule.get("host") or ANY).lower()
        if question.url_path:
            if covers(host, question.host.lower(), deep=False):
                return True
            continue
        for path in (rule.get("http") or {}).get("paths") or ():
            name = ((path.get("backend") or {}).get("service") or {}).get("name")
            if (ingress["metadata"].get("namespace", ""), name) == (question.namespace, question.name):
                return True
    return False


def _no_class(evidence: Evidence, ingress: Object, hop: Hop) -> None:
    named = (ingress.get("spec") or {}).get("ingressClassName")
    legacy = (ingress["metadata"].get("annotations") or {}).get(CLASS_ANNOTATION)
    has = ", ".join(sorted(c["metadata"]["name"] for c in evidence.ingress_classes)) or "none"
    if named or legacy:
        what = f"names the class {named or legacy}, which nobody here serves"
    else:
        what = "names no class, so nobody serves it"
    hop.find(
        "FL100",
        f"Ingress {_name(ingress)} {what} (there are: {has})",
        "set spec.ingressClassName to one of them",
    )


def _problems(way: Way, name: str, ingress: Object, hop: Hop) -> None:
    findings = {"ServiceNotFound": "FL103", "PortNotFound": "FL103", "ResourceBackend": "FL103", "BadSecret": "FL104"}
    dead = way.section is not None and way.section.status != 0
    for problem in way.compiled.problems:
        if f"{problem.namespace}/{problem.name}" != name or problem.reason not in findings:
            continue
        id_ = findings[problem.reason]
        severity = "error" if (dead if id_ == "FL103" else way.secure) else "warning"
        remedy = (
            "mend the backend, or make the Service"
            if id_ == "FL103"
            else "make a Secret of type kubernetes.io/tls with that name: kubectl create secret tls"
        )
        hop.find(id_, f"Ingress {name}: {problem.message}", remedy, severity=severity)


def _taken(evidence: Evidence, ingress: Object, hop: Hop) -> None:
    """Who serves it, and where."""
    entries = ((ingress.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    addresses = [str(entry.get("ip") or entry.get("hostname")) for entry in entries]
    service = evidence.snapshot.services.get(OURS)
    if service is not None:
        ready = [e for piece in service.slices for e in piece.endpoints if e.ready]
        if not ready:
            hop.find(
                "FL105",
                f"no pod of the ingress is ready ({OURS})",
                f"kubectl -n {OURS.namespace} get pods -l app.kubernetes.io/name={OURS.name}",
            )
            return
    if addresses:
        hop.say(f"at {', '.join(addresses)}")
    else:
        hop.find(
            "FL105",
            f"Ingress {_name(ingress)} has no address: no controller has taken it",
            "see that its class' controller runs",
            severity="warning",
        )


def _name(obj: Object) -> str:
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"
