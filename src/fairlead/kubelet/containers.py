"""One container of a pod: starting it, its probes and hooks, and what is known of it.

Stands between the pod worker, which decides when, and the runtime. Invariant: an attempt number is used once; whatever
keeps a container from starting is a waiting reason with upstream's words, and an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from msgspec.structs import replace

from fairlead.kubelet.backoff import RestartBackoff
from fairlead.kubelet.containerimage import Absent, ContainerImage
from fairlead.kubelet.environment import EnvironmentProblem, container_environment, references, service_environment
from fairlead.kubelet.hooks import run_hook
from fairlead.kubelet.plans import PlanProblem, PodPlaces, container_plan
from fairlead.kubelet.probes import Kind, Prober, Target
from fairlead.kubelet.runtime import Record, Sandbox, SandboxGone, StartError
from fairlead.kubelet.status import ContainerView
from fairlead.kubelet.surroundings import Surroundings

log = logging.getLogger("fairlead.kubelet")
Object = dict[str, Any]
_AGAIN = 2.0  # seconds
_MESSAGE_BYTES = 4096
_MESSAGE_LOG_BYTES = 2048
_MESSAGE_LOG_LINES = 80


class PodContainer:
    """One container of one pod. `group` is the field of the spec it stands in, `field_path` names it in events."""

    def __init__(
        self,
        around: Surroundings,
        pod: Callable[[], Object],
        container: Object,
        *,
        group: str,
        wake: Callable[[], None],
    ) -> None:
        self._around, self._pod, self.container, self._wake = around, pod, container, wake
        self.name: str = container["name"]
        self.field_path = f"spec.{group}{{{self.name}}}"
        self.init, self.ephemeral = group == "initContainers", group == "ephemeralContainers"
        self.records: list[Record] = []
        self.waiting: tuple[str, str] | None = None
        self.prober: Prober | None = None
        self.backoff = RestartBackoff()
        self._said_backoff = -1
        self._image = ContainerImage(around, pod, container, self.event, wake)
        self._image_ids: dict[int, str] = {}
        self._probed_attempt = -1

    # -- what is known ------------------------------------------------------------------------------------------------

    @property
    def current(self) -> Record | None:
        """The latest attempt."""
        return self.records[-1] if self.records else None

    @property
    def running(self) -> bool:
        """The latest attempt has not ended."""
        return self.current is not None and self.current.exit is None

    def view(self) -> ContainerView:
        """For the status."""
        previous = self.records[-2] if len(self.records) > 1 else None
        prober = self.prober if self.running else None
        return ContainerView(
            current=self.current,
            previous=previous,
            waiting=None if self.running else self.waiting,
            ready=self._ready(prober),
            started=self.running and (prober is None or prober.started),
            termination_message=self._message(self.current),
            previous_termination_message=self._message(previous),
            image_id=self._image_id(),
        )

    def _image_id(self) -> str:
        """Of the latest attempt's image; "" for the machine's own files."""
        if self.current is None:
            return ""
        attempt = self.current.attempt
        if attempt not in self._image_ids:
            self._image_ids[attempt] = self._around.runtime.image_id(self._pod()["metadata"]["uid"], self.name, attempt)
        return self._image_ids[attempt]

    def _ready(self, prober: Prober | None) -> bool:
        if self.init and self.container.get("restartPolicy") != "Always":
            return self.current is not None and self.current.exit is not None and self.current.exit.exit_code == 0
        return self.running and (prober is None or prober.ready)

    def take(self, records: list[Record]) -> None:
        """What the runtime has on record."""
        self.records = records
        if not self.running and self.prober is not None:
            self.prober.stop()
            self.prober = None

    def event(self, type: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """About this container."""
        self._around.recorder.event(self._pod(), type, reason, message, field_path=self.field_path)

    # -- starting -----------------------------------------------------------------------------------------------------

    async def start(self, sandbox: Sandbox, places: PodPlaces, ip: str) -> float | None:
        """Start the next attempt. None when it runs; else seconds until it is worth another try.

        Raises SandboxGone and StatusError (the API server is away).
        """
        pod, uid = self._pod(), self._pod()["metadata"]["uid"]
        attempt = self.current.attempt + 1 if self.current is not None else 0
        image = await self._image.get()
        if isinstance(image, Absent):
            self.waiting = image.waiting
            return image.seconds
        runtime = self._around.runtime
        directory = runtime.container_dir(uid, self.name, attempt)
        log_file = runtime.log_dir(pod) / self.name / f"{attempt}.log"
        places = replace(places, container=directory, log=log_file)
        try:
            environment = await self._environment(pod)
            plan = container_plan(pod, self.container, environment, places, image.image)
        except (EnvironmentProblem, PlanProblem) as problem:
            return self.refuse(problem.reason, str(problem))
        self.event("Normal", "Pulled", image.message)
        directory.mkdir(parents=True, exist_ok=True)
        message_file = directory / "termination-log"
        message_file.touch()
        message_file.chmod(0o666)
        if attempt > 1:
            runtime.forget_attempts(pod, self.name, attempt - 1)
        self.event("Normal", "Created", f"Created container: {self.name}")
        try:
            await runtime.start(uid, sandbox, self.name, attempt, plan)
        except StartError as error:
            self.event("Warning", "Failed", f"Error: {error}")
            self.waiting = ("RunContainerError", str(error))
            return 0.0
        self.waiting = None
        self.event("Normal", "Started", f"Started container {self.name}")
        self.take(runtime.records(uid, sandbox).get(self.name, []))
        if self.running:
            await self._after_start(sandbox, ip)
        return None

    def refuse(self, reason: str, message: str) -> float:
        """Say why it can't be started as things are. Seconds until another try."""
        if self.waiting != (reason, message):
            self.event("Warning", "Failed", f"Error: {message}")
        self.waiting = (reason, message)
        return _AGAIN

    async def _environment(self, pod: Object) -> tuple[tuple[str, str], ...]:
        namespace = pod["metadata"]["namespace"]
        links = pod["spec"].get("enableServiceLinks")
        snapshot, sources = await asyncio.gather(
            self._around.services(), self._around.sources(namespace, *references(self.container))
        )
        services = service_environment(snapshot, namespace, True if links is None else bool(links))
        found = container_environment(pod, self.container, services, sources, self._around.allocatable)
        for source, names in found.invalid:
            message = (
                f"Keys [{', '.join(names)}] from the EnvFrom {source} were skipped since they are considered invalid "
                "environment variable names."
            )
            self._around.recorder.event(pod, "Warning", "InvalidEnvironmentVariableNames", message)
        return found.variables

    async def _after_start(self, sandbox: Sandbox, ip: str) -> None:
        hook = (self.container.get("lifecycle") or {}).get("postStart")
        if hook:
            outcome = await run_hook(hook, self._target(sandbox, ip), None)
            if not outcome.success:
                self.event("Warning", "FailedPostStartHook", f"PostStartHook failed: {outcome.output}")
                await self.kill(sandbox, signal.SIGKILL, "FailedPostStartHook")
                return
        self.watch_health(sandbox, ip)

    def watch_health(self, sandbox: Sandbox, ip: str) -> None:
        """Probe the running attempt, from now on."""
        assert self.current is not None
        if self.prober is not None and self._probed_attempt == self.current.attempt:
            return
        if self.prober is not None:
            self.prober.stop()
        self._probed_attempt = self.current.attempt
        self.prober = Prober(self._target(sandbox, ip), self._wake, self._unhealthy)

    def _unhealthy(self, kind: Kind, output: str) -> None:
        self.event("Warning", "Unhealthy", f"{kind.capitalize()} probe failed: {output}")

    # -- running ------------------------------------------------------------------------------------------------------

    def _target(self, sandbox: Sandbox, ip: str) -> Target:
        attempt = self.current.attempt if self.current else 0

        async def run(argv: list[str]) -> tuple[int, str]:
            return await run_and_read(sandbox, self.name, attempt, argv)

        return Target(ip, self.container, run)

    async def kill(self, sandbox: Sandbox, number: int, why: str = "") -> None:
        """Send the container's first process a signal, with an event if there is a reason to tell."""
        if why:
            self.event("Normal", "Killing", why)
        if self.running and self.current is not None:
            with contextlib.suppress(SandboxGone):
                await sandbox.request("signal", name=self.name, attempt=self.current.attempt, signal=int(number))

    async def before_stop(self, sandbox: Sandbox, ip: str, seconds: float) -> None:
        """The preStop hook, within the grace period."""
        hook = (self.container.get("lifecycle") or {}).get("preStop")
        if hook and self.running and seconds > 0:
            outcome = await run_hook(hook, self._target(sandbox, ip), seconds)
            if not outcome.success:
                self.event("Warning", "FailedPreStopHook", f"PreStopHook failed: {outcome.output}")

    def stop_probes(self, *, all_kinds: bool) -> None:
        """No more probes, or no more but readiness."""
        if self.prober is not None:
            self.prober.stop(all_kinds=all_kinds)

    # -- ending -------------------------------------------------------------------------------------------------------

    def restart_wait(self, now: float) -> float:
        """Seconds until an ended container may start again; says CrashLoopBackOff while it may not."""
        assert self.current is not None
        assert self.current.exit is not None
        ended = self.current.exit.finished / 1e9
        left = self.backoff.remaining(ended, now)
        if left <= 0:
            self.backoff.restarted(ended, now)
            return 0.0
        metadata = self._pod()["metadata"]
        where = f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"
        wait = f"{self.backoff.wait:g}s" if self.backoff.wait < 60 else _go_duration(int(self.backoff.wait))
        self.waiting = (
            "CrashLoopBackOff",
            f"back-off {wait} restarting failed container={self.name} pod={where}",
        )
        if self._said_backoff != self.current.attempt:
            self._said_backoff = self.current.attempt
            self.event("Warning", "BackOff", f"Back-off restarting failed container {self.name} in pod {where}")
        return left

    def _message(self, record: Record | None) -> str:
        """What the container left as its termination message."""
        if record is None or record.exit is None:
            return ""
        pod = self._pod()
        directory = self._around.runtime.container_dir(pod["metadata"]["uid"], self.name, record.attempt)
        text = _tail(directory / "termination-log", _MESSAGE_BYTES)
        from_logs = self.container.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        if not text and from_logs and record.exit.exit_code:
            file = self._around.runtime.log_dir(pod) / self.name / f"{record.attempt}.log"
            lines = _tail(file, _MESSAGE_LOG_BYTES).splitlines()[-_MESSAGE_LOG_LINES:]
            text = "".join(line.split(" ", 3)[3] + "\n" for line in lines if line.count(" ") >= 3)
        return text


def _tail(file: Path, size: int) -> str:
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, os.fstat(opened.fileno()).st_size - size))
            return opened.read(size).decode(errors="replace")
    except OSError:
        return ""


def _go_duration(seconds: int) -> str:
    return f"{seconds // 60}m{seconds % 60}s"


async def run_and_read(
    sandbox: Sandbox, name: str, attempt: int, argv: list[str], limit: int = 10 * 1024
) -> tuple[int, str]:
    """Run a command in a container: its exit code, and the beginning of what it wrote on both streams."""
    read, write = os.pipe()
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            code, _ = await sandbox.execute(name, attempt, argv, (null, write, write), tty=False)
        except StartError as error:
            return 126, str(error)
        except SandboxGone:
            return 137, "the pod's sandbox is gone"
        finally:
            os.close(write)
            os.close(null)
        output = bytearray()
        os.set_blocking(read, False)
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()

        def pump() -> None:
            try:
                data = os.read(read, 65536)
            except BlockingIOError:
                return
            output.extend(data[: limit - len(output)])
            if not data:
                loop.remove_reader(read)
                ended.set()

        loop.add_reader(read, pump)
        try:
            result = await code
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):  # a child of it may hold the pipe
                    await ended.wait()
        finally:
            loop.remove_reader(read)
        return result, output.decode(errors="replace")
    finally:
        os.close(read)
