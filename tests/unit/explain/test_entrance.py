"""The way in by an Ingress: which rule takes the request, and what is wrong with it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fairlead.explain import path
from fairlead.explain.evidence import Evidence
from fairlead.explain.question import parse_origin, parse_target
from fairlead.explain.report import Report
from tests.unit.explain.world import PODS, a_pod, evidence

CLASS = {"metadata": {"name": "fairlead"}, "spec": {"controller": "fairlead.dev/ingress"}}
DOOR = a_pod("fairlead-ingress-x", "n2", "10.244.2.9", {"app.kubernetes.io/name": "fairlead-ingress"})
DOOR["metadata"]["namespace"] = "kube-system"


def backend(name: str = "web", port: Any = 80) -> dict[str, Any]:
    """A backend by port number or name."""
    return {"service": {"name": name, "port": {"number": port} if isinstance(port, int) else {"name": port}}}


def ingress(to: dict[str, Any] | None = None, path: str = "/", **spec: Any) -> dict[str, Any]:
    """The Ingress shop/door with one rule for shop.test."""
    paths = [{"path": path, "pathType": "Prefix", "backend": to or backend()}]
    whole = {"ingressClassName": "fairlead", "rules": [{"host": "shop.test", "http": {"paths": paths}}]} | spec
    return {
        "metadata": {"name": "door", "namespace": "shop"},
        "spec": {key: value for key, value in whole.items() if value is not None},
        "status": {"loadBalancer": {"ingress": [{"ip": "172.29.0.100"}]}},
    }


def world(*ingresses: dict[str, Any], **more: Any) -> Evidence:
    """The usual one, with an ingress pod."""
    return evidence(ingresses=ingresses, ingress_classes=(CLASS,), pods=(*PODS, DOOR), **more)


def ask(seen: Evidence, target: str = "http://shop.test/", **more: Any) -> Report:
    """From outside."""
    question = parse_target((target,), "shop")
    return path.explain(seen, msgspec.structs.replace(question, origin=parse_origin("outside", "shop"), **more))


@pytest.mark.parametrize("more", [{}, {"via": "ingress"}])
def test_a_url_from_outside_goes_by_the_ingress_that_has_its_host(more: dict[str, Any]) -> None:
    """To the endpoints themselves: no rule translates."""
    report = ask(world(ingress()), **more)
    assert report.works, report.verdict
    assert report.endpoints == ("10.244.1.3:8080", "10.244.2.3:8080")
    assert [hop.name for hop in report.hops] == ["client", "Ingress", "Service", "endpoints", "way", "process"]
    assert report.hops[1].lines[0] == "Ingress shop/door: Prefix / of shop.test"


def test_a_service_is_asked_for_by_the_rule_that_leads_to_it() -> None:
    """Without a URL the first rule with that backend counts."""
    report = ask(world(ingress()), "svc/web", via="ingress")
    assert report.works, report.verdict
    assert "→ Service shop/web, port http" in report.hops[1].lines


TLS = {"tls": [{"hosts": ["shop.test"], "secretName": "cert"}]}


@pytest.mark.parametrize(
    ("finding", "target", "seen"),
    [
        ("FL101", "http://shop.tst/", world(ingress())),
        ("FL101", "http://shop.test/", world()),
        ("FL102", "http://shop.test/other", world(ingress(path="/web"))),
        ("FL100", "http://shop.test/", world(ingress(ingressClassName=None))),
        ("FL100", "http://shop.test/", world(ingress(ingressClassName="nginx"))),
        ("FL103", "http://shop.test/", world(ingress(backend("wbe")))),
        ("FL103", "http://shop.test/", world(ingress(backend("web", 81)))),
        ("FL104", "https://shop.test/", world(ingress(**TLS), secrets={"shop/cert": "is not there"})),
    ],
)
def test_what_is_wrong_with_the_ingress_is_the_cause(finding: str, target: str, seen: Evidence) -> None:
    """By identifier, at the hop of the Ingress."""
    report = ask(seen, target, via="ingress")
    assert report.cause is not None and report.cause.id == finding, report.verdict
    assert report.hops[1].broken


def test_a_redirection_is_an_answer() -> None:
    """To https, where there is a certificate."""
    report = ask(world(ingress(**TLS), secrets={"shop/cert": ""}))
    assert report.works, report.verdict
    assert "redirection (308) to https://shop.test/" in report.verdict


def test_a_host_that_is_almost_there_is_proposed() -> None:
    """As people mistype."""
    assert "did you mean shop.test?" in ask(world(ingress()), "http://shop.tst/", via="ingress").verdict


def test_a_host_that_can_be_no_service_is_looked_for_among_the_ingresses() -> None:
    """Rather than said to be in a namespace that is not there."""
    report = ask(world(), "http://nosuch.example/")
    assert report.cause is not None and report.cause.id == "FL101"
