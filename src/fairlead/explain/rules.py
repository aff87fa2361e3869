"""The hop of the kernel's rules: what the node's live table does with this packet, against what it should. Pure.

Follows the packet through the table as it was read (`proxy.nftables.trace`) and quotes what matched. Invariant: the
endpoints it names are those of the kernel, not of the API; where the two differ, that is a finding.
"""

from __future__ import annotations

from fairlead.discovery.choose import Choice
from fairlead.discovery.model import ServicePort
from fairlead.explain.evidence import NodeKernel
from fairlead.explain.report import Hop
from fairlead.explain.scene import Scene, Target, host
from fairlead.explain.strangers import Packet as StrangersPacket
from fairlead.explain.strangers import Ruleset
from fairlead.linux.nft.expressions import Verdict
from fairlead.linux.nft.objects import Element, TableState
from fairlead.linux.nft.text import render_rule
from fairlead.podnetwork.plan import BRIDGE
from fairlead.proxy.nftables.layout import (
    CLUSTER_IPS,
    NO_ENDPOINT_NODEPORTS,
    NO_ENDPOINTS,
    NODEPORTS,
    SERVICES,
    SHORT_NODEPORTS,
    SHORT_SERVICES,
    TABLE,
)
from fairlead.proxy.nftables.trace import Outcome, Packet, trace

_DNAT = -100


def examine(scene: Scene, port: ServicePort, target: Target, choice: Choice, hop: Hop) -> frozenset[Outcome] | None:
    """What becomes of the packet by the live rules; None if they were not seen or can't be followed."""
    kernel = scene.evidence.kernels.get(target.at)
    if kernel is None or kernel.problem:
        hop.state = "unseen"
        hop.say(f"the rules on {target.at or 'the node'} were not seen" + (f": {kernel.problem}" if kernel else ""))
        return None
    if scene.client.address:
        _strangers(scene, kernel, port, target, hop)
    if scene.evidence.facts.proxy_mode != "nftables":
        hop.state = "broken" if hop.broken else "unseen"
        hop.say(f"rules of the proxy's mode {scene.evidence.facts.proxy_mode} are not read")
        return None
    state = kernel.tables.get(scene.family)
    family = "ip6" if scene.family == "IPv6" else "ip"
    if state is None:
        _missing(scene, target, f"there is no table {family} {TABLE}", hop)
        return None
    if not scene.client.address:
        hop.state = "unseen"
        hop.say(f"the client has no {scene.family} address that is known")
        return None
    packet = Packet(
        scene.client.address,
        target.address,
        port.protocol,
        target.port,
        from_node=scene.client.pod is None and scene.client.node == target.at,
        link=BRIDGE if scene.client.pod is not None else "",
    )
    try:
        outcomes = trace(state, packet, kernel.addresses)
    except (KeyError, TypeError) as error:
        _missing(scene, target, f"table {family} {TABLE} is not whole ({error})", hop)
        return None
    _quote(state, kernel, port, target, hop)
    _compare(scene, target, choice, outcomes, hop)
    if any(o.masquerade for o in outcomes):
        hop.say("the client's address is hidden behind the node's (masquerade)")
    return outcomes


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
    wanted = {(b.endpoint.address, b.port) for b in choice.endpoints}
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
    agent = scene.evidence.processes.get(f"node-{target.at}", "running")
    if agent != "running":
        hop.find(
            "FL061",
            f"the agent of {target.at} is {agent}, and its rules {told}",
            f"let it run again: the supervisor starts it when it is killed (node-{target.at})",
        )
    hop.find("FL051", f"the rules on {target.at} {told}", f"see the proxy's log on {target.at}")


def _word(outcome: Outcome) -> str:
    return {"pass": "not translated", "reset": "refused (TCP reset)", "reject": "refused (ICMP)"}.get(
        outcome.verdict, "dropped"
    )


def _quote(state: TableState, kernel: NodeKernel, port: ServicePort, target: Target, hop: Hop) -> None:
    """The elements and rules that match, as nft shows them."""
    long = (target.address, port.protocol, target.port)
    short = (port.protocol, target.port)
    chains = []
    family = "ip6" if ":" in target.address else "ip"
    order = (CLUSTER_IPS, SERVICES, NODEPORTS, SHORT_SERVICES, SHORT_NODEPORTS, NO_ENDPOINTS, NO_ENDPOINT_NODEPORTS)
    ranks = {name: number for number, name in enumerate(order)}
    for name, elements in sorted(state.elements.items(), key=lambda item: (ranks.get(item[0], 99), item[0])):
        for key, element in sorted(elements.items(), key=lambda item: str(item[0])):
            if _fits(key, long) or _fits(key, short) or (name == CLUSTER_IPS and key == (target.address,)):
                hop.say(f"{name} {_element(element)}")
                chain = getattr(element.data, "chain", "")
                if chain and chain not in chains:
                    chains.append(chain)
    for chain in chains:
        held = state.chains.get(chain)
        handles = _handles(kernel, family, chain)
        for number, rule in enumerate(held.rules if held else ()):
            handle = f"  # handle {handles[number]}" if number < len(handles) else ""
            hop.say(f"{chain} {render_rule(family, rule, state.sets)}{handle}")


def _fits(key: tuple[object, ...], wanted: tuple[object, ...]) -> bool:
    lowered = tuple(k.lower() if isinstance(k, str) else k for k in key[: len(wanted)])
    return lowered == tuple(w.lower() if isinstance(w, str) else w for w in wanted) and len(key) <= len(wanted) + 1


def _element(element: Element) -> str:
    key = " . ".join(str(k).lower() for k in element.key)
    comment = f' comment "{element.comment}"' if element.comment else ""
    if element.data is None:
        return f"{{ {key}{comment} }}"
    verdict = isinstance(element.data, Verdict)
    data = str(element.data) if verdict else " . ".join(map(str, element.data))
    return f"{{ {key}{comment} : {data} }}"


def _handles(kernel: NodeKernel, family: str, chain: str) -> list[int]:
    return [
        rule["handle"]
        for entry in kernel.ruleset
        if (rule := entry.get("rule")) and (rule["family"], rule["table"], rule["chain"]) == (family, TABLE, chain)
    ]


def _strangers(scene: Scene, kernel: NodeKernel, port: ServicePort, target: Target, hop: Hop) -> None:
    """What others' chains do before the proxy's translation."""
    ruleset = Ruleset(kernel.ruleset)
    if (proxies := ruleset.proxies()) and scene.evidence.facts.proxy_mode == "nftables":
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


def stranger(hop: Hop, place: str, where: str, rule: str) -> None:
    """A rule of others that drops."""
    words = where.split()
    remedy = "remove that rule, or let these packets pass before it"
    if "handle" in words:
        remedy = f"remove it: nft delete rule {where}"
    hop.find("FL052", f"on {place} somebody else's rule drops the packet: {rule} ({where})", remedy)
