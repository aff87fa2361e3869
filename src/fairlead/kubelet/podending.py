"""The end of a pod's containers: out of the way, preStop, SIGTERM, SIGKILL, in order.

Under the pod worker, which decides that it is time. Invariants: a main container ends before the sidecars; when `stop`
returns, the containers are dead, or their sandbox is to be ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import TYPE_CHECKING

from fairlead.kubelet.containers import PodContainer
from fairlead.kubelet.deadlines import grace
from fairlead.kubelet.runtime import Sandbox
from fairlead.kubelet.withdrawal import drained, withdraw_seconds, withdrawn

if TYPE_CHECKING:
    from fairlead.kubelet.podworker import PodWorker

log = logging.getLogger("fairlead.kubelet")
_KILL_SECONDS = 10.0


class PodEnding:
    """Of one pod. `begun` is set by the worker once the pod is to go."""

    def __init__(self, worker: PodWorker) -> None:
        self._worker = worker
        self.begun = False
        self._withdrawn = False

    async def in_order(self, seconds: float) -> None:
        """The main containers together, then the sidecars one by one, the last to start first."""
        worker, loop = self._worker, asyncio.get_running_loop()
        deadline = loop.time() + seconds
        groups = [[c for c in worker.containers.values() if not c.init]]
        groups += [[c] for c in reversed(worker.containers.values()) if c.init]
        for group in groups:
            await self.stop(group, max(1.0, deadline - loop.time()))

    async def withdraw(self, left: float) -> None:
        """Wait until no node sends new connections here and what came is answered; for half the grace at most."""
        worker, loop = self._worker, asyncio.get_running_loop()
        around = worker.around
        default = around.options.withdraw_seconds
        seconds = min(withdraw_seconds(worker.pod, default), left / 2)
        concerned = around.standing.known(worker.uid) or not around.standing.synced
        if self._withdrawn or worker.is_removed or seconds <= 0 or not concerned:
            return
        self._withdrawn = True
        if not any(c.running for c in worker.containers.values()):
            return
        until = loop.time() + seconds

        def missing() -> str:
            return "" if worker.is_removed else around.standing.not_withdrawn(worker.uid, around.ready_nodes())

        async def changed() -> None:
            worker.changed.clear()
            await worker.changed.wait()

        if why := await withdrawn(missing, changed, until):
            message = f"Stopping after {seconds:g} s, though new connections may still come: {why}"
            around.recorder.event(worker.pod, "Warning", "NotWithdrawn", message)
        elif worker.sandbox is not None and not worker.is_removed and not worker.pod["spec"].get("hostNetwork"):
            await drained(worker.sandbox, until)

    async def stop(self, containers: list[PodContainer], seconds: float) -> None:
        """preStop, SIGTERM, wait, SIGKILL, wait. A shorter grace period that arrives meanwhile counts."""
        worker = self._worker
        sandbox = worker.sandbox
        running = [c for c in containers if c.running]
        if sandbox is None or sandbox.gone or not running:
            return
        loop = asyncio.get_running_loop()
        begun = loop.time()
        ip = worker.ips[0] if worker.ips else worker.around.options.node_ip

        async def end(container: PodContainer) -> None:
            await container.before_stop(sandbox, ip, seconds)
            await container.kill(sandbox, signal.SIGTERM)

        ends = asyncio.gather(*(end(c) for c in running))
        try:
            while any(c.running for c in running) and not sandbox.gone:
                if self.begun:
                    seconds = min(seconds, grace(worker.pod))
                if loop.time() >= begun + seconds:
                    break
                worker.changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(begun + seconds):
                        await worker.changed.wait()
                worker.take_records()
        finally:
            ends.cancel()
            await asyncio.gather(ends, return_exceptions=True)
        await self._wait_dead([c for c in running if c.running], sandbox)
        worker.wake()

    async def _wait_dead(self, containers: list[PodContainer], sandbox: Sandbox) -> None:
        worker = self._worker
        for container in containers:
            await container.kill(sandbox, signal.SIGKILL)
        until = asyncio.get_running_loop().time() + _KILL_SECONDS
        while any(c.running for c in containers) and not sandbox.gone:
            if asyncio.get_running_loop().time() > until:
                log.error("pod %s: containers do not die; its sandbox is ended", worker.name)
                return
            worker.changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await worker.changed.wait()
            worker.take_records()
