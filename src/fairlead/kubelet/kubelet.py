"""The kubelet: follows the pods bound to this node and keeps a worker for each.

In: an API client, the node's pod network, the spawner. Out: running pods, their status, this node's Node and Lease, and
the server for logs and exec. Invariants: a pod is known by its UID; a pod that runs here and is not in the API is ended
only after the API was listed; stopping the kubelet leaves the pods running.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterable
from typing import Any

from aiohttp import web

from fairlead.api.events import WatchEvent
from fairlead.api.kinds import LEASES, PODS
from fairlead.client import Client, Watched, follow
from fairlead.client.events import EventRecorder
from fairlead.discovery import confirmed
from fairlead.kubelet.imagecollection import ImageCollector
from fairlead.kubelet.localstorage import excess, is_limited
from fairlead.kubelet.node import NodeReporter, capacity
from fairlead.kubelet.options import KubeletOptions, PodNetwork, ServiceSource
from fairlead.kubelet.podworker import PodWorker
from fairlead.kubelet.runtime import Runtime
from fairlead.kubelet.server import KubeletServer
from fairlead.kubelet.spawner import Spawner
from fairlead.kubelet.surroundings import Surroundings

log = logging.getLogger("fairlead.kubelet")
Object = dict[str, Any]


class Kubelet:
    """One node's. The caller owns client, network and spawner."""

    def __init__(
        self,
        options: KubeletOptions,
        client: Client,
        network: PodNetwork,
        spawner: Spawner,
        services: ServiceSource,
        *,
        routes: Iterable[web.RouteDef] = (),
    ) -> None:
        """`routes`: what else the kubelet's server answers, to the same clients."""
        self.options = options
        self._client, self._network = client, network
        self.runtime = Runtime(options.root_dir, options.runtime_dir, spawner, options.masked)
        self._recorder = EventRecorder(client, "kubelet", options.node_name)
        self._around = Surroundings(
            options,
            client,
            network,
            self.runtime,
            self._recorder,
            services=services,
            allocatable=capacity(options.max_pods),
        )
        self.node = NodeReporter(client, options)
        self.workers: dict[str, PodWorker] = {}
        self._server: KubeletServer | None = None
        if options.server_cert_file:
            self._server = KubeletServer(options, self.runtime, self.find, self.workers.values, routes)
        self._tasks: set[asyncio.Task[None]] = set()
        self.synced = asyncio.Event()

    async def start(self) -> None:
        """Begin to work. Raises PermissionError if this process may not run pods, OSError if the port is taken."""
        self.runtime.prepare()
        await self._recorder.start()
        if self._server is not None:
            await self._server.start()
        self._spawn(self.node.run(), "node")
        self._spawn(self._follow(), "pods")
        self._spawn(self._watch_storage(), "storage")
        collector = ImageCollector(
            self._around.images,
            lambda: [worker.pod for worker in self.workers.values()],
            self._recorder,
            self.options.node_name,
        )
        self._spawn(collector.run(), "images")
        if self.options.withdraw_seconds:
            self._spawn(self._follow_confirmations(), "confirmations")

    async def stop(self) -> None:
        """Stop working; the pods go on, and the next kubelet adopts them."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for worker in self.workers.values():
            worker.close()
        if self._server is not None:
            await self._server.stop()
        await self._recorder.stop()

    def take_certificate(self) -> None:
        """The server's certificate was renewed in its files. Raises OSError."""
        if self._server is not None:
            self._server.take_certificate()

    def network_ready(self) -> None:
        """The pod network is set up: the node is Ready."""
        self.node.set_ready()

    def services_changed(self) -> None:
        """The snapshot behind `services` is another one."""
        self._around.services_changed()
        for worker in self.workers.values():
            worker.services_changed()

    def see(self, events: Iterable[WatchEvent], synced: bool) -> None:
        """Services and EndpointSlices changed. Call it after the node's own kernel has them."""
        touched = self._around.standing.take(events, synced)
        for worker in self.workers.values():
            worker.standing_changed(told=worker.uid in touched)

    def confirmed_here(self, revision: int) -> None:
        """This node's kernel has the EndpointSlices up to that resourceVersion."""
        self._around.standing.confirm(self.options.node_name, revision)
        for worker in self.workers.values():
            worker.standing_changed()

    def find(self, namespace: str, name: str) -> PodWorker | None:
        """The pod of that name, the newest if an old one is still going."""
        for worker in reversed(self.workers.values()):
            metadata = worker.pod["metadata"]
            if metadata["namespace"] == namespace and metadata["name"] == name:
                return worker
        return None

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=f"kubelet-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("%s ended: %s", task.get_name(), task.exception(), exc_info=task.exception())

    async def _follow(self) -> None:
        watched = Watched(PODS, field_selector=f"spec.nodeName={self.options.node_name}")
        async for batch in follow(self._client, watched):
            for event in batch.events:
                if event.type == "DELETED":
                    if worker := self.workers.get(event.object["metadata"].get("uid", "")):
                        worker.removed(event.object)
                else:
                    self._take(event.object)
            if batch.synced and not self.synced.is_set():
                await self._end_strays()
                self.synced.set()

    async def _follow_confirmations(self) -> None:
        watched = Watched(LEASES, namespace=confirmed.LEASE_NAMESPACE, label_selector=confirmed.LEASE_SELECTOR)
        async for batch in follow(self._client, watched):
            for event in batch.events:
                self._around.standing.take_lease(event)
            for worker in self.workers.values():
                worker.standing_changed()

    async def _watch_storage(self) -> None:
        """Evict pods whose files have become more than they may."""
        while True:
            await asyncio.sleep(self.options.storage_check_seconds)
            for worker in [w for w in self.workers.values() if is_limited(w.pod)]:
                if why := excess(worker.pod, await asyncio.to_thread(worker.usage)):
                    worker.evict(why)

    def _take(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        if worker := self.workers.get(uid):
            worker.update(pod)
        else:
            left_something = self.runtime.pod_dir(uid).exists() or self.runtime.memory_dir(uid).exists()
            self._start(PodWorker(self._around, pod, adopt=left_something))

    def _start(self, worker: PodWorker) -> None:
        self.workers[worker.uid] = worker

        async def live() -> None:
            await worker.run()
            self.workers.pop(worker.uid, None)

        self._spawn(live(), f"pod-{worker.name}")

    async def _end_strays(self) -> None:
        """End pods that left something here and are not in the API (any more), and give back their addresses."""
        for uid in self.runtime.known_pods():
            if uid in self.workers:
                continue
            pod = self.runtime.remembered(uid)
            if pod is None:
                await self.runtime.stop_sandbox(uid, None)
                self.runtime.forget({"metadata": {"uid": uid, "namespace": "", "name": ""}})
                continue
            log.info("pod %s is gone from the API: ending what runs of it", pod["metadata"]["name"])
            worker = PodWorker(self._around, pod, adopt=True)
            worker.removed()
            self._start(worker)
        for uid in self._network.attached() - self.workers.keys():
            with contextlib.suppress(OSError):
                await self._network.detach(uid)
