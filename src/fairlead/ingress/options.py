"""How an ingress is set up, as values."""

from __future__ import annotations

from pathlib import Path

import msgspec

from fairlead.ingress.haproxy.config import Settings
from fairlead.ingress.ingresses import Classes


class IngressOptions(msgspec.Struct, frozen=True):
    """`publish`: namespace and name of the Service whose addresses Ingresses show in their status; `addresses`: or
    these ones. `node`: where this runs, for traffic distribution. `public_http`, `public_https`: the ports that clients
    see. `gateways`: serve Gateway API, too, if its kinds are there. `leader_elect`: of several replicas only one, known
    by its `identity`, writes statuses, Services and Events."""

    classes: Classes = Classes()
    http_port: int = 80
    https_port: int = 443
    public_http: int = 0
    public_https: int = 0
    publish: tuple[str, str] | None = None
    addresses: tuple[str, ...] = ()
    default_certificate: tuple[str, str] | None = None
    node: str = ""
    settings: Settings = Settings()
    kubeconfig: Path | None = None
    context: str = ""
    gateways: bool = True
    leader_elect: bool = False
    identity: str = ""
