"""What was seen, as values: the API's objects, each node's kernel, each pod's namespace, the DNS's answers.

Made by `fairlead.survey`, read by everything in this package. Invariant: None (or a missing key) means "not seen", an
empty value means "looked, and there is nothing".
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

from fairlead.discovery.model import ServiceSnapshot
from fairlead.linux.ipset import Element
from fairlead.linux.iptables import Saved
from fairlead.linux.ipvs import Table
from fairlead.linux.nft.objects import TableState

Object = dict[str, Any]
ProcessState = Literal["running", "stopped", "gone"]


class Facts(msgspec.Struct, frozen=True):
    """What is known of the cluster as a whole. `local`: its kernels are on this machine."""

    name: str = ""
    domain: str = "cluster.local"
    dns_ip: str = ""
    pod_cidrs: tuple[str, ...] = ()
    service_cidrs: tuple[str, ...] = ()
    outside_ip: str = ""
    proxy_mode: str = "nftables"
    accelerate: str = ""  # "socket": pods' programs are led to endpoints when they connect
    local: bool = False


class Listener(NamedTuple):
    """A socket that waits for connections (TCP) or datagrams (UDP). `state` is the process': R, S, D, T, Z…"""

    protocol: str
    address: str
    port: int
    pid: int = 0
    process: str = ""
    state: str = ""


class LinkView(NamedTuple):
    """A network link. `master` is the name of the bridge it is a port of. `hairpin` None: not a bridge port."""

    name: str
    up: bool
    mtu: int
    master: str = ""
    hairpin: bool | None = None
    addresses: tuple[str, ...] = ()


class RouteAnswer(NamedTuple):
    """The kernel's own answer to "how to this address?". `error` is its refusal, in words."""

    destination: str
    device: str = ""
    gateway: str = ""
    error: str = ""


class TunnelPeer(NamedTuple):
    """Whom a link to other networks sends to. `key`: WireGuard's, or for VXLAN the link-layer address; `endpoint`:
    where it is; `networks`: what is for it; `age`: seconds since the last handshake, -1 for never (VXLAN has none)."""

    link: str
    key: str
    endpoint: str
    networks: tuple[str, ...] = ()
    age: int = -1


class FlowView(NamedTuple):
    """A tracked connection: the client's packet as sent, and where it was sent on to (the reply's source)."""

    protocol: str
    source: str
    source_port: int
    destination: str
    port: int
    endpoint: str
    endpoint_port: int


class DNSAnswer(NamedTuple):
    """What a name server said, asked from within the pod's namespace. `rcode`: NOERROR, NXDOMAIN, …; or `no answer`,
    `refused` (ICMP), `unreachable`."""

    server: str
    name: str
    rcode: str
    addresses: tuple[str, ...] = ()
    alias: str = ""
    milliseconds: float = 0.0


class IpvsView(msgspec.Struct, frozen=True):
    """The virtual servers of a namespace, and all IP sets."""

    servers: Table = {}
    sets: dict[str, set[Element]] = {}


class PlainKernel(msgspec.Struct, frozen=True, kw_only=True):
    """Of a node's network namespace what is made of plain values. `mode`: the proxy's, if its agent says so.
    `iptables`: iptables' tables by family and name, where there are some. `ruleset`: nft's JSON listing of everything,
    without the elements of sets."""

    mode: str = ""
    iptables: dict[str, dict[str, Saved]] = {}
    ruleset: tuple[Object, ...] = ()
    links: tuple[LinkView, ...] = ()
    routes: dict[str, RouteAnswer] = {}
    sysctls: dict[str, str] = {}
    flows: tuple[FlowView, ...] = ()
    conntrack: tuple[int, int] = (0, 0)  # entries, maximum
    tunnels: tuple[TunnelPeer, ...] = ()
    problem: str = ""  # why it could not be read
    silent: bool = False  # there should be an agent, and it does not answer


class NodeKernel(PlainKernel, frozen=True, kw_only=True):
    """A node's network namespace. `tables`: the proxy's nftables by family (None: there is none)."""

    tables: dict[str, TableState | None] = {}
    ipvs: IpvsView | None = None

    def link(self, name: str) -> LinkView | None:
        """The link of that name."""
        return next((link for link in self.links if link.name == name), None)

    @property
    def addresses(self) -> frozenset[str]:
        """The node's own addresses."""
        return frozenset(a.split("/")[0] for link in self.links for a in link.addresses)


class PodKernel(msgspec.Struct, frozen=True, kw_only=True):
    """A pod's network namespace. `present` False: its sandbox is gone."""

    present: bool = True
    links: tuple[LinkView, ...] = ()
    routes: dict[str, RouteAnswer] = {}
    listeners: tuple[Listener, ...] = ()
    udp_ports: frozenset[int] | None = None  # local ports of all UDP sockets
    ruleset: tuple[Object, ...] = ()
    resolv_conf: str | None = None
    environment: dict[str, str] | None = None
    problem: str = ""


class Attempt(NamedTuple):
    """One real request. `outcome`: connected, answered, refused, timeout, unreachable; `endpoint` as the kernel's
    connection tracking has it ("" if it was not translated or not seen); `trace`: the rules it met."""

    outcome: str
    endpoint: str = ""
    milliseconds: float = 0.0
    detail: str = ""
    trace: tuple[str, ...] = ()


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was seen, at one moment. `kernels` is by node, `pod_kernels` by the pod's uid, `processes` by
    name (control-plane, node-n1, …). `secrets` says of those that Ingresses name why they are no certificates ("": they
    are). `applied` is, by node, the revision of the newest EndpointSlice that its agent says its kernel has."""

    facts: Facts = Facts()
    snapshot: ServiceSnapshot = ServiceSnapshot()
    services: tuple[Object, ...] = ()
    slices: tuple[Object, ...] = ()
    pods: tuple[Object, ...] = ()
    nodes: tuple[Object, ...] = ()
    namespaces: tuple[Object, ...] = ()
    policies: tuple[Object, ...] = ()
    ingresses: tuple[Object, ...] = ()
    ingress_classes: tuple[Object, ...] = ()
    secrets: dict[str, str] = {}
    applied: dict[str, int] = {}
    events: tuple[Object, ...] = ()
    kernels: dict[str, NodeKernel] = {}
    pod_kernels: dict[str, PodKernel] = {}
    answers: tuple[DNSAnswer, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    processes: dict[str, ProcessState] = {}
    api_problem: str = ""
    unseen: tuple[str, ...] = ()

    def pod(self, namespace: str, name: str) -> Object | None:
        """A pod by name."""
        return next((p for p in self.pods if _key(p) == (namespace, name)), None)

    def pod_at(self, address: str) -> Object | None:
        """The pod that has this address and has not ended."""
        for pod in self.pods:
            status = pod.get("status") or {}
            ips = {entry.get("ip") for entry in status.get("podIPs") or ()} | {status.get("podIP")}
            if address in ips and status.get("phase") not in ("Succeeded", "Failed"):
                return pod
        return None

    def service(self, namespace: str, name: str) -> Object | None:
        """A Service by name."""
        return next((s for s in self.services if _key(s) == (namespace, name)), None)

    def node(self, name: str) -> Object | None:
        """A Node by name."""
        return next((n for n in self.nodes if n["metadata"]["name"] == name), None)

    def kernel_of(self, pod: Object) -> PodKernel | None:
        """What was seen in a pod's namespace."""
        return self.pod_kernels.get(pod["metadata"].get("uid", ""))


def _key(obj: Object) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
