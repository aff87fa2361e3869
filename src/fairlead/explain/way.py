"""The hops between translation and process: routes, forwarding, bridge, the pod's link, others' filters, the way back.

Pure. One endpoint at a time: what is wrong for one may be right for the next. Invariant: a link, route or sysctl that
was not read is never taken for wrong.
"""

from __future__ import annotations

from fairlead.discovery.choose import Backend
from fairlead.discovery.model import ServicePort
from fairlead.discovery.reach import inner_address, translated
from fairlead.explain import elsewhere
from fairlead.explain.evidence import Evidence, LinkView, NodeKernel, Object, PodKernel, RouteAnswer
from fairlead.explain.report import Hop
from fairlead.explain.rules import ruleset_of, stranger
from fairlead.explain.scene import Scene, Target, host, label, on_node_network, pod_ip
from fairlead.explain.strangers import Ruleset
from fairlead.explain.words import Packet
from fairlead.podnetwork.plan import BRIDGE, link_name
from fairlead.proxy.options import ProxyOptions

_DNAT = -100
_MARK = 1 << ProxyOptions("").masquerade_bit


def leave_client(scene: Scene, port: ServicePort, target: Target, hop: Hop) -> None:
    """From the client's process to its node's bridge."""
    pod, kernel = scene.client.pod, scene.client_kernel
    if pod is None:
        return
    if kernel is None or kernel.problem:
        hop.state = "unseen"
        hop.say(f"{label(pod)}'s network was not seen" + (f": {kernel.problem}" if kernel else ""))
        return
    if _pod_network(scene, pod, kernel, target.address, hop):
        ruleset = Ruleset(kernel.ruleset)
        packet = Packet(scene.client.address, target.address, port.protocol.lower(), target.port, oif="eth0")
        for point in ("output", "postrouting"):
            if (found := ruleset.meet(point, packet)) and found.kind != "translate":
                stranger(hop, label(pod), found.where, found.rule)
    link_problems(scene.evidence, pod, hop)


def to_the_node(scene: Scene, target: Target, hop: Hop) -> None:
    """From the client's node to another that translates, if that is in another network."""
    here, there = scene.client.node, target.at
    if not elsewhere.apart(scene, here, there):
        return
    elsewhere.silent(scene, there, hop)
    elsewhere.translation(scene, here, there, hop)
    if not hop.broken:
        nodes = scene.evidence.snapshot.nodes
        elsewhere.leg(scene, here, there, translated(target.address, there, nodes[here], nodes), hop)


def examine(scene: Scene, port: ServicePort, target: Target, backend: Backend, hop: Hop, *, masqueraded: bool) -> None:
    """From the translating node to the endpoint, and its answer back."""
    here, there = target.at, backend.endpoint.node
    pod = scene.evidence.pod_at(backend.endpoint.address)
    nodes = scene.evidence.snapshot.nodes
    address = translated(backend.endpoint.address, there, nodes.get(here), nodes)
    through_bridge = scene.client.pod is not None
    source = scene.client.address
    kernel = scene.evidence.kernels.get(here)
    if elsewhere.apart(scene, here, there):
        elsewhere.silent(scene, there, hop)
        if scene.direct and address != backend.endpoint.address:
            elsewhere.translation(scene, here, there, hop)
        elsewhere.leg(scene, here, there, address, hop)
        if not hop.broken:
            elsewhere.leg(scene, there, here, _seen_from(scene, here, hidden=masqueraded), hop)
        if hop.broken:
            return
    if kernel is not None and not kernel.problem:
        local = there == here and pod is not None and not on_node_network(pod)
        _node(
            scene,
            here,
            kernel,
            Packet(
                source,
                address,
                port.protocol.lower(),
                backend.port,
                iif="" if not through_bridge and scene.client.node == here else BRIDGE if through_bridge else "eth0",
                oif=BRIDGE if local else "eth0",
                mark=_MARK if masqueraded else 0,
            ),
            starts_here=scene.client.pod is None and scene.client.node == here,
            hop=hop,
        )
        _conntrack_full(here, kernel, hop)
    if there and there != here and pod is not None and not on_node_network(pod):
        remote = scene.evidence.kernels.get(there)
        if remote is None or remote.problem:
            hop.say(f"the network of {there} was not seen")
        else:
            hidden = masqueraded
            seen_source = "" if hidden else source
            packet = Packet(seen_source, address, port.protocol.lower(), backend.port, iif="eth0", oif=BRIDGE)
            _node(scene, there, remote, packet, starts_here=False, hop=hop)
            if not hidden and scene.client.pod is not None:
                _way_back(there, remote, source, hop)
    if pod is not None and not on_node_network(pod):
        _arrive(scene, port, backend, pod, hop, source="" if masqueraded else source)
    _same_bridge(scene, here, backend, pod, hop, masqueraded=masqueraded)


def _seen_from(scene: Scene, node: str, *, hidden: bool) -> str:
    """What a node elsewhere answers to: the client's address, or, if it is hidden or a node's, that of the tunnel."""
    if scene.client.pod is not None and not hidden:
        return scene.client.address
    return inner_address(scene.evidence.snapshot.nodes[node])


def _node(scene: Scene, name: str, kernel: NodeKernel, packet: Packet, *, starts_here: bool, hop: Hop) -> None:
    """A node the packet passes through."""
    setting = "net.ipv6.conf.all.forwarding" if ":" in packet.destination else "net.ipv4.ip_forward"
    if not starts_here and kernel.sysctls.get(setting) == "0":
        hop.find("FL071", f"node {name} does not forward: {setting} is 0", f"on {name}: sysctl -w {setting}=1")
    if packet.oif == BRIDGE and not _bridge(name, kernel, hop):
        return  # what its routes say follows from that
    _route(name, kernel.routes.get(packet.destination), packet.destination, packet.oif, hop)
    strict = [k for k, v in kernel.sysctls.items() if k.endswith("rp_filter") and v == "1"]
    if strict and packet.oif != packet.iif:
        hop.find("FL073", f"node {name}: {', '.join(strict)} is 1 (strict)", f"on {name}: sysctl -w {strict[0]}=0")
    ruleset = ruleset_of(scene, kernel)
    points = [("output", _DNAT)] if starts_here else [("prerouting", _DNAT), ("forward", None)]
    for point, after in (*points, ("postrouting", None)):
        found = ruleset.meet(point, packet, after=after)
        if found and found.kind != "translate":
            stranger(hop, f"node {name}", found.where, found.rule)
            return
    reply = Packet(
        packet.destination,
        packet.source,
        packet.protocol,
        0,
        packet.destination_port,
        packet.oif,
        packet.iif,
        "established",
    )
    if packet.source and not starts_here:
        found = ruleset.meet("forward", reply)
        if found and found.kind != "translate":
            stranger(hop, f"node {name} (the answer)", found.where, found.rule)


def _route(name: str, route: RouteAnswer | None, address: str, device: str, hop: Hop) -> None:
    if route is None:
        return
    if route.error:
        hop.find(
            "FL070",
            f"node {name} has no route to {address}: {route.error}",
            f"on {name}: ip route get {address}; the pod network sets its routes when its agent starts",
        )
        return
    via = f" via {route.gateway}" if route.gateway else ""
    hop.say(f"{name}: {address}{via} dev {route.device}")
    if device == BRIDGE and route.device != BRIDGE:
        hop.find(
            "FL070",
            f"node {name} sends packets for its own pod {address} to {route.device}{via}, not to the bridge {BRIDGE}",
            f"on {name}: ip route get {address}; its pods' network must be on {BRIDGE}",
        )


def missing_peer_route(scene: Scene, target: Target, backend: Backend, hop: Hop) -> None:
    """The route to another node's pods must lead to that node."""
    kernel = scene.evidence.kernels.get(target.at)
    peer = scene.evidence.snapshot.nodes.get(backend.endpoint.node)
    if kernel is None or kernel.problem or peer is None or backend.endpoint.node == target.at:
        return
    pod = scene.evidence.pod_at(backend.endpoint.address)
    route = kernel.routes.get(backend.endpoint.address)
    if pod is None or on_node_network(pod) or route is None or route.error:
        return
    if elsewhere.apart(scene, target.at, peer.name):
        return
    if route.gateway not in peer.internal_ips and scene.evidence.facts.local:
        via = f"via {route.gateway}" if route.gateway else f"to {route.device}"
        hop.find(
            "FL070",
            f"node {target.at} has no route to the pods of {peer.name}: {backend.endpoint.address} goes {via}, "
            f"not via {', '.join(peer.internal_ips)}",
            f"on {target.at}: ip route add {', '.join(peer.pod_cidrs)} via {', '.join(peer.internal_ips)}",
        )


def _way_back(name: str, kernel: NodeKernel, client: str, hop: Hop) -> None:
    route = kernel.routes.get(client)
    if route is None:
        return
    if route.error or route.device == BRIDGE:
        hop.find(
            "FL070",
            f"node {name} has no route back to the client {client}: {route.error or 'it looks on its own bridge'}",
            f"on {name}: ip route get {client}",
        )


def _conntrack_full(name: str, kernel: NodeKernel, hop: Hop) -> None:
    used, most = kernel.conntrack
    if most and used >= most:
        hop.find(
            "FL091",
            f"node {name} tracks {used} connections of at most {most}: new ones are dropped",
            "raise net.netfilter.nf_conntrack_max, or find who opens so many",
        )


def _arrive(scene: Scene, port: ServicePort, backend: Backend, pod: Object, hop: Hop, *, source: str) -> None:
    """The endpoint's link and namespace."""
    link_problems(scene.evidence, pod, hop)
    kernel = scene.evidence.kernel_of(pod)
    if kernel is None or kernel.problem:
        return
    back = source or scene.client.address or backend.endpoint.address
    if not _pod_network(scene, pod, kernel, back, hop):
        return
    ruleset = Ruleset(kernel.ruleset)
    packet = Packet(source, backend.endpoint.address, port.protocol.lower(), backend.port, iif="eth0")
    for point in ("prerouting", "input"):
        if (found := ruleset.meet(point, packet)) and found.kind != "translate":
            stranger(hop, label(pod), found.where, found.rule)
            return
    answer = Packet(
        backend.endpoint.address, source, port.protocol.lower(), 0, backend.port, oif="eth0", state="established"
    )
    if (found := ruleset.meet("output", answer)) and found.kind != "translate":
        stranger(hop, f"{label(pod)} (the answer)", found.where, found.rule)


def _bridge(node: str, kernel: NodeKernel, hop: Hop) -> bool:
    """Whether the pods' bridge is there and up, as far as links were read."""
    bridge = kernel.link(BRIDGE)
    if not kernel.links or (bridge is not None and bridge.up):
        return True
    hop.find(
        "FL074",
        f"on {node} the bridge {BRIDGE} is {'down' if bridge else 'missing'}",
        f"on {node}: ip link set {BRIDGE} up" if bridge else f"start the agent of {node} again; it makes the bridge",
    )
    return False


def link_problems(evidence: Evidence, pod: Object, hop: Hop) -> None:
    """The bridge, and the node's end of the pod's link on it."""
    node = (pod.get("spec") or {}).get("nodeName") or ""
    kernel = evidence.kernels.get(node)
    if kernel is None or kernel.problem or not kernel.links:
        return
    if not _bridge(node, kernel, hop):
        return
    name = link_name(pod["metadata"].get("uid", ""))
    link = kernel.link(name)
    kernel_of = evidence.kernel_of(pod)
    if kernel_of is not None and not kernel_of.present:
        return
    if link is None:
        hop.find("FL075", f"{label(pod)} has no link on {node} ({name} is missing)", "delete the pod; it is made anew")
    elif not link.up:
        hop.find("FL075", f"on {node} the link {name} of {label(pod)} is down", f"on {node}: ip link set {name} up")
    elif link.master != BRIDGE:
        hop.find(
            "FL075",
            f"on {node} the link {name} of {label(pod)} is not on the bridge {BRIDGE}",
            f"on {node}: ip link set {name} master {BRIDGE}",
        )
    else:
        hop.say(f"{node}: bridge {BRIDGE} → {name} → {label(pod)}")
        inner = next((other for other in (kernel_of.links if kernel_of else ()) if other.name == "eth0"), None)
        if inner is not None and inner.mtu != link.mtu:
            hop.find("FL078", f"the ends of {label(pod)}'s link have MTU {inner.mtu} and {link.mtu}", "set both alike")


def _pod_network(scene: Scene, pod: Object, kernel: PodKernel, toward: str, hop: Hop) -> bool:
    """Whether the pod's own namespace can send and receive."""
    if not kernel.present:
        hop.find(
            "FL076",
            f"{label(pod)} has no network namespace: its sandbox is gone",
            f"see the kubelet on {(pod.get('spec') or {}).get('nodeName')}",
        )
        return False
    eth0: LinkView | None = next((link for link in kernel.links if link.name == "eth0"), None)
    address, remedy = pod_ip(pod), "delete the pod; it is made anew"
    if eth0 is None or not eth0.up:
        hop.find("FL076", f"in {label(pod)} eth0 is {'down' if eth0 else 'missing'}", remedy)
        return False
    if address not in {a.split("/")[0] for a in eth0.addresses}:
        hop.find("FL076", f"in {label(pod)} eth0 does not have the pod's address {address}", remedy)
        return False
    route = kernel.routes.get(toward)
    if route is not None and route.error:
        hop.find("FL076", f"{label(pod)} has no route to {toward}: {route.error}", remedy)
        return False
    if route is not None:
        via = f" via {route.gateway}" if route.gateway else ""
        hop.say(f"{label(pod)}: {host(toward)}{via} dev {route.device}")
    return True


def _same_bridge(scene: Scene, node: str, backend: Backend, pod: Object | None, hop: Hop, *, masqueraded: bool) -> None:
    """Client and endpoint on one bridge: the answer must pass connection tracking, and itself needs hairpin mode."""
    client = scene.client.pod
    kernel = scene.evidence.kernels.get(node)
    if client is None or pod is None or kernel is None or kernel.problem or backend.endpoint.node != node:
        return
    if on_node_network(pod):
        return
    itself = client["metadata"].get("uid") == pod["metadata"].get("uid")
    if itself:
        link = kernel.link(link_name(pod["metadata"].get("uid", "")))
        if link is not None and link.hairpin is False:
            hop.find(
                "FL077",
                f"{label(pod)} is its own endpoint, and its bridge port {link.name} is not in hairpin mode",
                f"on {node}: bridge link set dev {link.name} hairpin on",
            )
        return
    setting = f"net.bridge.bridge-nf-call-{'ip6' if scene.family == 'IPv6' else 'ip'}tables"
    if kernel.sysctls.get(setting) == "0" and not masqueraded:
        hop.find(
            "FL072",
            f"on {node} {setting} is 0: answers of {label(pod)} to {label(client)} cross the bridge untranslated",
            f"on {node}: sysctl -w {setting}=1",
        )


def stale_flows(scene: Scene, port: ServicePort, target: Target, wanted: set[tuple[str, int]], hop: Hop) -> None:
    """Tracked connections of this client that lead to where no endpoint is any more. They matter only to a UDP socket
    that is still there: a new one gets a port of its own, and a new translation."""
    kernel = scene.evidence.kernels.get(target.at)
    sockets = scene.client_kernel.udp_ports if scene.client_kernel else None
    if kernel is None:
        return
    shown = 0
    for flow in kernel.flows:
        same = (flow.source, flow.destination, flow.port) == (scene.client.address, target.address, target.port)
        if not same or flow.protocol != port.protocol:
            continue
        ends = f"{flow.endpoint}:{flow.endpoint_port}"
        if shown < 3:
            hop.say(f"tracked: {flow.source}:{flow.source_port} → {flow.destination}:{flow.port} → {ends}")
            shown += 1
        if port.protocol == "UDP" and (flow.endpoint, flow.endpoint_port) not in wanted:
            if sockets is None or flow.source_port not in sockets:
                continue
            hop.find(
                "FL090",
                f"on {target.at} a tracked flow from {flow.source}:{flow.source_port} still leads to {ends}, "
                "which is no endpoint",
                f"on {target.at}: conntrack -D -p udp --orig-src {flow.source} --orig-port-src {flow.source_port}",
            )
