"""A joined node's certificates are renewed in time, and only then."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from fairlead.apiserver import pki
from fairlead.cluster.errors import ClusterError
from fairlead.cluster.issuing import kubeconfig
from fairlead.cluster.renewal import Files, due, keep, renew
from fairlead.cluster.signing import KUBELET_CLIENT, KUBELET_SERVING

AUTHORITY = pki.create_authority("test")
START = datetime.now(UTC)


def leaf(days: int = 90) -> pki.KeyPair:
    """A certificate for that long."""
    return pki.issue(AUTHORITY, "system:node:b", ["system:nodes"], client=True, days=days, now=START)


def files(directory: Path, client: pki.KeyPair, serving: pki.KeyPair) -> Files:
    """A node's files with these."""
    found = Files(directory / "kubeconfig", directory / "serving.crt", directory / "serving.key")
    document = kubeconfig("c", "https://192.0.2.1", AUTHORITY.cert_pem, client)
    found.kubeconfig.write_text(yaml.safe_dump(document))
    found.certificate.write_bytes(serving.cert_pem)
    found.key.write_bytes(serving.key_pem)
    return found


def shown(where: Files) -> bytes:
    """The client certificate in the kubeconfig."""
    document = yaml.safe_load(where.kubeconfig.read_bytes())
    return base64.b64decode(document["users"][0]["user"]["client-certificate-data"])


def test_two_thirds_of_a_life() -> None:
    """Not before, and from then on."""
    certificate = leaf(90).cert_pem
    assert not due(certificate, START + timedelta(days=59))
    assert due(certificate, START + timedelta(days=61))
    assert due(certificate, START + timedelta(days=91))


def test_what_is_due_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    """Of two certificates, the one whose time has come, with its key."""
    old, young, fresh = leaf(90), leaf(365), leaf(365)
    where, asked = files(tmp_path, old, young), []

    async def obtain(signer: str) -> pki.KeyPair:
        asked.append(signer)
        return fresh

    assert not asyncio.run(renew(where, obtain, START))
    assert asyncio.run(renew(where, obtain, START + timedelta(days=70)))
    assert asked == [KUBELET_CLIENT]
    assert shown(where) == fresh.cert_pem
    assert where.certificate.read_bytes() == young.cert_pem
    assert asyncio.run(renew(where, obtain, START + timedelta(days=300)))
    assert asked[1:] == [KUBELET_CLIENT, KUBELET_SERVING]
    assert (where.certificate.read_bytes(), where.key.read_bytes()) == (fresh.cert_pem, fresh.key_pem)


def test_a_refusal_leaves_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again later, and ends when it succeeded."""
    old, fresh = leaf(90), leaf(365)
    where, tries = files(tmp_path, old, fresh), []
    monkeypatch.setattr("fairlead.cluster.renewal._RETRY", 0.0)

    async def obtain(signer: str) -> pki.KeyPair:
        tries.append(shown(where))
        if len(tries) < 3:
            raise ClusterError("not now")
        return fresh

    asyncio.run(keep(where, obtain, lambda: START + timedelta(days=70)))
    assert tries == [old.cert_pem] * 3
    assert shown(where) == fresh.cert_pem
