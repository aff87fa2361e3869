"""A node's certificates are renewed in time, and only then, and what is new is used."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from fairlead.apiserver import pki
from fairlead.client.config import client_ssl_context, load_key_pair
from fairlead.cluster.errors import ClusterError
from fairlead.cluster.issuing import kubeconfig
from fairlead.cluster.renewal import Files, Users, due, keep, renew
from fairlead.cluster.signing import KUBELET_CLIENT, KUBELET_SERVING

AUTHORITY = pki.create_authority("test")
START = datetime.now(UTC)


def leaf(life: timedelta = timedelta(days=90), cn: str = "system:node:b") -> pki.KeyPair:
    """A certificate for that long."""
    return pki.issue(AUTHORITY, cn, ["system:nodes"], ["b"], client=True, server=True, lasts=life, now=START)


class Node:
    """A node's files, and who uses them. `asked`: what certificates were asked for; `fresh`: what is given."""

    def __init__(self, directory: Path, client: pki.KeyPair, serving: pki.KeyPair, fresh: pki.KeyPair) -> None:
        self.files = Files(directory / "kubeconfig", directory / "serving.crt", directory / "serving.key")
        document = kubeconfig("c", "https://192.0.2.1", AUTHORITY.cert_pem, client)
        self.files.kubeconfig.write_text(yaml.safe_dump(document))
        self.files.certificate.write_bytes(serving.cert_pem)
        self.files.key.write_bytes(serving.key_pem)
        self.fresh, self.asked, self.served = fresh, list[str](), list[bytes]()
        self.context = client_ssl_context(AUTHORITY.cert_pem.decode(), client.cert_pem, client.key_pem)
        self.users = Users(self.context, lambda: self.served.append(self.files.certificate.read_bytes()))

    async def obtain(self, signer: str) -> pki.KeyPair:
        """As the cluster would."""
        self.asked.append(signer)
        return self.fresh

    def renew(self, days: float) -> float:
        """So many days later."""
        return asyncio.run(renew(self.files, self.obtain, self.users, START + timedelta(days=days)))

    def kept(self) -> bytes:
        """The client certificate in the kubeconfig."""
        document = yaml.safe_load(self.files.kubeconfig.read_bytes())
        return base64.b64decode(document["users"][0]["user"]["client-certificate-data"])

    def shows(self) -> str:
        """Whom a new connection of the client says it is."""
        serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=AUTHORITY.cert_pem.decode())
        load_key_pair(serving, self.fresh.cert_pem, self.fresh.key_pem)
        serving.verify_mode = ssl.CERT_REQUIRED
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self.context.wrap_bio(back, there, server_hostname="b")
        server = serving.wrap_bio(there, back, server_side=True)
        for side in (client, server, client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
        return str(dict(pair for part in server.getpeercert()["subject"] for pair in part)["commonName"])


def test_two_thirds_of_a_life() -> None:
    """What a certificate has of the past, for clocks that differ, is not of its life: also one of minutes is good."""
    assert abs(due(leaf(timedelta(days=90)).cert_pem) - START - timedelta(days=60)) < timedelta(seconds=2)
    assert due(leaf(timedelta(minutes=1)).cert_pem) - START >= timedelta(seconds=39)


def test_what_is_due_is_replaced_and_used_and_nothing_else(tmp_path: Path) -> None:
    """Of two certificates, the one whose time has come, with its key; new connections show it."""
    old, young = leaf(), leaf(timedelta(days=365))
    node = Node(tmp_path, old, young, leaf(timedelta(days=365), "system:node:fresh"))
    assert node.renew(0) == pytest.approx(60 * 86400, abs=2)
    assert (node.asked, node.shows()) == ([], "system:node:b")
    assert node.renew(70) > 0
    assert (node.asked, node.served, node.shows()) == ([KUBELET_CLIENT], [], "system:node:fresh")
    assert node.kept() == node.fresh.cert_pem
    assert node.files.certificate.read_bytes() == young.cert_pem
    node.renew(300)
    assert node.asked[1:] == [KUBELET_CLIENT, KUBELET_SERVING]
    assert (node.served, node.files.key.read_bytes()) == ([node.fresh.cert_pem], node.fresh.key_pem)


def test_a_refusal_leaves_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again later, until it succeeds."""
    old, fresh = leaf(), leaf(timedelta(days=365))
    node, tries = Node(tmp_path, old, fresh, fresh), list[bytes]()
    monkeypatch.setattr("fairlead.cluster.renewal._RETRY", 0.0)

    async def obtain(signer: str) -> pki.KeyPair:
        tries.append(node.kept())
        if len(tries) < 3:
            raise ClusterError("not now")
        done.set()
        return fresh

    async def scenario() -> None:
        task = asyncio.create_task(keep(node.files, obtain, node.users, lambda: START + timedelta(days=70)))
        async with asyncio.timeout(30):
            await done.wait()
        task.cancel()

    done = asyncio.Event()
    asyncio.run(scenario())
    assert tries == [old.cert_pem] * 3
    assert node.kept() == fresh.cert_pem
