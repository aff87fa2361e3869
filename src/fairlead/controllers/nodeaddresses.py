"""Gives every node its range of pod addresses: spec.podCIDR, a /24 of the cluster's range.

Upstream: pkg/controller/nodeipam. Invariant: no two nodes have overlapping ranges; a range once given is never
changed, and is free again only when its node is gone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from fairlead.api.kinds import NODES
from fairlead.client.workqueue import WorkQueue, work
from fairlead.controllers.context import Context

Object = dict[str, Any]


def next_range(cluster_cidr: str, mask: int, taken: Iterable[str]) -> str:
    """The first free range of size `mask`; empty if there is none. `taken` may be of any size."""
    network = ipaddress.ip_network(cluster_cidr)
    used = [ipaddress.ip_network(t, strict=False) for t in taken]
    used = [u for u in used if u.version == network.version]
    exact = {str(u) for u in used if u.prefixlen == mask}
    others = [u for u in used if u.prefixlen != mask]
    for candidate in network.subnets(new_prefix=max(mask, network.prefixlen)):
        if str(candidate) not in exact and not any(candidate.overlaps(u) for u in others):
            return str(candidate)
    return ""


class NodeAddressesController:
    """One worker: ranges are given one after another."""

    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._nodes = context.cache(NODES)
        self._given: dict[str, str] = {}  # uid → range, also those not yet in the cache
        self._recorder = context.recorder("cidrAllocator")
        self._queue: WorkQueue[str] = WorkQueue()
        context.informer.on(NODES, self._on_node)

    async def run(self) -> None:
        """Until cancelled."""
        await work(self._queue, self._reconcile, "nodeaddresses", workers=1)

    def _on_node(self, before: Object | None, after: Object | None) -> None:
        if before is not None and (after is None or before["metadata"]["uid"] != after["metadata"]["uid"]):
            self._given.pop(before["metadata"]["uid"], None)
        if after is None:
            for node in self._nodes:
                if not _range(node):
                    self._queue.add(node["metadata"]["name"])
            return
        if _range(after):
            self._given[after["metadata"]["uid"]] = _range(after)
        else:
            self._queue.add(after["metadata"]["name"])

    async def _reconcile(self, name: str) -> None:
        node = self._nodes.get(name)
        if node is None or _range(node):
            return
        uid = node["metadata"]["uid"]
        options = self._context.options
        given = self._given.get(uid) or next_range(options.cluster_cidr, options.node_mask, self._given.values())
        if not given:
            message = f"Node {name} status is now: CIDRNotAvailable"
            self._recorder.event(node, "Normal", "CIDRNotAvailable", message)
            return
        self._given[uid] = given
        patch = {"metadata": {"uid": uid}, "spec": {"podCIDR": given, "podCIDRs": [given]}}
        await self._client.patch(NODES, name, patch)


def _range(node: Object) -> str:
    spec = node.get("spec") or {}
    return str(spec.get("podCIDR") or (spec.get("podCIDRs") or [""])[0])
