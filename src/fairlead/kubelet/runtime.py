"""The agent's side of the process runtime: pods' directories, sandboxes, containers, what became of them.

Stands between the pod workers and the shims. Two directories per pod, by UID: under `root_dir` (survives a reboot) the
plans and ends of its containers; under `runtime_dir` (memory) the shim's socket, the pod's /etc files and volumes with
secrets. Invariants: what is on disk suffices to go on after a crash of the agent; a container is started at most once
per attempt number; nothing here blocks the event loop on a container.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import orjson

from fairlead.kubelet import channel, shim
from fairlead.kubelet.children import write_atomically
from fairlead.kubelet.container import START_ERROR_EXIT_CODE, ContainerPlan
from fairlead.kubelet.localstorage import release
from fairlead.kubelet.spawner import Spawner
from fairlead.linux import marked, podcgroups, processes
from fairlead.linux import mounts as mnt

log = logging.getLogger("fairlead.kubelet")

NEEDED_CAPABILITIES = frozenset({"SYS_ADMIN", "NET_ADMIN", "SYS_CHROOT", "SETUID", "SETGID", "KILL", "CHOWN"})
HOST_IMAGE = "fairlead/host"
_STOP_SECONDS = 10.0


class Exit(msgspec.Struct, frozen=True):
    """How a container ended. Times are nanoseconds since the epoch; `failure` is why it could not be started."""

    exit_code: int
    signal: int = 0
    started: int = 0
    finished: int = 0
    failure: str = ""
    oom: bool = False
    """The kernel killed a process of it, because of its memory limit."""
    lost: bool = False  # it went with its shim: nobody saw how

    @property
    def reason(self) -> str:
        """The terminated reason of the container's status."""
        if self.lost:
            return "ContainerStatusUnknown"
        if self.failure and self.exit_code == START_ERROR_EXIT_CODE:
            return "StartError"
        if self.oom and self.exit_code:
            return "OOMKilled"
        return "Error" if self.exit_code else "Completed"


class Record(msgspec.Struct, frozen=True):
    """One attempt of one container. `exit` None: it runs."""

    name: str
    attempt: int
    started: int
    exit: Exit | None = None


class Sharing(msgspec.Struct, frozen=True):
    """Which namespaces of the node's a pod is in; `within`: its containers see each other's processes."""

    network: bool = False
    pids: bool = False
    ipc: bool = False
    within: bool = False

    @classmethod
    def of(cls, pod: dict[str, Any]) -> Sharing:
        """As the pod's spec says."""
        fields = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace")
        return cls(*(bool(pod["spec"].get(field)) for field in fields))


class StartError(Exception):
    """A container could not be started, in the runtime's words."""


class SandboxGone(Exception):
    """The pod's shim is not there (any more), and so none of its processes."""


class Sandbox:
    """A connection to one pod's shim. `gone` is set when it is lost; `since` is when the shim began, in nanoseconds
    since the epoch: what ran before ran in another sandbox."""

    def __init__(self, end: socket.socket, pid: int, on_change: Callable[[], None], since: int = 0) -> None:
        self.pid = pid
        self.gone = False
        self.since = since
        self.running: dict[tuple[str, int], Record] = {}
        self._end, self._on_change = end, on_change
        self._waiting: dict[int, asyncio.Future[channel.Received]] = {}
        self._exec_exits: dict[int, asyncio.Future[int]] = {}
        self._serial = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(end.fileno(), self._readable)

    @property
    def network_namespace(self) -> Path:
        """The pod's network namespace, for as long as the shim lives."""
        return Path(f"/proc/{self.pid}/ns/net")

    async def request(self, op: str, fds: tuple[int, ...] = (), **fields: Any) -> channel.Received:
        """Ask the shim. Raises SandboxGone; an error it reports comes back as `error` in the message."""
        if self.gone:
            raise SandboxGone
        self._serial += 1
        number = self._serial
        answer: asyncio.Future[channel.Received] = self._loop.create_future()
        self._waiting[number] = answer
        try:
            channel.send(self._end, {"op": op, "id": number, **fields}, fds)
        except OSError as error:
            self._lost()
            raise SandboxGone from error
        return await answer

    async def execute(
        self, name: str, attempt: int, argv: list[str], fds: tuple[int, ...], *, tty: bool
    ) -> tuple[asyncio.Future[int], int]:
        """Run a command in a container: the future exit code, and with `tty` the terminal's descriptor (else -1).

        Raises StartError or SandboxGone. Without a terminal, `fds` are its stdin, stdout and stderr.
        """
        number = self._serial + 1
        self._exec_exits[number] = code = self._loop.create_future()
        try:
            message, received = await self.request("exec", fds, name=name, attempt=attempt, argv=argv, tty=tty)
        except BaseException:
            self._exec_exits.pop(number, None)
            raise
        if "error" in message:
            self._exec_exits.pop(number, None)
            raise StartError(message["error"])
        return code, received[0] if received else -1

    async def refresh(self) -> dict[tuple[str, int], Record]:
        """Ask what runs and what ended; everything this shim started."""
        message, _ = await self.request("status")
        known = {}
        for entry in message["containers"]:
            end = msgspec.convert(entry["exit"], Exit) if entry["exit"] else None
            record = Record(entry["name"], entry["attempt"], entry["started"], end)
            known[record.name, record.attempt] = record
        self.running = {key: record for key, record in known.items() if record.exit is None}
        return known

    def close(self) -> None:
        """Let go of the shim; it goes on."""
        self._lost()

    def _readable(self) -> None:
        try:
            while True:
                received = channel.receive(self._end)
                if received is None:
                    self._lost()
                    return
                self._handle(received)
        except BlockingIOError:
            return
        except OSError:
            self._lost()

    def _handle(self, received: channel.Received) -> None:
        message = received.message
        event = message.get("event")
        if event == "exited":
            self.running.pop((message["name"], message["attempt"]), None)
            self._on_change()
        elif event == "exec_exited":
            code = self._exec_exits.pop(message["exec"], None)
            if code is not None and not code.done():
                code.set_result(message["code"])
        else:
            answer = self._waiting.pop(message.get("id", 0), None)
            if answer is not None and not answer.done():
                answer.set_result(received)

    def _lost(self) -> None:
        if self.gone:
            return
        self.gone = True
        self.running = {}
        self._loop.remove_reader(self._end.fileno())
        self._end.close()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(SandboxGone())
                answer.exception()  # its asker may be gone too
        for code in self._exec_exits.values():
            if not code.done():
                code.set_result(137)
        self._on_change()


class Runtime:
    """All pods of one node."""

    def __init__(self, root_dir: Path, runtime_dir: Path, spawner: Spawner, masked: tuple[str, ...] = ()) -> None:
        self.root_dir, self.runtime_dir, self._spawner = root_dir, runtime_dir, spawner
        self.masked = (*masked, str(root_dir), str(runtime_dir))

    def prepare(self) -> None:
        """Make the directories. Raises PermissionError naming the capabilities that are missing."""
        if missing := processes.missing_capabilities(NEEDED_CAPABILITIES):
            names = ", ".join(f"CAP_{name}" for name in missing)
            raise PermissionError(f"running pods needs {names}: run this as root (or with those capabilities)")
        for directory in (self.root_dir, self.runtime_dir):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not _in_memory(self.runtime_dir):
            mnt.tmpfs(str(self.runtime_dir), mode=0o700)
        for directory in (self.root_dir / "pods", self.root_dir / "logs", self.runtime_dir / "pods"):
            directory.mkdir(exist_ok=True, mode=0o700)

    # -- places -------------------------------------------------------------------------------------------------------

    def pod_dir(self, uid: str) -> Path:
        """What must outlive a reboot."""
        return self.root_dir / "pods" / uid

    def memory_dir(self, uid: str) -> Path:
        """What must never reach a disk, and what is gone with a reboot anyway."""
        return self.runtime_dir / "pods" / uid

    def log_dir(self, pod: dict[str, Any]) -> Path:
        """As upstream's /var/log/pods: <namespace>_<name>_<uid>/<container>/<attempt>.log"""
        metadata = pod["metadata"]
        return self.root_dir / "logs" / f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}"

    def known_pods(self) -> list[str]:
        """The UIDs of all pods that left something here."""
        found = {p.name for base in (self.root_dir, self.runtime_dir) for p in (base / "pods").iterdir()}
        return sorted(found)

    def remember(self, pod: dict[str, Any]) -> None:
        """Keep the pod as last seen, so that it can be ended properly should it be gone when we come back."""
        directory = self.pod_dir(pod["metadata"]["uid"])
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(directory / "pod.json", orjson.dumps(pod))

    def remembered(self, uid: str) -> dict[str, Any] | None:
        """The pod as last seen, or None."""
        return remembered(self.pod_dir(uid))

    # -- sandboxes ----------------------------------------------------------------------------------------------------

    async def create_sandbox(
        self, uid: str, hostname: str, *, sharing: Sharing, on_change: Callable[[], None]
    ) -> Sandbox:
        """A fresh shim for the pod. OSError if namespaces are refused."""
        directory = self.memory_dir(uid)
        for name in ("root", "etc", "volumes"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        shm = directory / "shm"
        shm.mkdir(exist_ok=True)
        shm.chmod(0o1777)
        plan = shim.SandboxPlan(
            str(directory),
            uid,
            hostname,
            own_network=not sharing.network,
            own_pids=not sharing.pids,
            own_ipc=not sharing.ipc,
            shared_pids=sharing.pids or sharing.within,
        )
        pid, end = await self._spawner.sandbox(plan)
        channel.enlarge(end)
        return Sandbox(end, pid, on_change, (directory / "shim.pid").stat().st_mtime_ns)

    async def adopt(self, uid: str, on_change: Callable[[], None]) -> Sandbox | None:
        """Connect to the pod's shim if it lives."""
        directory = self.memory_dir(uid)
        end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with opened(directory) as fd:
                end.connect(f"/proc/self/fd/{fd}/{shim.SOCKET}")
                pid = int((directory / "shim.pid").read_text())
                since = (directory / "shim.pid").stat().st_mtime_ns
        except (OSError, ValueError):
            end.close()
            return None
        end.setblocking(False)
        channel.enlarge(end)
        sandbox = Sandbox(end, pid, on_change, since)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await sandbox.refresh()
        except (SandboxGone, TimeoutError):
            sandbox.close()
            return None
        return sandbox

    async def stop_sandbox(self, uid: str, sandbox: Sandbox | None) -> None:
        """End the pod's processes and its shim, for certain."""
        if sandbox is None:
            sandbox = await self.adopt(uid, lambda: None)
        if sandbox is None:
            await self._end_strays(uid)
            return
        pidfd = -1
        try:
            if not sandbox.gone:
                with contextlib.suppress(ProcessLookupError):
                    pidfd = os.pidfd_open(sandbox.pid)
                with contextlib.suppress(SandboxGone, TimeoutError):
                    async with asyncio.timeout(_STOP_SECONDS):
                        await sandbox.request("stop")
            sandbox.close()
            if pidfd >= 0:
                await _wait_or_kill(pidfd)
            await self._end_strays(uid)
            podcgroups.remove(uid)
        finally:
            if pidfd >= 0:
                os.close(pidfd)

    async def _end_strays(self, uid: str) -> None:
        """End what a pod in the machine's PID namespace has left: nothing dies with its shim."""
        if Sharing.of(self.remembered(uid) or {"spec": {}}).pids:
            await asyncio.to_thread(marked.kill, pod_marker(uid))

    # -- containers ---------------------------------------------------------------------------------------------------

    def records(self, uid: str, sandbox: Sandbox | None) -> dict[str, list[Record]]:
        """Every attempt on record, by container, oldest first."""
        found: dict[str, list[Record]] = {}
        base = self.pod_dir(uid) / "containers"
        if not base.is_dir():
            return found
        for container in sorted(base.iterdir()):
            attempts = sorted(int(p.name) for p in container.iterdir() if p.name.isdigit())
            for attempt in attempts:
                if record := self._record(container.name, attempt, container / str(attempt), sandbox):
                    found.setdefault(container.name, []).append(record)
        return found

    @staticmethod
    def _record(name: str, attempt: int, directory: Path, sandbox: Sandbox | None) -> Record | None:
        try:
            ended = msgspec.json.decode((directory / "exit.json").read_bytes(), type=Exit)
            return Record(name, attempt, ended.started, ended)
        except (OSError, msgspec.DecodeError):
            pass
        if sandbox is not None and (running := sandbox.running.get((name, attempt))):
            return running
        try:
            started = (directory / "plan.json").stat().st_mtime_ns
        except OSError:
            return None
        return Record(name, attempt, started, Exit(137, 0, started, started, lost=True))

    async def start(self, uid: str, sandbox: Sandbox, name: str, attempt: int, plan: ContainerPlan) -> None:
        """Start a container. Raises StartError in the runtime's words, or SandboxGone."""
        directory = self.container_dir(uid, name, attempt)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "plan.json").write_bytes(msgspec.json.encode(plan))
        key = (name, attempt)
        sandbox.running[key] = Record(name, attempt, time.time_ns())
        message, _ = await sandbox.request("start", name=name, attempt=attempt, directory=str(directory))
        if "error" in message:
            sandbox.running.pop(key, None)
            raise StartError(f"failed to start container: {message['error']}: unknown")
        if key in sandbox.running:  # else its end was told before we got here
            sandbox.running[key] = Record(name, attempt, message["started"])

    def image_id(self, uid: str, name: str, attempt: int) -> str:
        """What an attempt's plan says of its image; "" if it has none, or is not there (any more)."""
        try:
            plan = msgspec.json.decode(
                (self.container_dir(uid, name, attempt) / "plan.json").read_bytes(), type=ContainerPlan
            )
        except (OSError, msgspec.DecodeError):
            return ""
        return plan.oci.image_id if plan.oci is not None else ""

    def container_dir(self, uid: str, name: str, attempt: int) -> Path:
        """Where an attempt's plan and end are."""
        return self.pod_dir(uid) / "containers" / name / str(attempt)

    def forget_attempts(self, pod: dict[str, Any], name: str, before: int) -> None:
        """Drop what older attempts left; the one before the current stays for `kubectl logs --previous`."""
        base = self.pod_dir(pod["metadata"]["uid"]) / "containers" / name
        for directory in list(base.iterdir()):
            if directory.name.isdigit() and int(directory.name) < before:
                shutil.rmtree(directory, ignore_errors=True)
        logs = self.log_dir(pod) / name
        if logs.is_dir():
            for file in list(logs.iterdir()):
                head = file.name.partition(".")[0]
                if head.isdigit() and int(head) < before:
                    file.unlink(missing_ok=True)

    def forget(self, pod: dict[str, Any]) -> None:
        """Drop all that a pod left: it is gone from the API."""
        uid = pod["metadata"]["uid"]
        podcgroups.remove(uid, _STOP_SECONDS)
        release(self.memory_dir(uid) / "volumes")
        for directory in (self.memory_dir(uid), self.pod_dir(uid), self.log_dir(pod)):
            shutil.rmtree(directory, ignore_errors=True)


def remembered(directory: Path) -> dict[str, Any] | None:
    """The pod as last seen, whose directory this is."""
    try:
        found: dict[str, Any] = orjson.loads((directory / "pod.json").read_bytes())
        return found
    except (OSError, orjson.JSONDecodeError):
        return None


def pod_marker(uid: str) -> str:
    """What every process of the pod's containers has mounted."""
    return f"pods/{uid}/etc/hosts"


@contextlib.contextmanager
def opened(directory: Path) -> Iterator[int]:
    """A descriptor of the directory: a Unix address holds 107 bytes, and /proc/self/fd is short."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


async def _wait_or_kill(pidfd: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await ended.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        loop.remove_reader(pidfd)


def _in_memory(directory: Path) -> bool:
    """Whether files in `directory` are in memory only."""
    resolved = str(directory.resolve())
    covering = [m for m in mnt.mounts() if (resolved + "/").startswith(m.target.rstrip("/") + "/")]
    return max(covering, key=lambda m: (len(m.target), m.id)).kind in ("tmpfs", "ramfs")
