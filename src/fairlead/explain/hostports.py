"""Ports of a node that lead to a pod (hostPort): whether the node's rules have them, and who has them instead. Pure.

Reads the table `fairlead-hostports` (`podnetwork.hostports`) as nft lists it. Invariant: nothing is said of nodes whose
pod network is somebody else's, or that were not seen.
"""

from __future__ import annotations

from collections.abc import Iterator

from fairlead.discovery.model import ServicePort
from fairlead.explain.evidence import Evidence, NodeKernel, Object
from fairlead.explain.report import Hop
from fairlead.explain.scene import Scene, Target, host, label, on_node_network, pod_ip, pod_ips
from fairlead.podnetwork.hostports import TABLES, HostPort, host_ports

TAKEN = ("didn't have free ports for the requested pod ports", "is taken by another pod of this node")
"""What the scheduler, and a node's pod network, say of a hostPort that another pod has."""
_NAMES = {table.name for table in TABLES.values()}


def wanted(pod: Object) -> tuple[HostPort, ...]:
    """The ports of its node that the pod asks for."""
    return () if on_node_network(pod) else host_ports(pod)


def examine(evidence: Evidence, pod: Object) -> Hop | None:
    """The hop of a pod's ports on its node; None if it asks for none."""
    ports, node = wanted(pod), str((pod.get("spec") or {}).get("nodeName") or "")
    if not ports:
        return None
    hop, kernel = Hop("host ports"), evidence.kernels.get(node)
    if not node or not pod_ip(pod) or not (pod.get("status") or {}).get("containerStatuses"):
        hop.state = "skipped"
        return hop
    for port in ports:
        at = f"{node}:{port.port}/{port.protocol.lower()}" + (f" at {port.host_ip}" if port.host_ip else "")
        if kernel is None or kernel.problem or not evidence.facts.name:
            hop.state = "unseen"
            hop.say(f"{at}: the rules were not seen")
            continue
        ends = [(address, number) for address, number, _ in _leads(kernel, port.protocol, port.port)]
        mine = [f"{host(ip)}:{port.container_port}" for ip in pod_ips(pod) if (ip, port.container_port) in ends]
        if mine:
            hop.say(f"{at} → {', '.join(mine)}")
            continue
        hop.find(
            "FL086",
            f"on {node} no rule leads port {port.port}/{port.protocol.lower()} to {label(pod)}",
            f"the agent of {node} puts it back within a second: see that it runs, and its log",
        )
    return hop


def takes_node_port(scene: Scene, kernel: NodeKernel, port: ServicePort, target: Target, hop: Hop) -> None:
    """A node port that is a pod's hostPort on that node: those rules come first."""
    if scene.via != "nodeport":
        return
    for address, number, at in _leads(kernel, port.protocol, target.port):
        pod = scene.evidence.pod_at(address)
        if at not in ("", target.address) or (":" in address) != (":" in target.address):
            continue
        hop.find(
            "FL088",
            f"on {target.at} port {target.port}/{port.protocol.lower()} is the hostPort of "
            f"{label(pod) if pod else 'the pod at ' + address}, which comes before the node port: "
            f"packets go to {host(address)}:{number}",
            "give that pod another hostPort, or the Service another nodePort",
        )


def _leads(kernel: NodeKernel, protocol: str, port: int) -> Iterator[tuple[str, int, str]]:
    """(address, port, the only address of the node that does so, if there is one) of the rules for a node's port."""
    for entry in kernel.ruleset:
        rule = entry.get("rule") or {}
        if rule.get("table") not in _NAMES:
            continue
        dport: object = 0
        at = ""
        ends: Object = {}
        for part in rule.get("expr") or ():
            match = part.get("match") or {}
            field = (match.get("left") or {}).get("payload") or {}
            if field.get("field") == "dport" and field.get("protocol") == protocol.lower():
                dport = match.get("right")
            elif field.get("field") == "daddr":
                at = str(match.get("right"))
            ends = part.get("dnat") or ends
        if dport == port and ends:
            yield str(ends.get("addr")), int(ends.get("port") or port), at
