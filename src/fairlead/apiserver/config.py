"""What an API server is started with. Stands before everything else here; holds values, does nothing."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from fairlead.apiserver.authorization import Authorizer
from fairlead.registry import Registry, User

DEFAULT_ISSUER = "https://kubernetes.default.svc.cluster.local"


class ServerConfig(msgspec.Struct, kw_only=True):
    """One API server. Paths name PEM files; the server only reads them.

    `listen` is one (host, port), port 0 for any free one, or sockets that already listen (its caller may bind them
    before dropping privileges or forking). `tokens` maps static bearer tokens to users. Without
    `service_account_key` (a private key, PEM) no service-account tokens are issued or taken. Without the kubelet
    files, logs, exec and attach answer 503.
    """

    registry: Registry
    listen: tuple[str, int] | Sequence[socket.socket] = ("127.0.0.1", 0)
    cert_file: Path | str
    key_file: Path | str
    client_ca_file: Path | str
    tokens: Mapping[str, User] = {}
    service_account_key: bytes = b""
    service_account_issuer: str = DEFAULT_ISSUER
    kubelet_cert_file: Path | str = ""
    kubelet_key_file: Path | str = ""
    kubelet_ca_file: Path | str = ""
    authorizer: Authorizer | None = None  # None: nodes' rights and RBAC
    body_limit: int = 3 * 1024 * 1024  # bytes, as upstream
    watch_timeout: tuple[float, float] = (1800.0, 3600.0)  # seconds; without timeoutSeconds a watch ends in between
    first_request_seconds: float = 32.0  # until then a new connection has sent a request's headers, or is ended
    reload_seconds: float = 10.0  # how often the certificate files are looked at for new ones
    slow_client_seconds: float = 30.0  # a watcher that takes nothing for so long is cut off, alone
    shutdown_seconds: float = 5.0  # what running requests get to finish in
