"""What a batch of events changes: routes, endpoints, statuses; and what changes nothing."""

from __future__ import annotations

from typing import Any

from fairlead.api.events import EventType, WatchEvent
from fairlead.api.kinds import ENDPOINTSLICES, INGRESSCLASSES, INGRESSES, NAMESPACES, SECRETS, SERVICES, Resource
from fairlead.ingress import status
from fairlead.ingress.gateway.kinds import GATEWAYCLASSES, GATEWAYS
from fairlead.ingress.options import IngressOptions
from fairlead.ingress.world import World
from tests.unit.ingress.gateways import CLASS as GATEWAY_CLASS
from tests.unit.ingress.gateways import read
from tests.unit.ingress.test_certificates import secret
from tests.unit.ingress.worlds import CLASS, endpoints, ingress, path, service

PUBLISH = ("kube-system", "fairlead-ingress")


def event(resource: Resource, obj: dict[str, Any], kind: EventType = "ADDED") -> WatchEvent:
    return WatchEvent(kind, resource, obj)


def world() -> World:
    """One Ingress to a Service of two endpoints, all listed."""
    made = World(IngressOptions(publish=PUBLISH), "PEM")
    made.take(
        [
            event(INGRESSCLASSES, CLASS),
            event(INGRESSES, ingress("a", [("a.test", [path("/", "web")])])),
            event(SERVICES, service("web")),
            event(ENDPOINTSLICES, endpoints("web", ("10.0.0.1", "ready"), ("10.0.0.2", "ready"))),
        ],
        synced=True,
    )
    made.table()
    return made


def test_endpoints_change_no_routes() -> None:
    """Of a Service that is routed to they matter; of others not at all."""
    made = world()
    folded = made.take([event(ENDPOINTSLICES, endpoints("web", ("10.0.0.9", "ready")), "MODIFIED")], synced=True)
    assert (folded.routes, folded.endpoints) == (False, True)
    folded = made.take([event(ENDPOINTSLICES, endpoints("other", ("10.0.0.9", "ready")))], synced=True)
    assert (folded.routes, folded.endpoints) == (False, False)


def test_what_a_route_reads_of_a_service() -> None:
    """Its ports; a label on it changes nothing."""
    made = world()
    labelled = service("web")
    labelled["metadata"]["labels"] = {"x": "y"}
    assert not made.take([event(SERVICES, labelled, "MODIFIED")], synced=True).routes
    assert made.take([event(SERVICES, service("web", {"name": "x", "port": 81}), "MODIFIED")], synced=True).routes


def test_a_status_that_is_written_is_no_news() -> None:
    """Else every write would make the next."""
    made = world()
    shown = ingress("a", [("a.test", [path("/", "web")])])
    shown["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    assert not made.take([event(INGRESSES, shown, "MODIFIED")], synced=True).routes
    assert made.take([event(INGRESSES, shown, "DELETED")], synced=True).routes


def test_secrets_that_nobody_names() -> None:
    """They change nothing."""
    assert not world().take([event(SECRETS, secret("s", tls_crt="x"))], synced=True).routes


def test_the_published_address() -> None:
    """The Service that is published is known, and shown."""
    made = world()
    front = service(PUBLISH[1], namespace=PUBLISH[0], type="LoadBalancer")
    assert made.take([event(SERVICES, front)], synced=True).published
    assert status.published(made.snapshot.services.get(_key(PUBLISH))) == []
    front = {**front, "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
    assert made.take([event(SERVICES, front, "MODIFIED")], synced=True).published
    wanted = status.published(made.snapshot.services.get(_key(PUBLISH)))
    assert wanted == [{"ip": "192.0.2.1"}]
    shown = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ports": []}]}}}
    assert status.status_of(shown, wanted) is None
    assert status.status_of({}, status.fixed(["x.test"])) == {
        "status": {"loadBalancer": {"ingress": [{"hostname": "x.test"}]}}
    }


def _key(pair: tuple[str, str]) -> Any:
    from fairlead.discovery.model import ServiceKey

    return ServiceKey(*pair)


def test_gateways_and_what_they_read() -> None:
    """Their specs, and the labels of namespaces once there are Gateways; not their statuses."""
    made = world()
    namespace = {"metadata": {"name": "shop", "labels": {"a": "b"}}}
    assert not made.take([event(NAMESPACES, namespace)], synced=True).routes
    (gateway,) = read(
        "kind: Gateway\nmetadata: {name: front}\n"
        "spec: {gatewayClassName: fairlead, listeners: [{name: http, port: 80, protocol: HTTP}]}"
    )
    assert made.take([event(GATEWAYCLASSES, GATEWAY_CLASS), event(GATEWAYS, gateway)], synced=True).routes
    assert not made.take([event(GATEWAYS, {**gateway, "status": {"x": 1}}, "MODIFIED")], synced=True).routes
    changed = {"metadata": {"name": "shop", "labels": {"a": "c"}}}
    assert made.take([event(NAMESPACES, changed, "MODIFIED")], synced=True).routes
    table, _, gateways = made.table()
    assert [frontend.public for frontend in table.frontends] == [80, 443, 80]
    assert ("shop", "front") in gateways.gateways
