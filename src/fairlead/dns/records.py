"""What a Service contributes to the DNS, and the difference between two snapshots in these terms. Pure.

Stands between the snapshot (kept by the follower process) and the zone (kept by the answering process): `Delta` is what
goes through the pipe between them. Invariant: applying `delta(a, b)` to the zone of `a` gives the zone of `b`; a change
that the DNS cannot show (an unready endpoint, a node name) is no difference at all.
"""

from __future__ import annotations

import msgspec

from fairlead.discovery.model import Changes, Service, ServiceSnapshot
from fairlead.dns.names import packed_address

Port = tuple[str, str, int]
"""name, protocol in lower case, number"""


class Group(msgspec.Struct, frozen=True, array_like=True):
    """Ready endpoints that share their ports, as a slice does. An endpoint is (hostname or "", packed address)."""

    ports: tuple[Port, ...]
    endpoints: tuple[tuple[str, bytes], ...]


class ServiceRecords(msgspec.Struct, frozen=True, array_like=True):
    """One Service. Exactly one of `addresses`, `headless`, `external_name` says which kind it is."""

    namespace: str
    name: str
    addresses: tuple[bytes, ...] = ()  # packed cluster IPs
    ports: tuple[Port, ...] = ()
    headless: bool = False
    external_name: str = ""
    groups: tuple[Group, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """(namespace, name)"""
        return self.namespace, self.name


class PodAddress(msgspec.Struct, frozen=True, array_like=True):
    """An address, the namespaces of the pods that have it (none: nobody has it any more), and the namespace of the pod
    that alone has it as its own; empty if pods share it, as those on the node's network do."""

    address: bytes
    namespaces: tuple[str, ...] = ()
    owner: str = ""


class Delta(msgspec.Struct, frozen=True, array_like=True):
    """A step from one state of the zone to the next. `synced` None leaves it as it is. `serial` is the SOA's: seconds
    since 1970 of the change."""

    changed: tuple[ServiceRecords, ...] = ()
    removed: tuple[tuple[str, str], ...] = ()
    namespaces_added: tuple[str, ...] = ()
    namespaces_removed: tuple[str, ...] = ()
    synced: bool | None = None
    serial: int = 0
    pods: tuple[PodAddress, ...] = ()


def records_of(service: Service, pod_names: bool = False) -> ServiceRecords:
    """What the DNS needs of a Service. Endpoints that are not ready are left out (the controller says ready for those
    that are to be published all the same); addresses that are none are left out. `pod_names`: an endpoint without a
    hostname has its pod's name."""
    return ServiceRecords(
        namespace=service.key.namespace,
        name=service.key.name,
        addresses=tuple(filter(None, map(packed_address, service.cluster_ips))),
        ports=tuple((port.name, port.protocol.lower(), port.port) for port in service.ports),
        headless=service.headless,
        external_name=service.external_name,
        groups=_groups(service, pod_names),
    )


def _groups(service: Service, pod_names: bool) -> tuple[Group, ...]:
    groups = []
    for entry in service.slices:
        endpoints = {
            (endpoint.hostname or (endpoint.target[2] if pod_names and endpoint.target[0] == "Pod" else ""), packed)
            for endpoint in entry.endpoints
            if endpoint.ready and (packed := packed_address(endpoint.address)) is not None
        }
        if endpoints:
            ports = tuple((port.name, port.protocol.lower(), port.port) for port in entry.ports)
            groups.append(Group(ports, tuple(sorted(endpoints, key=_by_address))))
    if len(groups) > 1:  # by content: which slice holds an endpoint is nobody's business
        groups.sort(key=_by_content)
    return tuple(groups)


def _by_content(group: Group) -> tuple[object, ...]:
    return len(group.endpoints[0][1]), group.ports, group.endpoints


def _by_address(endpoint: tuple[str, bytes]) -> tuple[int, bytes, str]:
    hostname, packed = endpoint
    return len(packed), packed, hostname


def delta(
    before: ServiceSnapshot,
    after: ServiceSnapshot,
    changes: Changes,
    serial: int,
    pods: tuple[PodAddress, ...] = (),
    *,
    pod_names: bool = False,
) -> Delta | None:
    """What differs for the DNS; None if nothing does. `changes` are those of the fold from `before` to `after`, `pods`
    what changed of the pods' addresses."""
    changed, removed = [], []
    for key in sorted(changes.services):
        old, new = before.services.get(key), after.services.get(key)
        if new is None:
            removed.append((key.namespace, key.name))
            continue
        records = records_of(new, pod_names)
        if old is None or records_of(old, pod_names) != records:
            changed.append(records)
    namespaces = sorted(changes.namespaces)
    step = Delta(
        tuple(changed),
        tuple(removed),
        tuple(name for name in namespaces if name in after.namespaces),
        tuple(name for name in namespaces if name not in after.namespaces),
        after.synced,
        serial,
        pods,
    )
    nothing = not (changed or removed or pods or step.namespaces_added or step.namespaces_removed)
    return None if nothing and before.synced == after.synced else step


def whole(snapshot: ServiceSnapshot, serial: int) -> Delta:
    """The step from nothing to this snapshot."""
    everything = Changes(frozenset(snapshot.services), frozenset(), frozenset(snapshot.namespaces))
    step = delta(ServiceSnapshot(), snapshot, everything, serial)
    return step if step is not None else Delta(synced=snapshot.synced, serial=serial)


def pieces(step: Delta, size: int) -> list[Delta]:
    """The same step in pieces of at most `size` services, so that a reader can do other work in between. Only the last
    one says that all is synced."""
    if len(step.changed) + len(step.removed) + len(step.pods) // 4 <= size:
        return [step]
    parts = [Delta((), step.removed, step.namespaces_added, step.namespaces_removed, None, step.serial)]
    parts += [
        Delta((), (), (), (), None, step.serial, step.pods[start : start + 4 * size])
        for start in range(0, len(step.pods), 4 * size)
    ]
    parts += [
        Delta(step.changed[start : start + size], (), (), (), None, step.serial)
        for start in range(0, len(step.changed), size)
    ]
    return [*parts[:-1], msgspec.structs.replace(parts[-1], synced=step.synced)]
