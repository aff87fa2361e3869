"""Where the API server is and who we are to it: kubeconfig files and the in-cluster service account.

Stands before `rest.Client`. Invariant: what a kubeconfig asks for and this client cannot do is refused by name; keys
and tokens are never logged, and keys given as data never touch a disk.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec
import orjson

SERVICE_ACCOUNT_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class ConfigError(Exception):
    """The configuration cannot be used. The message names the file, the field and what to do."""


class TokenSource(Protocol):
    """Gives the bearer token of the moment."""

    def token(self) -> str:
        """The token to send now; empty sends none."""
        ...

    def refresh(self) -> bool:
        """The server refused the token: read it anew. True if it is another one now."""
        ...


class StaticToken:
    """One token for ever."""

    def __init__(self, value: str) -> None:
        self._value = value

    def token(self) -> str:
        return self._value

    def refresh(self) -> bool:
        return False


class FileToken:
    """A token in a file that is replaced before it expires; read again after a minute, as client-go does."""

    def __init__(self, path: Path, period: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._period, self._clock = path, period, clock
        self._value = ""
        self._read_at = float("-inf")

    def token(self) -> str:
        if self._clock() - self._read_at >= self._period:
            self.refresh()
        return self._value

    def refresh(self) -> bool:
        before = self._value
        try:
            self._value = self._path.read_text().strip()
        except OSError as error:
            if not before:
                raise ConfigError(f"cannot read the token file {self._path}: {error.strerror}") from None
        self._read_at = self._clock()
        return self._value != before


class Connection(msgspec.Struct, frozen=True):
    """All that is needed to speak to one API server. `headers` carry impersonation."""

    server: str
    ssl_context: ssl.SSLContext | None = None
    token_source: TokenSource | None = None
    server_hostname: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    namespace: str = ""
    authority: str = ""  # PEM, of the server's certificate; empty: the system's


def client_ssl_context(
    ca_pem: str = "", cert_pem: bytes = b"", key_pem: bytes = b"", *, verify: bool = True
) -> ssl.SSLContext:
    """A context for the API server. Without a CA the system's authorities are trusted."""
    context = ssl.create_default_context(cadata=ca_pem) if ca_pem else ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert_pem:
        load_key_pair(context, cert_pem, key_pem)
    return context


def load_key_pair(context: ssl.SSLContext, cert_pem: bytes, key_pem: bytes) -> None:
    """New connections show this certificate; open ones stay. Python only loads key pairs from files: it is given one
    that lives in memory."""
    descriptor = os.memfd_create("client-key-pair", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(cert_pem.rstrip() + b"\n" + key_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def in_cluster(environ: dict[str, str] | None = None, directory: Path = SERVICE_ACCOUNT_DIR) -> Connection:
    """The connection a pod has: KUBERNETES_SERVICE_HOST/PORT and the mounted service account."""
    env = dict(os.environ) if environ is None else environ
    host, port = env.get("KUBERNETES_SERVICE_HOST", ""), env.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        raise ConfigError(
            "not in a cluster: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set; give a kubeconfig"
        )
    try:
        ca = (directory / "ca.crt").read_text()
    except OSError as error:
        raise ConfigError(f"cannot read {directory / 'ca.crt'}: {error.strerror}") from None
    namespace_file = directory / "namespace"
    return Connection(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        ssl_context=client_ssl_context(ca),
        token_source=FileToken(directory / "token"),
        namespace=namespace_file.read_text().strip() if namespace_file.exists() else "",
        authority=ca,
    )


def from_kubeconfig(path: str | Path | None = None, context: str | None = None) -> Connection:
    """The connection a kubeconfig describes. Without a path: $KUBECONFIG, else ~/.kube/config."""
    files = _files(path)
    config = _merge([_load(file) for file in files])
    source = ":".join(str(f) for f in files)
    name = context or config.get("current-context") or ""
    if not name:
        raise ConfigError(f"{source}: current-context is not set; choose a context")
    entry = _named(config, "contexts", "context", name, source)
    cluster = _named(config, "clusters", "cluster", entry.get("cluster", ""), source)
    user = _named(config, "users", "user", entry["user"], source) if entry.get("user") else {}
    return _connection(cluster, user, entry, source)


def _files(path: str | Path | None) -> list[Path]:
    if path is not None:
        return [Path(path)]
    listed = [Path(p) for p in os.environ.get("KUBECONFIG", "").split(":") if p]
    found = [p for p in listed if p.exists()]
    return found or listed[:1] or [Path("~/.kube/config").expanduser()]


def _load(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the kubeconfig {path}: {error.strerror}") from None
    value: Any
    if text.lstrip()[:1] == b"{":
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise ConfigError(f"{path} is not a kubeconfig: {error}") from None
    else:
        import yaml

        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{path} is not a kubeconfig: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path} is not a kubeconfig: it holds no mapping")
    _anchor(value, path.parent)
    return value


def _anchor(config: dict[str, Any], folder: Path) -> None:
    """File names in a kubeconfig are relative to it."""
    for section, inner in (("clusters", "cluster"), ("users", "user")):
        for entry in config.get(section) or []:
            body = entry.get(inner) or {}
            for key in ("certificate-authority", "client-certificate", "client-key", "tokenFile"):
                if body.get(key):
                    body[key] = str(folder / body[key])


def _merge(configs: list[dict[str, Any]]) -> dict[str, Any]:
    """As kubectl merges: the first file that names a thing wins."""
    merged: dict[str, Any] = {}
    for config in configs:
        if not merged.get("current-context"):
            merged["current-context"] = config.get("current-context", "")
        for section in ("clusters", "users", "contexts"):
            into = merged.setdefault(section, [])
            names = {e.get("name") for e in into}
            into.extend(e for e in config.get(section) or [] if e.get("name") not in names)
    return merged


def _named(config: dict[str, Any], section: str, inner: str, name: str, source: str) -> dict[str, Any]:
    for entry in config.get(section) or []:
        if entry.get("name") == name:
            return dict(entry.get(inner) or {})
    known = ", ".join(str(e.get("name")) for e in config.get(section) or []) or "none"
    raise ConfigError(f"{source}: there is no {inner} {name!r} (there is: {known})")


_REFUSED_USER = {
    "exec": "an exec credential plugin",
    "auth-provider": "an auth provider plugin",
    "username": "a user name and password",
}


def _connection(cluster: dict[str, Any], user: dict[str, Any], context: dict[str, Any], source: str) -> Connection:
    server = cluster.get("server")
    if not server:
        raise ConfigError(f"{source}: the cluster {context.get('cluster')!r} has no server")
    if cluster.get("proxy-url"):
        raise ConfigError(f"{source}: cluster.proxy-url is not supported")
    for key, what in _REFUSED_USER.items():
        if user.get(key):
            raise ConfigError(
                f"{source}: the user {context.get('user')!r} uses {what}, which is not supported; "
                "use a client certificate, a token or a token file"
            )
    ssl_context, ca = None, b""
    if str(server).startswith("https:"):
        ca = _material(cluster, "certificate-authority", source)
        cert, private = (_material(user, k, source) for k in ("client-certificate", "client-key"))
        if bool(cert) != bool(private):
            raise ConfigError(f"{source}: client-certificate and client-key must be given together")
        try:
            ssl_context = client_ssl_context(
                ca.decode(), cert, private, verify=not cluster.get("insecure-skip-tls-verify")
            )
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"{source}: the certificates are not usable PEM: {error}") from None
    token: TokenSource | None = None
    if user.get("token"):
        token = StaticToken(str(user["token"]))
    elif user.get("tokenFile"):
        token = FileToken(Path(user["tokenFile"]))
    return Connection(
        server=str(server).rstrip("/"),
        ssl_context=ssl_context,
        token_source=token,
        server_hostname=str(cluster.get("tls-server-name") or ""),
        headers=_impersonation(user),
        namespace=str(context.get("namespace") or ""),
        authority=ca.decode(),
    )


def _material(body: dict[str, Any], key: str, source: str) -> bytes:
    """PEM from `<key>-data` (base64) or the file `<key>`; data wins."""
    data = body.get(f"{key}-data")
    if data:
        try:
            return base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise ConfigError(f"{source}: {key}-data is not base64") from None
    if body.get(key):
        try:
            return Path(body[key]).read_bytes()
        except OSError as error:
            raise ConfigError(f"{source}: cannot read {key} {body[key]}: {error.strerror}") from None
    return b""


def _impersonation(user: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    headers: list[tuple[str, str]] = []
    if user.get("as"):
        headers.append(("Impersonate-User", str(user["as"])))
    if user.get("as-uid"):
        headers.append(("Impersonate-Uid", str(user["as-uid"])))
    headers += [("Impersonate-Group", str(g)) for g in user.get("as-groups") or []]
    for key, values in (user.get("as-user-extra") or {}).items():
        headers += [(f"Impersonate-Extra-{key}", str(v)) for v in values]
    return tuple(headers)
