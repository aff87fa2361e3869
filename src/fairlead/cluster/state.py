"""What runs of a cluster and what is ready, as `fairlead status` says it.

In: the kernel's truth about processes (who holds which lock) and the API's about nodes and the DNS. Never: a change.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from fairlead.api import kinds
from fairlead.api.errors import StatusError
from fairlead.cluster import config as configuration
from fairlead.cluster.config import ClusterConfig
from fairlead.cluster.errors import ClusterError
from fairlead.cluster.layout import PUBLISHER, Layout
from fairlead.cluster.readiness import Progress
from fairlead.cluster.supervisor import running

_DEADLINE = 5.0


class ClusterStatus(msgspec.Struct, frozen=True):
    """One cluster, now. `processes` are numbers by name; `nodes` whether each is Ready; `problem` is empty if none.
    `joined`: nodes that joined from elsewhere, as they are shown; how they fare is no matter of this machine's.
    `acceleration`, where it was asked for: "socket", or why not, by node."""

    config: ClusterConfig
    processes: dict[str, int]
    nodes: dict[str, bool]
    dns: bool
    problem: str = ""
    acceleration: dict[str, str] = {}
    joined: tuple[dict[str, Any], ...] = ()

    @property
    def ready(self) -> bool:
        """Everything runs and is ready."""
        return not self.problem and self.dns and all(self.nodes.values())

    def document(self) -> dict[str, Any]:
        """For machines."""
        return {
            "name": self.config.name,
            "ready": self.ready,
            "problem": self.problem,
            "server": self.config.api_url,
            "context": self.config.context,
            "lan": self.config.lan,
            "processes": self.processes,
            "nodes": [
                {"name": name, "ready": ready, "address": self.config.node_ip(name)}
                for name, ready in self.nodes.items()
            ],
            "joined": list(self.joined),
            "published": list(self.config.publish),
            "loadBalancerPool": str(self.config.balancer_pool),
            "dns": {"address": self.config.dns_ip, "ready": self.dns},
            "acceleration": self.acceleration,
        }

    def text(self) -> str:
        """For people."""
        c = self.config
        state = "ready" if self.ready else self.problem or "not ready"
        lines = [f"{c.name}: {state}"]
        lines.append(f"  API      {c.api_url}  (context {c.context})")
        for name, ready in self.nodes.items():
            lines.append(f"  {name:<8} {c.node_ip(name)}  {'Ready' if ready else 'NotReady'}")
        for node in self.joined:
            address = node["address"] + (f" ({node['externalAddress']})" if node["externalAddress"] else "")
            where = f"  in {node['network']}" if node["network"] else ""
            ways = "".join(f"  {way} from {', '.join(names)}" for way, names in node["ways"].items())
            lines.append(f"  {node['name']:<8} {address}  {'Ready' if node['ready'] else 'NotReady'}{where}{ways}")
        lines.append(f"  DNS      {c.dns_ip}  {'Ready' if self.dns else 'NotReady'}")
        for name, kind in self.acceleration.items():
            lines.append(f"  sockets  of pods on {name}: {'accelerated' if kind == 'socket' else kind}")
        if c.balancer_pool:
            lines.append(f"  balancer {c.balancer_pool}")
        if c.publish:
            lines.append("  publish  " + ", ".join(c.publish))
        lines.append("  running  " + (", ".join(f"{n} ({p})" for n, p in self.processes.items()) or "nothing"))
        return "\n".join(lines)


def of(name: str) -> ClusterStatus:
    """The status of one cluster. Raises ClusterError if there is none, or it can't be read."""
    configuration.check_name(name)
    layout = Layout.of(name)
    try:
        present = layout.config.exists()
    except PermissionError:
        raise ClusterError("the clusters' state is root's", "run: sudo fairlead status") from None
    if not present:
        raise ClusterError(f"there is no cluster named {name!r}", "see: fairlead status")
    config = configuration.load(layout.config)
    processes = running(layout)
    nodes = dict.fromkeys(config.node_names, False)
    expected = {"supervisor", "control-plane", *(f"node-{node}" for node in config.node_names)}
    if config.publishes:
        expected.add(PUBLISHER)
    if not processes:
        return ClusterStatus(config, {}, nodes, False, f"stopped; start it with: fairlead up --name {name}")
    problem = ""
    missing = sorted(expected - processes.keys())
    if missing:
        problem = f"not running: {', '.join(missing)}"
    try:
        progress = asyncio.run(asyncio.wait_for(_ask(layout, config), _DEADLINE))
    except (StatusError, TimeoutError) as error:
        return ClusterStatus(config, processes, nodes, False, problem or f"the API does not answer: {error}")
    joined = tuple({**node, "ways": _ways(progress, name)} for name, node in sorted(progress.joined.items()))
    acceleration = _acceleration(layout, config)
    return ClusterStatus(config, processes, progress.nodes, progress.dns, problem, acceleration, joined)


def _acceleration(layout: Layout, config: ClusterConfig) -> dict[str, str]:
    """What each node's proxy said last; empty where nobody asked for it."""
    if not config.accelerate:
        return {}
    files = {node: layout.acceleration(node) for node in config.node_names}
    return {node: file.read_text() if file.exists() else "not yet" for node, file in files.items()}


def _ways(progress: Progress, node: str) -> dict[str, list[str]]:
    """By which ways the other nodes reach it: way → names."""
    found: dict[str, list[str]] = {}
    for name, ways in sorted(progress.ways.items()):
        if node in ways:
            found.setdefault(ways[node], []).append(name)
    return found


async def _ask(layout: Layout, config: ClusterConfig) -> Progress:
    from fairlead.client import Client

    progress = Progress(dict.fromkeys(config.node_names, False))
    async with Client.from_kubeconfig(layout.kubeconfig("admin")) as client:
        for node in (await client.list(kinds.NODES))["items"]:
            progress.see("Node", "ADDED", node)
        slices = await client.list(
            kinds.ENDPOINTSLICES, "kube-system", label_selector="kubernetes.io/service-name=kube-dns"
        )
        for item in slices["items"]:
            progress.see("EndpointSlice", "ADDED", item)
    return progress
