"""The load balancer on its own, in any cluster, where MetalLB would be: the controller once, a speaker on every node.

Stands around the controller and `Announcing`. Invariant: controllers of several copies never work at once (a Lease);
speakers of one cluster sign with one key, which is in a Secret that the controller makes if it is not there.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import logging
import secrets
import socket
from contextlib import aclosing
from typing import Literal

import msgspec

from fairlead.announce.announcing import Announcing
from fairlead.announce.frames import ETHERTYPE_ARP
from fairlead.api.addresspool import Pool
from fairlead.api.errors import StatusError
from fairlead.api.kinds import ENDPOINTSLICES, NODES, SECRETS, SERVICES
from fairlead.client import Client, Watched, follow
from fairlead.client.election import Election
from fairlead.client.events import EventRecorder
from fairlead.client.informer import Informer
from fairlead.controllers.loadbalancer import COMPONENT, LoadBalancerController
from fairlead.controllers.loadbalancer_plan import CLASS
from fairlead.discovery.fold import fold
from fairlead.discovery.model import ServiceSnapshot

log = logging.getLogger("fairlead.announce")

NAME = "fairlead-loadbalancer"
_KEY = "announce-key"
_AGAIN = 1.0

Role = Literal["controller", "speaker", "both"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`namespace` holds the Lease and the Secret. `key`: instead of the Secret's. `only_class`: Services that name no
    class are left alone."""

    pool: Pool
    node: str
    role: Role = "both"
    interfaces: tuple[str, ...] = ()
    namespace: str = "kube-system"
    key: bytes = b""
    only_class: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """The loadBalancerClasses that are served."""
        return (CLASS,) if self.only_class else (CLASS, "")


async def serve(client: Client, settings: Settings) -> None:
    """Until cancelled. Raises PermissionError when a speaker may not open packet sockets."""
    if settings.role != "controller":
        check_capability()
    async with asyncio.TaskGroup() as group:
        if settings.role != "speaker":
            identity = f"{settings.node}_{secrets.token_hex(4)}"
            election = Election(client, NAME, identity, settings.namespace)
            group.create_task(election.run(lambda: _control(client, settings)))
        if settings.role != "controller":
            group.create_task(_speak(client, settings))


def check_capability() -> None:
    """Raises PermissionError without CAP_NET_RAW."""
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, ETHERTYPE_ARP).close()
    except PermissionError:
        raise PermissionError(errno.EPERM, "answering ARP needs CAP_NET_RAW") from None


async def _control(client: Client, settings: Settings) -> None:
    if not settings.key:
        await _ensure_key(client, settings.namespace)
    informer = Informer(client, Watched(SERVICES), Watched(NODES))
    recorder = EventRecorder(client, COMPONENT, settings.node)
    controller = LoadBalancerController(client, informer, recorder, settings.pool, settings.classes)
    await recorder.start()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(informer.run())
            await informer.synced.wait()
            group.create_task(controller.run())
    finally:
        await recorder.stop()


async def _speak(client: Client, settings: Settings) -> None:
    key = settings.key or await _read_key(client, settings.namespace)
    announcing = Announcing(
        client, settings.node, key, settings.pool, classes=settings.classes, interfaces=settings.interfaces
    )
    await announcing.start()
    snapshot = ServiceSnapshot()
    try:
        async with aclosing(follow(client, *map(Watched, (SERVICES, ENDPOINTSLICES, NODES)))) as batches:
            async for batch in batches:
                snapshot, changes = fold(snapshot, batch.events, batch.synced)
                announcing.see(snapshot, changes)
    finally:
        await announcing.stop()


async def _ensure_key(client: Client, namespace: str) -> None:
    metadata = {"name": NAME, "namespace": namespace}
    data = {_KEY: base64.b64encode(secrets.token_bytes(32)).decode()}
    try:
        await client.get(SECRETS, NAME, namespace)
    except StatusError as error:
        if error.code != 404:
            raise
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}
        await client.create(SECRETS, body, namespace)


async def _read_key(client: Client, namespace: str) -> bytes:
    """The Secret's key; waits until the controller has made it."""
    told = ""
    while True:
        try:
            secret = await client.get(SECRETS, NAME, namespace)
            if key := base64.b64decode((secret.get("data") or {}).get(_KEY, "")):
                return key
            problem = f"Secret {namespace}/{NAME} has no {_KEY}"
        except StatusError as error:
            problem = str(error)
        if problem != told:
            log.info("waiting for the key: %s", problem)
            told = problem
        await asyncio.sleep(_AGAIN)
