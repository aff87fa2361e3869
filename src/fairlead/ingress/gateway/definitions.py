"""The CustomResourceDefinitions of Gateway API, as facts of structure: names, types, bounds and defaults. ◆ Pure.

Source: Gateway API v1.5, standard channel. For clusters that have none; where upstream's are installed, those are used.
Rules between fields are stated in our own words. Invariant: what upstream's definitions keep of an object, these keep.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fairlead.ingress.gateway.kinds import GROUP

Schema = dict[str, Any]

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_TOKEN = r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$"
_UNTIL = "1970-01-01T00:00:00Z"
_METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]
_CONTROLLER = rf"^{_SUBDOMAIN}\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$"


def _text(longest: int, pattern: str = "", shortest: int = 1, default: str | None = None) -> Schema:
    made: Schema = {"type": "string", "maxLength": longest}
    if shortest:
        made["minLength"] = shortest
    if pattern:
        made["pattern"] = pattern
    if default is not None:
        made["default"] = default
    return made


def _choice(*values: Any, default: Any = None) -> Schema:
    made: Schema = {"type": "integer" if isinstance(values[0], int) else "string", "enum": list(values)}
    return made if default is None else {**made, "default": default}


def _number(lowest: int, highest: int | None = None, default: int | None = None) -> Schema:
    made: Schema = {"type": "integer", "format": "int32", "minimum": lowest}
    if highest is not None:
        made["maximum"] = highest
    return made if default is None else {**made, "default": default}


def _object(required: str = "", rules: Iterable[tuple[str, str]] = (), /, **properties: Schema) -> Schema:
    made: Schema = {"type": "object", "properties": properties}
    if required:
        made["required"] = required.split()
    found = [{"rule": rule, "message": message} for rule, message in rules]
    return {**made, "x-kubernetes-validations": found} if found else made


def _list(items: Schema, most: int, least: int = 0, kind: str = "atomic", keys: str = "") -> Schema:
    made: Schema = {"type": "array", "items": items, "maxItems": most, "x-kubernetes-list-type": kind}
    if least:
        made["minItems"] = least
    if keys:
        made["x-kubernetes-list-map-keys"] = keys.split()
    return made


def _map(most: int, value: Schema) -> Schema:
    return {"type": "object", "maxProperties": most, "additionalProperties": value}


_NAME = _text(253)
_SECTION = _text(253, f"^{_SUBDOMAIN}$")
_NAMESPACE = _text(63, f"^{_LABEL}$")
_KIND = "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"
_GROUPS = f"^$|^{_SUBDOMAIN}$"
_PORT = _number(1, 65535)
_HOST = _text(253, rf"^(\*\.)?{_SUBDOMAIN}$")
_EXACT_HOST = _text(253, f"^{_SUBDOMAIN}$")
_DURATION = {"type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"}


def _group(default: str | None = None) -> Schema:
    return _text(253, _GROUPS, 0, default)


def _kind(default: str | None = None) -> Schema:
    return _text(63, _KIND, 1, default)


def _condition() -> Schema:
    return _object(
        "lastTransitionTime message reason status type",
        lastTransitionTime={"type": "string", "format": "date-time"},
        message=_text(32768, shortest=0),
        observedGeneration={"type": "integer", "format": "int64", "minimum": 0},
        reason=_text(1024, "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"),
        status=_choice("True", "False", "Unknown"),
        type=_text(316, shortest=0),
    )


def _conditions(*waiting: str, least: int = 0) -> Schema:
    made = _list(_condition(), 8, least, "map", "type")
    return {**made, "default": _waiting(waiting)} if waiting else made


def _waiting(types: Iterable[str]) -> list[dict[str, str]]:
    common = {"lastTransitionTime": _UNTIL, "message": "Waiting for controller", "reason": "Pending"}
    return [{**common, "status": "Unknown", "type": name} for name in types]


def _parent() -> Schema:
    return _object(
        "name",
        group=_group(GROUP),
        kind=_kind("Gateway"),
        name=_NAME,
        namespace=_NAMESPACE,
        port=_PORT,
        sectionName=_SECTION,
    )


def _route_status() -> Schema:
    entry = _object(
        "conditions controllerName parentRef",
        conditions=_conditions(least=1),
        controllerName=_text(253, _CONTROLLER),
        parentRef=_parent(),
    )
    return _object("parents", parents=_list(entry, 32))


def _header(longest: int = 4096) -> Schema:
    return _object("name value", name=_text(256, _TOKEN), value=_text(longest))


def _headers() -> Schema:
    return _object(
        add=_list(_header(), 16, kind="map", keys="name"),
        remove=_list({"type": "string"}, 16, kind="set"),
        set=_list(_header(), 16, kind="map", keys="name"),
    )


def _value_match(longest: int = 4096) -> Schema:
    made = _header(longest)
    made["properties"]["type"] = _choice("Exact", "RegularExpression", default="Exact")
    return _list(made, 16, kind="map", keys="name")


def _path_change() -> Schema:
    return _object(
        "type",
        [
            ("self.type != 'ReplaceFullPath' || has(self.replaceFullPath)", "ReplaceFullPath needs replaceFullPath"),
            (
                "self.type != 'ReplacePrefixMatch' || has(self.replacePrefixMatch)",
                "ReplacePrefixMatch needs replacePrefixMatch",
            ),
        ],
        replaceFullPath=_text(1024, shortest=0),
        replacePrefixMatch=_text(1024, shortest=0),
        type=_choice("ReplaceFullPath", "ReplacePrefixMatch"),
    )


def _service_ref() -> Schema:
    return _object(
        "name",
        [("self.kind != 'Service' || self.group != '' || has(self.port)", "a Service needs a port")],
        group=_group(""),
        kind=_kind("Service"),
        name=_NAME,
        namespace=_NAMESPACE,
        port=_PORT,
    )


_FIELD_OF = {
    "RequestHeaderModifier": "requestHeaderModifier",
    "ResponseHeaderModifier": "responseHeaderModifier",
    "RequestMirror": "requestMirror",
    "RequestRedirect": "requestRedirect",
    "URLRewrite": "urlRewrite",
    "CORS": "cors",
    "ExtensionRef": "extensionRef",
}


def _filters(*types: str) -> Schema:
    fields: dict[str, Schema] = {
        "requestHeaderModifier": _headers(),
        "responseHeaderModifier": _headers(),
        "requestMirror": _object(
            "backendRef",
            backendRef=_service_ref(),
            fraction=_object("numerator", denominator=_number(1, default=100), numerator=_number(0)),
            percent=_number(0, 100),
        ),
        "requestRedirect": _object(
            hostname=_EXACT_HOST,
            path=_path_change(),
            port=_PORT,
            scheme=_choice("http", "https"),
            statusCode=_choice(301, 302, 303, 307, 308, default=302),
        ),
        "urlRewrite": _object(hostname=_EXACT_HOST, path=_path_change()),
        "cors": _object(
            allowCredentials={"type": "boolean"},
            allowHeaders=_list(_text(256, _TOKEN), 64, kind="set"),
            allowMethods=_list(_choice(*_METHODS, "*"), 9, kind="set"),
            allowOrigins=_list(_text(253), 64, kind="set"),
            exposeHeaders=_list(_text(256, _TOKEN), 64, kind="set"),
            maxAge=_number(1, default=5),
        ),
        "extensionRef": _object("group kind name", group=_group(), kind=_kind(), name=_NAME),
    }
    own = {_FIELD_OF[name]: fields[_FIELD_OF[name]] for name in types}
    rules = [(f"(self.type == '{t}') == has(self.{_FIELD_OF[t]})", f"{_FIELD_OF[t]} goes with {t}") for t in types]
    return _list(_object("type", rules, type=_choice(*types), **own), 16)


def _backends(filters: Schema | None, least: int = 0) -> Schema:
    made = _service_ref()
    made["properties"]["weight"] = _number(0, 1_000_000, 1)
    if filters is not None:
        made["properties"]["filters"] = filters
    return _list(made, 16, least)


def _http_route() -> Schema:
    filters = _filters(*_FIELD_OF)
    everything = {"path": {"type": "PathPrefix", "value": "/"}}
    path = _object(
        "",
        [("self.type == 'RegularExpression' || self.value.startsWith('/')", "a path begins with /")],
        type=_choice("Exact", "PathPrefix", "RegularExpression", default="PathPrefix"),
        value=_text(1024, shortest=0, default="/"),
    )
    match = _object(
        headers=_value_match(),
        method=_choice(*_METHODS),
        path={**path, "default": everything["path"]},
        queryParams=_value_match(1024),
    )
    rule = _object(
        backendRefs=_backends(filters),
        filters=filters,
        matches={**_list(match, 64), "default": [everything]},
        name=_SECTION,
        timeouts=_object(backendRequest=_DURATION, request=_DURATION),
    )
    return _object(
        "",
        hostnames=_list(_HOST, 16),
        parentRefs=_list(_parent(), 32),
        rules={**_list(rule, 16, 1), "default": [{"matches": [everything]}]},
    )


def _grpc_route() -> Schema:
    filters = _filters("RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "ExtensionRef")
    method = _object(
        "",
        [("has(self.service) || has(self.method)", "service, method or both must be given")],
        method=_text(1024, shortest=0),
        service=_text(1024, shortest=0),
        type=_choice("Exact", "RegularExpression", default="Exact"),
    )
    rule = _object(
        backendRefs=_backends(filters),
        filters=filters,
        matches=_list(_object(headers=_value_match(), method=method), 64),
        name=_SECTION,
    )
    return _object("", hostnames=_list(_HOST, 16), parentRefs=_list(_parent(), 32), rules=_list(rule, 16))


def _tls_route() -> Schema:
    rule = _object("backendRefs", backendRefs=_backends(None, 1), name=_SECTION)
    return _object(
        "hostnames rules",
        hostnames=_list(_HOST, 1024, 1),
        parentRefs=_list(_parent(), 32),
        rules=_list(rule, 1, 1),
    )


def _selector() -> Schema:
    expression = _object(
        "key operator",
        key={"type": "string"},
        operator={"type": "string"},
        values={"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "atomic"},
    )
    expressions = {"type": "array", "items": expression, "x-kubernetes-list-type": "atomic"}
    labels = {"type": "object", "additionalProperties": {"type": "string"}}
    return {**_object(matchExpressions=expressions, matchLabels=labels), "x-kubernetes-map-type": "atomic"}


def _address(value: Schema) -> Schema:
    return _list(_object("", type=_text(253, default="IPAddress"), value=value), 16)


def _secret_ref() -> Schema:
    return _object("name", group=_group(""), kind=_kind("Secret"), name=_NAME, namespace=_NAMESPACE)


def _validation() -> Schema:
    ref = _object("group kind name", group=_group(), kind=_kind(), name=_NAME, namespace=_NAMESPACE)
    return _object(
        validation=_object(
            "caCertificateRefs",
            caCertificateRefs=_list(ref, 16, 1),
            mode=_choice("AllowValidOnly", "AllowInsecureFallback", default="AllowValidOnly"),
        )
    )


def _gateway() -> Schema:
    kind = _object("kind", group=_group(GROUP), kind=_kind())
    namespaces = _object("", {}, **{"from": _choice("All", "Selector", "Same", default="Same")}, selector=_selector())
    listener = _object(
        "name port protocol",
        [
            ("self.protocol in ['HTTPS', 'TLS'] || !has(self.tls)", "tls is for the protocols HTTPS and TLS"),
            ("self.protocol != 'HTTPS' || !has(self.tls) || self.tls.mode == 'Terminate'", "HTTPS is terminated here"),
            ("!(self.protocol in ['TCP', 'UDP']) || !has(self.hostname)", "TCP and UDP know no hostname"),
        ],
        allowedRoutes={
            **_object(kinds=_list(kind, 8), namespaces={**namespaces, "default": {"from": "Same"}}),
            "default": {"namespaces": {"from": "Same"}},
        },
        hostname=_HOST,
        name=_SECTION,
        port=_PORT,
        protocol=_text(255),
        tls=_object(
            certificateRefs=_list(_secret_ref(), 64),
            mode=_choice("Terminate", "Passthrough", default="Terminate"),
            options=_map(16, _text(4096, shortest=0)),
        ),
    )
    listener_sets = _object(
        "", {}, **{"from": _choice("All", "Selector", "Same", "None", default="None")}, selector=_selector()
    )
    return _object(
        "gatewayClassName listeners",
        addresses=_address(_text(253, shortest=0)),
        allowedListeners=_object(namespaces={**listener_sets, "default": {"from": "None"}}),
        gatewayClassName=_NAME,
        infrastructure=_object(
            annotations=_map(16, _text(4096, shortest=0)),
            labels=_map(8, _text(63, shortest=0)),
            parametersRef=_object("group kind name", group=_group(), kind=_kind(), name=_NAME),
        ),
        listeners=_list(listener, 64, 1, "map", "name"),
        tls=_object(
            backend=_object(clientCertificateRef=_secret_ref()),
            frontend=_object(
                "default",
                default=_validation(),
                perPort=_list(_object("port tls", port=_PORT, tls=_validation()), 64, kind="map", keys="port"),
            ),
        ),
    )


def _gateway_status() -> Schema:
    listener = _object(
        "attachedRoutes conditions name",
        attachedRoutes={"type": "integer", "format": "int32"},
        conditions=_conditions(),
        name=_SECTION,
        supportedKinds=_list(_object("kind", group=_group(GROUP), kind=_kind()), 8),
    )
    return _object(
        addresses=_address(_text(253)),
        attachedListenerSets={"type": "integer", "format": "int32"},
        conditions=_conditions("Accepted", "Programmed"),
        listeners=_list(listener, 64, kind="map", keys="name"),
    )


def _gateway_class() -> Schema:
    return _object(
        "controllerName",
        [("self.controllerName == oldSelf.controllerName", "controllerName can't be changed")],
        controllerName=_text(253, _CONTROLLER),
        description=_text(64, shortest=0),
        parametersRef=_object("group kind name", group=_group(), kind=_kind(), name=_NAME, namespace=_NAMESPACE),
    )


def _class_status() -> Schema:
    return _object(
        conditions=_conditions("Accepted"),
        supportedFeatures=_list(_object("name", name={"type": "string"}), 64, kind="map", keys="name"),
    )


def _reference_grant() -> Schema:
    source = _object("group kind namespace", group=_group(), kind=_kind(), namespace=_NAMESPACE)
    target = _object("group kind", group=_group(), kind=_kind(), name=_NAME)
    return _object("from to", {}, **{"from": _list(source, 16, 1)}, to=_list(target, 16, 1))


_AGE = ("Age", "date", ".metadata.creationTimestamp", 0)
_HOSTNAMES = ("Hostnames", "string", ".spec.hostnames", 0)


def definitions() -> list[dict[str, Any]]:
    """The six, as objects to be created."""
    accepted = '.status.conditions[?(@.type=="Accepted")].status'
    programmed = '.status.conditions[?(@.type=="Programmed")].status'
    return [
        _definition(
            "GatewayClass",
            "gatewayclasses",
            _gateway_class(),
            {**_class_status(), "default": {"conditions": _waiting(["Accepted"])}},
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
            {**_gateway_status(), "default": {"conditions": _waiting(["Accepted", "Programmed"])}},
            (
                ("Class", "string", ".spec.gatewayClassName", 0),
                ("Address", "string", ".status.addresses[*].value", 0),
                ("Programmed", "string", programmed, 0),
                _AGE,
            ),
            short="gtw",
            older="v1beta1",
        ),
        _definition("HTTPRoute", "httproutes", _http_route(), _route_status(), (_HOSTNAMES, _AGE), older="v1beta1"),
        _definition("GRPCRoute", "grpcroutes", _grpc_route(), _route_status(), (_HOSTNAMES, _AGE)),
        _definition("TLSRoute", "tlsroutes", _tls_route(), _route_status(), (_AGE,)),
        _definition(
            "ReferenceGrant", "referencegrants", _reference_grant(), None, (_AGE,), short="refgrant", older="v1beta1"
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
