"""What is asked."""

from __future__ import annotations

import pytest

from fairlead.explain.question import QuestionError, parse_origin, parse_target


@pytest.mark.parametrize(
    ("words", "name", "namespace", "port", "protocol"),
    [
        ("svc/web", "web", "default", "", ""),
        ("svc/web.shop", "web", "shop", "", ""),
        ("svc/web.shop:80", "web", "shop", "80", ""),
        ("svc/web.shop:http", "web", "shop", "http", ""),
        ("svc/dns.kube-system:53/udp", "dns", "kube-system", "53", "UDP"),
        ("service/web.shop.svc.cluster.local", "web", "shop", "", ""),
        ("http://web.shop/path", "web", "shop", "80", "TCP"),
        ("https://web:8443", "web", "default", "8443", "TCP"),
    ],
)
def test_services(words: str, name: str, namespace: str, port: str, protocol: str) -> None:
    """Every way to write a Service."""
    found = parse_target((words,), "default")
    assert (found.name, found.namespace, found.port, found.protocol) == (name, namespace, port, protocol)


def test_pods_and_names() -> None:
    """pod/x and dns NAME."""
    assert parse_target(("pod/x.shop",), "default").namespace == "shop"
    assert parse_target(("dns", "web.shop."), "default").name == "web.shop."
    assert str(parse_origin("pod/client", "shop")) == "pod/client.shop"
    assert parse_origin("outside", "shop").kind == "outside"


@pytest.mark.parametrize("words", [("web",), ("svc/",), ("svc/web/quic",), ("ftp://web",), ("dns",), ("svc/web:",)[:0]])
def test_what_cannot_be_understood_is_refused(words: tuple[str, ...]) -> None:
    """By name, with an example."""
    with pytest.raises(QuestionError):
        parse_target(words, "default")


@pytest.mark.parametrize("words", ["client", "pod/", "node", "inside"])
def test_places(words: str) -> None:
    """--from is a pod, a node or outside."""
    with pytest.raises(QuestionError):
        parse_origin(words, "default")
