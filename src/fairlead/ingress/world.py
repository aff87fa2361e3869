"""Everything that the routes are made from, folded from watch events, and the table it makes. ◆ Pure but for trying
certificates.

In: watch events. Out: the RouteTable, the problems, and who is served. Invariant: an endpoint that changes changes
nothing here; only what a route says does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from fairlead.api.events import WatchEvent
from fairlead.api.kinds import CONFIGMAPS, INGRESSCLASSES, INGRESSES, NAMESPACES, SECRETS, SERVICES
from fairlead.discovery.fold import fold
from fairlead.discovery.model import Changes, Service, ServiceKey, ServiceSnapshot
from fairlead.ingress.certificates import DEFAULT, AuthorityBook, CertificateBook
from fairlead.ingress.gateway.gateways import LABEL, CompiledGateways, GatewayObjects, compile_gateways
from fairlead.ingress.gateway.kinds import GROUP
from fairlead.ingress.ingresses import Compiled, Problem, compile_ingresses
from fairlead.ingress.options import IngressOptions
from fairlead.ingress.table import Certificate, Frontend, RouteTable, arrange

Object = dict[str, Any]


class Folded(msgspec.Struct, frozen=True):
    """What a batch changed: `routes`: the table has to be made anew; `endpoints`: places, perhaps; `published`: the
    Service whose addresses are shown."""

    routes: bool
    endpoints: bool
    published: bool


class World:
    """The objects, as they are now."""

    def __init__(self, options: IngressOptions, fallback_pem: str) -> None:
        self.options = options
        self.snapshot = ServiceSnapshot()
        self.ingresses: dict[tuple[str, str], Object] = {}
        self.classes: dict[str, Object] = {}
        self.certificates = CertificateBook()
        self.authorities = AuthorityBook()
        self.gateways = GatewayObjects()
        self.fronts: dict[tuple[str, str], Object] = {}  # the Services that Gateways are reached by
        self._fallback_pem = fallback_pem
        self._services: frozenset[ServiceKey] = frozenset()

    def take(self, events: Iterable[WatchEvent], synced: bool) -> Folded:
        """Fold a batch in."""
        events = list(events)
        before = self.snapshot
        self.snapshot, changes = fold(before, events, synced)
        routes = synced and not before.synced
        for event in events:
            gone = event.type == "DELETED"
            metadata = event.object["metadata"]
            if event.resource is INGRESSES:
                routes |= self._take_ingress(event.object, gone)
            elif event.resource is INGRESSCLASSES:
                _put(self.classes, metadata["name"], event.object, gone)
                routes = True
            elif event.resource is SECRETS:
                routes |= self.certificates.take(event.object, gone)
            elif event.resource is CONFIGMAPS:
                routes |= self.authorities.take(event.object, gone)
            elif event.resource is SERVICES:
                routes |= self._take_service(event.object, gone)
            elif event.resource is NAMESPACES:
                routes |= self._take_namespace(event.object, gone)
            elif event.resource.group == GROUP:
                routes |= self._take_gateway(event.resource.plural, event.resource.kind, event.object, gone)
        routes |= any(self._says_otherwise(before, key) for key in changes.services & self._services)
        published = self.options.publish is not None and ServiceKey(*self.options.publish) in changes.services
        return Folded(routes, bool(changes.services & self._services) or _node_changed(changes), published)

    def _take_ingress(self, ingress: Object, gone: bool) -> bool:
        metadata = ingress["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        before = self.ingresses.get(key)
        _put(self.ingresses, key, ingress, gone)
        if gone or before is None:
            return True
        annotations = [(obj["metadata"].get("annotations") or {}) for obj in (before, ingress)]
        return bool(before.get("spec") != ingress.get("spec") or annotations[0] != annotations[1])

    def _take_service(self, service: Object, gone: bool) -> bool:
        """Whether it matters beyond its ports: it is the one that is published, or a Gateway's."""
        metadata = service["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        if key == self.options.publish:
            before, self.gateways.publish = self.gateways.publish, None if gone else service
            return before is None or gone or before.get("spec") != service.get("spec")
        if key in self.fronts or LABEL in (metadata.get("labels") or {}):
            _put(self.fronts, key, service, gone)
            return True
        return False

    def _take_namespace(self, namespace: Object, gone: bool) -> bool:
        name = namespace["metadata"]["name"]
        before = self.gateways.labels.get(name)
        _put(self.gateways.labels, name, namespace["metadata"].get("labels") or {}, gone)
        return bool(self.gateways.gateways) and before != self.gateways.labels.get(name)

    def _take_gateway(self, plural: str, kind: str, obj: Object, gone: bool) -> bool:
        """Whether its author changed it; a status that was written changes nothing."""
        metadata = obj["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        objects: dict[Any, Object]
        if plural == "gatewayclasses":
            objects, place = self.gateways.classes, metadata["name"]
        else:
            place = key
            if plural == "gateways":
                objects = self.gateways.gateways
            elif plural == "referencegrants":
                objects = self.gateways.grants
            elif plural == "backendtlspolicies":
                objects = self.gateways.policies
            else:
                objects = self.gateways.routes.setdefault(kind, {})
        before = objects.get(place)
        _put(objects, place, obj, gone)
        if gone or before is None:
            return True
        return bool(before.get("spec") != obj.get("spec") or before["metadata"].get("uid") != metadata.get("uid"))

    def _says_otherwise(self, before: ServiceSnapshot, key: ServiceKey) -> bool:
        return bool(_said(before.services.get(key)) != _said(self.snapshot.services.get(key)))

    def table(self) -> tuple[RouteTable, Compiled, CompiledGateways]:
        """The routes, as everything is now."""
        compiled = compile_ingresses(
            self.ingresses.values(), self.classes, self.certificates.pem_of, self.snapshot, self.options.classes
        )
        options = self.options
        settings = options.settings
        taken = (options.http_port, options.https_port, settings.health_port, settings.metrics_port)
        books = self.certificates.pem_of, self.authorities.pem_of
        gateways = compile_gateways(self.gateways, *books, self.snapshot, taken)
        self._services = compiled.services | gateways.backends
        self.certificates.prune()
        self.authorities.prune()
        default, problems = self._default_certificate()
        frontends = (
            Frontend("http", options.http_port, options.public_http or 80, arrange(compiled.http, deep=False)),
            Frontend(
                "https",
                options.https_port,
                options.public_https or 443,
                arrange(compiled.https, deep=False),
                tls=True,
                certificates=(default, *(c for c in compiled.certificates if c.names)),
            ),
        )
        compiled = msgspec.structs.replace(compiled, problems=(*compiled.problems, *problems))
        return RouteTable((*frontends, *gateways.frontends)), compiled, gateways

    def _default_certificate(self) -> tuple[Certificate, list[Problem]]:
        named = self.options.default_certificate
        if named is None:
            return Certificate(DEFAULT, self._fallback_pem), []
        pem, why = self.certificates.pem_of(*named)
        if pem:
            return Certificate(DEFAULT, pem), []
        problem = Problem("Secret", *named, "BadSecret", f"the default certificate {named[0]}/{named[1]} {why}")
        return Certificate(DEFAULT, self._fallback_pem), [problem]


def _node_changed(changes: Changes) -> bool:
    return bool(changes.nodes)


def _put(objects: dict[Any, Object], key: Any, obj: Object, gone: bool) -> None:
    if gone:
        objects.pop(key, None)
    else:
        objects[key] = obj


def _said(service: Service | None) -> Any:
    """What routes read of a Service: all but its endpoints."""
    if service is None:
        return None
    return service.ports, service.type, service.external_name, service.affinity_seconds
