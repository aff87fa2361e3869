"""The hop of the kernel's rules: what the node's live table does with this packet, against what it should. Pure.

Follows the packet through the rules as they were read (`in_nftables`, `in_iptables`, `in_ipvs`). Invariant: the
endpoints it names are those of the kernel, not of the API; where the two differ, that is a finding.
"""

from __future__ import annotations

from fairlead.discovery.choose import Choice
from fairlead.discovery.confirmed import revision_of
from fairlead.discovery.model import ServicePort
from fairlead.discovery.parse import slice_owner
from fairlead.discovery.reach import translated
from fairlead.explain import hostports, in_iptables, in_ipvs, in_nftables
from fairlead.explain.evidence import NodeKernel
from fairlead.explain.report import Hop
from fairlead.explain.scene import Scene, Target, host
from fairlead.explain.strangers import Ruleset
from fairlead.explain.words import Packet as StrangersPacket
from fairlead.podnetwork.plan import BRIDGE
from fairlead.proxy.nftables.trace import Outcome, Packet

_DNAT = -100
_READERS = {"nftables": in_nftables.read, "iptables": in_iptables.read, "ipvs": in_ipvs.read}


def mode_of(scene: Scene, kernel: NodeKernel) -> str:
    """The proxy's mode on that node: as its agent says, or as the cluster is set up."""
    return kernel.mode or scene.evidence.facts.proxy_mode


def examine(scene: Scene, port: ServicePort, target: Target, choice: Choice, hop: Hop) -> frozenset[Outcome] | None:
    """What becomes of the packet by the live rules; None if they were not seen or can't be followed."""
    kernel = scene.evidence.kernels.get(target.at)
    if kernel is None or kernel.problem:
        hop.state = "unseen"
        hop.say(f"the rules on {target.at or 'the node'} were not seen" + (f": {kernel.problem}" if kernel else ""))
        return None
    hostports.takes_node_port(scene, kernel, port, target, hop)
    if scene.client.address:
        _strangers(scene, kernel, port, target, hop)
    reader = _READERS.get(mode_of(scene, kernel))
    if reader is None:
        hop.state = "broken" if hop.broken else "unseen"
        hop.say(f"it is not known which mode the proxy on {target.at} is in")
        return None
    if not scene.client.address:
        hop.state = "unseen"
        hop.say(f"the client has no {scene.family} address that is known")
        return None
    if scene.evidence.facts.accelerate and scene.client.pod is not None and scene.via != "nodeport":
        hop.say("(programs in pods connect to these endpoints without meeting the rules: --accelerate socket)")
    packet = Packet(
        scene.client.address,
        target.address,
        port.protocol,
        target.port,
        from_node=scene.client.pod is None and scene.client.node == target.at,
        link=BRIDGE if scene.client.pod is not None else "",
    )
    found = reader(kernel, "IPv6" if scene.family == "IPv6" else "IPv4", packet)
    if found.missing:
        _missing(scene, target, found.missing, hop)
        return None
    for line in found.quotes:
        hop.say(line)
    _compare(scene, target, choice, found.outcomes, hop)
    if any(o.masquerade for o in found.outcomes):
        hop.say("the client's address is hidden behind the node's (masquerade)")
    return found.outcomes


def _missing(scene: Scene, target: Target, text: str, hop: Hop) -> None:
    agent = scene.evidence.processes.get(f"node-{target.at}", "running")
    if agent != "running":
        hop.find(
            "FL061",
            f"the agent of {target.at} is {agent}, and {text}",
            f"let it run again: the supervisor starts it when it is killed (node-{target.at})",
        )
    hop.find("FL050", f"{text} on {target.at}", "see that the proxy runs there; it puts its rules back at once")


def _compare(scene: Scene, target: Target, choice: Choice, outcomes: frozenset[Outcome], hop: Hop) -> None:
    wanted = set(leads(scene, target, choice))
    found = {(o.destination, o.port) for o in outcomes if o.verdict == "forward"}
    if found:
        hop.say("→ " + ", ".join(f"{host(a)}:{p}" for a, p in sorted(found)))
    else:
        hop.say("→ " + ", ".join(sorted({_word(o) for o in outcomes})))
    if wanted == found:
        return
    if wanted and not found and any(o.verdict == "pass" for o in outcomes):
        _missing(scene, target, f"nothing translates {host(target.address)}:{target.port}", hop)
        return
    more = ", ".join(f"{host(a)}:{p}" for a, p in sorted(found - wanted))
    less = ", ".join(f"{host(a)}:{p}" for a, p in sorted(wanted - found))
    told = " and ".join(filter(None, [f"still send to {more}" if more else "", f"lack {less}" if less else ""]))
    told += _behind(scene, target)
    agent = scene.evidence.processes.get(f"node-{target.at}", "running")
    if agent != "running":
        hop.find(
            "FL061",
            f"the agent of {target.at} is {agent}, and its rules {told}",
            f"let it run again: the supervisor starts it when it is killed (node-{target.at})",
        )
    hop.find("FL051", f"the rules on {target.at} {told}", f"see the proxy's log on {target.at}")


def leads(scene: Scene, target: Target, choice: Choice) -> list[tuple[str, int]]:
    """Where packets for the chosen endpoints are sent from the target's node, in the endpoints' order: a node in
    another network has an address of its own here."""
    nodes = scene.evidence.snapshot.nodes
    own = nodes.get(target.at) if not scene.direct else None
    return [(translated(b.endpoint.address, b.endpoint.node, own, nodes), b.port) for b in choice.endpoints]


def _behind(scene: Scene, target: Target) -> str:
    """By which revisions the node's agent is behind, if it says so."""
    applied = scene.evidence.applied.get(target.at)
    key = scene.service.key
    own = [s for s in scene.evidence.slices if slice_owner(s) == key]
    newest = max(map(revision_of, own), default=0)
    if applied is None or applied >= newest:
        return ""
    return f" (it has applied EndpointSlices up to revision {applied}, and the Service's newest is {newest})"


def _word(outcome: Outcome) -> str:
    return {"pass": "not translated", "reset": "refused (TCP reset)", "reject": "refused (ICMP)"}.get(
        outcome.verdict, "dropped"
    )


def _strangers(scene: Scene, kernel: NodeKernel, port: ServicePort, target: Target, hop: Hop) -> None:
    """What others' chains do before the proxy's translation."""
    ruleset = ruleset_of(scene, kernel)
    if proxies := ruleset.proxies():
        hop.find(
            "FL054",
            f"node {target.at} has rules that look like another proxy's: {', '.join(proxies[:3])}",
            "remove the other proxy, and its rules (kube-proxy --cleanup)",
        )
    local = scene.client.pod is None and scene.client.node == target.at
    packet = StrangersPacket(
        scene.client.address,
        target.address,
        port.protocol.lower(),
        target.port,
        iif="" if local else BRIDGE if scene.client.pod else "eth0",
    )
    found = ruleset.meet("output" if local else "prerouting", packet, before=_DNAT)
    if found is None:
        return
    if found.kind == "translate":
        hop.find(
            "FL053",
            f"on {target.at} a rule of others translates packets to {host(target.address)}:{target.port} first: "
            f"{found.rule} ({found.where})",
            "remove that rule, or the program that makes it",
        )
    else:
        stranger(hop, f"node {target.at}", found.where, found.rule)


def ruleset_of(scene: Scene, kernel: NodeKernel) -> Ruleset:
    """A node's rules that are not the proxy's."""
    return Ruleset(kernel.ruleset, kernel.iptables, ours=mode_of(scene, kernel))


def stranger(hop: Hop, place: str, where: str, rule: str) -> None:
    """A rule of others that drops."""
    words = where.split()
    remedy = "remove that rule, or let these packets pass before it"
    if "handle" in words:
        remedy = f"remove it: nft delete rule {where}"
    elif rule.startswith("-A "):
        remedy = f"remove it: {where} {rule.replace('-A', '-D', 1)}"
    elif rule.startswith("-P "):
        remedy = f"let these packets pass: {where} {rule.replace('DROP', 'ACCEPT')}"
    hop.find("FL052", f"on {place} somebody else's rule drops the packet: {rule} ({where})", remedy)
