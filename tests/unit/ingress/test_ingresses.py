"""What Ingresses compile to beside their paths: classes, TLS, backends, and what is said when they are wrong."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.discovery.model import ServiceKey
from fairlead.ingress.ingresses import Classes, compile_ingresses
from fairlead.ingress.table import PathRewrite, Section
from tests.unit.ingress.worlds import (
    CLASSES,
    SERVED,
    backend,
    compiled,
    frontend,
    goes_to,
    ingress,
    no_secret,
    path,
    reasons,
    service,
    snapshot,
)

OWN = "ingress.fairlead.dev/"


def _legacy(name: str | None) -> dict[str, Any]:
    annotations = {"kubernetes.io/ingress.class": name} if name else {}
    return ingress("a", [("", [path("/", "web")])], ingressClassName=None, annotations=annotations)


@pytest.mark.parametrize(
    ("found", "without", "ours"),
    [
        (ingress("a", [("", [path("/", "web")])]), False, True),
        (ingress("a", [("", [path("/", "web")])], ingressClassName="nginx"), False, False),
        (ingress("a", [("", [path("/", "web")])], ingressClassName="gone"), True, False),
        (_legacy("fairlead"), False, True),
        (_legacy("nginx"), True, False),
        (_legacy(None), False, False),
        (_legacy(None), True, True),
    ],
)
def test_which_ingresses_are_ours(found: dict[str, Any], without: bool, ours: bool) -> None:
    """By the controller of the class that the field names, else by the old annotation, else as the flag says."""
    got = compile_ingresses([found], CLASSES, no_secret, SERVED, Classes(without=without))
    assert bool(got.ours) is ours and bool(got.http) is ours


def test_of_two_claims_the_oldest_has_it() -> None:
    """The younger Ingress is told, keeps the rest of its paths, and the older feels nothing."""
    old = ingress("old", [("a.test", [path("/x", "web")])], 1)
    new = ingress("new", [("a.test", [path("/x/", "api"), path("/y", "api")])], 2)
    found = compiled(new, old)
    assert reasons(found) == ["new: PathConflict"]
    assert "/x/ of a.test belongs to Ingress shop/old" in found.problems[0].message
    assert [goes_to(frontend(found), f"a.test{p}") for p in ("/x", "/y")] == ["web", "api"]


BROKEN = [
    ([path("/", "nope")], "ServiceNotFound", "there is no Service shop/nope"),
    ([path("/", "web", port=81)], "PortNotFound", "Service shop/web has no TCP port 81 (it has -:80)"),
    ([path("/", "web", port="http")], "PortNotFound", "Service shop/web has no TCP port http"),
    (
        [{"path": "/", "pathType": "Prefix", "backend": {"resource": {"kind": "Bucket", "name": "b"}}}],
        "ResourceBackend",
        "Bucket b can't be served",
    ),
]


@pytest.mark.parametrize(("paths", "reason", "message"), BROKEN, ids=[case[1] for case in BROKEN])
def test_a_broken_backend(paths: list[dict[str, Any]], reason: str, message: str) -> None:
    """It is said on the Ingress; its path answers 503, and no other path takes its requests."""
    broken = ingress("broken", [("a.test", paths)], 1)
    sound = ingress("sound", [("", [path("/", "web")]), ("b.test", [path("/", "api")])], 2)
    found = compiled(broken, sound)
    assert reasons(found) == [f"broken: {reason}"]
    assert message in found.problems[0].message and "spec.rules[0].http.paths[0]" in found.problems[0].message
    port = frontend(found)
    assert [goes_to(port, f"{host}/") for host in ("a.test", "b.test", "c.test")] == ["503", "api", "web"]


def test_a_path_that_can_not_be() -> None:
    """White space and quotes never stand in a request's path: refused, so they can't reach a configuration."""
    found = compiled(ingress("a", [("a.test", [path("/a b", "web", "ImplementationSpecific"), path("/ok", "web")])]))
    assert reasons(found) == ["a: InvalidPath"]
    assert goes_to(frontend(found), "a.test/ok") == "web"


def test_ports_by_name_and_protocols() -> None:
    """A port is found by name or number; appProtocol, or the annotation, says how the pods speak."""
    ports = [
        {"name": "web", "port": 80, "protocol": "TCP"},
        {"name": "rpc", "port": 90, "protocol": "TCP", "appProtocol": "kubernetes.io/h2c"},
        {"name": "safe", "port": 443, "protocol": "TCP", "appProtocol": "HTTPS"},
        {"name": "udp", "port": 53, "protocol": "UDP"},
    ]
    paths = [
        path("/w", "s", port="web"),
        path("/r", "s", port=90),
        path("/s", "s", port="safe"),
        path("/u", "s", port=53),
    ]
    found = compiled(ingress("a", [("", paths)]), services=snapshot(service("s", *ports)))
    sections = [route.destinations[0][1] for _, route in found.http]
    assert [(s.port, s.number, s.protocol) for s in sections[:3]] == [
        ("web", 80, "http"),
        ("rpc", 90, "h2c"),
        ("safe", 443, "https"),
    ]
    assert sections[3] == Section(status=503)


def test_external_names() -> None:
    """An ExternalName Service is asked by name, on the number given, listed or not."""
    services = snapshot(service("far", type="ExternalName", externalName="far.example", ports=[]))
    found = compiled(ingress("a", [("", [path("/", "far", port=8443)])]), services=services)
    section = found.http[0][1].destinations[0][1]
    assert (section.external_name, section.number) == ("far.example", 8443)


def _secrets(namespace: str, name: str) -> tuple[str, str]:
    return (f"PEM {name}", "") if name.startswith("good") else ("", "is not there")


def test_tls() -> None:
    """A host with a certificate is redirected from http; https serves all routes; each name has one certificate."""
    tls = [{"hosts": ["a.test", "*.w.test"], "secretName": "good"}]
    rules = [(host, [path("/", "web")]) for host in ("a.test", "x.w.test", "b.test")]
    found = compiled(ingress("a", rules, tls=tls), secrets=_secrets)
    assert [(c.name, c.names) for c in found.certificates] == [("shop_good", ("a.test", "*.w.test"))]
    hosts = ("a.test", "x.w.test", "b.test")
    assert [goes_to(frontend(found), f"{h}/") for h in hosts] == ["308 https", "308 https", "web"]
    assert [goes_to(frontend(found, secure=True), f"{h}/") for h in hosts] == ["web"] * 3


def test_a_bad_secret() -> None:
    """It is said; the host is not redirected to where it has no certificate; other certificates are served."""
    bad = ingress("bad", [("a.test", [path("/", "web")])], 1, tls=[{"hosts": ["a.test"], "secretName": "bad"}])
    good = ingress("good", [("b.test", [path("/", "web")])], 2, tls=[{"hosts": ["b.test"], "secretName": "good"}])
    found = compiled(bad, good, secrets=_secrets)
    assert reasons(found) == ["bad: BadSecret"]
    assert found.problems[0].message == "spec.tls[0]: Secret shop/bad is not there"
    assert [goes_to(frontend(found), f"{h}/") for h in ("a.test", "b.test")] == ["web", "308 https"]
    assert [c.name for c in found.certificates] == ["shop_good"]


def test_two_certificates_for_a_name() -> None:
    """The oldest Ingress' is shown."""
    tls = [{"hosts": ["a.test"], "secretName": "good1"}]
    one = ingress("one", [("a.test", [path("/", "web")])], 1, tls=tls)
    two = ingress("two", [("a.test", [path("/two", "web")])], 2, tls=[{"hosts": ["a.test"], "secretName": "good2"}])
    found = compiled(one, two, secrets=_secrets)
    assert reasons(found) == ["two: HostConflict"]
    assert {c.name: c.names for c in found.certificates} == {"shop_good1": ("a.test",), "shop_good2": ()}


@pytest.mark.parametrize(
    ("text", "secure", "plain"),
    [("ssl-redirect=false", "web", "web"), ("force-ssl-redirect=true", "308 https", "308 https")],
)
def test_redirects_to_https_can_be_chosen(text: str, secure: str, plain: str) -> None:
    """Off where there is TLS, on where there is none."""
    name, _, value = text.partition("=")
    rules = [(host, [path("/", "web")]) for host in ("a.test", "b.test")]
    tls = [{"hosts": ["a.test"], "secretName": "good"}]
    found = compiled(ingress("a", rules, tls=tls, annotations={OWN + name: value}), secrets=_secrets)
    assert [goes_to(frontend(found), f"{h}/") for h in ("a.test", "b.test")] == [secure, plain]


def test_annotations_become_sections() -> None:
    """Timeouts, affinity, allowed sources, rewriting."""
    annotations = {
        OWN + "proxy-read-timeout": "300",
        OWN + "proxy-send-timeout": "10",
        "nginx.ingress.kubernetes.io/proxy-connect-timeout": "2",
        OWN + "affinity": "cookie",
        OWN + "allowlist-source-range": "10.0.0.0/8, fd00::/8",
        OWN + "rewrite-target": "/$2",
    }
    rules = [("a.test", [path("/app(/|$)(.*)", "web", "ImplementationSpecific")])]
    found = compiled(ingress("a", rules, annotations=annotations))
    assert found.problems == ()
    section = found.http[0][1].destinations[0][1]
    assert section == Section(
        ServiceKey("shop", "web"),
        "",
        80,
        connect_ms=2000,
        response_ms=300_000,
        cookie="INGRESSCOOKIE",
        allow=("10.0.0.0/8", "fd00::/8"),
        rewrite=PathRewrite("regex", "/\\2", "/app(/|$)(.*).*$", True),
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("no-such-thing", "1", "there is no such annotation"),
        ("ssl-redirect", "yes", "'yes' is neither true nor false"),
        ("proxy-read-timeout", "soon", "'soon' is not a number of seconds"),
        ("backend-protocol", "AJP", "'AJP' is none of HTTP, HTTPS, GRPC, GRPCS, H2C"),
        ("allowlist-source-range", "10.0.0.1/8", "has host bits set"),
        ("permanent-redirect", "javascript:x", "is not a URL"),
        ("rewrite-target", "/a b", "is not a path"),
    ],
)
def test_annotations_that_are_wrong(name: str, value: str, said: str) -> None:
    """Under our own prefix they are refused by name; the routes are served without them."""
    found = compiled(ingress("a", [("", [path("/", "web")])], annotations={OWN + name: value}))
    assert reasons(found) == ["a: InvalidAnnotation"]
    assert f"{OWN}{name}: " in found.problems[0].message and said in found.problems[0].message
    assert goes_to(frontend(found), "a.test/") == "web"


def test_what_is_not_read_of_ingress_nginx_is_said() -> None:
    """So nobody believes that it holds."""
    annotations = {
        "nginx.ingress.kubernetes.io/auth-url": "https://x",
        "nginx.ingress.kubernetes.io/use-regex": "false",
    }
    found = compiled(ingress("a", [("", [path("/", "web")])], annotations=annotations))
    assert [p.message for p in found.problems] == ["not read here: nginx.ingress.kubernetes.io/auth-url"]


def test_class_parameters_are_refused() -> None:
    """On the class, for there is nothing that could be set by them."""
    classes = {
        "fairlead": {**CLASSES["fairlead"], "spec": {**CLASSES["fairlead"]["spec"], "parameters": {"kind": "X"}}}
    }
    found = compile_ingresses([], classes, no_secret, SERVED, Classes())
    assert [(p.kind, p.name, p.reason) for p in found.problems] == [("IngressClass", "fairlead", "ParametersRefused")]


def test_endpoints_are_none_of_the_routes_business() -> None:
    """The same sections whether a Service has endpoints or not."""
    rules = [("", [{"path": "/", "pathType": "Prefix", "backend": backend("web")}])]
    assert compiled(ingress("a", rules)).http == compiled(ingress("a", rules), services=snapshot(service("web"))).http
