"""BackendTLSPolicies: whom a backend's certificate must be from, which of two policies holds, what each is told."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.ingress.certificates import AuthorityBook
from fairlead.ingress.gateway.conditions import policy_status
from fairlead.ingress.gateway.gateways import CompiledGateways
from fairlead.ingress.table import Section, Trust
from tests.unit.ingress.gateways import SCHEMAS, compiled, read
from tests.unit.ingress.test_gateways import FRONT, route, to

CONDITION = {
    "type": "Accepted",
    "status": "True",
    "reason": "Accepted",
    "message": "",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


def authorities(namespace: str, name: str) -> tuple[str, str]:
    """ConfigMaps of one namespace."""
    return (f"PEM of {name}\n", "") if (namespace, name) in (("shop", "ca"), ("shop", "more")) else ("", "is not there")


def policy(validation: str, name: str = "p", targets: str = "[{group: '', kind: Service, name: web}]") -> str:
    """A BackendTLSPolicy."""
    return (
        f"---\nkind: BackendTLSPolicy\nmetadata: {{name: {name}}}\n"
        f"spec: {{targetRefs: {targets}, validation: {{{validation}}}}}\n"
    )


def ref(name: str, kind: str = "ConfigMap") -> str:
    return f"{{group: '', kind: {kind}, name: {name}}}"


REFS = f"caCertificateRefs: [{ref('ca')}]"
GOOD = f"{REFS}, hostname: web.test"


def section(found: CompiledGateways) -> Section:
    """Where the only route leads."""
    ((_, only),) = found.frontends[0].hosts[0].routes[0].destinations
    return only


def made(text: str, rules: str = f"rules: [{{{to('web')}}}]") -> CompiledGateways:
    return compiled(FRONT + route(rules) + text, authorities=authorities)


def said(found: CompiledGateways, name: str = "p") -> dict[str, str]:
    """What a policy's status says: reasons by condition."""
    ((_, conditions),) = found.policies["shop", name]
    return {c.type: c.reason if c.holds else f"not {c.reason}" for c in conditions}


FINE = {"Accepted": "Accepted", "ResolvedRefs": "ResolvedRefs"}


def test_a_backend_is_spoken_to_as_the_policy_says() -> None:
    """Over TLS, whatever its port says; others are left alone."""
    found = made(policy(GOOD))
    assert (section(found).protocol, section(found).trust) == ("https", Trust("web.test", "PEM of ca\n"))
    assert said(found) == FINE
    other = made(policy(GOOD), f"rules: [{{{to('api')}}}]")
    assert section(other).trust is None and not other.policies


@pytest.mark.parametrize(
    ("validation", "trust"),
    [
        ("wellKnownCACertificates: System, hostname: web.test", Trust("web.test")),
        (
            f"caCertificateRefs: [{ref('ca')}, {ref('more')}], hostname: web.test",
            Trust("web.test", "PEM of ca\nPEM of more\n"),
        ),
        (
            f"{GOOD}, subjectAltNames: [{{type: Hostname, hostname: web.test}}]",
            Trust("web.test", "PEM of ca\n"),
        ),
    ],
)
def test_who_is_trusted(validation: str, trust: Trust) -> None:
    """The system's authorities or given ones."""
    found = made(policy(validation))
    assert section(found).trust == trust and said(found) == FINE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            policy(f"caCertificateRefs: [{ref('gone')}], hostname: web.test"),
            {"Accepted": "not NoValidCACertificate", "ResolvedRefs": "not InvalidCACertificateRef"},
        ),
        (
            policy(f"caCertificateRefs: [{ref('ca', 'Secret')}], hostname: web.test"),
            {"Accepted": "not NoValidCACertificate", "ResolvedRefs": "not InvalidKind"},
        ),
        (
            policy(f"{GOOD}, subjectAltNames: [{{type: URI, uri: 'spiffe://a/b'}}]"),
            {"Accepted": "not Invalid", "ResolvedRefs": "ResolvedRefs"},
        ),
    ],
)
def test_what_can_not_be_followed_serves_nobody(text: str, expected: dict[str, str]) -> None:
    """Neither in clear nor unseen: a 502, and the reason on the policy, naming the field."""
    found = made(text)
    assert section(found) == Section(status=502)
    assert said(found) == expected
    ((_, conditions),) = found.policies["shop", "p"]
    assert next(c for c in conditions if not c.holds).message.startswith("spec.validation.")


def test_one_of_two_references_that_is_there() -> None:
    """Is trusted; the other is said."""
    found = made(policy(f"caCertificateRefs: [{ref('gone')}, {ref('ca')}], hostname: web.test"))
    assert section(found).trust == Trust("web.test", "PEM of ca\n")
    assert said(found) == {"Accepted": "Accepted", "ResolvedRefs": "not InvalidCACertificateRef"}


def test_the_oldest_of_two_policies_holds() -> None:
    """The other is told; one for a port by name goes before one for all of the Service, and is no conflict."""
    found = made(policy(f"{REFS}, hostname: a.test", "old") + policy(f"{REFS}, hostname: b.test", "new"))
    assert section(found).trust == Trust("a.test", "PEM of ca\n")
    assert (said(found, "old"), said(found, "new")["Accepted"]) == (FINE, "not Conflicted")


def test_targets_that_are_not_there() -> None:
    """A port that the Service does not have, while its other ports are as they were."""
    text = policy(GOOD, targets="[{group: '', kind: Service, name: web, sectionName: nowhere}]")
    found = made(text)
    assert section(found).trust is None and said(found)["Accepted"] == "not TargetNotFound"


def test_grpc_and_mirrors() -> None:
    """gRPC stays HTTP/2; a mirror whose policy can't be followed gets nothing."""
    mirror = "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: web, port: 80}}}]"
    rules = f"rules: [{{{mirror}, {to('api')}}}]"
    (one,) = section(made(policy(GOOD), rules)).mirrors
    assert one.section.trust is not None
    assert not section(made(policy(f"caCertificateRefs: [{ref('gone')}], hostname: web.test"), rules)).mirrors
    grpc = (
        "---\nkind: GRPCRoute\nmetadata: {name: g}\n"
        "spec: {parentRefs: [{name: front}], rules: [{backendRefs: [{name: web, port: 80}]}]}\n"
    )
    found = compiled(FRONT + grpc + policy(GOOD), authorities=authorities)
    assert (section(found).protocol, section(found).trust is not None) == ("h2", True)


def test_the_status() -> None:
    """An entry for each Gateway that the Service is reached by, with its generation; others' entries stay."""
    found = made(policy(GOOD))
    (obj,) = read(policy(GOOD))
    theirs: dict[str, Any] = {"ancestorRef": {"name": "x"}, "controllerName": "x.test/y", "conditions": [{**CONDITION}]}
    obj["status"] = {"ancestors": [theirs]}
    status = policy_status(obj, found.policies["shop", "p"], "2026-01-01T00:00:00Z")
    assert status["ancestors"][0] == theirs
    ours = status["ancestors"][1]
    assert ours["ancestorRef"] == {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "namespace": "shop",
        "name": "front",
    }
    assert {c["observedGeneration"] for c in ours["conditions"]} == {1}
    assert SCHEMAS["BackendTLSPolicy"].check({**obj, "status": status}) == []


@pytest.mark.parametrize(
    "validation",
    ["hostname: web.test", f"{GOOD}, wellKnownCACertificates: System", f"{REFS}, hostname: '*.test'"],
)
def test_what_the_api_refuses(validation: str) -> None:
    """Both sources of trust, none, or no exact name."""
    with pytest.raises(AssertionError):
        read(policy(validation))


def test_authorities_in_configmaps() -> None:
    """Their change matters to who asked; what is no certificate is said."""
    book = AuthorityBook()
    configmap = {"metadata": {"namespace": "shop", "name": "ca"}, "data": {"ca.crt": "nonsense"}}
    assert not book.take(configmap, gone=False)
    assert book.pem_of("shop", "ca") == (
        "",
        "holds no certificates that can be used in ca.crt (no certificate)",
    )
    assert not book.take(configmap, gone=False)
    from tests.contract.ingress_lab import certificate

    pem = certificate("ours")
    assert book.take({**configmap, "data": {"ca.crt": pem[: pem.index("-----BEGIN PRIVATE")]}}, gone=False)
    assert book.pem_of("shop", "ca")[0].startswith("-----BEGIN CERTIFICATE-----")
    assert book.take(configmap, gone=True)
    assert book.pem_of("shop", "ca")[1] == "is not there, or has no ca.crt"
