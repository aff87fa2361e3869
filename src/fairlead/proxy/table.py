"""What this node does with traffic to Services, as values: the service table.

Stands between `compile` (which makes it) and the backends (which turn it into kernel objects), the conntrack clean-up
and explain. Invariant: everything a backend needs is in it; a backend never looks at a Service or a Node.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec
from immutables import Map

from fairlead.discovery.model import ServiceKey

Family = Literal["IPv4", "IPv6"]
Verdict = Literal["forward", "reject", "drop"]
Sources = Literal["any", "node and its pods"]
Masquerade = Literal["outside", "always", "node", "never"]
Via = Literal["cluster IP", "external IP", "load balancer", "node port"]


class Target(NamedTuple):
    """An endpoint to forward to. `local`: a client may turn out to be this endpoint: because it is on this node, or
    because pods of other nodes are forwarded here, too."""

    address: str
    port: int
    local: bool = False


class Forwarding(msgspec.Struct, frozen=True):
    """What happens to connections to one address and port.

    `address` is a virtual IP; empty means this node's own addresses, and `port` is a node port. `via` says what kind of
    address it is. `sources` narrows it to traffic from this node and its pods: the short cut past
    externalTrafficPolicy Local. `allowed`: if not empty, the clients (CIDRs) that a load balancer's IP is for; others
    are dropped, whoever they are. `masquerade` says whose source address is hidden: of clients outside the cluster's
    pods, always, of the node itself only, never. A client that turns out to be the chosen endpoint is always
    masqueraded. `local_only`: the policy Local chose the targets. `targets` are in the order of their slots, which
    stays when others come and go.
    """

    family: Family
    address: str
    protocol: str
    port: int
    port_name: str
    verdict: Verdict
    targets: tuple[Target, ...] = ()
    masquerade: Masquerade = "outside"
    affinity_seconds: int = 0
    sources: Sources = "any"
    via: Via = "cluster IP"
    allowed: tuple[str, ...] = ()
    local_only: bool = False

    @property
    def is_node_port(self) -> bool:
        """Whether it is reached by the node's addresses."""
        return not self.address

    @property
    def slot(self) -> tuple[str, str, str, int, str]:
        """What traffic it is for: at most one entry of a service has it."""
        return self.family, self.address, self.protocol, self.port, self.sources


class Pods(NamedTuple):
    """How the traffic of pods is told: by source address, or by the link it comes from (`prefix`: the link's name only
    begins so). All empty: it cannot be told."""

    cidrs: tuple[str, ...] = ()
    interface: str = ""
    prefix: bool = False


class NodePlace(NamedTuple):
    """What the rules must know of this node. `addresses`: where node ports are served; a CIDR means all of the node's
    addresses in it, but for the loopback's unless `localhost`. `service_cidrs`: where cluster IPs are."""

    addresses: tuple[str, ...] = ()
    pods: Pods = Pods()
    localhost: bool = False
    service_cidrs: tuple[str, ...] = ()


class ServiceTable(msgspec.Struct, frozen=True):
    """Everything this node does for Services."""

    services: Map[ServiceKey, tuple[Forwarding, ...]] = Map()
    node: NodePlace = NodePlace()
