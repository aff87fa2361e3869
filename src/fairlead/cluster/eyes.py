"""This machine's own eyes on a cluster that runs here: every node's and pod's namespace, with the rights of who looks.

Stands on the layout and `survey`. Invariant: for nodes that are here it needs no agent and no API, so it sees what is
wrong with those, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from fairlead.client import Client
from fairlead.cluster.config import ClusterConfig
from fairlead.cluster.layout import Layout
from fairlead.cluster.supervisor import running
from fairlead.explain.evidence import Attempt, DNSAnswer, Facts, NodeKernel, PodKernel, ProcessState
from fairlead.linux.namespaces import path as namespace_path
from fairlead.survey import asking, sight
from fairlead.survey.eyes import AgentEyes
from fairlead.survey.nodeside import NodeSide, Request
from fairlead.survey.traffic import Count


class LocalEyes:
    """See `survey.eyes.Eyes`. Nodes that joined from elsewhere are asked through their agents."""

    def __init__(self, layout: Layout, config: ClusterConfig, client: Client) -> None:
        self._layout, self._config = layout, config
        self._elsewhere = AgentEyes(client)
        self._sides: dict[str, NodeSide] = {}
        self.facts = Facts(
            name=config.name,
            domain=config.cluster_domain,
            dns_ip=config.dns_ip,
            pod_cidrs=config.pod_cidrs,
            service_cidrs=config.service_cidrs,
            outside_ip=config.host_ip,
            proxy_mode=config.proxy_mode,
            accelerate=config.accelerate,
            local=True,
        )

    def _is_here(self, node: str) -> bool:
        return node in self._config.node_names

    def side(self, node: str) -> NodeSide:
        """One node, as its agent would see it."""
        if node not in self._sides:
            folder = self._layout.runtime / "nodes" / node / "pods"
            where = namespace_path(self._layout.node_namespace(node))
            self._sides[node] = NodeSide(folder, where, self._config.proxy_mode)
        return self._sides[node]

    def processes(self) -> dict[str, ProcessState]:
        """See `Eyes`."""
        alive = running(self._layout)
        states: dict[str, ProcessState] = {}
        for name in ("supervisor", "control-plane", *(f"node-{node}" for node in self._config.node_names)):
            pid = alive.get(name, 0)
            letter = sight.process_state(pid) if pid else ""
            states[name] = "gone" if not letter or letter in "ZX" else "stopped" if letter in "Tt" else "running"
        return states

    async def node(self, name: str, targets: Iterable[str], destinations: Iterable[str]) -> NodeKernel:
        """See `Eyes`."""
        if not self._is_here(name):
            return await self._elsewhere.node(name, targets, destinations)
        return await asyncio.to_thread(self.side(name).node, targets, destinations)

    async def pods(self, node: str, wanted: Mapping[str, bool], toward: Iterable[str]) -> dict[str, PodKernel]:
        """See `Eyes`."""
        if not self._is_here(node):
            return await self._elsewhere.pods(node, wanted, toward)
        return await asyncio.to_thread(self.side(node).pods, wanted, toward)

    async def names(self, node: str, uid: str, names: Iterable[str], family: str) -> tuple[DNSAnswer, ...]:
        """See `Eyes`."""
        if not self._is_here(node):
            return await self._elsewhere.names(node, uid, names, family)
        return await asyncio.to_thread(self.side(node).names, uid, names, family)

    async def request(
        self, node: str, uid: str, request: Request, *, trace: bool = False
    ) -> tuple[Attempt, int] | None:
        """See `Eyes`."""
        if not node:
            return await asyncio.to_thread(asking.connect, *request)
        if not self._is_here(node):
            return await self._elsewhere.request(node, uid, request, trace=trace)
        return await asyncio.to_thread(self.side(node).request, uid, request, trace)

    async def tracked(self, node: str, request: Request, source_port: int) -> str:
        """See `Eyes`."""
        if not self._is_here(node):
            return await self._elsewhere.tracked(node, request, source_port)
        return await asyncio.to_thread(self.side(node).tracked, request, source_port)

    async def traffic(self, node: str) -> tuple[tuple[Count, ...], str]:
        """See `Eyes`."""
        if not self._is_here(node):
            return await self._elsewhere.traffic(node)
        try:
            return await asyncio.to_thread(self.side(node).traffic), ""
        except OSError as error:
            return (), f"the connection tracking of {node} can't be read: {error.strerror or error}"
