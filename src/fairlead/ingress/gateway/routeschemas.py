"""The schemas of HTTPRoute, GRPCRoute and TLSRoute. ◆ Pure. Source: Gateway API v1.5, standard channel."""

from __future__ import annotations

from fairlead.ingress.gateway import schemas as s
from fairlead.ingress.gateway.kinds import GROUP
from fairlead.ingress.gateway.schemas import Schema


def parent() -> Schema:
    """What a route attaches to."""
    return s.structure(
        "name",
        group=s.group(GROUP),
        kind=s.kind("Gateway"),
        name=s.NAME,
        namespace=s.NAMESPACE,
        port=s.PORT,
        sectionName=s.SECTION,
    )


def route_status() -> Schema:
    """The status of every kind of route."""
    entry = s.structure(
        "conditions controllerName parentRef",
        conditions=s.conditions(least=1),
        controllerName=s.text(253, s.CONTROLLER),
        parentRef=parent(),
    )
    return s.structure("parents", parents=s.array(entry, 32))


def _header(longest: int = 4096) -> Schema:
    return s.structure("name value", name=s.text(256, s.TOKEN), value=s.text(longest))


def _headers() -> Schema:
    return s.structure(
        add=s.array(_header(), 16, kind="map", keys="name"),
        remove=s.array({"type": "string"}, 16, kind="set"),
        set=s.array(_header(), 16, kind="map", keys="name"),
    )


def _value_match(longest: int = 4096) -> Schema:
    made = _header(longest)
    made["properties"]["type"] = s.choice("Exact", "RegularExpression", default="Exact")
    return s.array(made, 16, kind="map", keys="name")


def _path_change() -> Schema:
    return s.structure(
        "type",
        [
            ("self.type != 'ReplaceFullPath' || has(self.replaceFullPath)", "ReplaceFullPath needs replaceFullPath"),
            (
                "self.type != 'ReplacePrefixMatch' || has(self.replacePrefixMatch)",
                "ReplacePrefixMatch needs replacePrefixMatch",
            ),
        ],
        replaceFullPath=s.text(1024, shortest=0),
        replacePrefixMatch=s.text(1024, shortest=0),
        type=s.choice("ReplaceFullPath", "ReplacePrefixMatch"),
    )


def _service_ref() -> Schema:
    return s.structure(
        "name",
        [("self.kind != 'Service' || self.group != '' || has(self.port)", "a Service needs a port")],
        group=s.group(""),
        kind=s.kind("Service"),
        name=s.NAME,
        namespace=s.NAMESPACE,
        port=s.PORT,
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
        "requestMirror": s.structure(
            "backendRef",
            [("!(has(self.percent) && has(self.fraction))", "percent and fraction are two ways to say one thing")],
            backendRef=_service_ref(),
            fraction=s.structure("numerator", denominator=s.number(1, default=100), numerator=s.number(0)),
            percent=s.number(0, 100),
        ),
        "requestRedirect": s.structure(
            hostname=s.EXACT_HOST,
            path=_path_change(),
            port=s.PORT,
            scheme=s.choice("http", "https"),
            statusCode=s.choice(301, 302, 303, 307, 308, default=302),
        ),
        "urlRewrite": s.structure(hostname=s.EXACT_HOST, path=_path_change()),
        "cors": s.structure(
            allowCredentials={"type": "boolean"},
            allowHeaders=s.array(s.text(256, s.TOKEN), 64, kind="set"),
            allowMethods=s.array(s.choice(*s.METHODS, "*"), 9, kind="set"),
            allowOrigins=s.array(s.text(253), 64, kind="set"),
            exposeHeaders=s.array(s.text(256, s.TOKEN), 64, kind="set"),
            maxAge=s.number(1, default=5),
        ),
        "extensionRef": s.structure("group kind name", group=s.group(), kind=s.kind(), name=s.NAME),
    }
    own = {_FIELD_OF[name]: fields[_FIELD_OF[name]] for name in types}
    rules = [(f"(self.type == '{t}') == has(self.{_FIELD_OF[t]})", f"{_FIELD_OF[t]} goes with {t}") for t in types]
    return s.array(s.structure("type", rules, type=s.choice(*types), **own), 16)


def _backends(filters: Schema | None, least: int = 0) -> Schema:
    made = _service_ref()
    made["properties"]["weight"] = s.number(0, 1_000_000, 1)
    if filters is not None:
        made["properties"]["filters"] = filters
    return s.array(made, 16, least)


def http_route() -> Schema:
    """The spec of an HTTPRoute."""
    filters = _filters(*_FIELD_OF)
    everything = {"path": {"type": "PathPrefix", "value": "/"}}
    path = s.structure(
        "",
        [("self.type == 'RegularExpression' || self.value.startsWith('/')", "a path begins with /")],
        type=s.choice("Exact", "PathPrefix", "RegularExpression", default="PathPrefix"),
        value=s.text(1024, shortest=0, default="/"),
    )
    match = s.structure(
        headers=_value_match(),
        method=s.choice(*s.METHODS),
        path={**path, "default": everything["path"]},
        queryParams=_value_match(1024),
    )
    rule = s.structure(
        backendRefs=_backends(filters),
        filters=filters,
        matches={**s.array(match, 64), "default": [everything]},
        name=s.SECTION,
        timeouts=s.structure(backendRequest=s.DURATION, request=s.DURATION),
    )
    return s.structure(
        "",
        hostnames=s.array(s.HOST, 16),
        parentRefs=s.array(parent(), 32),
        rules={**s.array(rule, 16, 1), "default": [{"matches": [everything]}]},
    )


def grpc_route() -> Schema:
    """The spec of a GRPCRoute."""
    filters = _filters("RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "ExtensionRef")
    method = s.structure(
        "",
        [("has(self.service) || has(self.method)", "service, method or both must be given")],
        method=s.text(1024, shortest=0),
        service=s.text(1024, shortest=0),
        type=s.choice("Exact", "RegularExpression", default="Exact"),
    )
    rule = s.structure(
        backendRefs=_backends(filters),
        filters=filters,
        matches=s.array(s.structure(headers=_value_match(), method=method), 64),
        name=s.SECTION,
    )
    return s.structure("", hostnames=s.array(s.HOST, 16), parentRefs=s.array(parent(), 32), rules=s.array(rule, 16))


def tls_route() -> Schema:
    """The spec of a TLSRoute."""
    rule = s.structure("backendRefs", backendRefs=_backends(None, 1), name=s.SECTION)
    return s.structure(
        "hostnames rules",
        hostnames=s.array(s.HOST, 1024, 1),
        parentRefs=s.array(parent(), 32),
        rules=s.array(rule, 1, 1),
    )
