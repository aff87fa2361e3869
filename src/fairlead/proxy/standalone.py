"""The proxy as a process of its own, in kube-proxy's place, against any Kubernetes API server.

Stands around `Proxy`: its servers, its settings of the machine. Invariant: while the API server is away, the rules and
the servers stay as they are; when it is back, only what differs is changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from fairlead.api.errors import StatusError
from fairlead.api.events import WatchEvent
from fairlead.api.kinds import ENDPOINTSLICES, NODES, SERVICECIDRS, SERVICES, Resource
from fairlead.client import Client
from fairlead.discovery.fold import fold
from fairlead.discovery.model import ServiceSnapshot
from fairlead.proxy import sysctls
from fairlead.proxy.backends import backend_for, clean_others, render
from fairlead.proxy.compile import compile_table
from fairlead.proxy.config import Settings
from fairlead.proxy.run import Proxy
from fairlead.proxy.serving import ProxyServers
from fairlead.proxy.table import Family

log = logging.getLogger("fairlead.proxy")

_KINDS = {
    ("v1", "Service"): SERVICES,
    ("v1", "Node"): NODES,
    ("discovery.k8s.io/v1", "EndpointSlice"): ENDPOINTSLICES,
    ("networking.k8s.io/v1", "ServiceCIDR"): SERVICECIDRS,
}


def families() -> tuple[Family, ...]:
    """The families this kernel has."""
    return ("IPv4", "IPv6") if Path("/proc/net/if_inet6").exists() else ("IPv4",)


def _proxy(settings: Settings) -> Proxy:
    """The proxy of these settings; when its rules are there, those of other modes go."""
    backend = backend_for(settings.mode, settings.options, families())
    return Proxy(settings.options, families=families(), backend=backend, on_first=partial(clean_others, settings.mode))


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Proxy]:
    """A proxy with its two servers, on this machine. Raises OSError if an address is taken that must not be."""
    for note in settings.notes:
        log.warning(note)
    options = settings.options
    if settings.oom_score_adj is not None:
        _set_oom_score(settings.oom_score_adj)
    proxy = _proxy(settings)
    servers = ProxyServers(proxy, settings.mode, settings.health, settings.metrics, settings.must_bind)
    if options.manage_sysctls:
        sysctls.size_tracking(settings.tracking)
    await servers.start()
    try:
        yield proxy
    finally:
        await servers.stop()


def _set_oom_score(score: int) -> None:
    try:
        Path("/proc/self/oom_score_adj").write_text(str(score))
    except OSError as error:
        log.warning("oomScoreAdj %d cannot be set (%s): when memory is short, this proxy may be ended", score, error)


async def serve(settings: Settings, client: Client) -> None:
    """Follow the API server until cancelled. The rules stay."""
    log.info("node %s, mode %s", settings.options.node_name, settings.mode)
    async with serving(settings) as proxy:
        await proxy.run(client)


async def once(settings: Settings, client: Client) -> int:
    """Make the rules as the API server says now, and end; the rules stay. Returns how many Services there are.
    Raises OSError if the kernel refuses."""
    resources = (SERVICES, ENDPOINTSLICES, NODES, SERVICECIDRS)
    listed = await asyncio.gather(*(_items(client, resource) for resource in resources))
    events = [
        WatchEvent("ADDED", resource, item) for resource, found in zip(resources, listed, strict=True) for item in found
    ]
    snapshot, _ = fold(ServiceSnapshot(), events, synced=True)
    proxy = _proxy(settings)
    await proxy.start()
    try:
        await proxy.apply(snapshot)
        if proxy.synced_at is None:
            raise OSError("the kernel refused the rules (see above)")
    finally:
        await proxy.stop()
    return len(snapshot.services)


async def _items(client: Client, resource: Resource) -> list[dict[str, Any]]:
    """All of a kind; none of ServiceCIDRs where the server has them not, or does not let us read them."""
    try:
        return list((await client.list(resource))["items"])
    except StatusError as error:
        if resource != SERVICECIDRS or error.code not in (403, 404):
            raise
        return []


def objects_of(documents: Iterable[Any]) -> Iterable[WatchEvent]:
    """Services, EndpointSlices, Nodes and ServiceCIDRs of YAML documents (lists are opened) as events.

    Raises ValueError that names what is none of these.
    """
    for document in documents:
        if document is None:
            continue
        if not isinstance(document, dict):
            raise ValueError("a document is no object")
        kind = str(document.get("kind"))
        if kind.endswith("List") and isinstance(document.get("items"), list):
            item = {"apiVersion": document.get("apiVersion"), "kind": kind[:-4]} if kind != "List" else {}
            yield from objects_of({**item, **entry} for entry in document["items"])
            continue
        resource = _KINDS.get((str(document.get("apiVersion")), kind))
        if resource is None:
            raise ValueError(
                f"{document.get('apiVersion')} {kind} is not read: only v1 Service, v1 Node, "
                "discovery.k8s.io/v1 EndpointSlice and networking.k8s.io/v1 ServiceCIDR are"
            )
        yield WatchEvent("ADDED", resource, document)


def render_state(settings: Settings, documents: Iterable[Any]) -> str:
    """The rules for a state given as documents, as text. Touches no kernel. Raises ValueError."""
    snapshot, _ = fold(ServiceSnapshot(), objects_of(documents), synced=True)
    table, _ = compile_table(snapshot, settings.options)
    ips = {ip for service in snapshot.services.values() for ip in service.cluster_ips}
    found: list[Family] = []
    if not ips or any(":" not in ip for ip in ips):
        found.append("IPv4")
    if any(":" in ip for ip in ips):
        found.append("IPv6")
    return render(settings.mode, settings.options, tuple(found), table)
