"""Waiting until a cluster is ready, by watching it, and saying meanwhile what is still missing."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec

from fairlead.api import kinds, nodenetworks
from fairlead.client import Client, Watched, follow
from fairlead.cluster.config import ClusterConfig
from fairlead.cluster.errors import ClusterError, NotReady
from fairlead.cluster.layout import Layout

_LOOK = 0.05


class Progress(msgspec.Struct):
    """What has been seen so far. Pure: `see` folds one event, `missing` says what is not there yet.

    `nodes` are those the cluster was made with, `joined` all others, which nobody waits for; `ways`: what each node
    says of its ways to nodes in other networks.
    """

    nodes: dict[str, bool]
    dns: bool = False
    joined: dict[str, dict[str, Any]] = {}
    ways: dict[str, dict[str, str]] = {}

    def see(self, kind: str, event: str, obj: dict[str, Any]) -> None:
        """Fold a watch event of a Node or of an EndpointSlice of the DNS."""
        if kind == "Node":
            name = obj["metadata"]["name"]
            conditions = (obj.get("status") or {}).get("conditions") or []
            ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
            ready = ready and event != "DELETED"
            if name in self.nodes:
                self.nodes[name] = ready
            elif event != "DELETED":
                self.joined[name] = {
                    "name": name,
                    "ready": ready,
                    "address": nodenetworks.address(obj, "InternalIP"),
                    "externalAddress": nodenetworks.address(obj, "ExternalIP"),
                    "network": nodenetworks.network_of(obj),
                }
            self.ways[name] = dict(nodenetworks.paths_of(obj))
        else:
            endpoints = obj.get("endpoints") or []
            self.dns = any((e.get("conditions") or {}).get("ready") is True for e in endpoints)

    @property
    def missing(self) -> list[str]:
        """What is not ready, in words."""
        out = [f"node {name}" for name, ready in self.nodes.items() if not ready]
        return out if self.dns else [*out, "DNS"]


async def wait(layout: Layout, config: ClusterConfig, seconds: float, report: Any) -> None:
    """Until every node and the DNS are ready. Raises ClusterError when the control plane can't start, or too late."""
    progress = Progress(dict.fromkeys(config.node_names, False))
    watching = asyncio.create_task(_watch(layout, progress, report, seconds > 0))
    failing = asyncio.create_task(_failure(layout))
    try:
        done, _ = await asyncio.wait([watching, failing], timeout=seconds or 30, return_when=asyncio.FIRST_COMPLETED)
        if failing in done:
            raise ClusterError(failing.result())
        if not done:
            raise NotReady(
                f"not ready after {seconds or 30:g} s: {', '.join(progress.missing)}",
                f"it goes on starting; see the logs in {layout.logs}, or remove it: fairlead down --name {layout.name}",
            )
        watching.result()
    finally:
        for task in (watching, failing):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


async def _watch(layout: Layout, progress: Progress, report: Any, until_ready: bool) -> None:
    async with Client.from_kubeconfig(layout.kubeconfig("admin")) as client:
        slices = Watched(
            kinds.ENDPOINTSLICES, namespace="kube-system", label_selector="kubernetes.io/service-name=kube-dns"
        )
        said = ""
        async for batch in follow(client, Watched(kinds.NODES), slices):
            if not until_ready:
                return
            for event in batch.events:
                progress.see(event.resource.kind, event.type, event.object)
            missing = ", ".join(progress.missing)
            if not missing:
                return
            if missing != said:
                report(f"waiting for {missing}")
                said = missing


async def _failure(layout: Layout) -> str:
    file = layout.failure("control-plane")
    while not file.exists():  # noqa: ASYNC110  (another process writes it)
        await asyncio.sleep(_LOOK)
    return file.read_text()
