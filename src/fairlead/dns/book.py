"""What the zones are made of: the cluster's Services, namespaces and pods as the DNS sees them. Pure.

Stands between the deltas that come from the follower and the zones, which are views of it. Invariant: the book after
any sequence of deltas is the book built from the last snapshot alone. It has one owner, the answering process, and
changes in place, because a copy per change would be most of the work.
"""

from __future__ import annotations

from typing import NamedTuple

from fairlead.dns.names import text_address
from fairlead.dns.records import Delta, PodAddress, ServiceRecords

Key = tuple[str, str]


class Touched(NamedTuple):
    """What a delta invalidates: answers that depend on these; `everything` is all there is."""

    services: tuple[Key, ...]
    namespaces: tuple[str, ...]
    everything: bool


class Book:
    """The records of one cluster."""

    def __init__(self) -> None:
        self.version = 0  # grows with every step
        self.serial = 0
        self.synced = False
        self.services: dict[Key, ServiceRecords] = {}
        self.namespaces: set[str] = set()
        self.by_cluster_ip: dict[bytes, tuple[Key, ...]] = {}
        self.by_endpoint: dict[bytes, tuple[Key, ...]] = {}
        self.pods: dict[bytes, PodAddress] = {}

    def apply(self, step: Delta) -> Touched:
        """Take the step. Returns what it invalidates."""
        self.version += 1
        for key in step.removed:
            self._replace(key, None)
        for service in step.changed:
            self._replace(service.key, service)
        self.namespaces.update(step.namespaces_added)
        self.namespaces.difference_update(step.namespaces_removed)
        self.serial = max(self.serial, step.serial)
        turned = step.synced is not None and step.synced != self.synced
        if step.synced is not None:
            self.synced = step.synced
        keys = step.removed + tuple(service.key for service in step.changed)
        if step.pods:
            keys += tuple(self._pods(step.pods))
        return Touched(keys, step.namespaces_added + step.namespaces_removed, turned)

    def _pods(self, pods: tuple[PodAddress, ...]) -> list[Key]:
        touched: list[Key] = []
        for pod in pods:
            before = self.pods.pop(pod.address, None)
            if pod.namespaces:
                self.pods[pod.address] = pod
            namespaces = {*pod.namespaces, *(before.namespaces if before is not None else ())}
            touched += [(namespace, pod_key(pod.address)) for namespace in namespaces]
        return touched

    def namespace_of(self, client: bytes) -> str:
        """The namespace of the pod that alone has this address; empty if there is none."""
        pod = self.pods.get(client)
        return pod.owner if pod is not None else ""

    def _replace(self, key: Key, new: ServiceRecords | None) -> None:
        old = self.services.pop(key, None)
        if old is not None:
            _forget(self.by_cluster_ip, old.addresses, key)
            _forget(self.by_endpoint, _endpoint_addresses(old), key)
        if new is not None:
            self.services[key] = new
            _remember(self.by_cluster_ip, new.addresses, key)
            _remember(self.by_endpoint, _endpoint_addresses(new), key)


def pod_key(address: bytes) -> str:
    """What an answer about a pod depends on, in the place of a Service's name; no Service can be named so."""
    return "pod " + text_address(address)


def _endpoint_addresses(service: ServiceRecords) -> tuple[bytes, ...]:
    return tuple({address for group in service.groups for _, address in group.endpoints})


def _remember(index: dict[bytes, tuple[Key, ...]], addresses: tuple[bytes, ...], key: Key) -> None:
    for address in addresses:
        known = index.get(address)
        index[address] = (key,) if known is None else tuple(sorted({*known, key}))


def _forget(index: dict[bytes, tuple[Key, ...]], addresses: tuple[bytes, ...], key: Key) -> None:
    for address in addresses:
        left = tuple(other for other in index.get(address, ()) if other != key)
        if left:
            index[address] = left
        else:
            index.pop(address, None)
