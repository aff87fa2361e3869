"""A node's certificates are made anew in time, and taken into use.

Runs in the node's process, with the node's own identity, which may ask for its successor. Invariants: a certificate
that is there is replaced by one that was signed, never by nothing; keys are new each time; open connections stay.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

import msgspec
import yaml

from fairlead.api.errors import StatusError
from fairlead.apiserver import pki
from fairlead.apiserver.pki import KeyPair
from fairlead.client import config
from fairlead.cluster.errors import ClusterError
from fairlead.cluster.issuing import client_certificate, write_private
from fairlead.cluster.signing import KUBELET_CLIENT, KUBELET_SERVING
from fairlead.registry.requests import utc_now

log = logging.getLogger("fairlead.node")

_LOOK = 3600.0  # s; clocks jump, machines sleep
_SHARE = 3  # the last third of its life is for its renewal; upstream's kubelet begins after 70 to 90 %
_RETRY = 300.0  # s
_TRIES = 20  # as often, at least, it is tried in that time

Obtain = Callable[[str], Awaitable[KeyPair]]
"""A certificate of that signer for this node. Raises ClusterError, StatusError."""


class Files(msgspec.Struct, frozen=True):
    """Where the node's two certificates are: one in its kubeconfig, one beside its key."""

    kubeconfig: Path
    certificate: Path
    key: Path


class Users(msgspec.Struct, frozen=True):
    """Who takes what is new: the context of the client's connections, and the kubelet's server."""

    client: ssl.SSLContext | None
    serve: Callable[[], None]


def due(certificate: bytes) -> datetime:
    """When two thirds of its life are over. Pure."""
    begins, ends = pki.lifetime(certificate)
    return ends - (ends - begins - pki.CLOCK_SKEW) / _SHARE


async def keep(files: Files, obtain: Obtain, users: Users, now: Callable[[], datetime] = utc_now) -> None:
    """Until cancelled."""
    while True:
        try:
            wait = min(await renew(files, obtain, users, now()), _LOOK)
        except (ClusterError, StatusError, OSError, pki.BadCredentials) as error:
            log.error("certificates could not be renewed: %s; trying again", error)
            wait = _patience(files)
        await asyncio.sleep(wait)


async def renew(files: Files, obtain: Obtain, users: Users, now: datetime) -> float:
    """Renew what is due, and have it used. The seconds until something is due again."""
    document = yaml.safe_load(files.kubeconfig.read_bytes())
    user = document["users"][0]["user"]
    shown, served = client_certificate(document), files.certificate.read_bytes()
    if due(shown) <= now:
        pair = await obtain(KUBELET_CLIENT)
        user["client-certificate-data"] = base64.b64encode(pair.cert_pem).decode()
        user["client-key-data"] = base64.b64encode(pair.key_pem).decode()
        write_private(files.kubeconfig, yaml.safe_dump(document, sort_keys=False).encode())
        if users.client is not None:
            config.load_key_pair(users.client, pair.cert_pem, pair.key_pem)
        shown = pair.cert_pem
        log.info("the node's client certificate was renewed; it lasts until %s", pki.expires(shown))
    if due(served) <= now:
        pair = await obtain(KUBELET_SERVING)
        write_private(files.key, pair.key_pem)
        write_private(files.certificate, pair.cert_pem)
        users.serve()
        served = pair.cert_pem
        log.info("the kubelet's serving certificate was renewed; it lasts until %s", pki.expires(served))
    return max(0.0, (min(due(shown), due(served)) - now).total_seconds())


def _patience(files: Files) -> float:
    """So long until it is tried again: often enough for what is left."""
    try:
        begins, ends = pki.lifetime(files.certificate.read_bytes())
    except (OSError, pki.BadCredentials):
        return _RETRY
    return min(_RETRY, (ends - begins - pki.CLOCK_SKEW).total_seconds() / _SHARE / _TRIES)
