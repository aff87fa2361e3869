"""Image references: what `nginx`, `quay.io/x/y:1` and `host:5000/z@sha256:…` mean. Pure.

Source: the distribution project's reference grammar and Docker's familiar names, which Kubernetes uses. Invariant:
`parse(str(r)) == r`.
"""

from __future__ import annotations

import ipaddress
import re

import msgspec

_DOMAIN = re.compile(r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[\w][\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HUB = "docker.io"


class Reference(msgspec.Struct, frozen=True):
    """One image in one registry. Of `tag` and `digest` at least one is there; a digest goes before a tag."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        """Without tag and digest."""
        return f"{self.domain}/{self.path}"

    @property
    def local(self) -> bool:
        """The registry is on this machine's loopback: it needs no TLS."""
        host = self.domain.rsplit(":", 1)[0] if not self.domain.endswith("]") else self.domain
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host.strip("[]")).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """A name as people write it. ValueError in the words that kubelets use (`couldn't parse image name …`)."""
    rest, at, digest = text.partition("@")
    head, slash, tail = rest.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost"):
        domain, rest = head, tail
    else:
        domain = _HUB
    path, colon, tag = rest.partition(":")
    if domain in (_HUB, "index.docker.io"):
        domain = _HUB
        path = path if "/" in path else f"library/{path}"
    good = _DOMAIN.fullmatch(domain) and _PATH.fullmatch(path)
    if not good or (colon and not _TAG.fullmatch(tag)) or (at and not _DIGEST.fullmatch(digest)):
        raise ValueError(f'couldn\'t parse image name "{text}": invalid reference format')
    return Reference(domain, path, tag or ("" if digest else "latest"), digest)
