"""A node for one test: a network namespace, a real pod network, a real spawner, a kubelet, and an API in memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fairlead.api.defaults import apply
from fairlead.api.kinds import EVENTS, PODS
from fairlead.client.fake import FakeAPI, FakeClient
from fairlead.discovery.model import Node, ServiceSnapshot
from fairlead.kubelet.kubelet import Kubelet
from fairlead.kubelet.options import KubeletOptions
from fairlead.kubelet.removal import remove_all
from fairlead.kubelet.spawner import Spawner
from fairlead.linux import namespaces
from fairlead.linux.links import Links
from fairlead.podnetwork.network import PodNetwork, PodNetworkOptions

Object = dict[str, Any]
NODE_IP = "10.244.77.1"  # the bridge's own: the test's node has no other network
DEADLINE = 20.0


class Lab:
    """Use as a context manager around the test; `await start()` and `await stop()` within it."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        run = secrets.token_hex(4)
        self.base = Path("/var/tmp") / f"flt-{run}"  # pods have a /tmp of their own
        self.base.mkdir()
        self.root_dir, self.runtime_dir = self.base / "state", Path("/run") / f"flt-{run}"
        self.api = FakeAPI({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
        self.snapshot = ServiceSnapshot(synced=True)
        self.options_extra: dict[str, Any] = {}
        self.kubelet: Kubelet
        self._entered = namespaces.entered(namespaces.path(namespace))

    def __enter__(self) -> Lab:
        self._entered.__enter__()
        with Links() as links:
            links.set_up(links.index("lo"))
        self.spawner = Spawner.fork()
        return self

    def __exit__(self, *_: object) -> None:
        self.spawner.close()
        remove_all(self.root_dir, self.runtime_dir)
        self._entered.__exit__(None, None, None)
        shutil.rmtree(self.base, ignore_errors=True)

    async def start(self) -> Kubelet:
        self.client = FakeClient(self.api)
        self.network = PodNetwork(PodNetworkOptions("n1", self.root_dir / "network"))
        (self.root_dir / "network").mkdir(parents=True, exist_ok=True)
        await self.network.sync({"n1": Node("n1", internal_ips=(NODE_IP,), pod_cidrs=("10.244.77.0/24",))})
        options = KubeletOptions(
            "n1",
            NODE_IP,
            self.root_dir,
            self.runtime_dir,
            cluster_dns=("10.96.0.10",),
            masked=(str(self.base / "cluster-secrets"),),
            **self.options_extra,
        )
        self.kubelet = Kubelet(options, self.client, self.network, self.spawner, lambda: self.snapshot)
        await self.kubelet.start()
        self.kubelet.network_ready()
        return self.kubelet

    async def stop(self) -> None:
        await self.kubelet.stop()
        self.network.close()
        await self.client.close()

    # -- pods ---------------------------------------------------------------------------------------------------------

    def pod(
        self,
        name: str,
        *command: str,
        spec: Object | None = None,
        container: Object | None = None,
        annotations: dict[str, str] | None = None,
    ) -> Object:
        """Create a pod of one container, bound to the node, defaulted as the API server does."""
        main = {"name": "main", "image": "fairlead/host", "command": list(command), **(container or {})}
        if not main["command"]:
            main.pop("command")
        obj: Object = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": "default",
                "uid": str(uuid.uuid4()),  # control groups and mounts are named by it, and other labs run beside
                "labels": {"app": name},
                "annotations": annotations or {},
            },
            "spec": {"nodeName": "n1", "containers": [main], **(spec or {})},
        }
        apply(PODS, obj)
        return self.api.add(obj)

    def find(self, name: str) -> Object | None:
        return self.api.find(PODS, name, "default")

    async def wait(self, name: str, condition: Callable[[Object], Any], seconds: float = DEADLINE) -> Object:
        """The pod, once `condition` holds of it."""
        return await self.until(lambda: (pod := self.find(name)) is not None and condition(pod) and pod, seconds, name)

    async def until(self, condition: Callable[[], Any], seconds: float = DEADLINE, about: str = "") -> Any:
        deadline = time.monotonic() + seconds
        while True:
            if found := condition():
                return found
            if time.monotonic() > deadline:
                state = self.find(about) if about else None
                raise AssertionError(f"not within {seconds} s; pod {about}: {state and state.get('status')}")
            await asyncio.sleep(0.002)

    async def gone(self, name: str, seconds: float = DEADLINE) -> None:
        await self.until(lambda: self.find(name) is None, seconds, name)
        await self.until(lambda: not self.kubelet.workers or self.kubelet.find("default", name) is None)

    def log(self, pod: Object, container: str = "main", attempt: int = 0) -> str:
        file = self.kubelet.runtime.log_dir(pod) / container / f"{attempt}.log"
        lines = file.read_text().splitlines() if file.exists() else []
        return "".join(line.split(" ", 3)[3] + "\n" for line in lines)

    def events(self, name: str) -> list[tuple[str, str]]:
        found = [e for e in self.api.objects(EVENTS) if e["involvedObject"]["name"] == name]
        return [(e["reason"], e["message"]) for e in found]

    async def event(self, name: str, reason: str, text: str = "") -> None:
        await self.until(lambda: any(r == reason and text in m for r, m in self.events(name)), about=name)


def object_of(kind: str, name: str, **fields: Any) -> Object:
    """A core object in the default namespace."""
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "default"}, **fields}


def running(pod: Object) -> bool:
    """Its containers all run."""
    states = (pod.get("status") or {}).get("containerStatuses") or []
    return bool(states) and all("running" in s["state"] for s in states)


def ready(pod: Object) -> bool:
    """Its Ready condition is True."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def phase_is(phase: str) -> Callable[[Object], bool]:
    """A condition for `wait`."""
    return lambda pod: (pod.get("status") or {}).get("phase") == phase


def state_of(pod: Object, container: str = "main") -> Object:
    """One container's status."""
    status = pod.get("status") or {}
    both = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
    return next((s for s in both if s["name"] == container), {})


def leftovers(run: str) -> set[str]:
    """What a test's pods left on the machine: processes, mounts, directories."""
    found = {str(p) for p in (Path("/run") / run, Path("/var/tmp") / run) if p.exists()}
    found.update(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if run in line)
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and run in f"{(entry / 'cwd').readlink()} {(entry / 'mountinfo').read_text()}":
                found.add(f"process {entry.name}: {(entry / 'comm').read_text()}")
    return found


def kill(pid: int) -> None:
    """kill -9."""
    os.kill(pid, signal.SIGKILL)


def python(code: str) -> tuple[str, ...]:
    """A command that runs `code` in this interpreter."""
    return (sys.executable, "-c", code)


def host_processes(marker: str) -> list[str]:
    """Processes of the whole machine with `marker` in their command line."""
    found = subprocess.run(["ps", "axo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if marker in line]
