"""A joined node's certificates are made anew in time.

Runs in the node's process, with the node's own identity, which may ask for its successor. Invariant: a certificate that
is there is replaced by one that was signed, never by nothing; keys are new each time.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

import msgspec
import yaml

from fairlead.api.errors import StatusError
from fairlead.apiserver import pki
from fairlead.apiserver.pki import KeyPair
from fairlead.cluster.errors import ClusterError
from fairlead.cluster.issuing import write_private
from fairlead.cluster.signing import KUBELET_CLIENT, KUBELET_SERVING
from fairlead.registry.requests import utc_now

log = logging.getLogger("fairlead.node")

_LOOK, _RETRY = 3600.0, 300.0  # s
_SHARE = 2 / 3  # of its life that a certificate serves, as upstream's kubelet has it (70 to 90 %)

Obtain = Callable[[str], Awaitable[KeyPair]]
"""A certificate of that signer for this node. Raises ClusterError, StatusError."""


class Files(msgspec.Struct, frozen=True):
    """Where the node's two certificates are: one in its kubeconfig, one beside its key."""

    kubeconfig: Path
    certificate: Path
    key: Path


def due(certificate: bytes, now: datetime) -> bool:
    """Whether two thirds of its life are over. Pure."""
    begins, ends = pki.lifetime(certificate)
    return now - begins >= (ends - begins) * _SHARE


async def keep(files: Files, obtain: Obtain, now: Callable[[], datetime] = utc_now) -> None:
    """Until something was renewed; whoever uses it must then begin anew."""
    while True:
        wait = _LOOK
        try:
            if await renew(files, obtain, now()):
                return
        except (ClusterError, StatusError, OSError, pki.BadCredentials) as error:
            log.error("certificates could not be renewed: %s; trying again", error)
            wait = _RETRY
        await asyncio.sleep(wait)


async def renew(files: Files, obtain: Obtain, now: datetime) -> bool:
    """Renew what is due. Whether anything was."""
    document = yaml.safe_load(files.kubeconfig.read_bytes())
    user = document["users"][0]["user"]
    renewed = False
    if due(base64.b64decode(user["client-certificate-data"]), now):
        pair = await obtain(KUBELET_CLIENT)
        user["client-certificate-data"] = base64.b64encode(pair.cert_pem).decode()
        user["client-key-data"] = base64.b64encode(pair.key_pem).decode()
        write_private(files.kubeconfig, yaml.safe_dump(document, sort_keys=False).encode())
        log.info("the node's client certificate was renewed")
        renewed = True
    if due(files.certificate.read_bytes(), now):
        pair = await obtain(KUBELET_SERVING)
        write_private(files.key, pair.key_pem)
        write_private(files.certificate, pair.cert_pem)
        log.info("the kubelet's serving certificate was renewed")
        renewed = True
    return renewed
