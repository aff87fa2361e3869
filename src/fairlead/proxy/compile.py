"""From the snapshot to this node's service table. Pure.

Stands between discovery and the backends: endpoints are chosen by `discovery.choose`; here is only what is a proxy's
own: which addresses a port is served at, whom to masquerade, and the short cut of kube-proxy past Local policies.
Invariant: an entry depends on its Service, this node and the options; the order of its targets also on the order they
had before, so that one endpoint more or less moves at most one other.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from fairlead.discovery.choose import Backend, categorize, choose
from fairlead.discovery.model import Changes, Node, Service, ServiceKey, ServicePort, ServiceSnapshot
from fairlead.discovery.reach import inner_address, is_elsewhere, translated
from fairlead.proxy.options import PRIMARY, ProxyOptions
from fairlead.proxy.table import Family, Forwarding, NodePlace, Pods, ServiceTable, Target, Via

_FAMILIES: tuple[Family, ...] = ("IPv4", "IPv6")


def family_of(address: str) -> Family:
    """The family of an IP address (or CIDR) as Kubernetes names it."""
    return "IPv6" if ":" in address else "IPv4"


def compile_table(
    snapshot: ServiceSnapshot,
    options: ProxyOptions,
    previous: ServiceTable | None = None,
    changes: Changes | None = None,
) -> tuple[ServiceTable, frozenset[ServiceKey]]:
    """The table for this node, and the services whose entries differ from `previous`.

    With `previous` and `changes` (what differs between the snapshot `previous` was made from and this one) only what
    changed is looked at; a change of this node recompiles all, since its name and zone decide about every endpoint.
    """
    previous = previous if previous is not None else ServiceTable()
    node, place = snapshot.nodes.get(options.node_name), standpoint(options, snapshot)
    if changes is None or options.node_name in changes.nodes or (changes.nodes and place.several):
        keys: Iterable[ServiceKey] = {*snapshot.services, *previous.services}
    else:
        keys = changes.services
    services = previous.services.mutate()
    differing: set[ServiceKey] = set()
    for key in keys:
        service = snapshot.services.get(key)
        before = previous.services.get(key, ())
        after = compile_service(service, place, before) if service is not None else ()
        if after == before:
            continue
        differing.add(key)
        if after:
            services[key] = after
        else:
            del services[key]
    ranges = [cidr for name in sorted(snapshot.service_cidrs) for cidr in snapshot.service_cidrs[name]]
    return ServiceTable(services.finish(), place_of(options, node, place.several, ranges)), frozenset(differing)


class Here:
    """What decides on this node about every Service: its name, its zone, its first addresses, and where endpoints are
    from here. Those at the InternalIP of a node in another network are led to what stands for it here, at once:
    connection tracking translates a destination one time only, so no later rule could. `several`: there are such nodes.
    """

    def __init__(self, options: ProxyOptions, own: Node | None, nodes: Mapping[str, Node]) -> None:
        self._own, self._nodes, self._elsewhere = own, nodes, dict(options.endpoints_elsewhere)
        self.node, self.zone = options.node_name, own.zone if own else ""
        self.ips = _primary(own.internal_ips if own else ())
        self.several = own is not None and any(is_elsewhere(node, own) for node in nodes.values())

    def targets(self, backends: Iterable[Backend]) -> tuple[Target, ...]:
        """The endpoints, as they are reached from here, each place once."""
        found: dict[tuple[str, int], bool] = {}
        for backend in backends:
            place = self.place(backend)
            found[place] = found.get(place, False) or backend.endpoint.node in ("", self.node)
        return tuple(Target(address, port, local) for (address, port), local in found.items())

    def place(self, backend: Backend) -> tuple[str, int]:
        """The address and port that lead to an endpoint from here."""
        endpoint, place = backend.endpoint, (backend.endpoint.address, backend.port)
        if not endpoint.node:
            return self._elsewhere.get(place, place)
        if not self.several:
            return place
        return translated(endpoint.address, endpoint.node, self._own, self._nodes), backend.port


def standpoint(options: ProxyOptions, snapshot: ServiceSnapshot) -> Here:
    """This node among the others, as the snapshot has them."""
    return Here(options, snapshot.nodes.get(options.node_name), snapshot.nodes)


def place_of(options: ProxyOptions, node: Node | None, several: bool = False, ranges: Iterable[str] = ()) -> NodePlace:
    """Where node ports are served, and how pods are told, on this node (None: it is not known yet). `several`: some
    nodes are in other networks; to them this one is at its address in tunnels. `ranges`: those of ServiceCIDRs, beside
    the options'."""
    addresses: list[str] = []
    for entry in options.node_port_addresses:
        addresses += _primary(node.internal_ips if node else ()) if entry == PRIMARY else (entry,)
        if entry == PRIMARY and several and node is not None:
            addresses += filter(None, (inner_address(node, version) for version in (4, 6)))
    match options.detect_local:
        case "ClusterCIDR":
            pods = Pods(options.cluster_cidrs)
        case "NodeCIDR":
            pods = Pods(node.pod_cidrs if node else ())
        case "BridgeInterface":
            pods = Pods(interface=options.local_interface)
        case "InterfaceNamePrefix":
            pods = Pods(interface=options.local_interface, prefix=True)
    loopback = ipaddress.ip_network("127.0.0.0/8")
    localhost = options.localhost_node_ports and any(
        family_of(entry) == "IPv4" and ipaddress.ip_network(entry).overlaps(loopback) for entry in addresses
    )
    cidrs = tuple(dict.fromkeys((*options.service_cidrs, *ranges)))
    return NodePlace(tuple(dict.fromkeys(addresses)), pods, localhost, cidrs)


def _primary(addresses: Sequence[str]) -> tuple[str, ...]:
    """The first address of each family, as kube-proxy's nodePortAddresses `primary`."""
    first: dict[Family, str] = {}
    for address in addresses:
        first.setdefault(family_of(address), address)
    return tuple(first.values())


def compile_service(service: Service, here: Here, before: tuple[Forwarding, ...] = ()) -> tuple[Forwarding, ...]:
    """The entries of one Service; none for a headless one, an ExternalName, or one that asks proxies to ignore it."""
    if service.headless or service.ignored_by_proxy or service.type == "ExternalName":
        return ()
    held = {entry.slot: entry.targets for entry in before}
    entries: dict[tuple[str, str, str, int, str], Forwarding] = {}
    for port in service.ports:
        for entry in _entries(service, port, here):
            # One address given twice (as external IP and as the load balancer's): the first counts, as in kube-proxy.
            if entry.slot in entries:
                continue
            known = held.get(entry.slot)
            if known and entry.targets and known != entry.targets:
                entry = replace(entry, targets=settle(known, entry.targets))
            entries[entry.slot] = entry
    return tuple(entries.values())


def _entries(service: Service, port: ServicePort, here: Here) -> Iterable[Forwarding]:
    for address in service.cluster_ips:
        choice = choose(service, port, family_of(address), node=here.node, zone=here.zone, external=False)
        yield Forwarding(
            family=family_of(address),
            address=address,
            protocol=port.protocol,
            port=port.port,
            port_name=port.name,
            verdict=choice.verdict,
            targets=here.targets(choice.endpoints),
            masquerade="outside",
            affinity_seconds=service.affinity_seconds,
            local_only=service.internal_local,
        )
    families = [family for family in _FAMILIES if any(family_of(ip) == family for ip in service.cluster_ips)]
    for family in families:
        external = _external_ips(service, family)
        balanced = load_balancer_vips(service, family)
        if not (external or balanced or port.node_port):
            continue
        forms = tuple(_external(service, port, family, here))
        for address in external:
            yield from (replace(form, address=address, via="external IP") for form in forms)
        if balanced:
            allowed = _allowed(service, family, here.ips, balanced)
            for address in balanced:
                yield from (replace(form, address=address, via="load balancer", allowed=allowed) for form in forms)
        if port.node_port:
            yield from (replace(form, port=port.node_port, via="node port") for form in forms)


def _external(service: Service, port: ServicePort, family: Family, here: Here) -> Iterable[Forwarding]:
    """What happens to connections to the port from outside, at whatever address: to be completed with that."""
    via: Via = "node port"
    choice = choose(service, port, family, node=here.node, zone=here.zone, external=True)
    outside = Forwarding(
        family=family,
        address="",
        protocol=port.protocol,
        port=port.port,
        port_name=port.name,
        verdict=choice.verdict,
        targets=here.targets(choice.endpoints),
        masquerade="never" if service.external_local else "always",
        affinity_seconds=service.affinity_seconds,
        via=via,
        local_only=service.external_local,
    )
    if service.external_local:
        # kube-proxy: pods and the node itself reach even a Local service by the policy Cluster.
        everywhere = categorize(service, port, family, node=here.node, zone=here.zone).cluster
        if everywhere:
            yield replace(
                outside,
                verdict="forward",
                targets=tuple(target._replace(local=True) for target in here.targets(everywhere)),
                masquerade="node",
                sources="node and its pods",
                local_only=False,
            )
    yield outside


def _external_ips(service: Service, family: Family) -> tuple[str, ...]:
    return tuple(ip for text in service.external_ips if (ip := _address(text)) and family_of(ip) == family)


def load_balancer_vips(service: Service, family: Family) -> tuple[str, ...]:
    """The load balancer's addresses that this node answers for: with ipMode Proxy it leaves them to the balancer."""
    entries = (entry for entry in service.load_balancer if not entry.proxied)
    return tuple(ip for entry in entries if (ip := _address(entry.ip)) and family_of(ip) == family)


def _allowed(service: Service, family: Family, node_ips: tuple[str, ...], vips: tuple[str, ...]) -> tuple[str, ...]:
    """The clients of a load balancer's IP; empty for everybody. Where the node itself is a client, so is the address:
    the node's own packets to it may carry it as their source."""
    networks = []
    for text in service.source_ranges:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            continue
        if family_of(text) == family:
            networks.append(network)
    if any(network.prefixlen == 0 for network in networks):
        return ()
    ranges = [str(network) for network in networks]
    own = [ipaddress.ip_address(ip) for ip in node_ips if family_of(ip) == family]
    if any(ip in network for ip in own for network in networks):
        ranges += [str(ipaddress.ip_network(vip)) for vip in vips]
    return tuple(dict.fromkeys(ranges))


def _address(text: str) -> str:
    """The address in its one form, or nothing for what is none."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""


def settle(before: Sequence[Target], wanted: Sequence[Target]) -> tuple[Target, ...]:
    """`wanted`, reordered so that as few slots as possible differ from `before`.

    Who stays keeps its slot; newcomers take the slots of those who left; what is then still empty is filled from the
    end, and the end shrinks.
    """
    coming = dict.fromkeys(wanted)
    slots: list[Target | None] = []
    for target in before:
        if target in coming:
            del coming[target]
            slots.append(target)
        else:
            slots.append(None)
    newcomers = list(coming)
    newcomers.reverse()
    for position, target_or_gap in enumerate(slots):
        if target_or_gap is None and newcomers:
            slots[position] = newcomers.pop()
    slots.extend(reversed(newcomers))
    position = 0
    while position < len(slots):
        if slots[-1] is None:
            slots.pop()
        elif slots[position] is None:
            slots[position] = slots.pop()
            position += 1
        else:
            position += 1
    return tuple(target for target in slots if target is not None)
