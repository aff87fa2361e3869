"""The publisher's process: the cluster on the machine's own ports (`--publish`, node ports), and routes into it.

Runs in a forked child of the supervisor, in the machine's network namespace. Its listening sockets for `--publish` are
the supervisor's, so they outlive it. Invariant: it changes nothing of the machine but sockets of its own and (with
`--host-routes`) routes by the cluster's own link, which go with that link.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from pathlib import Path
from typing import Any

import uvloop

from fairlead.api.kinds import NODES, SERVICES
from fairlead.client import Client, Watched, follow
from fairlead.client.events import EventRecorder
from fairlead.cluster import routes
from fairlead.cluster.carrying import TCPPort, UDPPort
from fairlead.cluster.config import ClusterConfig
from fairlead.cluster.controlplane import start_logging, stop_event
from fairlead.cluster.layout import Layout
from fairlead.cluster.ports import Bound, listen
from fairlead.cluster.publish import Listener, Publication, Way, node_ports, ways_of
from fairlead.discovery.fold import fold
from fairlead.discovery.model import ServiceKey, ServiceSnapshot
from fairlead.linux import namespaces
from fairlead.linux.links import Links

log = logging.getLogger("fairlead.publisher")

_AGAIN = 5.0  # seconds between two tries to listen at a port that is taken

Port = TCPPort | UDPPort


def run(layout: Layout, config: ClusterConfig, bound: Bound) -> None:
    """Serve until SIGTERM."""
    start_logging()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a socket for each node port, two for each connection
    uvloop.run(_serve(layout, config, bound))


async def _serve(layout: Layout, config: ClusterConfig, bound: Bound) -> None:
    stop = stop_event()
    # A node may read Services and Nodes and write Events, and no more is needed.
    node = config.node_names[0]
    async with Client.from_kubeconfig(layout.kubeconfig(node)) as client:
        publisher = Publisher(layout, config, EventRecorder(client, "fairlead-publisher", node))
        await publisher.start()
        following = asyncio.create_task(publisher.follow(client, bound), name="follow")
        waiter = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([following, waiter], return_when=asyncio.FIRST_COMPLETED)
        following.cancel()
        waiter.cancel()
        await publisher.stop()
        for task in done - {waiter}:
            task.result()


class Publisher:
    """What is open now. Lives in the event loop."""

    def __init__(self, layout: Layout, config: ClusterConfig, recorder: EventRecorder) -> None:
        self._layout, self._config, self._recorder = layout, config, recorder
        self._snapshot = ServiceSnapshot()
        self._published: list[Port] = []
        self._open: dict[Listener, Port] = {}
        self._ways: dict[Listener, Way] = {}
        self._taken: dict[Listener, ServiceKey] = {}
        self._again: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._links = Links() if config.host_routes else None

    async def start(self) -> None:
        """Begin."""
        await self._recorder.start()

    async def _publish(self, bound: Bound) -> None:
        """Serve `--publish`. Who came before waits in the sockets' queues."""
        for publication, one in bound:
            made = self._port(publication.listener, one, lambda p=publication: self._ways_of(p))
            await made.start()
            self._published.append(made)

    async def stop(self) -> None:
        """End everything."""
        if self._again is not None:
            self._again.cancel()
        for port in [*self._published, *self._open.values()]:
            await port.close()
        await self._recorder.stop()
        if self._links is not None:
            self._links.close()

    async def follow(self, client: Client, bound: Bound) -> None:
        """Serve `--publish` once the Services are known, and keep node ports and routes right, until cancelled."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._keep_node_ports())
            async for batch in follow(client, Watched(SERVICES), Watched(NODES)):
                self._snapshot, changes = fold(self._snapshot, batch.events, batch.synced)
                if self._snapshot.synced and not self._published:
                    await self._publish(bound)
                if self._snapshot.synced and (changes.services or batch.synced):
                    self._changed.set()
                if self._links is not None and (changes.nodes or batch.synced):
                    self._route(self._links, remove=batch.synced)

    async def _keep_node_ports(self) -> None:
        while self._config.localhost_node_ports:
            await self._changed.wait()
            self._changed.clear()
            wanted = node_ports(self._snapshot.services.values())
            for listener in self._open.keys() - wanted.keys():
                await self._open.pop(listener).close()
            self._taken = {listener: key for listener, key in self._taken.items() if listener in wanted}
            for listener, (key, way) in wanted.items():
                self._ways[listener] = way
                if listener not in self._open:
                    await self._open_node_port(listener, key)
            if self._taken and self._again is None:
                self._again = asyncio.get_running_loop().call_later(_AGAIN, self._try_again)

    async def _open_node_port(self, listener: Listener, key: ServiceKey) -> None:
        try:
            one = listen(listener)
        except OSError as error:
            if self._taken.get(listener) != key:
                self._taken[listener] = key
                self._tell(key, f"{listener} on the machine can't be had ({error.strerror}): the node port is served "
                           "by the nodes' own addresses only")  # fmt: skip
            return
        self._taken.pop(listener, None)
        made = self._port(listener, one, lambda: (self._ways[listener],))
        await made.start()
        self._open[listener] = made

    def _try_again(self) -> None:
        self._again = None
        self._changed.set()

    def _port(self, listener: Listener, one: socket.socket, ways: Any) -> Port:
        return (TCPPort if listener.transport == "tcp" else UDPPort)(one, ways, self._inside)

    def _ways_of(self, publication: Publication) -> tuple[Way, ...]:
        return ways_of(publication, self._snapshot.services.get(publication.service))

    def _inside(self) -> list[tuple[Path, str]]:
        """The nodes to go through, ready ones first."""
        nodes = self._snapshot.nodes
        names = [name for name in self._config.node_names if namespaces.exists(self._layout.node_namespace(name))]
        names.sort(key=lambda name: not (name in nodes and nodes[name].ready))
        return [(namespaces.path(self._layout.node_namespace(n)), self._config.node_ip(n)) for n in names]

    def _route(self, links: Links, *, remove: bool) -> None:
        nodes = [node for name, node in sorted(self._snapshot.nodes.items()) if name in self._config.node_names]
        wanted = routes.wanted(nodes)
        wanted.update(routes.to_services(self._config.service_cidrs, nodes))
        routes.apply(links, wanted, remove=remove, device=links.index(self._layout.host_link))

    def _tell(self, key: ServiceKey, message: str) -> None:
        log.warning("%s: %s", key, message)
        service = self._snapshot.services.get(key)
        metadata = {"namespace": key.namespace, "name": key.name, "uid": service.uid if service else ""}
        self._recorder.event(
            {"apiVersion": "v1", "kind": "Service", "metadata": metadata}, "Warning", "NodePortTaken", message
        )
