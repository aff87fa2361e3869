"""What a pod's containers stand in: its shim, its network, its volumes, its /etc files.

Made and remade for the pod worker. Invariant: what could not be made is said in an event, and nothing of it is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fairlead.kubelet import hosts, resolvconf, volumes
from fairlead.kubelet.plans import PodPlaces
from fairlead.kubelet.runtime import Sandbox, Sharing
from fairlead.kubelet.surroundings import Surroundings
from fairlead.podnetwork.hostports import host_ports

Object = dict[str, Any]


class PodSandbox:
    """One pod's. `shim` None: there is none (yet)."""

    def __init__(self, around: Surroundings, pod: Callable[[], Object], wake: Callable[[], None]) -> None:
        self._around, self._pod, self._wake = around, pod, wake
        self._uid: str = pod()["metadata"]["uid"]
        self.shim: Sandbox | None = None
        self.ips: tuple[str, ...] = ()
        self.places: PodPlaces | None = None
        self.volumes_made = 0.0
        self._volumes: dict[str, Path] = {}

    async def adopt(self) -> None:
        """Take the shim that lives, if one does."""
        self.shim = await self._around.runtime.adopt(self._uid, self._wake)

    async def stop(self) -> None:
        """End the pod's processes and its shim, also one that we do not know of."""
        shim, self.shim = self.shim, None
        await self._around.runtime.stop_sandbox(self._uid, shim)

    async def drop(self) -> None:
        """As `stop`, and the addresses are not the pod's any more."""
        await self.stop()
        self.ips = ()

    async def make(self) -> bool:
        """Volumes, namespaces, network, /etc. False if something could not be had; an event has said what."""
        around, pod = self._around, self._pod()
        try:
            hostname, domain = hosts.pod_hostname(pod, around.options.cluster_domain)
            in_kernel = hosts.kernel_hostname(pod, hostname, domain)
            made = await asyncio.gather(
                self.make_volumes(),
                around.runtime.create_sandbox(self._uid, in_kernel, sharing=Sharing.of(pod), on_change=self._wake),
                asyncio.to_thread(around.runtime.remember, pod),
                return_exceptions=True,
            )
            if isinstance(made[1], Sandbox):
                self.shim = made[1]
            for problem in made:
                if isinstance(problem, BaseException):
                    raise problem
            await self.attach()
        except volumes.VolumeProblem as problem:
            return await self._give_up("FailedMount", str(problem))
        except (OSError, RuntimeError, hosts.HostnameProblem) as error:
            return await self._give_up("FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}")
        self._write_etc(hostname, in_kernel, domain)
        self._place(hostname)
        return True

    async def _give_up(self, reason: str, message: str) -> bool:
        self._around.recorder.event(self._pod(), "Warning", reason, message)
        if self.shim is not None:
            await self.stop()
        return False

    def _place(self, hostname: str) -> None:
        runtime = self._around.runtime
        memory = runtime.memory_dir(self._uid)
        self.places = PodPlaces(
            memory, Path(), Path(), runtime.masked, self._volumes, hostname, runtime.root_dir / "seccomp"
        )

    async def attach(self) -> None:
        """Give the shim's namespace its network; repeated, the same addresses."""
        assert self.shim is not None
        pod, options = self._pod(), self._around.options
        if pod["spec"].get("hostNetwork"):
            self.ips = options.node_ips
        else:
            found = await self._around.network.attach(self._uid, self.shim.network_namespace)
            self.ips = tuple(found.ips)
            await self._around.network.publish(self._uid, self.ips, host_ports(pod))
        status = pod.setdefault("status", {})
        if status is None:
            status = pod["status"] = {}
        status.update(podIP=self.ips[0], podIPs=[{"ip": ip} for ip in self.ips])
        status.update(hostIP=options.node_ips[0], hostIPs=[{"ip": ip} for ip in options.node_ips])
        if self.places is None:
            self._place(hosts.pod_hostname(pod, options.cluster_domain)[0])

    async def make_volumes(self) -> None:
        """Make them; repeated, their content is the newest. Raises VolumeProblem."""
        around, pod = self._around, self._pod()
        places = volumes.Places(
            around.runtime.pod_dir(self._uid) / "volumes", around.runtime.memory_dir(self._uid) / "volumes"
        )
        wanted = pod["spec"].get("volumes") or ()
        made = await asyncio.gather(
            *(volumes.make(pod, volume, places, around.fetch, around.allocatable) for volume in wanted)
        )
        self._volumes.update((volume["name"], path) for volume, path in zip(wanted, made, strict=True))
        self.volumes_made = asyncio.get_running_loop().time()

    def refresh_downward(self) -> None:
        """What the pod says of itself is something else: its volumes that show it are made again at the next step."""
        if shows_itself(self._pod()):
            self.volumes_made = float("-inf")

    def _write_etc(self, hostname: str, in_kernel: str, domain: str) -> None:
        options, pod = self._around.options, self._pod()
        spec = pod["spec"]
        etc = self._around.runtime.memory_dir(self._uid) / "etc"
        aliases = spec.get("hostAliases") or ()
        if spec.get("hostNetwork"):
            text = hosts.render_host_network_hosts(_read("/etc/hosts"), aliases)
        else:
            text = hosts.render_hosts(self.ips, hostname, domain, aliases)
        (etc / "hosts").write_text(text)
        (etc / "hostname").write_text(in_kernel + "\n")
        machine = resolvconf.parse(_read(options.resolv_conf))
        conf, warnings = resolvconf.pod_resolv_conf(pod, machine, options.cluster_dns, options.cluster_domain)
        (etc / "resolv.conf").write_text(resolvconf.render(conf))
        for reason, message in warnings:
            self._around.recorder.event(pod, "Warning", reason, message)


def shows_itself(pod: Object) -> bool:
    """Whether a volume shows fields of the pod."""
    volumes = pod["spec"].get("volumes") or ()
    parts = [part for volume in volumes for part in (volume, *((volume.get("projected") or {}).get("sources") or ()))]
    return any("downwardAPI" in part for part in parts)


def _read(path: Path | str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
