"""Ingresses → routes, certificates and what is wrong with them. ◆ Pure.

Source: networking.k8s.io/v1, the Ingress concept page, KEP-1453. In: the Ingresses and IngressClasses, Secrets by way
of `pem_of`, and the snapshot's Services. Out: routes for the ports of http and https, for `table.arrange`. Invariant:
what is wrong with an Ingress concerns that Ingress alone: the oldest keeps what two of them claim.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from fairlead.discovery.model import Service, ServiceKey, ServicePort, ServiceSnapshot
from fairlead.ingress import patterns
from fairlead.ingress.annotations import Treatment
from fairlead.ingress.annotations import read as read_annotations
from fairlead.ingress.table import (
    ANY,
    Certificate,
    Match,
    PathKind,
    PathRewrite,
    Protocol,
    Redirect,
    Route,
    Section,
)

Object = dict[str, Any]
PemOf = Callable[[str, str], tuple[str, str]]
"""(namespace, name of a Secret) → its chain and key in PEM, or empty and why not."""

CONTROLLER = "fairlead.dev/ingress"
CLASS = "fairlead"
CLASS_ANNOTATION = "kubernetes.io/ingress.class"

_PATH = re.compile(r"/[!-~]*")
PROTOCOLS: Mapping[str, Protocol] = {
    "kubernetes.io/h2c": "h2c",
    "grpc": "h2c",
    "kubernetes.io/ws": "http",
    "kubernetes.io/wss": "https",
    "https": "https",
    "http": "http",
}
"""What a Service port's appProtocol says of how its pods speak."""


class Problem(msgspec.Struct, frozen=True):
    """Something to tell the author of an object, as an Event."""

    kind: str
    namespace: str
    name: str
    reason: str
    message: str


class Classes(msgspec.Struct, frozen=True):
    """Which Ingresses are ours. `controller`: as in spec.controller of IngressClasses. `name`: what the old annotation
    says. `without`: those that name none are ours, too."""

    controller: str = CONTROLLER
    name: str = CLASS
    without: bool = False

    def ours(self, ingress: Object, classes: Mapping[str, Object]) -> bool:
        """Whether this Ingress is served here. The field counts before the annotation."""
        named = (ingress.get("spec") or {}).get("ingressClassName")
        if named is not None:
            found = classes.get(named)
            return found is not None and (found.get("spec") or {}).get("controller") == self.controller
        legacy = (ingress["metadata"].get("annotations") or {}).get(CLASS_ANNOTATION)
        if legacy is not None:
            return bool(legacy == self.name)
        return self.without


class Compiled(msgspec.Struct, frozen=True):
    """Routes with their host patterns, the oldest first; `ours`: the Ingresses that are served."""

    http: tuple[tuple[str, Route], ...]
    https: tuple[tuple[str, Route], ...]
    certificates: tuple[Certificate, ...]
    problems: tuple[Problem, ...]
    ours: tuple[tuple[str, str], ...]
    services: frozenset[ServiceKey]


def compile_ingresses(
    ingresses: Iterable[Object],
    classes: Mapping[str, Object],
    pem_of: PemOf,
    snapshot: ServiceSnapshot,
    selection: Classes,
) -> Compiled:
    """Everything the Ingresses of our classes ask for."""
    ours = sorted((i for i in ingresses if selection.ours(i, classes)), key=age)
    work = _Work(pem_of, snapshot)
    for name, found in sorted(classes.items()):
        spec = found.get("spec") or {}
        if spec.get("controller") == selection.controller and spec.get("parameters"):
            said = "spec.parameters are not read: leave them out"
            work.problems.append(Problem("IngressClass", "", name, "ParametersRefused", said))
    for ingress in ours:
        work.take(ingress)
    for ingress in ours:  # what takes everything that no rule takes comes last
        work.take_default(ingress)
    return Compiled(
        tuple(work.http),
        tuple(work.https),
        tuple(work.certificates.values()),
        tuple(work.problems),
        tuple((i["metadata"].get("namespace", ""), i["metadata"]["name"]) for i in ours),
        frozenset(work.services),
    )


def age(obj: Object) -> tuple[str, str, str]:
    """Sorts the oldest first; of the same age by namespace and name."""
    metadata = obj["metadata"]
    return metadata.get("creationTimestamp") or "", metadata.get("namespace") or "", metadata["name"]


def protocol_of(port: ServicePort) -> Protocol:
    """How the pods behind a Service's port speak."""
    return PROTOCOLS.get(port.app_protocol.lower(), "http")


def find_port(service: Service, port: Object) -> ServicePort | None:
    """The Service's port of a backend's `number` or `name`. An ExternalName Service need not list a number."""
    name, number = port.get("name"), port.get("number")
    for entry in service.ports:
        if entry.protocol == "TCP" and (entry.name == name if name else entry.port == number):
            return entry
    if service.type == "ExternalName" and number:
        return ServicePort("", "TCP", number, number)
    return None


class _Work:
    """One compilation under way."""

    def __init__(self, pem_of: PemOf, snapshot: ServiceSnapshot) -> None:
        self.pem_of, self.snapshot = pem_of, snapshot
        self.http: list[tuple[str, Route]] = []
        self.https: list[tuple[str, Route]] = []
        self.certificates: dict[str, Certificate] = {}
        self.problems: list[Problem] = []
        self.services: set[ServiceKey] = set()
        self._paths: dict[tuple[str, PathKind, str], tuple[str, str]] = {}  # who has a host's path, and where
        self._names: dict[str, tuple[str, str]] = {}  # whose certificate a server name has
        self._redirected: dict[str, tuple[frozenset[str], Treatment]] = {}

    def take(self, ingress: Object) -> None:
        metadata = ingress["metadata"]
        spec = ingress.get("spec") or {}
        reading = read_annotations(metadata.get("annotations") or {})
        for text in reading.refused:
            self._tell(ingress, "InvalidAnnotation", text)
        if reading.ignored:
            self._tell(ingress, "IgnoredAnnotation", f"not read here: {', '.join(reading.ignored)}")
        secured = self._take_tls(ingress)
        self._redirected[_name(ingress)] = (secured, reading.treatment)
        for index, rule in enumerate(spec.get("rules") or ()):
            for place, path in enumerate((rule.get("http") or {}).get("paths") or ()):
                where = f"spec.rules[{index}].http.paths[{place}]"
                self._take_path(ingress, (rule.get("host") or ANY).lower(), path, where)

    def take_default(self, ingress: Object) -> None:
        """What none of its rules takes, on its own hosts; and on all others, if nobody older has that."""
        spec = ingress.get("spec") or {}
        backend = spec.get("defaultBackend")
        if backend is None:
            return
        path = {"path": "/", "pathType": "Prefix", "backend": backend}
        hosts = [rule["host"].lower() for rule in spec.get("rules") or () if rule.get("host")]
        for host in dict.fromkeys((*hosts, ANY)):
            if (host, "Prefix", "") not in self._paths or not spec.get("rules"):
                self._take_path(ingress, host, path, "spec.defaultBackend")

    # -- TLS -----------------------------------------------------------------------------------------------------------

    def _take_tls(self, ingress: Object) -> frozenset[str]:
        """The hosts that the Ingress has a certificate for."""
        namespace = ingress["metadata"].get("namespace", "")
        spec = ingress.get("spec") or {}
        secured: set[str] = set()
        for index, entry in enumerate(spec.get("tls") or ()):
            hosts = [host.lower() for host in entry.get("hosts") or ()]
            hosts = hosts or [rule["host"].lower() for rule in spec.get("rules") or () if rule.get("host")]
            secret = entry.get("secretName")
            if not secret:
                secured |= set(hosts)  # with the certificate that is shown when no other fits
                continue
            pem, why = self.pem_of(namespace, secret)
            if not pem:
                self._tell(ingress, "BadSecret", f"spec.tls[{index}]: Secret {namespace}/{secret} {why}")
                continue
            names = []
            for host in hosts:
                owner = self._names.setdefault(host, (namespace, secret))
                if owner == (namespace, secret):
                    names.append(host)
                else:
                    taken = "/".join(owner)
                    self._tell(ingress, "HostConflict", f"spec.tls[{index}]: {host} has a certificate from {taken}")
            name = f"{namespace}_{secret}"
            known = self.certificates[name].names if name in self.certificates else ()
            self.certificates[name] = Certificate(name, pem, tuple(dict.fromkeys((*known, *names))))
            secured |= set(hosts)
        return frozenset(secured)

    # -- paths ---------------------------------------------------------------------------------------------------------

    def _take_path(self, ingress: Object, host: str, path: Object, where: str) -> None:
        secured, treatment = self._redirected[_name(ingress)]
        match = self._match(ingress, path, treatment, where)
        if match is None:
            return
        identity = (host, match.kind, match.path.rstrip("/") if match.kind == "Prefix" else match.path)
        owner = self._paths.setdefault(identity, (_name(ingress), where))
        if owner != (_name(ingress), where):
            shown = "all hosts" if host == ANY else host
            self._tell(ingress, "PathConflict", f"{where}: {match.path} of {shown} belongs to Ingress {owner[0]}")
            return
        section = self._section(ingress, path, treatment, match, where)
        route = Route(match, ((1, section),), f"Ingress {_name(ingress)}")
        self.https.append((host, route))
        secure = host in secured or any(name.startswith("*.") and _under(host, name) for name in secured)
        if treatment.ssl_redirect or (treatment.ssl_redirect is None and secure):
            route = Route(match, ((1, Section(redirect=Redirect(308, "https"))),), route.origin)
        self.http.append((host, route))

    def _match(self, ingress: Object, path: Object, treatment: Treatment, where: str) -> Match | None:
        text = path.get("path") or "/"
        if path.get("pathType") == "ImplementationSpecific" and (treatment.use_regex or treatment.rewrite):
            why = patterns.problem(text)
            if why:
                self._tell(ingress, "InvalidPath", f"{where}.path: {why}")
                return None
            return Match("Regex", text, ignore_case=True)
        if not _PATH.fullmatch(text):
            self._tell(ingress, "InvalidPath", f"{where}.path: {text!r} can't be a request's path")
            return None
        return Match("Exact" if path.get("pathType") == "Exact" else "Prefix", text)

    def _section(self, ingress: Object, path: Object, treatment: Treatment, match: Match, where: str) -> Section:
        if treatment.redirect:
            return Section(allow=treatment.allow, redirect=Redirect(treatment.redirect_code, to=treatment.redirect))
        backend = path.get("backend") or {}
        if backend.get("resource") is not None:
            found = backend["resource"]
            self._tell(ingress, "ResourceBackend", f"{where}: {found.get('kind')} {found.get('name')} can't be served")
            return Section(status=503)
        wanted = backend.get("service") or {}
        key = ServiceKey(ingress["metadata"].get("namespace", ""), wanted.get("name") or "")
        self.services.add(key)
        service = self.snapshot.services.get(key)
        if service is None:
            self._tell(ingress, "ServiceNotFound", f"{where}: there is no Service {key}")
            return Section(status=503)
        port = find_port(service, wanted.get("port") or {})
        if port is None:
            asked = (wanted.get("port") or {}).get("name") or (wanted.get("port") or {}).get("number")
            has = ", ".join(f"{p.name or '-'}:{p.port}" for p in service.ports) or "none"
            self._tell(ingress, "PortNotFound", f"{where}: Service {key} has no TCP port {asked} (it has {has})")
            return Section(status=503)
        return Section(
            service=key,
            port=port.name,
            number=port.port,
            external_name=service.external_name,
            protocol=treatment.protocol or protocol_of(port),
            connect_ms=treatment.connect_ms,
            response_ms=treatment.response_ms,
            cookie=treatment.cookie,
            affinity_seconds=service.affinity_seconds,
            allow=treatment.allow,
            rewrite=_rewritten(treatment, match),
        )

    def _tell(self, ingress: Object, reason: str, message: str) -> None:
        metadata = ingress["metadata"]
        problem = Problem("Ingress", metadata.get("namespace", ""), metadata["name"], reason, message)
        if problem not in self.problems:
            self.problems.append(problem)


def _rewritten(treatment: Treatment, match: Match) -> PathRewrite | None:
    if not treatment.rewrite:
        return None
    if match.kind != "Regex":
        return PathRewrite("full", treatment.rewrite)
    value = re.sub(r"\$(\d)", r"\\\1", treatment.rewrite.replace("\\", "\\\\"))
    return PathRewrite("regex", value, f"{match.path}.*$" if not match.path.endswith("$") else match.path, True)


def _name(obj: Object) -> str:
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"


def _under(host: str, pattern: str) -> bool:
    return "." in host and host.split(".", 1)[1] == pattern[2:]
