"""Which ports of the node lead to which pod, kept in one small file per pod, and in the kernel.

Acts on what `hostports` decides. Invariants: what is on disk and what the kernel has are the same once a call returns,
also after the agent was killed at any moment; UDP flows that contradict a change are forgotten with it.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from pathlib import Path

import msgspec

from fairlead.linux import conntrack
from fairlead.linux.conntrack import ConntrackSocket
from fairlead.linux.links import Links
from fairlead.podnetwork import hostports
from fairlead.podnetwork.hostports import HostPort, Published
from fairlead.podnetwork.keeper import TableKeeper

log = logging.getLogger("fairlead.podnetwork")


class PortTaken(OSError):
    """Another pod of this node has the port."""


class PortBook:
    """One node's. `rules` keeps the tables in the kernel."""

    def __init__(self, directory: Path, rules: TableKeeper) -> None:
        self._directory, self._rules = directory, rules
        directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._published: dict[str, Published] = {}
        for file in directory.iterdir():
            try:
                self._published[file.name] = msgspec.json.decode(file.read_bytes(), type=Published)
            except msgspec.DecodeError as error:
                log.warning("the ports of pod %s can't be read and are published anew: %s", file.name, error)
        self._apply()

    @property
    def used(self) -> bool:
        """Whether a port leads to a pod."""
        return bool(self._published)

    def publish(self, owner: str, ips: tuple[str, ...], ports: tuple[HostPort, ...]) -> None:
        """These lead to the pod from now on, and no others. Raises PortTaken, and OSError if the kernel refuses."""
        wanted, before = Published(ips, ports), self._published.get(owner)
        if wanted == before or not (ports or before):
            return
        others = [pod for uid, pod in self._published.items() if uid != owner]
        if (taken := hostports.clash(wanted, others)) is not None:
            raise PortTaken(f"hostPort {taken.port}/{taken.protocol} is taken by another pod of this node")
        draft = self._directory.parent / f".{self._directory.name}-draft"
        draft.write_bytes(msgspec.json.encode(wanted))
        draft.replace(self._directory / owner)
        self._published[owner] = wanted
        try:
            self._apply()
        except OSError:
            self.withdraw(owner)
            raise
        self._forget_flows(*((before, wanted) if before else (wanted,)))

    def withdraw(self, owner: str) -> None:
        """No port leads to the pod."""
        before = self._published.pop(owner, None)
        if before is not None:
            (self._directory / owner).unlink(missing_ok=True)
            self._apply()
            self._forget_flows(before)

    def _apply(self) -> None:
        self._rules.apply(hostports.tables(self._published.values()))

    def _forget_flows(self, *changed: Published) -> None:
        ports: dict[int, set[str]] = {}
        for pod in changed:
            for port in pod.ports:
                if port.protocol == "UDP":
                    ports.setdefault(port.port, set()).update(pod.ips)
        if not ports:
            return
        with Links() as links:
            local = {str(address.ip) for link in links.list() for address in links.addresses(link.index)}
        families = {ipaddress.ip_address(ip).version for ips in ports.values() for ip in ips}
        try:
            with ConntrackSocket() as kernel:
                for version in families:
                    flows = kernel.flows(socket.AF_INET if version == 4 else socket.AF_INET6, conntrack.UDP)
                    for flow in hostports.stale(flows, self._published.values(), ports, local):
                        kernel.delete(flow)
        except OSError as error:
            log.warning("UDP flows to changed hostPorts could not be looked at: %s", error)
