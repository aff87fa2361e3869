"""What all hops of one question share: the question, the evidence, the Service, who asks and from which node. Pure."""

from __future__ import annotations

import ipaddress

import msgspec

from fairlead.announce.election import eligible, may_announce, rank
from fairlead.discovery.choose import Backend
from fairlead.discovery.model import Service, ServicePort
from fairlead.explain.evidence import Evidence, Object, PodKernel
from fairlead.explain.question import Question, Via


class Client(msgspec.Struct, frozen=True):
    """Who sends the packet. `node` is where it starts ("" outside), `address` its source. A pod on its node's own
    network counts as the node: `pod` is then None."""

    node: str
    address: str
    pod: Object | None = None
    namespace: str = "default"
    resolver: Object | None = None  # the pod whose resolv.conf counts

    @property
    def outside(self) -> bool:
        """Not of the cluster."""
        return not self.node


class Scene(msgspec.Struct):
    """One question about one Service."""

    question: Question
    evidence: Evidence
    via: Via
    client: Client
    raw: Object
    service: Service
    family: str = "IPv4"

    @property
    def zone(self) -> str:
        """The client's node's zone."""
        node = self.evidence.snapshot.nodes.get(self.client.node)
        return node.zone if node else ""

    @property
    def direct(self) -> bool:
        """Whether the client talks to endpoints themselves: nothing is translated."""
        return self.service.headless or self.via == "ingress"

    @property
    def external(self) -> bool:
        """Whether externalTrafficPolicy decides."""
        return self.via in ("nodeport", "lb")

    @property
    def client_kernel(self) -> PodKernel | None:
        """What was seen in the client pod's namespace."""
        return self.evidence.kernel_of(self.client.pod) if self.client.pod else None


class Target(msgspec.Struct, frozen=True):
    """Where the packet is sent: an address and port that the node `at` translates."""

    address: str
    port: int
    at: str


def label(pod: Object) -> str:
    """A pod, as people name it."""
    return f"pod/{pod['metadata']['name']}"


def backend_text(scene: Scene, backend: Backend) -> str:
    """An endpoint, with who it is and where."""
    endpoint = backend.endpoint
    who = endpoint.target[2] or (scene.evidence.pod_at(endpoint.address) or {}).get("metadata", {}).get("name", "")
    at = f" on {endpoint.node}" if endpoint.node else ""
    return f"{host(endpoint.address)}:{backend.port}" + (f" ({who}{at})" if who else at)


def host(address: str) -> str:
    """An address as it stands before a port."""
    return f"[{address}]" if ":" in address else address


def port_text(port: ServicePort) -> str:
    """A Service's port in words."""
    name = f"{port.name} " if port.name else ""
    return f"{name}{port.port}/{port.protocol.lower()}"


def primary_address(scene_evidence: Evidence, node: str, family: str = "IPv4") -> str:
    """A node's first internal address of that family."""
    known = scene_evidence.snapshot.nodes.get(node)
    addresses = known.internal_ips if known else ()
    return next((a for a in addresses if (":" in a) == (family == "IPv6")), "")


def on_node_network(pod: Object) -> bool:
    """Whether the pod has no network of its own."""
    return bool((pod.get("spec") or {}).get("hostNetwork"))


def pod_ips(pod: Object) -> tuple[str, ...]:
    """All of a pod's addresses."""
    status = pod.get("status") or {}
    every = [status.get("podIP"), *(entry.get("ip") for entry in status.get("podIPs") or ())]
    return tuple(dict.fromkeys(str(ip) for ip in every if ip))


def pod_ip(pod: Object) -> str:
    """A pod's first address, "" while it has none."""
    return str((pod.get("status") or {}).get("podIP") or "")


def lan_node(evidence: Evidence, service: Service, address: str) -> str:
    """The node that packets from outside to a load balancer's address meet first: the one that answers for it on the
    LAN. (A balancer elsewhere may choose any that has endpoints; this one is as good.)"""
    nodes = evidence.snapshot.nodes
    staying = [node for node in nodes.values() if may_announce(node)]
    able = frozenset(node.name for node in staying if node.ready) or frozenset(node.name for node in staying)
    place = ipaddress.ip_address(address)
    order = rank(place, eligible(service, place, able))
    return order[0] if order else min(nodes, default="")
