"""Small clusters for the tests of the ingress: objects as the API gives them, and what they compile to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fairlead.api.events import WatchEvent
from fairlead.api.kinds import ENDPOINTSLICES, SERVICES
from fairlead.discovery.fold import fold
from fairlead.discovery.model import ServiceSnapshot
from fairlead.ingress.ingresses import Classes, Compiled, compile_ingresses
from fairlead.ingress.table import Frontend, Request, Section, arrange, decide

Object = dict[str, Any]

CLASS: Object = {"metadata": {"name": "fairlead"}, "spec": {"controller": "fairlead.dev/ingress"}}
OTHER: Object = {"metadata": {"name": "nginx"}, "spec": {"controller": "k8s.io/ingress-nginx"}}
CLASSES = {"fairlead": CLASS, "nginx": OTHER}


def service(name: str, *ports: Object, namespace: str = "shop", **spec: Any) -> Object:
    """A Service; without ports it has 80, nameless."""
    given = list(ports) or [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": "10.96.0.9", "ipFamilies": ["IPv4"], "ports": given, **spec},
    }


def endpoints(name: str, *pods: tuple[str, str], port: int = 8080, port_name: str = "") -> Object:
    """An EndpointSlice of pods with an address and a state: ready, ending, unready."""
    states: dict[str, Object] = {
        "ready": {},
        "ending": {"ready": False, "serving": True, "terminating": True},
        "unready": {"ready": False, "serving": False},
    }
    return {
        "metadata": {"name": f"{name}-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": port_name, "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": states[state]} for address, state in pods],
    }


def snapshot(*objects: Object) -> ServiceSnapshot:
    """Everything listed."""
    events = [WatchEvent("ADDED", ENDPOINTSLICES if "addressType" in obj else SERVICES, obj) for obj in objects]
    return fold(ServiceSnapshot(), events, synced=True)[0]


SERVED = snapshot(*(service(name) for name in ("web", "api", "static", "admin", "fallback")))


def backend(name: str, port: int | str = 80) -> Object:
    """An Ingress' backend."""
    return {"service": {"name": name, "port": {"name" if isinstance(port, str) else "number": port}}}


def path(text: str, name: str, kind: str = "Prefix", port: int | str = 80) -> Object:
    """A path of an Ingress."""
    return {"path": text, "pathType": kind, "backend": backend(name, port)}


def ingress(name: str, rules: Iterable[tuple[str, list[Object]]] = (), born: int = 0, **given: Any) -> Object:
    """An Ingress of ours; `rules` are hosts (empty: all) and paths, `born` orders by age."""
    metadata = {
        "name": name,
        "namespace": "shop",
        "creationTimestamp": f"2026-01-01T00:00:{born:02}Z",
        "annotations": given.pop("annotations", {}),
    }
    made = [{**({"host": host} if host else {}), "http": {"paths": paths}} for host, paths in rules]
    spec = {"ingressClassName": "fairlead", **({"rules": made} if made else {}), **given}
    return {"metadata": metadata, "spec": {key: value for key, value in spec.items() if value is not None}}


def no_secret(namespace: str, name: str) -> tuple[str, str]:
    """There are none."""
    return "", "is not there"


def compiled(*ingresses: Object, services: ServiceSnapshot = SERVED, secrets: Any = no_secret) -> Compiled:
    """What these Ingresses make."""
    return compile_ingresses(ingresses, CLASSES, secrets, services, Classes())


def frontend(found: Compiled, secure: bool = False) -> Frontend:
    """The port of http, or of https."""
    return Frontend("http", 80, 80, arrange(found.https if secure else found.http, deep=False), tls=secure)


def goes_to(port: Frontend, url: str, **given: Any) -> str:
    """Where a request for `host/path` ends: a Service's name, a status, or where it is sent."""
    host, slash, rest = url.partition("/")
    route = decide(port, Request(host, slash + rest or "/", **given))
    section = route.destinations[0][1] if route is not None else port.fallback
    return ends(section)


def ends(section: Section) -> str:
    """A section in a word."""
    if section.redirect is not None:
        return section.redirect.to or f"{section.redirect.code} {section.redirect.scheme}"
    return section.service.name if section.service is not None else str(section.status)


def reasons(found: Compiled) -> list[str]:
    """Who was told what, shortly."""
    return [f"{problem.name}: {problem.reason}" for problem in found.problems]
