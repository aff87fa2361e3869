"""From the snapshot to this node's service table. Pure.

Stands between discovery and the backends: endpoints are chosen by `discovery.choose`; here is only what is a proxy's
own: which addresses a port is served at, whom to masquerade, and the short cut of kube-proxy past Local policies.
Invariant: an entry depends on its Service, this node and the options; the order of its targets also on the order they
had before, so that one endpoint more or less moves at most one other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fairlead.discovery.choose import Backend, categorize, choose
from fairlead.discovery.model import Changes, Service, ServiceKey, ServicePort, ServiceSnapshot
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.table import Family, Forwarding, ServiceTable, Target

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
    node = snapshot.nodes.get(options.node_name)
    zone = node.zone if node else ""
    addresses = options.node_addresses or _primary(node.internal_ips if node else ())
    if changes is None or options.node_name in changes.nodes:
        keys: Iterable[ServiceKey] = {*snapshot.services, *previous.services}
    else:
        keys = changes.services
    services = previous.services.mutate()
    differing: set[ServiceKey] = set()
    for key in keys:
        service = snapshot.services.get(key)
        before = previous.services.get(key, ())
        after = compile_service(service, options.node_name, zone, before) if service is not None else ()
        if after == before:
            continue
        differing.add(key)
        if after:
            services[key] = after
        else:
            del services[key]
    return ServiceTable(services.finish(), addresses), frozenset(differing)


def _primary(addresses: Sequence[str]) -> tuple[str, ...]:
    """The first address of each family, as kube-proxy's nodePortAddresses `primary`."""
    first: dict[Family, str] = {}
    for address in addresses:
        first.setdefault(family_of(address), address)
    return tuple(first.values())


def compile_service(
    service: Service, node: str, zone: str, before: tuple[Forwarding, ...] = ()
) -> tuple[Forwarding, ...]:
    """The entries of one Service; none for a headless one, an ExternalName, or one that asks proxies to ignore it."""
    if service.headless or service.ignored_by_proxy or service.type == "ExternalName":
        return ()
    slots = {entry.slot: entry.targets for entry in before}
    entries = []
    for port in service.ports:
        for entry in _entries(service, port, node, zone):
            held = slots.get(entry.slot)
            if held and entry.targets and held != entry.targets:
                settled = settle(held, entry.targets)
                entry = _with_targets(entry, settled)
            entries.append(entry)
    return tuple(entries)


def _entries(service: Service, port: ServicePort, node: str, zone: str) -> Iterable[Forwarding]:
    for address in service.cluster_ips:
        choice = choose(service, port, family_of(address), node=node, zone=zone, external=False)
        yield Forwarding(
            family=family_of(address),
            address=address,
            protocol=port.protocol,
            port=port.port,
            port_name=port.name,
            verdict=choice.verdict,
            targets=_targets(choice.endpoints, node),
            masquerade="outside",
            affinity_seconds=service.affinity_seconds,
        )
    if not port.node_port:
        return
    for family in _FAMILIES:
        if not any(family_of(address) == family for address in service.cluster_ips):
            continue
        choice = choose(service, port, family, node=node, zone=zone, external=True)
        outside = Forwarding(
            family=family,
            address="",
            protocol=port.protocol,
            port=port.node_port,
            port_name=port.name,
            verdict=choice.verdict,
            targets=_targets(choice.endpoints, node),
            masquerade="never" if service.external_local else "always",
            affinity_seconds=service.affinity_seconds,
        )
        if service.external_local:
            # kube-proxy: pods and the node itself reach even a Local service by the policy Cluster.
            everywhere = categorize(service, port, family, node=node, zone=zone).cluster
            if everywhere:
                yield Forwarding(
                    family=family,
                    address="",
                    protocol=port.protocol,
                    port=port.node_port,
                    port_name=port.name,
                    verdict="forward",
                    targets=_targets(everywhere, node),
                    masquerade="node",
                    affinity_seconds=service.affinity_seconds,
                    sources="node and its pods",
                )
        yield outside


def _targets(backends: Iterable[Backend], node: str) -> tuple[Target, ...]:
    return tuple(Target(b.endpoint.address, b.port, b.endpoint.node in ("", node)) for b in backends)


def _with_targets(entry: Forwarding, targets: tuple[Target, ...]) -> Forwarding:
    return Forwarding(
        entry.family,
        entry.address,
        entry.protocol,
        entry.port,
        entry.port_name,
        entry.verdict,
        targets,
        entry.masquerade,
        entry.affinity_seconds,
        entry.sources,
    )


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
