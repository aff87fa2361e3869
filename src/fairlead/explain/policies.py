"""What NetworkPolicies say of one connection between two pods. Pure.

By the API's own rules (networking.k8s.io/v1, NetworkPolicySpec): a pod that some policy selects in a direction takes
only what one of those policies allows there. Whether anything enforces them is another question: in fairlead's own
clusters nothing does, in others it is told by the pods of the network plugins that do. Invariant: without a policy that
selects a pod everything is allowed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from fairlead.api.selectors import LabelSelector
from fairlead.discovery.choose import Choice
from fairlead.discovery.model import ServicePort
from fairlead.explain.evidence import Object
from fairlead.explain.report import Hop
from fairlead.explain.scene import Scene, label, on_node_network

Direction = Literal["ingress", "egress"]


class Party(NamedTuple):
    """One end. `pod` None: an address that is no pod's, or a pod on its node's network, which no policy selects."""

    address: str
    pod: Object | None = None

    @property
    def namespace(self) -> str:
        """The pod's."""
        return str(self.pod["metadata"].get("namespace", "")) if self.pod else ""


# What the names of the pods in kube-system begin with, of network plugins that enforce policies.
_ENFORCERS = ("calico-", "cilium", "kindnet", "antrea-", "kube-router", "weave-net", "ovnkube", "canal", "kube-ovn")


class Connection(NamedTuple):
    """A connection: who begins it, who is its endpoint, and the endpoint's port."""

    client: Party
    endpoint: Party
    port: int
    protocol: str


def examine(scene: Scene, port: ServicePort, choice: Choice, hop: Hop) -> None:
    """The policies that would keep the client from an endpoint; in a cluster of our own also those that merely select
    one, since nobody enforces them."""
    evidence = scene.evidence
    spaces = {n["metadata"]["name"]: n["metadata"].get("labels") or {} for n in evidence.namespaces}
    denied: dict[tuple[Direction, tuple[str, ...]], list[str]] = {}
    for backend in choice.endpoints:
        pod = evidence.pod_at(backend.endpoint.address)
        target = None if pod is None or on_node_network(pod) else pod
        client, endpoint = Party(scene.client.address, scene.client.pod), Party(backend.endpoint.address, target)
        if refused := denying(evidence.policies, Connection(client, endpoint, backend.port, port.protocol), spaces):
            direction, names = refused
            subject = target if direction == "ingress" else scene.client.pod
            denied.setdefault((direction, tuple(names)), []).append(label(subject or {}))
    for (direction, names_), pods in denied.items():
        more = f" and {len(pods) - 1} more" if direction == "ingress" and len(pods) > 1 else ""
        told = f"NetworkPolicy {', '.join(names_)} does not allow it ({direction} of {pods[0]}{more})"
        _denied(scene, told, len(pods) == len(choice.endpoints), hop)
    if evidence.facts.name and not denied and (idle := _at_work(scene, choice)):
        hop.find(
            "FL096",
            f"NetworkPolicy {', '.join(idle)} selects these pods, but nothing enforces policies here",
            "do not rely on it; run a network plugin that enforces NetworkPolicies",
        )


def _denied(scene: Scene, told: str, everywhere: bool, hop: Hop) -> None:
    if scene.evidence.facts.name:
        hop.find(
            "FL096",
            f"{told}, but nothing enforces policies here",
            "do not rely on it; run a network plugin that enforces NetworkPolicies",
        )
        return
    enforcer = next(
        (p["metadata"]["name"] for p in scene.evidence.pods if p["metadata"]["name"].startswith(_ENFORCERS)), ""
    )
    hop.find(
        "FL098",
        f"{told}; {enforcer + ' enforces policies' if enforcer else 'whether anything enforces policies is not known'}",
        "allow it in one of these policies, or in one more",
        severity="error" if enforcer and everywhere else "warning",
    )


def _at_work(scene: Scene, choice: Choice) -> list[str]:
    names = set()
    for backend in choice.endpoints:
        pod = scene.evidence.pod_at(backend.endpoint.address)
        if pod is not None and not on_node_network(pod):
            names |= {p["metadata"]["name"] for p in selecting(scene.evidence.policies, pod, "ingress")}
    return sorted(names)


def selecting(policies: Iterable[Object], pod: Object, direction: Direction) -> list[Object]:
    """The policies that restrict a pod in that direction."""
    space, labels = pod["metadata"].get("namespace", ""), pod["metadata"].get("labels") or {}
    found = []
    for policy in policies:
        spec = policy.get("spec") or {}
        kinds = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
        if policy["metadata"].get("namespace", "") != space or direction.capitalize() not in kinds:
            continue
        if LabelSelector.of(spec.get("podSelector") or {}).matches(labels):
            found.append(policy)
    return found


def denying(
    policies: Iterable[Object], connection: Connection, spaces: Mapping[str, Mapping[str, str]]
) -> tuple[Direction, list[str]] | None:
    """The direction in which the connection is not allowed, and the policies that restrict it there; None if it is.
    `spaces`: each namespace's labels."""
    every = list(policies)
    ends: tuple[tuple[Direction, Party, Party], ...] = (
        ("egress", connection.client, connection.endpoint),
        ("ingress", connection.endpoint, connection.client),
    )
    for direction, subject, peer in ends:
        if subject.pod is None:
            continue
        restricting = selecting(every, subject.pod, direction)
        if restricting and not any(_allows(policy, direction, peer, connection, spaces) for policy in restricting):
            return direction, sorted(policy["metadata"]["name"] for policy in restricting)
    return None


def _allows(
    policy: Object, direction: Direction, peer: Party, connection: Connection, spaces: Mapping[str, Mapping[str, str]]
) -> bool:
    space = policy["metadata"].get("namespace", "")
    for rule in (policy.get("spec") or {}).get(direction) or ():
        peers = rule.get("from" if direction == "ingress" else "to") or ()
        if peers and not any(_is_peer(each, peer, space, spaces) for each in peers):
            continue
        ports = rule.get("ports") or ()
        if not ports or any(_is_port(each, connection) for each in ports):
            return True
    return False


def _is_peer(wanted: Object, peer: Party, space: str, spaces: Mapping[str, Mapping[str, str]]) -> bool:
    block = wanted.get("ipBlock")
    if block is not None:
        return _in_block(block, peer.address)
    if peer.pod is None:
        return False
    if "namespaceSelector" in wanted:
        if not LabelSelector.of(wanted["namespaceSelector"] or {}).matches(spaces.get(peer.namespace, {})):
            return False
    elif peer.namespace != space:
        return False
    selector = wanted.get("podSelector")
    return selector is None or LabelSelector.of(selector).matches(peer.pod["metadata"].get("labels") or {})


def _in_block(block: Object, address: str) -> bool:
    if not address:
        return False
    here = ipaddress.ip_address(address)

    def inside(cidr: Any) -> bool:
        return here in ipaddress.ip_network(str(cidr), strict=False)

    return inside(block.get("cidr")) and not any(inside(cidr) for cidr in block.get("except") or ())


def _is_port(wanted: Object, connection: Connection) -> bool:
    if (wanted.get("protocol") or "TCP") != connection.protocol:
        return False
    port = wanted.get("port")
    if port is None:
        return True
    if isinstance(port, int):
        return port <= connection.port <= int(wanted.get("endPort") or port)
    pod = connection.endpoint.pod
    named = ((pod or {}).get("spec") or {}).get("containers") or ()
    return any(
        p.get("name") == port and p.get("containerPort") == connection.port for c in named for p in c.get("ports") or ()
    )
