"""This node in the API: the Node object, its status, its Lease.

Source: upstream's kubelet_node_status.go and component-helpers/apimachinery/lease. Invariant: what others wrote into
the Node (labels, taints, podCIDR, other conditions) stays.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from datetime import datetime
from pathlib import Path
from typing import Any

from fairlead import __version__
from fairlead.api import times
from fairlead.api.errors import StatusError
from fairlead.api.kinds import LEASES, NODES
from fairlead.api.version import GIT_VERSION
from fairlead.client import Client
from fairlead.client.backoff import Backoff
from fairlead.kubelet.options import KubeletOptions
from fairlead.kubelet.surroundings import utc_now

log = logging.getLogger("fairlead.kubelet")
Object = dict[str, Any]
LEASE_NAMESPACE = "kube-node-lease"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def architecture() -> str:
    """This machine's, in Go's word."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def capacity(max_pods: int) -> dict[str, str]:
    """What this machine has. Nodes of one cluster on one machine share it: each says the whole."""
    memory = 0
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            memory = int(line.split()[1])
    disk = os.statvfs("/")
    return {
        "cpu": str(os.cpu_count() or 1),
        "memory": f"{memory}Ki",
        "pods": str(max_pods),
        "ephemeral-storage": f"{disk.f_blocks * disk.f_frsize // 1024}Ki",
        "hugepages-2Mi": "0",
    }


def extended(amounts: dict[str, str]) -> dict[str, str]:
    """Of a node's resources those that are not this kubelet's to count: who knows of them writes them into the Node's
    capacity."""
    return {name: amount for name, amount in amounts.items() if "/" in name}


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _system_image() -> str:
    for line in _read("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return "Linux"


def node_info() -> dict[str, str]:
    """status.nodeInfo: clients require every one of these."""
    return {
        "machineID": _read("/etc/machine-id"),
        "systemUUID": _read("/sys/class/dmi/id/product_uuid") or _read("/etc/machine-id"),
        "bootID": _read("/proc/sys/kernel/random/boot_id"),
        "kernelVersion": platform.release(),
        "osImage": _system_image(),
        "containerRuntimeVersion": f"fairlead://{__version__}",
        "kubeletVersion": GIT_VERSION,
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": architecture(),
    }


def node_labels(options: KubeletOptions) -> dict[str, str]:
    """Those that every kubelet sets, and the configured ones."""
    found = {"kubernetes.io/hostname": options.node_name}
    for prefix in ("", "beta."):
        found[f"{prefix}kubernetes.io/os"] = "linux"
        found[f"{prefix}kubernetes.io/arch"] = architecture()
    return found | options.labels


def conditions(before: list[Object], ready: bool, why_not: str, now: datetime) -> list[Object]:
    """The node's conditions. A transition time moves only when the status does."""
    known = {c["type"]: c for c in before}
    stamp = times.render(now)
    wanted = {
        "MemoryPressure": ("False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        "DiskPressure": ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        "PIDPressure": ("False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        "Ready": ("True", "KubeletReady", "kubelet is posting ready status")
        if ready
        else ("False", "KubeletNotReady", why_not),
    }
    found = []
    for kind, (status, reason, message) in wanted.items():
        old = known.get(kind) or {}
        since = old.get("lastTransitionTime") if old.get("status") == status else None
        found.append(
            {
                "type": kind,
                "status": status,
                "lastHeartbeatTime": stamp,
                "lastTransitionTime": since or stamp,
                "reason": reason,
                "message": message,
            }
        )
    return found


class NodeReporter:
    """Registers the node and keeps its status and Lease fresh. `run` ends only by being cancelled."""

    def __init__(self, client: Client, options: KubeletOptions) -> None:
        self._client, self._options = client, options
        self._ready = False
        self._why_not = "container runtime network not ready: pod network is not set up"
        self._changed = asyncio.Event()
        self.registered = asyncio.Event()
        self.uid = ""
        self._addresses: tuple[tuple[str, ...], str] = (options.node_ips, "")

    def set_addresses(self, internal: tuple[str, ...], external: str = "") -> None:
        """The node's addresses are others now; `external` is the one it has outside its network, if any."""
        if (internal, external) != self._addresses:
            self._addresses = (internal, external)
            self._changed.set()

    def set_ready(self) -> None:
        """Pods can be run from now on."""
        if not self._ready:
            self._ready = True
            self._changed.set()

    async def run(self) -> None:
        """Register, then report."""
        await self._insist(self._register)
        self.registered.set()
        await asyncio.gather(self._report(), self._renew())

    async def _insist(self, action: Any) -> None:
        backoff = Backoff(0.1, 5.0)
        while True:
            try:
                await action()
                return
            except StatusError as error:
                log.info("node %s: %s; trying again", self._options.node_name, error)
                await asyncio.sleep(backoff.next())

    async def _register(self) -> None:
        options = self._options
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": options.node_name,
                "labels": node_labels(options),
                "annotations": options.annotations,
            },
            "spec": {},
            "status": self._status([]),
        }
        try:
            made = await self._client.create(NODES, node)
        except StatusError as error:
            if error.code != 409:
                raise
            made = await self._client.patch(
                NODES, options.node_name, {"metadata": {"labels": node_labels(options)}}, kind="strategic"
            )
        self.uid = made["metadata"].get("uid", "")
        await self._patch_status()

    def _status(self, before: list[Object]) -> Object:
        options = self._options
        amounts = capacity(options.max_pods)
        internal, external = self._addresses
        return {
            "addresses": [
                *({"type": "InternalIP", "address": ip} for ip in internal),
                *({"type": "ExternalIP", "address": ip} for ip in (external,) if ip),
                {"type": "Hostname", "address": options.node_name},
            ],
            "capacity": amounts,
            "allocatable": amounts,
            "conditions": conditions(before, self._ready, self._why_not, utc_now()),
            "daemonEndpoints": {"kubeletEndpoint": {"Port": options.port}},
            "nodeInfo": node_info(),
        }

    async def _patch_status(self) -> None:
        name = self._options.node_name
        self._changed.clear()
        node = await self._client.get(NODES, name)
        before = node.get("status") or {}
        status = self._status(before.get("conditions") or [])
        advertised = extended(before.get("capacity") or {})
        gone = dict.fromkeys(extended(before.get("allocatable") or {}).keys() - advertised.keys())
        status["allocatable"] = status["capacity"] | advertised | gone
        status["addresses"].append({"$patch": "replace"})  # their merge key is the type, and two are InternalIP
        await self._client.patch(NODES, name, {"status": status}, kind="strategic", subresource="status")

    async def _report(self) -> None:
        loop, options = asyncio.get_running_loop(), self._options
        due = loop.time() + options.status_report_seconds
        while True:
            try:
                async with asyncio.timeout(min(options.status_look_seconds, options.status_report_seconds)):
                    await self._changed.wait()
            except TimeoutError:
                if loop.time() < due and not await self._something_was_advertised():
                    continue
            await self._insist(self._update)
            due = loop.time() + options.status_report_seconds

    async def _something_was_advertised(self) -> bool:
        """Whether somebody wrote a resource into the Node's capacity that pods are not offered yet, or took one out."""
        try:
            status = (await self._client.get(NODES, self._options.node_name)).get("status") or {}
        except StatusError as error:
            return error.code == 404
        return extended(status.get("capacity") or {}) != extended(status.get("allocatable") or {})

    async def _update(self) -> None:
        try:
            await self._patch_status()
        except StatusError as error:
            if error.code != 404:
                raise
            await self._register()

    async def _renew(self) -> None:
        while True:
            try:
                await self._renew_once()
            except StatusError as error:
                log.info("node %s: its Lease could not be renewed: %s", self._options.node_name, error)
                await asyncio.sleep(min(1.0, self._options.lease_renew_seconds))
                continue
            await asyncio.sleep(self._options.lease_renew_seconds)

    async def _renew_once(self) -> None:
        options = self._options
        spec = {
            "holderIdentity": options.node_name,
            "leaseDurationSeconds": options.lease_seconds,
            "renewTime": times.render_micro(utc_now()),
        }
        try:
            await self._client.patch(LEASES, options.node_name, {"spec": spec}, LEASE_NAMESPACE, "merge")
        except StatusError as error:
            if error.code != 404:
                raise
            owner = {"apiVersion": "v1", "kind": "Node", "name": options.node_name, "uid": self.uid}
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {
                    "name": options.node_name,
                    "namespace": LEASE_NAMESPACE,
                    "ownerReferences": [owner] if self.uid else [],
                },
                "spec": spec,
            }
            await self._client.create(LEASES, lease, LEASE_NAMESPACE)
