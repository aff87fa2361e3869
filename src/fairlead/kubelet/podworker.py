"""One pod on this node, from the moment it is bound until nothing of it is left.

A loop: take the latest spec and what the containers do, bring the one toward the other, say what came of it, sleep
until something changes. Invariants: one step of one pod at a time; every step can be repeated after a crash of the
agent at any point; a pod is deleted from the API only after its processes are dead and its network is given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import datetime
from typing import Any, Literal

from msgspec.structs import replace

from fairlead.api import times
from fairlead.api.errors import StatusError
from fairlead.api.kinds import PODS
from fairlead.client.backoff import Backoff
from fairlead.kubelet import plans, volumes
from fairlead.kubelet.containers import PodContainer
from fairlead.kubelet.deadlines import active_left, grace, grace_left, soonest
from fairlead.kubelet.localstorage import Usage, in_memory, measure
from fairlead.kubelet.podending import PodEnding
from fairlead.kubelet.podsandbox import PodSandbox
from fairlead.kubelet.podstatus import StatusWriter
from fairlead.kubelet.prerequisites import missing_services, wanted_services
from fairlead.kubelet.runtime import Sandbox, SandboxGone
from fairlead.kubelet.status import PodView, init_done, is_ready, is_sidecar, phase, pod_status
from fairlead.kubelet.surroundings import Surroundings
from fairlead.kubelet.withdrawal import withdraw_seconds

log = logging.getLogger("fairlead.kubelet")
Object = dict[str, Any]
_RESYNC = 60.0
_DEADLINE = "Pod was active on the node longer than the specified deadline"
_REFRESH_VOLUMES = 60.0
_EVICTION_GRACE = 1.0


class PodWorker:
    """One pod's. `update` and `removed` feed it; `run` lives as long as the pod is here."""

    def __init__(self, around: Surroundings, pod: Object, *, adopt: bool = False) -> None:
        self.pod = pod
        self.uid: str = pod["metadata"]["uid"]
        self.around, self._adopt = around, adopt
        self.changed = asyncio.Event()
        self.is_removed = False
        self._missing_services: str | None = None
        self._failed: tuple[str, str] | None = None
        self._to_evict = ""
        self._reached = False
        self._was_ready = False
        self._finished = False
        self._started: datetime | None = None
        self._own = PodSandbox(around, lambda: self.pod, self.wake)
        self._ending = PodEnding(self)
        self._backoff = Backoff(0.2, 10.0)
        self._status = StatusWriter(around.client, pod)
        self._conditions: list[Object] = list((pod.get("status") or {}).get("conditions") or ())
        self.containers: dict[str, PodContainer] = {}
        self._know_containers()
        status = pod.get("status") or {}
        with contextlib.suppress(KeyError, TypeError, ValueError):
            self._started = times.parse(status["startTime"])
        if status.get("phase") == "Failed" and status.get("reason"):
            self._failed = (status["reason"], status.get("message") or "")

    @property
    def name(self) -> str:
        """`namespace/name`, for logs."""
        return f"{self.pod['metadata']['namespace']}/{self.pod['metadata']['name']}"

    def wake(self) -> None:
        """Something about the pod changed."""
        self.changed.set()

    def _know_containers(self) -> None:
        """Those of the spec, in the order in which they start; ephemeral ones come later."""
        for group in ("initContainers", "containers", "ephemeralContainers"):
            for one in self.pod["spec"].get(group) or ():
                if one["name"] not in self.containers:
                    made = PodContainer(self.around, lambda: self.pod, one, group=group, wake=self.wake)
                    self.containers[made.name] = made

    def update(self, pod: Object) -> None:
        """The API has this state of the pod. An answer to our own status is no news."""
        before, self.pod = self.pod, pod
        self._know_containers()
        if _wish(before, "metadata") != _wish(pod, "metadata"):
            self._own.refresh_downward()
        gates = pod["spec"].get("readinessGates")
        if gates or any(_wish(before, key) != _wish(pod, key) for key in ("metadata", "spec")):
            self.wake()

    def removed(self, pod: Object | None = None) -> None:
        """The API has no such pod any more."""
        if pod is not None and "spec" in pod:
            self.pod = pod
        self.is_removed = True
        self.wake()

    def evict(self, why: str) -> None:
        """End the pod for good, for the node's sake."""
        self._to_evict = why
        self.wake()

    def usage(self) -> Usage:
        """What its files take on the node's disk. Blocks: call it in a thread."""
        runtime = self.around.runtime
        base, logs = runtime.pod_dir(self.uid), runtime.log_dir(self.pod)
        volumes_made = [
            v["name"] for v in self.pod["spec"].get("volumes") or () if "emptyDir" in v and not in_memory(v)
        ]
        return Usage(
            {name: measure(base / "volumes" / name) for name in volumes_made},
            {name: measure(base / "containers" / name, logs / name) for name in self.containers},
        )

    def services_changed(self) -> None:
        """There are other Services, or other endpoints."""
        if self._missing_services:
            self.wake()

    def standing_changed(self, *, told: bool = False) -> None:
        """What the nodes' kernels know may be something else; `told`: of this pod in particular."""
        if told or self._ending.begun or (self._was_ready and not self._reached):
            self.wake()

    async def run(self) -> None:
        """Until nothing is left of the pod."""
        while not self._finished:
            self.changed.clear()
            try:
                delay = await self._step()
                self._backoff.reset()
            except SandboxGone:
                delay = 0.0
            except StatusError as error:
                delay = self._backoff.next()
                log.info("pod %s: waiting for the API server: %s", self.name, error)
            except Exception as error:
                delay = self._backoff.next()
                log.exception("pod %s: %s; trying again in %.1f s", self.name, error, delay)
            if not self._finished and (delay is None or delay > 0):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay if delay is not None else _RESYNC):
                        await self.changed.wait()

    def close(self) -> None:
        """Let go: the agent ends, the pod goes on."""
        self._status.close()
        for container in self.containers.values():
            container.stop_probes(all_kinds=True)
        if self.sandbox is not None:
            self.sandbox.close()

    # -- one step -----------------------------------------------------------------------------------------------------

    async def _step(self) -> float | None:
        """Do what is to be done now. Returns seconds until the next step is due anyway; None: no hurry."""
        if self._adopt:
            await self._adopt_running()
        self.take_records()
        if self.is_removed or self.pod["metadata"].get("deletionTimestamp"):
            return await self._terminate()
        if phase(self.pod, self._view()) in ("Succeeded", "Failed"):
            return await self._rest()
        if self._started is None:
            self._started = self.around.now()
        if why := plans.refusal(self.pod):
            return self._refuse(why)
        if self.sandbox is None or self.sandbox.gone:
            if (wait := await self._make_sandbox()) is not None:
                return wait
        elif asyncio.get_running_loop().time() - self._own.volumes_made > _REFRESH_VOLUMES:
            with contextlib.suppress(volumes.VolumeProblem):
                await self._own.make_volumes()
        if (left := active_left(self.pod, self._started, self.around.now())) is not None and left <= 0:
            return await self._fail("DeadlineExceeded", _DEADLINE)
        if self._to_evict:
            return await self._fail("Evicted", self._to_evict, event="Warning", seconds=_EVICTION_GRACE)
        wait = await self._run_containers() if await self._services_found() else None
        self._say()
        return soonest([wait, left])

    async def _fail(
        self,
        reason: str,
        message: str,
        *,
        event: Literal["Normal", "Warning"] = "Normal",
        seconds: float | None = None,
    ) -> float:
        """End the pod for good: its record stays, and says why."""
        self.around.recorder.event(self.pod, event, reason, message)
        await self._ending.in_order(grace(self.pod) if seconds is None else seconds)
        self._failed = (reason, message)
        return 0.0

    async def _adopt_running(self) -> None:
        await self._own.adopt()
        self._adopt = False
        if self.sandbox is None:
            return
        log.info("pod %s: adopted, shim %d", self.name, self.sandbox.pid)
        self.take_records()
        if self.is_removed or self.pod["metadata"].get("deletionTimestamp") or plans.refusal(self.pod):
            self._own.ips = tuple(e["ip"] for e in (self.pod.get("status") or {}).get("podIPs") or ())
            return
        await self._own.attach()
        await self._own.make_volumes()
        for container in self.containers.values():
            if container.running:
                container.watch_health(self.sandbox, self.ips[0])

    def take_records(self) -> None:
        """What the runtime has on record of the containers."""
        records = self.around.runtime.records(self.uid, self.sandbox)
        for name, container in self.containers.items():
            container.take(records.get(name, []))

    def _refuse(self, why: str) -> float | None:
        for container in self.containers.values():
            if container.waiting is None or container.waiting[1] != why:
                container.event("Warning", "Failed", f"Error: {why}")
            container.waiting = ("CreateContainerConfigError", why)
        self._say()
        return None

    async def _services_found(self) -> bool:
        """Whether the Services that the pod waits for are there; says so if not. Once a container ran, they were."""
        if self._missing_services == "" or any(c.current is not None for c in self.containers.values()):
            return True
        try:
            wanted = wanted_services(self.pod)
        except ValueError as error:
            self._refuse(str(error))
            return False
        if not wanted:
            self._missing_services = ""
            return True
        missing = missing_services(wanted, await self.around.services())
        if missing != self._missing_services and (missing or self._missing_services):
            reason = "WaitingForServices" if missing else "ServicesFound"
            message = f"Containers wait: {missing}" if missing else "All Services that the pod waited for are there"
            self.around.recorder.event(self.pod, "Normal", reason, message)
        self._missing_services = missing
        for container in self.containers.values():
            container.waiting = ("WaitingForServices", missing) if missing else None
        if missing:
            self._say()
        return not missing

    # -- sandbox ------------------------------------------------------------------------------------------------------

    @property
    def sandbox(self) -> Sandbox | None:
        """The connection to the pod's shim."""
        return self._own.shim

    @property
    def ips(self) -> tuple[str, ...]:
        """The pod's addresses; the node's, for a pod in the node's network."""
        return self._own.ips

    async def _make_sandbox(self) -> float | None:
        """None when all is there, else seconds until another try."""
        if self.sandbox is not None:
            self.around.recorder.event(
                self.pod, "Normal", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created."
            )
            await self._own.drop()
            self.take_records()
        if await self._own.make():
            return None
        self._say()
        return self._backoff.next()

    # -- containers ---------------------------------------------------------------------------------------------------

    async def _run_containers(self) -> float | None:
        """Start what should run and does not. Returns seconds until one may be started, or None."""
        waits: list[float | None] = [await self._start_once(c) for c in self.containers.values() if c.ephemeral]
        mains = [c for c in self.containers.values() if not c.init and not c.ephemeral]
        begun = any(self._is_of_sandbox(c) for c in mains)
        for container in (c for c in self.containers.values() if c.init):
            sidecar = is_sidecar(container.container)
            if begun and not sidecar:
                continue
            if self._init_done(container):
                await self._kill_unhealthy(container)
                continue
            waits.append(await self._keep(container))
            if not begun and not self._init_done(container):
                return soonest(waits)
        waits += await asyncio.gather(*(self._keep(container) for container in mains))
        return soonest(waits)

    def _is_of_sandbox(self, container: PodContainer) -> bool:
        """Whether its latest attempt is one of this sandbox: in a new one, everything is done again."""
        assert self.sandbox is not None
        return container.current is not None and container.current.started >= self.sandbox.since

    def _to_be_repeated(self, container: PodContainer) -> bool:
        """Whether it is an init container that has done its work for another sandbox than this one."""
        again = container.init and self.pod["spec"].get("restartPolicy") != "Never"
        return again and not self._is_of_sandbox(container)

    def _init_done(self, container: PodContainer) -> bool:
        return init_done(container.container, container.view()) and not self._to_be_repeated(container)

    async def _start_once(self, container: PodContainer) -> float | None:
        """Have an ephemeral container run, if it never did. Returns seconds until another try, or None."""
        assert self.sandbox is not None
        assert self._own.places is not None
        if container.current is not None:
            container.waiting = None
            return None
        target = container.container.get("targetContainerName")
        if target and not self.containers[target].running:
            return container.refuse("CreateContainerConfigError", f"unable to find target container {target}")
        return await container.start(self.sandbox, self._own.places, self.ips[0])

    async def _keep(self, container: PodContainer) -> float | None:
        """Have one container run, if it should."""
        assert self.sandbox is not None
        assert self._own.places is not None
        if container.running:
            await self._kill_unhealthy(container)
            return None
        if container.current is not None and not self._to_be_repeated(container):
            if not self._should_restart(container):
                container.waiting = None
                return None
            if (left := container.restart_wait(self.around.now().timestamp())) > 0:
                return left
        wait = await container.start(self.sandbox, self._own.places, self.ips[0])
        if wait == 0.0:  # it could not be started: an ended attempt, to be looked at like any other
            self.take_records()
            if not self._should_restart(container):
                container.waiting = None
        elif wait is None and not container.running:
            self.wake()
        return wait

    def _should_restart(self, container: PodContainer) -> bool:
        assert container.current is not None
        policy = self.pod["spec"].get("restartPolicy") or "Always"
        ended = container.current.exit
        failed = ended is None or ended.exit_code != 0
        if container.init:
            return is_sidecar(container.container) or (failed and policy != "Never")
        return policy == "Always" or (failed and policy == "OnFailure")

    async def _kill_unhealthy(self, container: PodContainer) -> None:
        prober = container.prober
        if prober is None or prober.unhealthy is None or self.sandbox is None:
            return
        kind, prober.unhealthy = prober.unhealthy, None
        prober.stop()
        probe = container.container.get(f"{kind}Probe") or {}
        own = probe.get("terminationGracePeriodSeconds")
        seconds = grace(self.pod) if own is None else float(own)
        message = f"Container {container.name} failed {kind} probe, will be restarted"
        container.event("Normal", "Killing", message)
        await self._ending.stop([container], seconds)

    # -- the end ------------------------------------------------------------------------------------------------------

    async def _terminate(self) -> float | None:
        if not self._ending.begun:
            self._ending.begun = True
            for container in self.containers.values():
                container.stop_probes(all_kinds=False)
                container.waiting = None
                if container.running:
                    container.event("Normal", "Killing", f"Stopping container {container.name}")
        left = grace_left(self.pod, self.around.now())
        loop = asyncio.get_running_loop()
        deadline = loop.time() + left
        await self._ending.withdraw(left)
        await self._ending.in_order(deadline - loop.time())
        await self._release()
        if not self.is_removed and not self._status.gone:
            self._say()
            await self._status.flush(5.0)
            metadata = self.pod["metadata"]
            try:
                await self.around.client.delete(
                    PODS,
                    metadata["name"],
                    metadata["namespace"],
                    grace_period_seconds=0,
                    preconditions={"uid": self.uid},
                )
            except StatusError as error:
                if error.code not in (404, 409):
                    raise
        self._status.close()
        self.around.forget_tokens(self.uid)
        self.around.standing.forget(self.uid)
        await asyncio.to_thread(self.around.runtime.forget, self.pod)
        self._finished = True
        return None

    async def _rest(self) -> float | None:
        """The pod has succeeded or failed: give back what it holds; its record and logs stay."""
        if self.sandbox is not None:
            await self._release()
        self._say()
        return None

    async def _release(self) -> None:
        for container in self.containers.values():
            container.stop_probes(all_kinds=True)
        await self._own.stop()
        self.take_records()
        if not self.pod["spec"].get("hostNetwork"):
            await self.around.network.detach(self.uid)

    # -- status -------------------------------------------------------------------------------------------------------

    def _view(self) -> PodView:
        here = self.sandbox is not None and not self.sandbox.gone
        return PodView(
            containers={name: container.view() for name, container in self.containers.items()},
            ips=self.ips,
            host_ips=self.around.options.node_ips,
            sandbox=here,
            started=self._started,
            failed=self._failed,
        )

    def _unreached(self, view: PodView) -> str | None:
        """See PodView. Decided anew each time the pod becomes ready; once reached, it is until it is not ready."""
        around = self.around
        ready = phase(self.pod, view) == "Running" and is_ready(self.pod, view)
        if not ready or not withdraw_seconds(self.pod, around.options.withdraw_seconds):
            self._reached = self._was_ready = False
            return None
        if self._reached or self.pod["metadata"].get("deletionTimestamp"):
            return "" if around.standing.known(self.uid) else None
        self._was_ready = True
        why = around.standing.not_reachable(self.pod, around.ready_nodes())
        self._reached = not why
        return why if why or around.standing.known(self.uid) else None

    def _say(self) -> None:
        """Have the API server know how the pod is."""
        others = {c["type"]: c for c in (self.pod.get("status") or {}).get("conditions") or ()}
        others.update({c["type"]: c for c in self._conditions})
        pod = {**self.pod, "status": {**(self.pod.get("status") or {}), "conditions": list(others.values())}}
        view = self._view()
        view = replace(view, unreached=self._unreached(view), missing_services=self._missing_services)
        status = pod_status(pod, view, self.around.now())
        self._conditions = status["conditions"]
        self._status.put(status)


def _wish(pod: Object, key: str) -> Object:
    return {k: v for k, v in pod[key].items() if k not in ("resourceVersion", "managedFields")}
