"""Where a node is: its addresses, kept true in its Node while they change.

Runs in the node's process. In: the machine's own address on the way to the API server; what the annotation
`fairlead.dev/external-ip` says, an address or `auto`; for `auto`, the address the API server sees. Out: InternalIP and
ExternalIP in the Node's status. Invariant: what could not be learned this time stays as it was.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson

from fairlead.api import nodenetworks
from fairlead.api.errors import StatusError
from fairlead.client import Client, config
from fairlead.cluster.enlist import ADDRESS_PATH
from fairlead.cluster.member import AUTO, Member
from fairlead.discovery.model import Node
from fairlead.kubelet.node import NodeReporter
from fairlead.kubelet.options import PORT

log = logging.getLogger("fairlead.node")

_LOOK = 5.0  # s
_PATIENCE = 2.0  # s


async def keep(
    connection: config.Connection,
    reporter: NodeReporter,
    node_ips: tuple[str, ...],
    wish: Callable[[], str],
    member: Member | None,
) -> None:
    """Until cancelled. `wish`: the annotation's text, empty if there is none."""
    seen = ""
    while True:
        internal = node_ips
        if member is not None:
            try:
                internal = member.internal_ips()
            except OSError as error:
                log.info("no way to the API server at %s: %s", member.server, error)
        wanted = wish() or (member.external_ip if member is not None else "")
        if wanted == AUTO:
            seen = await observed(connection) or seen
        reporter.set_addresses(internal, external_ip(wanted, seen, internal))
        await asyncio.sleep(_LOOK)


def external_ip(wanted: str, seen: str, internal: tuple[str, ...]) -> str:
    """The ExternalIP, or nothing if the node has none besides its own addresses. Pure."""
    found = seen if wanted == AUTO else wanted
    try:
        ipaddress.ip_address(found)
    except ValueError:
        return ""
    return found if found not in internal else ""


def prober(authority: Path) -> Callable[[str, str], Awaitable[bool]]:
    """Asks whether a node is reached at an address: its kubelet answers there, and proves to be that node."""
    context = ssl.create_default_context(cafile=str(authority))

    async def ask(address: str, node: str) -> bool:
        try:
            async with asyncio.timeout(_PATIENCE):
                _, writer = await asyncio.open_connection(address, PORT, ssl=context, server_hostname=node)
        except (OSError, TimeoutError):
            return False
        writer.transport.abort()
        return True

    return ask


def not_answering(node: Node, asker: str) -> tuple[dict[str, Any], str]:
    """What an Event says about an external address where nobody answers: object and message. Pure."""
    obj = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name, "uid": node.name}}
    address = node.external_ips[0] if node.external_ips else node.external_wish
    message = (
        f"{address} (annotation {nodenetworks.EXTERNAL_IP}) does not answer from node {asker}: port {PORT} does not "
        f"lead to {node.name}; only tunnels that it opens itself reach it"
    )
    return obj, message


async def observed(connection: config.Connection) -> str:
    """The address that the API server sees; empty if it can't be asked now. A connection of its own each time: an old
    one would tell of an old address."""
    try:
        async with Client.from_connection(connection) as client, asyncio.timeout(_LOOK):
            return str(orjson.loads(await client.get_raw(ADDRESS_PATH))["address"])
    except (StatusError, TimeoutError, OSError, ValueError, KeyError) as error:
        log.debug("the API server could not be asked for our address: %s", error)
        return ""
