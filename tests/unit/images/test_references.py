"""What image names mean."""

from __future__ import annotations

import pytest

from fairlead.images.references import Reference, parse

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
        ("team/app", "docker.io/team/app:latest"),
        ("quay.io/team/app:v1", "quay.io/team/app:v1"),
        ("localhost/app", "localhost/app:latest"),
        ("host:5000/app", "host:5000/app:latest"),
        ("[::1]:5000/app:2", "[::1]:5000/app:2"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        (f"nginx:1@{DIGEST}", f"docker.io/library/nginx:1@{DIGEST}"),
    ],
)
def test_familiar_names(text: str, expected: str) -> None:
    """As Docker and Kubernetes complete them; the complete name means itself."""
    assert str(parse(text)) == expected
    assert parse(expected) == parse(text)


@pytest.mark.parametrize("text", ["", "UPPER", "a b", "a:", "a@", "a@sha256:12", "/a", "a//b", "a:b:c", "x.y/", "-a"])
def test_what_is_no_name(text: str) -> None:
    """Refused in upstream's words."""
    with pytest.raises(ValueError, match="couldn't parse image name"):
        parse(text)


@pytest.mark.parametrize(
    ("domain", "local"),
    [
        *(("localhost", True), ("localhost:5000", True), ("127.3.2.1:5000", True), ("[::1]:5000", True)),
        *(("10.0.0.1", False), ("docker.io", False), ("localhost.example", False)),
    ],
)
def test_registries_on_loopback_need_no_tls(domain: str, local: bool) -> None:
    """And only those."""
    assert Reference(domain, "app", "1").local is local
