"""Certificates, keys and kubeconfigs made by an authority of our own, and kept in a folder.

Invariant: every file is readable by its owner alone; a file that is there is used, never overwritten, unless the
certificate in it no longer fits what is asked for or is about to expire.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from fairlead.apiserver import pki
from fairlead.apiserver.pki import KeyPair
from fairlead.cluster.errors import ClusterError

_RENEW_BEFORE = timedelta(days=60)


class Issued:
    """A folder of PEM files, `<name>.crt` and `<name>.key`, and the authority they are from. For subclasses, which say
    what is issued. `way_out`: what to do when the authority can't be used."""

    def __init__(self, folder: Path, authority: str, context: str, way_out: str) -> None:
        self._folder, self._context = folder, context
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.authority = self._kept("ca", authority, way_out)

    def pair(self, name: str) -> KeyPair:
        """A certificate with its key. Raises ClusterError naming the file."""
        certificate, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        try:
            return KeyPair(certificate.read_bytes(), key.read_bytes())
        except OSError as error:
            raise ClusterError(f"cannot read {error.filename}: {error.strerror}") from error

    def _kept(self, name: str, cn: str, way_out: str) -> KeyPair:
        certificate, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        if certificate.exists() and key.exists():
            pair = self.pair(name)
            try:
                pki.verify_pair(pair)
            except pki.BadCredentials as error:
                raise ClusterError(f"{certificate} and its key are unusable ({error})", way_out) from error
            return pair
        pair = pki.create_authority(cn)
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
        lasts: timedelta = pki.LEAF,
    ) -> None:
        """A certificate for that subject, which names at least these hosts, is there with its key."""
        certificate = self._folder / f"{name}.crt"
        if certificate.exists() and _is_of(certificate.read_bytes(), cn, organizations, (*dns_names, *ips)):
            return
        pair = pki.issue(self.authority, cn, organizations, dns_names, ips, client=client, server=server, lasts=lasts)
        write_private(self._folder / f"{name}.key", pair.key_pem)
        write_private(certificate, pair.cert_pem)

    def _signing_key(self) -> None:
        """The key that signs service-account tokens is there."""
        file = self._folder / "service-account.key"
        if not file.exists():
            write_private(file, pki.create_signing_key())

    def _user_file(
        self, file: Path, cn: str, organizations: Sequence[str], server: str, lasts: timedelta = pki.LEAF
    ) -> None:
        """A kubeconfig of that user for that server is there."""
        if file.exists() and _fits(file, server, cn, organizations):
            return
        pair = pki.issue(self.authority, cn, organizations, client=True, lasts=lasts)
        document = kubeconfig(self._context, server, self.authority.cert_pem, pair)
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


def client_certificate(document: Mapping[str, Any]) -> bytes:
    """What the user of such a kubeconfig shows. Raises KeyError, ValueError and the like if it is not such a one."""
    return base64.b64decode(document["users"][0]["user"]["client-certificate-data"])


def serving_files(folder: Path, node: str) -> tuple[Path, Path]:
    """Certificate and key of a kubelet's server."""
    return folder / f"kubelet-{node}.crt", folder / f"kubelet-{node}.key"


def write_private(file: Path, data: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    draft = file.with_name(f".{file.name}.draft")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as stream:
        stream.write(data)
    draft.replace(file)


def _is_of(certificate: bytes, cn: str, organizations: Sequence[str], hosts: Sequence[str] = ()) -> bool:
    """Whether it will last, and names exactly that user and those groups, and at least those hosts."""
    try:
        lasts = pki.expires(certificate) - datetime.now(UTC) > _RENEW_BEFORE
        names = set(hosts) <= pki.hosts_of(certificate)
        return lasts and names and pki.subject_of(certificate) == (cn, tuple(organizations))
    except pki.BadCredentials:
        return False


def _fits(file: Path, server: str, cn: str, organizations: Sequence[str]) -> bool:
    try:
        document = yaml.safe_load(file.read_bytes())
        certificate = client_certificate(document)
        at_home = bool(document["clusters"][0]["cluster"]["server"] == server)
        return at_home and _is_of(certificate, cn, organizations)
    except (yaml.YAMLError, KeyError, TypeError, IndexError, ValueError):
        return False


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
