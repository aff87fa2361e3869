"""The CustomResourceDefinitions of Gateway API, as facts of structure: names, types, bounds and defaults. ◆ Pure.

Source: Gateway API v1.5, standard channel. For clusters that have none; where upstream's are installed, those are used.
Rules between fields are stated in our own words. Invariant: what upstream's definitions keep of an object, these keep.
"""

from __future__ import annotations

from typing import Any

from fairlead.ingress.gateway import routeschemas as routes
from fairlead.ingress.gateway import schemas as s
from fairlead.ingress.gateway.kinds import GROUP
from fairlead.ingress.gateway.schemas import Schema


def _selector() -> Schema:
    expression = s.structure(
        "key operator",
        key={"type": "string"},
        operator={"type": "string"},
        values={"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "atomic"},
    )
    expressions = {"type": "array", "items": expression, "x-kubernetes-list-type": "atomic"}
    labels = {"type": "object", "additionalProperties": {"type": "string"}}
    return {**s.structure(matchExpressions=expressions, matchLabels=labels), "x-kubernetes-map-type": "atomic"}


def _address(value: Schema) -> Schema:
    return s.array(s.structure("", type=s.text(253, default="IPAddress"), value=value), 16)


def _secret_ref() -> Schema:
    return s.structure("name", group=s.group(""), kind=s.kind("Secret"), name=s.NAME, namespace=s.NAMESPACE)


def _validation() -> Schema:
    ref = s.structure("group kind name", group=s.group(), kind=s.kind(), name=s.NAME, namespace=s.NAMESPACE)
    return s.structure(
        validation=s.structure(
            "caCertificateRefs",
            caCertificateRefs=s.array(ref, 16, 1),
            mode=s.choice("AllowValidOnly", "AllowInsecureFallback", default="AllowValidOnly"),
        )
    )


def _gateway() -> Schema:
    kind = s.structure("kind", group=s.group(GROUP), kind=s.kind())
    namespaces = s.structure(
        "", {}, **{"from": s.choice("All", "Selector", "Same", default="Same")}, selector=_selector()
    )
    listener = s.structure(
        "name port protocol",
        [
            ("self.protocol in ['HTTPS', 'TLS'] || !has(self.tls)", "tls is for the protocols HTTPS and TLS"),
            ("self.protocol != 'HTTPS' || !has(self.tls) || self.tls.mode == 'Terminate'", "HTTPS is terminated here"),
            ("!(self.protocol in ['TCP', 'UDP']) || !has(self.hostname)", "TCP and UDP know no hostname"),
        ],
        allowedRoutes={
            **s.structure(kinds=s.array(kind, 8), namespaces={**namespaces, "default": {"from": "Same"}}),
            "default": {"namespaces": {"from": "Same"}},
        },
        hostname=s.HOST,
        name=s.SECTION,
        port=s.PORT,
        protocol=s.text(255),
        tls=s.structure(
            certificateRefs=s.array(_secret_ref(), 64),
            mode=s.choice("Terminate", "Passthrough", default="Terminate"),
            options=s.mapping(16, s.text(4096, shortest=0)),
        ),
    )
    listener_sets = s.structure(
        "", {}, **{"from": s.choice("All", "Selector", "Same", "None", default="None")}, selector=_selector()
    )
    return s.structure(
        "gatewayClassName listeners",
        addresses=_address(s.text(253, shortest=0)),
        allowedListeners=s.structure(namespaces={**listener_sets, "default": {"from": "None"}}),
        gatewayClassName=s.NAME,
        infrastructure=s.structure(
            annotations=s.mapping(16, s.text(4096, shortest=0)),
            labels=s.mapping(8, s.text(63, shortest=0)),
            parametersRef=s.structure("group kind name", group=s.group(), kind=s.kind(), name=s.NAME),
        ),
        listeners=s.array(listener, 64, 1, "map", "name"),
        tls=s.structure(
            backend=s.structure(clientCertificateRef=_secret_ref()),
            frontend=s.structure(
                "default",
                default=_validation(),
                perPort=s.array(s.structure("port tls", port=s.PORT, tls=_validation()), 64, kind="map", keys="port"),
            ),
        ),
    )


def _gateway_status() -> Schema:
    listener = s.structure(
        "attachedRoutes conditions name",
        attachedRoutes={"type": "integer", "format": "int32"},
        conditions=s.conditions(),
        name=s.SECTION,
        supportedKinds=s.array(s.structure("kind", group=s.group(GROUP), kind=s.kind()), 8),
    )
    return s.structure(
        addresses=_address(s.text(253)),
        attachedListenerSets={"type": "integer", "format": "int32"},
        conditions=s.conditions("Accepted", "Programmed"),
        listeners=s.array(listener, 64, kind="map", keys="name"),
    )


def _gateway_class() -> Schema:
    return s.structure(
        "controllerName",
        [("self.controllerName == oldSelf.controllerName", "controllerName can't be changed")],
        controllerName=s.text(253, s.CONTROLLER),
        description=s.text(64, shortest=0),
        parametersRef=s.structure(
            "group kind name", group=s.group(), kind=s.kind(), name=s.NAME, namespace=s.NAMESPACE
        ),
    )


def _class_status() -> Schema:
    return s.structure(
        conditions=s.conditions("Accepted"),
        supportedFeatures=s.array(s.structure("name", name={"type": "string"}), 64, kind="map", keys="name"),
    )


def _reference_grant() -> Schema:
    source = s.structure("group kind namespace", group=s.group(), kind=s.kind(), namespace=s.NAMESPACE)
    target = s.structure("group kind", group=s.group(), kind=s.kind(), name=s.NAME)
    return s.structure("from to", {}, **{"from": s.array(source, 16, 1)}, to=s.array(target, 16, 1))


def _backend_tls_policy() -> Schema:
    local = {"group": s.group(), "kind": s.kind(), "name": s.NAME}
    name = s.structure(
        "type",
        [
            ("(self.type == 'Hostname') == has(self.hostname)", "hostname goes with Hostname"),
            ("(self.type == 'URI') == has(self.uri)", "uri goes with URI"),
        ],
        hostname=s.HOST,
        type=s.choice("Hostname", "URI"),
        uri=s.text(253, "^[a-zA-Z][a-zA-Z0-9+.-]*:.+$"),
    )
    validation = s.structure(
        "hostname",
        [
            (
                "(has(self.caCertificateRefs) && size(self.caCertificateRefs) > 0)"
                " != has(self.wellKnownCACertificates)",
                "give either caCertificateRefs or wellKnownCACertificates",
            )
        ],
        caCertificateRefs=s.array(s.structure("group kind name", **local), 8),
        hostname=s.EXACT_HOST,
        subjectAltNames=s.array(name, 5),
        wellKnownCACertificates=s.choice("System"),
    )
    return s.structure(
        "targetRefs validation",
        options=s.mapping(16, s.text(4096, shortest=0)),
        targetRefs=s.array(s.structure("group kind name", **local, sectionName=s.SECTION), 16, 1),
        validation=validation,
    )


def _policy_status() -> Schema:
    entry = s.structure(
        "ancestorRef conditions controllerName",
        ancestorRef=routes.parent(),
        conditions=s.conditions(least=1),
        controllerName=s.text(253, s.CONTROLLER),
    )
    return s.structure("ancestors", ancestors=s.array(entry, 16))


_AGE = ("Age", "date", ".metadata.creationTimestamp", 0)
_HOSTNAMES = ("Hostnames", "string", ".spec.hostnames", 0)


def definitions() -> list[dict[str, Any]]:
    """All of them, as objects to be created."""
    accepted = '.status.conditions[?(@.type=="Accepted")].status'
    programmed = '.status.conditions[?(@.type=="Programmed")].status'
    return [
        _definition(
            "GatewayClass",
            "gatewayclasses",
            _gateway_class(),
            {**_class_status(), "default": {"conditions": s.waiting(["Accepted"])}},
            (
                ("Controller", "string", ".spec.controllerName", 0),
                ("Accepted", "string", accepted, 0),
                _AGE,
                ("Description", "string", ".spec.description", 1),
            ),
            short="gc",
            older="v1beta1",
            scope="Cluster",
        ),
        _definition(
            "Gateway",
            "gateways",
            _gateway(),
            {**_gateway_status(), "default": {"conditions": s.waiting(["Accepted", "Programmed"])}},
            (
                ("Class", "string", ".spec.gatewayClassName", 0),
                ("Address", "string", ".status.addresses[*].value", 0),
                ("Programmed", "string", programmed, 0),
                _AGE,
            ),
            short="gtw",
            older="v1beta1",
        ),
        _definition(
            "HTTPRoute", "httproutes", routes.http_route(), routes.route_status(), (_HOSTNAMES, _AGE), older="v1beta1"
        ),
        _definition("GRPCRoute", "grpcroutes", routes.grpc_route(), routes.route_status(), (_HOSTNAMES, _AGE)),
        _definition("TLSRoute", "tlsroutes", routes.tls_route(), routes.route_status(), (_AGE,)),
        _definition(
            "ReferenceGrant", "referencegrants", _reference_grant(), None, (_AGE,), short="refgrant", older="v1beta1"
        ),
        _definition(
            "BackendTLSPolicy",
            "backendtlspolicies",
            _backend_tls_policy(),
            _policy_status(),
            (_AGE,),
            short="btlspolicy",
            labels={f"{GROUP}/policy": "Direct"},
        ),
    ]


def _definition(
    kind: str,
    plural: str,
    spec: Schema,
    status: Schema | None,
    columns: tuple[tuple[str, str, str, int], ...],
    *,
    short: str = "",
    older: str = "",
    scope: str = "Namespaced",
    labels: dict[str, str] | None = None,
) -> dict[str, Any]:
    anything = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
    schema = {"type": "object", "required": ["spec"], "properties": {**anything, "spec": spec}}
    printed = [
        {"name": name, "type": type_, "jsonPath": path, **({"priority": priority} if priority else {})}
        for name, type_, path, priority in columns
    ]
    if status is not None:
        schema["properties"] = {**schema["properties"], "status": status}  # type: ignore[dict-item]
    versions = []
    for name in ("v1", *((older,) if older else ())):
        version: dict[str, Any] = {
            "name": name,
            "served": True,
            "storage": name == "v1",
            "additionalPrinterColumns": printed,
            "schema": {"openAPIV3Schema": schema},
        }
        if status is not None:
            version["subresources"] = {"status": {}}
        versions.append(version)
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GROUP}",
            **({"labels": labels} if labels else {}),
            "annotations": {
                "api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api",
                f"{GROUP}/bundle-version": "v1.5.0",
                f"{GROUP}/channel": "standard",
            },
        },
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": {**names, "categories": ["gateway-api"], **({"shortNames": [short]} if short else {})},
            "versions": versions,
        },
    }
