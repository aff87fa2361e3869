"""The cluster's certificates, keys and component kubeconfigs, made once and kept.

Invariant: every file is readable by its owner alone; a file that is there is used, never overwritten, unless the
certificate in it no longer fits the cluster or is about to expire.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from fairlead.apiserver import pki
from fairlead.apiserver.pki import KeyPair
from fairlead.cluster.config import ClusterConfig
from fairlead.cluster.errors import ClusterError
from fairlead.cluster.layout import Layout

KUBELET_CLIENTS = "fairlead:kubelet-clients"
"""Who may ask a kubelet for logs, and to run commands: the API server's own certificate carries this organization."""

_RENEW_BEFORE = timedelta(days=60)


class Credentials:
    """Makes and reads what a cluster's processes identify themselves with."""

    def __init__(self, layout: Layout, config: ClusterConfig) -> None:
        self._layout, self._config = layout, config
        layout.pki.mkdir(parents=True, exist_ok=True, mode=0o700)
        layout.kubeconfig("admin").parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.authority = self._kept("ca", lambda: pki.create_authority(f"fairlead-{config.name}"))

    @property
    def api_names(self) -> tuple[str, ...]:
        """The API server's names; its certificate bears them, and no node may."""
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
        names.append(f"kubernetes.default.svc.{self._config.cluster_domain}")
        return (*names, *(name for name in self._config.api_sans if not _is_address(name)))

    def ensure(self) -> None:
        """Everything the cluster's processes need is there."""
        config = self._config
        ips = [config.api_ip, config.kubernetes_ip, "127.0.0.1", *filter(_is_address, config.api_sans)]
        if _is_address(config.api_address) and config.api_address not in ("0.0.0.0", *ips):
            ips.append(config.api_address)
        self._leaf("apiserver", "kube-apiserver", dns_names=self.api_names, ips=ips, server=True)
        self._leaf("apiserver-kubelet-client", "kube-apiserver-kubelet-client", [KUBELET_CLIENTS], client=True)
        signing = self._layout.pki / "service-account.key"
        if not signing.exists():
            write_private(signing, pki.create_signing_key())
        if not self._layout.announce_key.exists():
            write_private(self._layout.announce_key, secrets.token_bytes(32))
        inside = f"https://{config.api_ip}:6443"
        self._user("admin", "kubernetes-admin", ["system:masters"], config.api_url)
        self._user("controllers", "system:kube-controller-manager", [], inside)
        for node in config.node_names:
            self._leaf(
                f"kubelet-{node}",
                f"system:node:{node}",
                ["system:nodes"],
                [node],
                list(config.addresses_of(config.node_ip(node))),
                server=True,
            )
            self._user(node, f"system:node:{node}", ["system:nodes"], inside)

    def pair(self, name: str) -> KeyPair:
        """A certificate with its key. Raises ClusterError naming the file."""
        certificate, key = self._layout.pki / f"{name}.crt", self._layout.pki / f"{name}.key"
        try:
            return KeyPair(certificate.read_bytes(), key.read_bytes())
        except OSError as error:
            raise ClusterError(f"cannot read {error.filename}: {error.strerror}") from error

    def user_document(self, name: str) -> dict[str, Any]:
        """The kubeconfig of a user, parsed."""
        document: dict[str, Any] = yaml.safe_load(self._layout.kubeconfig(name).read_bytes())
        return document

    def _kept(self, name: str, make: Callable[[], KeyPair]) -> KeyPair:
        certificate, key = self._layout.pki / f"{name}.crt", self._layout.pki / f"{name}.key"
        if certificate.exists() and key.exists():
            pair = self.pair(name)
            try:
                pki.verify_pair(pair)
            except pki.BadCredentials as error:
                way_out = f"restore it, or remove the cluster with: fairlead down --name {self._layout.name}"
                raise ClusterError(f"{certificate} and its key are unusable ({error})", way_out) from error
            return pair
        pair = make()
        write_private(key, pair.key_pem)
        write_private(certificate, pair.cert_pem)
        return pair

    def _leaf(
        self,
        name: str,
        cn: str,
        organizations: Sequence[str] = (),
        dns_names: Sequence[str] = (),
        ips: Sequence[str] = (),
        *,
        client: bool = False,
        server: bool = False,
    ) -> None:
        certificate = self._layout.pki / f"{name}.crt"
        if certificate.exists() and _is_of(certificate.read_bytes(), cn, organizations):
            return
        pair = pki.issue(self.authority, cn, organizations, dns_names, ips, client=client, server=server)
        write_private(self._layout.pki / f"{name}.key", pair.key_pem)
        write_private(certificate, pair.cert_pem)

    def _user(self, name: str, cn: str, organizations: Sequence[str], server: str) -> None:
        file = self._layout.kubeconfig(name)
        if file.exists() and _fits(file, server, cn, organizations):
            return
        pair = pki.issue(self.authority, cn, organizations, client=True)
        document = kubeconfig(self._config.context, server, self.authority.cert_pem, pair)
        write_private(file, yaml.safe_dump(document, sort_keys=False).encode())


def kubeconfig(name: str, server: str, authority: bytes, user: KeyPair) -> dict[str, Any]:
    """A kubeconfig with one cluster, one user and one context, all called `name`, the context current."""
    cluster = {"certificate-authority-data": _base64(authority), "server": server}
    credentials = {
        "client-certificate-data": _base64(user.cert_pem),
        "client-key-data": _base64(user.key_pem),
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": credentials}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }


def write_private(file: Path, data: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    draft = file.with_name(f".{file.name}.draft")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as stream:
        stream.write(data)
    draft.replace(file)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_of(certificate: bytes, cn: str, organizations: Sequence[str]) -> bool:
    """Whether it will last, and names exactly that user and those groups."""
    try:
        lasts = pki.expires(certificate) - datetime.now(UTC) > _RENEW_BEFORE
        return lasts and pki.subject_of(certificate) == (cn, tuple(organizations))
    except pki.BadCredentials:
        return False


def _fits(file: Path, server: str, cn: str, organizations: Sequence[str]) -> bool:
    try:
        document = yaml.safe_load(file.read_bytes())
        certificate = base64.b64decode(document["users"][0]["user"]["client-certificate-data"])
        at_home = bool(document["clusters"][0]["cluster"]["server"] == server)
        return at_home and _is_of(certificate, cn, organizations)
    except (yaml.YAMLError, KeyError, TypeError, IndexError, ValueError):
        return False


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
