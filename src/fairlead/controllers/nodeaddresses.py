"""Gives every node its range of pod addresses: spec.podCIDRs, a /24 (IPv6: a /64) of each of the cluster's ranges.

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
        self._given: dict[str, list[str]] = {}  # uid → ranges, also those not yet in the cache
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
                if not _ranges(node):
                    self._queue.add(node["metadata"]["name"])
            return
        if _ranges(after):
            self._given[after["metadata"]["uid"]] = _ranges(after)
        else:
            self._queue.add(after["metadata"]["name"])

    async def _reconcile(self, name: str) -> None:
        node = self._nodes.get(name)
        if node is None or _ranges(node):
            return
        uid = node["metadata"]["uid"]
        options = self._context.options
        taken = [given for ranges in self._given.values() for given in ranges]
        given = self._given.get(uid) or [
            next_range(cidr, 64 if ":" in cidr else options.node_mask, taken) for cidr in options.cluster_cidrs
        ]
        if not all(given):
            message = f"Node {name} status is now: CIDRNotAvailable"
            self._recorder.event(node, "Normal", "CIDRNotAvailable", message)
            return
        self._given[uid] = given
        patch = {"metadata": {"uid": uid}, "spec": {"podCIDR": given[0], "podCIDRs": given}}
        await self._client.patch(NODES, name, patch)


def _ranges(node: Object) -> list[str]:
    spec = node.get("spec") or {}
    return list(spec.get("podCIDRs") or filter(None, [spec.get("podCIDR")]))
