"""What a kubelet is told by whoever starts it, and what it needs of its neighbors."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import msgspec

from fairlead.discovery.model import ServiceSnapshot
from fairlead.podnetwork.hostports import HostPort

PORT = 10250


class Addresses(Protocol):
    """What a pod got of the network; the first of `ips` is status.podIP."""

    @property
    def ips(self) -> tuple[str, ...]:
        """Never empty."""


class PodNetwork(Protocol):
    """The node's pod network, as far as the kubelet uses it."""

    async def attach(self, pod_uid: str, namespace: Path | str | int) -> Addresses:
        """Give the network namespace its eth0; repeated for the same pod, the same address."""

    async def publish(self, pod_uid: str, ips: tuple[str, ...], ports: tuple[HostPort, ...]) -> None:
        """These ports of the node, and no others, lead to the pod. Raises OSError that says why not."""

    async def detach(self, pod_uid: str) -> None:
        """Take it away. Detaching what is not attached is fine."""

    def attached(self) -> set[str]:
        """The UIDs of pods that hold an address."""


class ServiceSource(Protocol):
    """Where the Services for environment variables come from."""

    def __call__(self) -> ServiceSnapshot:
        """The present snapshot; it may not be synced yet."""


class KubeletOptions(msgspec.Struct, frozen=True):
    """`root_dir` survives a reboot; `runtime_dir` need not, and is put in memory. `masked` are the machine's paths that
    no container may read, beside those two: the cluster's state. Files are PEM; without `server_cert_file` no server
    is started (logs, exec and attach are then not to be had). Its clients need a certificate of `client_ca_file` whose
    organization is one of `client_groups`: the CA signs others too, that must not run commands in pods.

    `withdraw_seconds`: how long a pod that is deleted is kept from hearing of it until every node sends its new
    connections elsewhere, and what it was asked is answered; a new pod that a Service selects then has the condition
    fairlead.dev/Reachable. 0: neither, as upstream. It needs `Kubelet.see` to be called. A pod's annotation
    fairlead.dev/withdraw-seconds goes before it."""

    node_name: str
    node_ip: str
    root_dir: Path
    runtime_dir: Path
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    masked: tuple[str, ...] = ()
    resolv_conf: Path = Path("/etc/resolv.conf")
    port: int = PORT
    address: str = ""
    """Where the server listens; empty: at `node_ip`."""
    server_cert_file: Path | None = None
    server_key_file: Path | None = None
    client_ca_file: Path | None = None
    client_groups: tuple[str, ...] = ("system:masters",)
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    """Of the Node, written when it registers; what the Node has already goes before it."""
    max_pods: int = 110
    lease_seconds: int = 40
    lease_renew_seconds: float = 10.0
    status_report_seconds: float = 300.0
    status_look_seconds: float = 10.0
    """How often the Node is looked at for resources that others advertise in its capacity."""
    storage_check_seconds: float = 10.0
    """How often the sizes of emptyDirs, and of what containers write, are looked at where they are limited."""
    withdraw_seconds: float = 0.0
    images_dir: Path | None = None
    """The machine's image store; None: only the image fairlead/host can be run."""
    more_node_ips: tuple[str, ...] = ()

    @property
    def node_ips(self) -> tuple[str, ...]:
        """The node's addresses, `node_ip` (the primary family's) first."""
        return (self.node_ip, *self.more_node_ips)
