"""Gateways and routes as the API gives them: defaults filled in and checked by their definitions."""

from __future__ import annotations

from typing import Any

import yaml

from fairlead.api.custom.crd import default_crd, validate_crd
from fairlead.api.custom.definition import Definition
from fairlead.discovery.model import ServiceSnapshot
from fairlead.ingress.gateway.definitions import definitions
from fairlead.ingress.gateway.gateways import CompiledGateways, GatewayObjects, compile_gateways
from fairlead.ingress.ingresses import PemOf
from fairlead.ingress.table import Frontend
from tests.unit.ingress.worlds import SERVED, goes_to, no_secret

Object = dict[str, Any]

__all__ = ["default_crd", "goes_to", "validate_crd"]


def schemas() -> dict[str, Definition]:
    """The definitions, by kind."""
    return {crd["spec"]["names"]["kind"]: Definition(crd, crd["spec"]["versions"][0]) for crd in definitions()}


SCHEMAS = schemas()
PUBLISH: Object = {
    "metadata": {"name": "fairlead-ingress", "namespace": "kube-system"},
    "spec": {"type": "LoadBalancer", "selector": {"app": "ingress"}},
}
CLASS: Object = {"metadata": {"name": "fairlead"}, "spec": {"controllerName": "fairlead.dev/gateway"}}


def read(text: str) -> list[Object]:
    """Documents as objects, with what the API server would fill in: namespace shop, an age by their order."""
    found = []
    for index, obj in enumerate(filter(None, yaml.safe_load_all(text))):
        metadata = {
            "namespace": "shop",
            "creationTimestamp": f"2026-01-01T00:00:{index:02}Z",
            "generation": 1,
            **obj["metadata"],
        }
        made = {**obj, "apiVersion": "gateway.networking.k8s.io/v1", "metadata": metadata}
        definition = SCHEMAS[obj["kind"]]
        definition.default(made)
        assert definition.check(made) == [], definition.check(made)
        found.append(made)
    return found


def compiled(
    text: str,
    services: ServiceSnapshot = SERVED,
    secrets: PemOf = no_secret,
    authorities: PemOf = no_secret,
    labels: dict[str, dict[str, str]] | None = None,
) -> CompiledGateways:
    """What these documents make."""
    objects = GatewayObjects(classes={"fairlead": CLASS}, labels=labels or {}, publish=PUBLISH)
    for obj in read(text):
        key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
        if obj["kind"] == "Gateway":
            objects.gateways[key] = obj
        elif obj["kind"] == "ReferenceGrant":
            objects.grants[key] = obj
        elif obj["kind"] == "BackendTLSPolicy":
            objects.policies[key] = obj
        elif obj["kind"] == "GatewayClass":
            objects.classes[obj["metadata"]["name"]] = obj
        else:
            objects.routes.setdefault(obj["kind"], {})[key] = obj
    return compile_gateways(objects, secrets, authorities, services, (80, 443))


def port(found: CompiledGateways, public: int = 80) -> Frontend:
    """The port that clients see under this number."""
    (frontend,) = [f for f in found.frontends if f.public == public]
    return frontend


def said(found: CompiledGateways, kind: str, name: str, parent: int = 0) -> dict[str, str]:
    """What a route's status says of a parentRef: reasons by condition."""
    conditions = found.routes[kind, "shop", name][parent][1]
    return {c.type: c.reason if c.holds else f"not {c.reason}" for c in conditions}


def gateway_said(found: CompiledGateways, name: str = "front") -> dict[str, str]:
    """What a Gateway's status says."""
    return {c.type: c.reason if c.holds else f"not {c.reason}" for c in found.gateways["shop", name].conditions}


def listener_said(found: CompiledGateways, listener: str, name: str = "front") -> dict[str, str]:
    """What its status says of a listener."""
    (one,) = [entry for entry in found.gateways["shop", name].listeners if entry.name == listener]
    return {c.type: c.reason if c.holds else f"not {c.reason}" for c in one.conditions}
