"""Gateways, listeners and what attaches to them: routing, isolation, references, and the conditions that say so."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.discovery.model import ServiceKey
from fairlead.ingress.gateway.conditions import Condition, render, route_status
from fairlead.ingress.gateway.definitions import definitions
from fairlead.ingress.gateway.gateways import differs
from fairlead.ingress.gateway.kinds import served
from fairlead.ingress.table import ANY, decide
from tests.unit.ingress.gateways import (
    compiled,
    default_crd,
    gateway_said,
    goes_to,
    listener_said,
    port,
    read,
    said,
    validate_crd,
)
from tests.unit.ingress.worlds import SERVED, service, snapshot

FRONT = """
kind: Gateway
metadata: {name: front}
spec: {gatewayClassName: fairlead, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
"""


def route(rules: str, name: str = "r", more: str = "") -> str:
    """An HTTPRoute on the Gateway `front`."""
    return (
        f"---\nkind: HTTPRoute\nmetadata: {{name: {name}}}\nspec: {{parentRefs: [{{name: front}}], {more} {rules}}}\n"
    )


def to(name: str) -> str:
    return f"backendRefs: [{{name: {name}, port: 80}}]"


def test_the_definitions_are_what_the_api_takes() -> None:
    """Structural, with rules that parse; two versions where upstream has two."""
    for crd in definitions():
        default_crd(crd)
        assert validate_crd(crd) == [], crd["metadata"]["name"]
    versions = {crd["spec"]["names"]["kind"]: [v["name"] for v in crd["spec"]["versions"]] for crd in definitions()}
    assert versions["Gateway"] == ["v1", "v1beta1"] and versions["TLSRoute"] == ["v1"]


@pytest.mark.parametrize(
    ("found", "kinds"),
    [
        ([], []),
        ([("v1", "httproutes")], []),
        ([("v1", "gateways"), ("v1beta1", "gateways"), ("v1", "gatewayclasses")], ["v1 gatewayclasses", "v1 gateways"]),
        (
            [("v1", "gateways"), ("v1", "gatewayclasses"), ("v1beta1", "referencegrants")],
            ["v1 gatewayclasses", "v1 gateways", "v1beta1 referencegrants"],
        ),
    ],
)
def test_which_kinds_are_followed(found: list[tuple[str, str]], kinds: list[str]) -> None:
    """Those that the cluster has, in the newest version; none without Gateways."""
    assert [f"{kind.version} {kind.plural}" for kind in served(found)] == kinds


def test_a_route_without_anything_takes_everything() -> None:
    """Its one rule has the match that is the default; without backends it is a 500."""
    found = compiled(FRONT + route("rules: [{}]"))
    assert goes_to(port(found), "any.test/x") == "500"
    assert gateway_said(found) == {"Accepted": "Accepted", "Programmed": "not AddressNotAssigned"}
    assert said(found, "HTTPRoute", "r") == {"Accepted": "Accepted", "ResolvedRefs": "ResolvedRefs"}


def when(match: str, name: str) -> str:
    """A rule of one match."""
    return f"{{matches: [{match}], {to(name)}}}"


MATCHES = [
    when("{path: {value: /}}", "fallback"),
    when("{path: {value: /a}, method: POST}", "api"),
    when("{path: {value: /a}, headers: [{name: X-V, value: '2'}]}", "static"),
    when("{path: {value: /a}, queryParams: [{name: q, value: 'x.*', type: RegularExpression}]}", "admin"),
    when("{path: {type: Exact, value: /a/b}}, {path: {type: RegularExpression, value: '/r/[0-9]+'}}", "web"),
]


@pytest.mark.parametrize(
    ("path", "given", "expected"),
    [
        ("/", {}, "fallback"),
        ("/a", {}, "fallback"),
        ("/a", {"method": "POST"}, "api"),
        ("/a", {"method": "POST", "headers": {"x-v": "2"}}, "api"),
        ("/a/c", {"headers": {"x-v": "2"}}, "static"),
        ("/a", {"headers": {"x-v": "2"}, "params": {"q": "xy"}}, "static"),
        ("/a", {"params": {"q": "xy"}}, "admin"),
        ("/a", {"params": {"q": "yx"}}, "fallback"),
        ("/a/b", {"method": "POST"}, "web"),
        ("/a/b/", {}, "fallback"),
        ("/r/12", {}, "web"),
        ("/r/12/x", {}, "fallback"),
        ("/ab", {"method": "POST"}, "fallback"),
    ],
)
def test_matches_and_their_precedence(path: str, given: dict[str, Any], expected: str) -> None:
    """Exact, expressions, the longest prefix; then method, headers, parameters, whatever order they stand in."""
    assert (
        goes_to(port(compiled(FRONT + route(f"rules: [{', '.join(MATCHES)}]"))), f"a.test{path}", **given) == expected
    )


def test_of_routes_that_match_alike_the_oldest_answers() -> None:
    """Then by name; within a route the first rule."""
    one, two = (
        route(f"rules: [{{{to('web')}}}, {{{to('admin')}}}]", "z-old"),
        route(f"rules: [{{{to('api')}}}]", "a-new"),
    )
    assert goes_to(port(compiled(FRONT + one + two)), "a.test/") == "web"


def test_hostnames_of_listeners_and_routes() -> None:
    """Each listener serves the names that both have; `*.` stands for any number of labels."""
    gateway = """
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: fairlead
  listeners:
  - {name: exact, port: 80, protocol: HTTP, hostname: very.specific.test}
  - {name: wild, port: 80, protocol: HTTP, hostname: '*.wild.test'}
"""
    names = "hostnames: [very.specific.test, '*.wild.test', 'x.y.wild.test', other.test],"
    found = compiled(gateway + route(f"rules: [{{{to('web')}}}]", more=names))
    asked = ("very.specific.test", "a.wild.test", "b.a.wild.test", "wild.test", "other.test")
    assert [goes_to(port(found), f"{host}/") for host in asked] == ["web", "web", "web", "404", "404"]
    assert [entry.attached for entry in found.gateways["shop", "front"].listeners] == [1, 1]


def test_listeners_are_isolated() -> None:
    """A name belongs to the narrowest listener: a wider one's routes never see it, even if the narrow one has none."""
    gateway = """
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: fairlead
  listeners:
  - {name: all, port: 80, protocol: HTTP}
  - {name: wild, port: 80, protocol: HTTP, hostname: '*.a.test'}
  - {name: narrow, port: 80, protocol: HTTP, hostname: x.a.test}
"""

    def of(listener: str, name: str, path: str, more: str = "") -> str:
        rules = f"rules: [{{matches: [{{path: {{value: {path}}}}}], {to(name)}}}]"
        parents = f"parentRefs: [{{name: front, sectionName: {listener}}}]"
        return f"---\nkind: HTTPRoute\nmetadata: {{name: {listener}}}\nspec: {{{parents}, {more} {rules}}}\n"

    found = compiled(gateway + of("all", "fallback", "/") + of("wild", "web", "/wild") + of("narrow", "api", "/narrow"))
    answers = {url: goes_to(port(found), url) for url in ("q.test/", "y.a.test/wild", "y.a.test/", "x.a.test/wild")}
    assert answers == {"q.test/": "fallback", "y.a.test/wild": "web", "y.a.test/": "404", "x.a.test/wild": "404"}
    taken = compiled(gateway + of("all", "fallback", "/", "hostnames: [x.a.test, z.test],"))
    assert [goes_to(port(taken), f"{host}/") for host in ("x.a.test", "z.test")] == ["404", "fallback"]


NOT_ATTACHED = [
    ("parentRefs: [{name: front, sectionName: nope}],", "not NoMatchingParent"),
    ("parentRefs: [{name: front, port: 81}],", "not NoMatchingParent"),
    ("parentRefs: [{name: front, sectionName: elsewhere}],", "not NotAllowedByListeners"),
    ("parentRefs: [{name: front, sectionName: grpc}],", "not NotAllowedByListeners"),
    ("parentRefs: [{name: front, sectionName: named}], hostnames: [b.test],", "not NoMatchingListenerHostname"),
    ("parentRefs: [{name: front, sectionName: named}],", "Accepted"),
]


@pytest.mark.parametrize(("spec", "accepted"), NOT_ATTACHED)
def test_what_may_attach(spec: str, accepted: str) -> None:
    """By name, port, namespace, kind and hostname; the reason says which it was."""
    gateway = """
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: fairlead
  listeners:
  - {name: named, port: 80, protocol: HTTP, hostname: a.test}
  - name: elsewhere
    port: 82
    protocol: HTTP
    allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: b}}}}
  - {name: grpc, port: 83, protocol: HTTP, allowedRoutes: {kinds: [{kind: GRPCRoute}]}}
"""
    text = f"---\nkind: HTTPRoute\nmetadata: {{name: r}}\nspec: {{{spec} rules: [{{{to('web')}}}]}}\n"
    assert said(compiled(gateway + text, labels={"shop": {"team": "a"}}), "HTTPRoute", "r")["Accepted"] == accepted


def test_namespaces_by_label() -> None:
    """A route of a namespace with the label attaches to a Gateway elsewhere; its name is counted once."""
    gateway = """
kind: Gateway
metadata: {name: front, namespace: infra}
spec:
  gatewayClassName: fairlead
  listeners:
  - name: http
    port: 80
    protocol: HTTP
    allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}
"""
    text = f"""---
kind: HTTPRoute
metadata: {{name: r}}
spec: {{parentRefs: [{{name: front, namespace: infra}}], rules: [{{{to("web")}}}]}}
"""
    found = compiled(gateway + text, labels={"shop": {"team": "a"}})
    assert goes_to(port(found), "a.test/") == "web"
    assert found.gateways["infra", "front"].listeners[0].attached == 1
    assert compiled(gateway + text).gateways["infra", "front"].listeners[0].attached == 0


BACKENDS = [
    ("{name: nope, port: 80}", "not BackendNotFound"),
    ("{name: web, port: 81}", "not BackendNotFound"),
    ("{name: web, port: 80, kind: Bucket, group: x.test}", "not InvalidKind"),
    ("{name: web, namespace: other, port: 80}", "not RefNotPermitted"),
]


@pytest.mark.parametrize(("ref", "resolved"), BACKENDS)
def test_backends_that_are_not_found(ref: str, resolved: str) -> None:
    """The route is accepted, says what is missing, and answers 500 for its share."""
    found = compiled(FRONT + route(f"rules: [{{backendRefs: [{ref}, {{name: api, port: 80, weight: 3}}]}}]"))
    assert said(found, "HTTPRoute", "r") == {"Accepted": "Accepted", "ResolvedRefs": resolved}
    route_ = port(found).hosts[0].routes[0]
    assert [(weight, s.status or s.service) for weight, s in route_.destinations] == [
        (1, 500),
        (3, ServiceKey("shop", "api")),
    ]


GRANT = """---
kind: ReferenceGrant
metadata: {{name: g, namespace: other}}
spec:
  from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: shop}}]
  to: [{{group: '', kind: {to}{name}}}]
"""


@pytest.mark.parametrize(
    ("kind", "name", "granted"),
    [("HTTPRoute", "", True), ("HTTPRoute", "far", True), ("HTTPRoute", "x", False), ("TLSRoute", "", False)],
)
def test_grants(kind: str, name: str, granted: bool) -> None:
    """A Service elsewhere is reached where a ReferenceGrant there says so, for that kind and name only."""
    services = snapshot(service("far", namespace="other"), service("web"))
    grant = GRANT.format(kind=kind, to="Service", name=f", name: {name}" if name else "")
    rules = "rules: [{backendRefs: [{name: far, namespace: other, port: 80}]}]"
    found = compiled(FRONT + route(rules) + grant, services=services)
    assert goes_to(port(found), "a.test/") == ("far" if granted else "500")


HTTPS = """
kind: Gateway
metadata: {{name: front}}
spec:
  gatewayClassName: fairlead
  listeners:
  - name: safe
    port: 443
    protocol: HTTPS
    hostname: a.test
    tls: {{certificateRefs: [{ref}]}}
"""


def _secrets(namespace: str, name: str) -> tuple[str, str]:
    return (f"PEM {name}", "") if name == "good" else ("", "is not there")


@pytest.mark.parametrize(
    ("ref", "resolved"),
    [
        ("{name: good}", "ResolvedRefs"),
        ("{name: bad}", "not InvalidCertificateRef"),
        ("{name: good, kind: ConfigMap}", "not InvalidCertificateRef"),
        ("{name: good, namespace: other}", "not RefNotPermitted"),
    ],
)
def test_certificates(ref: str, resolved: str) -> None:
    """A listener of HTTPS serves once its Secret is good and permitted; the Gateway says which listeners do not."""
    found = compiled(HTTPS.format(ref=ref) + route(f"rules: [{{{to('web')}}}]"), secrets=_secrets)
    assert listener_said(found, "safe")["ResolvedRefs"] == resolved
    good = resolved == "ResolvedRefs"
    assert listener_said(found, "safe")["Programmed"] == ("Programmed" if good else "not Invalid")
    assert gateway_said(found)["Accepted"] == ("Accepted" if good else "not ListenersNotValid")
    assert [(f.tls, f.strict, [c.names for c in f.certificates]) for f in found.frontends] == (
        [(True, True, [("a.test",)])] if good else []
    )


def test_a_certificate_elsewhere_that_is_granted() -> None:
    """By a ReferenceGrant from Gateways to Secrets."""
    grant = GRANT.format(kind="Gateway", to="Secret", name="")
    found = compiled(HTTPS.format(ref="{name: good, namespace: other}") + grant, secrets=_secrets)
    assert listener_said(found, "safe")["ResolvedRefs"] == "ResolvedRefs"


LISTENERS = [
    (
        "{name: x, port: 80, protocol: HTTP}, {name: y, port: 80, protocol: HTTP}",
        "not HostnameConflict",
        "HostnameConflict",
    ),
    (
        "{name: x, port: 80, protocol: HTTP}, {name: y, port: 80, protocol: TLS, tls: {mode: Passthrough}}",
        "not ProtocolConflict",
        "ProtocolConflict",
    ),
    ("{name: x, port: 80, protocol: TCP}", "not UnsupportedProtocol", "not NoConflicts"),
    (
        "{name: x, port: 80, protocol: TLS, tls: {certificateRefs: [{name: good}]}}",
        "not UnsupportedProtocol",
        "not NoConflicts",
    ),
]


@pytest.mark.parametrize(("listeners", "accepted", "conflicted"), LISTENERS)
def test_listeners_that_are_not_served(listeners: str, accepted: str, conflicted: str) -> None:
    """What two claim, and protocols that are not served; others of the same Gateway are."""
    fine = "{name: fine, port: 90, protocol: HTTP}"
    spec = f"{{gatewayClassName: fairlead, listeners: [{listeners}, {fine}]}}"
    text = f"kind: Gateway\nmetadata: {{name: front}}\nspec: {spec}"
    found = compiled(text, secrets=_secrets)
    assert (listener_said(found, "x")["Accepted"], listener_said(found, "x")["Conflicted"]) == (accepted, conflicted)
    assert listener_said(found, "fine")["Programmed"] == "Programmed"
    assert gateway_said(found)["Accepted"] == "ListenersNotValid"
    assert [frontend.public for frontend in found.frontends] == [90]


def test_a_kind_of_route_that_a_listener_can_not_take() -> None:
    """It is said; the kinds that it can are served."""
    text = """
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: fairlead
  listeners:
  - {name: http, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: TLSRoute}, {kind: HTTPRoute}]}}
"""
    found = compiled(text + route(f"rules: [{{{to('web')}}}]"))
    assert listener_said(found, "http")["ResolvedRefs"] == "not InvalidRouteKinds"
    assert [kind for _, kind in found.gateways["shop", "front"].listeners[0].kinds] == ["HTTPRoute"]
    assert goes_to(port(found), "a.test/") == "web"


REFUSED = [
    "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: web, port: 80}, fraction: {numerator: 200}}}]",
    "filters: [{type: CORS, cors: {allowOrigins: ['*']}}]",
    "filters: [{type: ExtensionRef, extensionRef: {group: x.test, kind: X, name: x}}]",
    "matches: [{path: {type: RegularExpression, value: '/('}}]",
    "matches: [{path: {type: Exact, value: '/a b'}}]",
    "matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, "
    "urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]",
]


@pytest.mark.parametrize("rule", REFUSED)
def test_what_is_not_served_is_refused_by_name(rule: str) -> None:
    """The route is not accepted, and says which value it was; other routes feel nothing."""
    found = compiled(FRONT + route(f"rules: [{{{rule}, {to('web')}}}]", "odd") + route(f"rules: [{{{to('api')}}}]"))
    assert said(found, "HTTPRoute", "odd")["Accepted"] == "not UnsupportedValue"
    assert found.routes["HTTPRoute", "shop", "odd"][0][1][0].message.startswith("spec.rules[0].")
    assert goes_to(port(found), "a.test/") == "api"


def test_mirrors() -> None:
    """Of rules and backends, by share; one that can't be found is said, and takes nothing from the request."""
    filters = [
        f"{{type: RequestMirror, requestMirror: {{backendRef: {{name: {name}, port: 80}}, {share}}}}}"
        for name, share in (
            ("api", "percent: 0"),
            ("admin", "percent: 20"),
            ("nowhere", "percent: 50"),
            ("static", "fraction: {numerator: 1, denominator: 3}"),
        )
    ]
    own = "{type: RequestMirror, requestMirror: {backendRef: {name: api, port: 80}}}"
    backend = f"{{name: web, port: 80, filters: [{own}]}}"
    found = compiled(FRONT + route(f"rules: [{{filters: [{', '.join(filters)}], backendRefs: [{backend}]}}]"))
    assert goes_to(port(found), "a.test/") == "web"
    ((_, section),) = port(found).hosts[0].routes[0].destinations
    shares = [(m.section.service.name, m.share) for m in section.mirrors if m.section.service]
    assert shares == [("admin", (20, 100)), ("static", (1, 3)), ("api", (1, 1))]
    assert said(found, "HTTPRoute", "r") == {"Accepted": "Accepted", "ResolvedRefs": "not BackendNotFound"}
    assert ServiceKey("shop", "nowhere") in found.backends  # it is followed until it comes


def test_filters_and_timeouts() -> None:
    """Headers of rule and backend together, rewriting, redirects, the shorter timeout."""
    rules = """rules: [
  {matches: [{path: {value: /a}}],
   timeouts: {request: 1m, backendRequest: 1500ms},
   filters: [
    {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: '1'}], remove: [X-B]}},
    {type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: X-C, value: '3'}]}},
    {type: URLRewrite, urlRewrite: {hostname: in.test, path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}],
   backendRefs: [{name: web, port: 80, filters: [
    {type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: X-D, value: '4'}]}}]}]},
  {matches: [{path: {value: /to}}], filters: [
    {type: RequestRedirect, requestRedirect: {scheme: https, hostname: x.test, port: 8443, statusCode: 301,
     path: {type: ReplaceFullPath, replaceFullPath: /y}}}]}]"""
    frontend = port(compiled(FRONT + route(rules)))
    by_path = {r.match.path: r.destinations[0][1] for r in frontend.hosts[0].routes}
    section, redirect = by_path["/a"], by_path["/to"].redirect
    assert (section.request.set, section.request.add, section.request.remove) == (
        (("X-A", "1"),),
        (("X-D", "4"),),
        ("X-B",),
    )
    assert (section.response.add, section.host, section.response_ms) == ((("X-C", "3"),), "in.test", 1500)
    assert section.rewrite is not None and (section.rewrite.of, section.rewrite.value) == ("/a", "/b")
    assert redirect is not None and redirect.path is not None
    assert (redirect.code, redirect.scheme, redirect.host, redirect.port) == (301, "https", "x.test", 8443)
    assert redirect.path.value == "/y"


GRPC = [
    ("{method: {service: foo.Bar, method: Do}}", {"/foo.Bar/Do": True, "/foo.Bar/Else": False}),
    ("{method: {service: foo.Bar}}", {"/foo.Bar/Do": True, "/foo.Barn/Do": False}),
    ("{method: {method: Do}}", {"/any.Thing/Do": True, "/any.Thing/Done": False}),
    ("{method: {type: RegularExpression, service: 'foo\\..*', method: 'D.'}}", {"/foo.Bar/Do": True, "/foo/Do": False}),
]


@pytest.mark.parametrize(("match", "cases"), GRPC)
def test_grpc_routes(match: str, cases: dict[str, bool]) -> None:
    """By service and method; backends speak HTTP/2."""
    text = f"""---
kind: GRPCRoute
metadata: {{name: g}}
spec: {{parentRefs: [{{name: front}}], rules: [{{matches: [{match}], {to("api")}}}]}}
"""
    frontend = port(compiled(FRONT + text))
    assert {path: goes_to(frontend, f"a.test{path}", method="POST") == "api" for path in cases} == cases
    assert frontend.hosts[0].routes[0].destinations[0][1].protocol == "h2c"


def test_tls_routes() -> None:
    """Unopened, by server name, on listeners of TLS with Passthrough; weights count."""
    text = """
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: fairlead
  listeners: [{name: tls, port: 443, protocol: TLS, hostname: '*.a.test', tls: {mode: Passthrough}}]
---
kind: TLSRoute
metadata: {name: t}
spec:
  parentRefs: [{name: front}]
  hostnames: [x.a.test, '*.y.a.test', b.test]
  rules: [{backendRefs: [{name: web, port: 80, weight: 2}, {name: api, port: 80, weight: 0}, {name: nope, port: 80}]}]
"""
    found = compiled(text)
    ways = port(found, 443).passthrough
    assert ways is not None and [way.pattern for way in ways] == ["x.a.test", "*.y.a.test"]
    assert [(weight, section.tcp) for weight, section in ways[0].destinations] == [(2, True)]
    assert said(found, "TLSRoute", "t") == {"Accepted": "Accepted", "ResolvedRefs": "not BackendNotFound"}


def test_each_gateway_has_a_service_of_its_own() -> None:
    """Like the one that the ingress is published by, with the data plane's ports behind its own."""
    other = FRONT.replace("front", "back").replace("port: 80", "port: 8080")
    found = compiled(FRONT + other.removesuffix("---\n"))
    one, two = found.services
    assert one["metadata"]["namespace"] == "kube-system" and one["metadata"]["name"].startswith("gw-shop-front-")
    assert (one["spec"]["type"], one["spec"]["selector"]) == ("LoadBalancer", {"app": "ingress"})
    numbers = {service_["spec"]["ports"][0]["targetPort"] for service_ in (one, two)}
    assert numbers == {frontend.port for frontend in found.frontends} and len(numbers) == 2
    assert not differs(one, {**one, "spec": {**one["spec"], "clusterIP": "10.96.0.7"}})
    assert differs(one, {**one, "spec": {**one["spec"], "ports": two["spec"]["ports"]}})
    local = {**one, "spec": {**one["spec"], "externalTrafficPolicy": "Local"}}
    assert not differs(one, local) and differs(local, one)


def test_a_gateway_s_address_is_its_service_s() -> None:
    """Then it is programmed."""
    key = compiled(FRONT.removesuffix("---\n")).services[0]["metadata"]
    front = service(key["name"], namespace="kube-system", type="LoadBalancer")
    front["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}
    found = compiled(FRONT.removesuffix("---\n"), services=snapshot(front))
    assert gateway_said(found)["Programmed"] == "Programmed"
    assert found.gateways["shop", "front"].addresses == ("192.0.2.7",)


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("addresses: [{type: Hostname, value: x.test}]", "not UnsupportedAddress"),
        ("addresses: [{value: 192.0.2.1}, {value: 192.0.2.2}]", "not UnsupportedAddress"),
        ("infrastructure: {parametersRef: {group: x.test, kind: X, name: x}}", "not InvalidParameters"),
        ("addresses: [{value: 192.0.2.1}]", "Accepted"),
    ],
)
def test_what_a_gateway_can_not_have(field: str, reason: str) -> None:
    """It is refused as a whole, and says so."""
    listeners = "listeners: [{name: http, port: 80, protocol: HTTP}]"
    found = compiled(
        f"kind: Gateway\nmetadata: {{name: front}}\nspec: {{gatewayClassName: fairlead, {field}, {listeners}}}"
    )
    assert gateway_said(found)["Accepted"] == reason
    assert bool(found.frontends) is (reason == "Accepted")
    if found.services:
        assert found.services[0]["spec"]["loadBalancerIP"] == "192.0.2.1"


def test_gateways_of_other_classes_are_none_of_ours() -> None:
    """Neither they nor routes on them get a word of ours."""
    found = compiled(FRONT.replace("fairlead", "other") + route(f"rules: [{{{to('web')}}}]"))
    assert (found.frontends, dict(found.gateways), dict(found.routes)) == ((), {}, {})


def test_conditions_keep_their_time() -> None:
    """Unless they change; the generation is the object's."""
    first = render([Condition("Accepted", True, "Accepted")], 1, (), "t1")
    again = render([Condition("Accepted", True, "Other", "said")], 2, first, "t2")
    turned = render([Condition("Accepted", False, "Not")], 3, again, "t3")
    assert [c[0]["lastTransitionTime"] for c in (first, again, turned)] == ["t1", "t1", "t3"]
    assert (again[0]["reason"], again[0]["observedGeneration"]) == ("Other", 2)


def test_other_controllers_entries_stay() -> None:
    """In a route's status only our own entries are ours."""
    (route_,) = read("kind: HTTPRoute\nmetadata: {name: r}\nspec: {}")
    other = {"controllerName": "example.com/other", "parentRef": {"name": "x"}, "conditions": []}
    gone = {"controllerName": "fairlead.dev/gateway", "parentRef": {"name": "old"}, "conditions": []}
    route_["status"] = {"parents": [other, gone]}
    made = route_status(route_, [({"name": "front"}, (Condition("Accepted", True, "Accepted"),))], "t")
    assert [entry["parentRef"]["name"] for entry in made["parents"]] == ["x", "front"]


def test_the_table_says_who_answers() -> None:
    """A route knows the object that it is from."""
    found = decide(port(compiled(FRONT + route(f"rules: [{{{to('web')}}}]"))), _request())
    assert found is not None and found.origin == "HTTPRoute shop/r"
    assert port(compiled(FRONT + route(f"rules: [{{{to('web')}}}]"))).hosts[0].pattern == ANY
    assert SERVED.synced


def _request() -> Any:
    from fairlead.ingress.table import Request

    return Request("a.test")
