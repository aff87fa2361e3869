"""The cluster's zone: names → records, by the DNS specification 1.1.0 and as CoreDNS answers. Pure.

Stands between the deltas that come from the follower and the answers. Invariants: the zone after any sequence of deltas
is the zone built from the last snapshot alone; until it is synced it denies nothing. It has one owner, the answering
process, and changes in place, because a copy per change would be most of the work.

Sources: kubernetes/dns docs/specification.md; CoreDNS 1.14 plugin/kubernetes for what the specification leaves open.
"""

from __future__ import annotations

import struct
from typing import Literal, NamedTuple

from fairlead.dns.message import (
    AAAA,
    CNAME,
    NOERROR,
    NS,
    NXDOMAIN,
    PTR,
    SERVFAIL,
    SOA,
    SRV,
    TXT,
    A,
    Record,
)
from fairlead.dns.names import (
    ROOT,
    dashed,
    packed_address,
    reverse_address,
    split_name,
    undashed,
    wire_label,
    wire_name,
)
from fairlead.dns.records import Delta, Port, ServiceRecords

SCHEMA_VERSION = "1.1.0"
VERSION_TTL = 28800
MAX_CHAIN = 10
_SRV = struct.Struct("!HHH")

Key = tuple[str, str]
Pods = Literal["disabled", "insecure"]
Service = ServiceRecords


class Answer(NamedTuple):
    """What the zone says. No records and NOERROR is NODATA. `authority` says whether the SOA goes with it.

    `depends_on` is the (namespace, service) the answer follows from, or None if it holds for ever; `keep` is False for
    answers that follow from more than that, which must be worked out each time. `unresolved` is the wire name outside
    of the zone that a chain of CNAMEs ends with, to be resolved upstream.
    """

    rcode: int
    records: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    depends_on: Key | None = None
    keep: bool = True
    unresolved: bytes = b""


class Touched(NamedTuple):
    """What a delta invalidates: answers that depend on these; `everything` is all there is."""

    services: tuple[Key, ...]
    namespaces: tuple[str, ...]
    everything: bool


_NODATA = Answer(NOERROR)
_NXDOMAIN = Answer(NXDOMAIN)


class Zone:
    """The zone of one cluster domain. `own` are the packed addresses of this server itself: the Services whose
    endpoints they are name it in NS records."""

    def __init__(
        self, domain: str = "cluster.local", ttl: int = 5, pods: Pods = "insecure", own: tuple[bytes, ...] = ()
    ):
        self.domain = wire_name(domain.lower())
        self.ttl = ttl
        self.pods = pods
        self.own = own
        self.serial = 0
        self.synced = False
        self.services: dict[Key, Service] = {}
        self.namespaces: set[str] = set()
        self.by_cluster_ip: dict[bytes, tuple[Key, ...]] = {}
        self.by_endpoint: dict[bytes, tuple[Key, ...]] = {}
        self._suffix = split_name(self.domain)
        self._ns = wire_name("ns.dns")[:-1] + self.domain
        self._svc = wire_label("svc") + self.domain
        self._hostmaster = wire_label("hostmaster") + self.domain

    # -- changes ---------------------------------------------------------------------------------------------------

    def apply(self, step: Delta) -> Touched:
        """Take the step. Returns what it invalidates."""
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
        return Touched(
            step.removed + tuple(service.key for service in step.changed),
            step.namespaces_added + step.namespaces_removed,
            turned,
        )

    def _replace(self, key: Key, new: Service | None) -> None:
        old = self.services.pop(key, None)
        if old is not None:
            _forget(self.by_cluster_ip, old.addresses, key)
            _forget(self.by_endpoint, _endpoint_addresses(old), key)
        if new is not None:
            self.services[key] = new
            _remember(self.by_cluster_ip, new.addresses, key)
            _remember(self.by_endpoint, _endpoint_addresses(new), key)

    # -- questions -------------------------------------------------------------------------------------------------

    def holds(self, labels: tuple[bytes, ...]) -> bool:
        """Whether the name (in lower case) is in the cluster domain."""
        suffix = self._suffix
        return labels[len(labels) - len(suffix) :] == suffix

    def soa(self) -> Record:
        """The zone's SOA, as it goes with negative answers: its TTL is at most 300 (RFC 2308, CoreDNS)."""
        numbers = struct.pack("!IIIII", self.serial & 0xFFFFFFFF, 7200, 1800, 86400, self.ttl)
        return Record(self.domain, SOA, min(self.ttl, 300), self._ns + self._hostmaster + numbers)

    def find_reverse(self, labels: tuple[bytes, ...], kind: int) -> Answer | None:
        """The answer for a name below in-addr.arpa or ip6.arpa; None if it is not ours and so is to be forwarded."""
        if kind != PTR:
            return None
        address = reverse_address(labels)
        if address is None:
            return None
        if not self.synced:
            return Answer(SERVFAIL, keep=False)
        targets: list[bytes] = []
        owners = self.by_cluster_ip.get(address)
        if owners:
            targets.append(self._service_name(*owners[0]))
        else:
            for key in self.by_endpoint.get(address, ()):
                targets += self._endpoint_names(self.services[key], address)
        if not targets:
            return None
        name = b"".join(bytes((len(label),)) + label for label in labels) + ROOT
        records = tuple(Record(name, PTR, self.ttl, target) for target in dict.fromkeys(targets))
        return Answer(NOERROR, records, keep=False)

    def find(self, labels: tuple[bytes, ...], kind: int) -> Answer:
        """The answer for a name (in lower case) that the zone `holds`."""
        if not self.synced:
            return Answer(SERVFAIL, keep=False)
        base = labels[: len(labels) - len(self._suffix)]
        if not base:
            return self._apex(kind)
        if base[-1] == b"svc":
            return self._below_svc(base[:-1], labels, kind, 0)
        if base[-1] == b"pod":
            return self._below_pod(base[:-1], labels, kind)
        if base == (b"dns-version",):
            if kind != TXT:
                return _NODATA
            text = SCHEMA_VERSION.encode()
            return Answer(NOERROR, (Record(_join(labels), TXT, VERSION_TTL, bytes((len(text),)) + text),))
        if base == (b"ns", b"dns"):
            found = [record._replace(name=self._ns) for _, record in self._servers() if record.type == kind]
            return Answer(NOERROR, tuple(found), keep=False)
        return _NXDOMAIN

    def _apex(self, kind: int) -> Answer:
        if kind == SOA:
            return Answer(NOERROR, (self.soa(),), keep=False)
        if kind == NS:
            servers = self._servers()
            names = dict.fromkeys(name for name, _ in servers)
            records = tuple(Record(self.domain, NS, self.ttl, name) for name in names)
            return Answer(NOERROR, records, tuple(record for _, record in servers), keep=False)
        return _NODATA

    def _servers(self) -> list[tuple[bytes, Record]]:
        """Names and addresses of the name servers: the Services that this server is an endpoint of, else itself."""
        found = []
        keys = dict.fromkeys(key for address in self.own for key in self.by_endpoint.get(address, ()))
        for key in keys:
            service = self.services[key]
            if service.headless:
                for group in service.groups:
                    for hostname, address in group.endpoints:
                        name = self._endpoint_name(service, hostname, address)
                        found.append((name, self._address(name, address)))
            else:
                name = self._service_name(*key)
                found += [(name, self._address(name, address)) for address in service.addresses]
        return found or [(self._ns, self._address(self._ns, address)) for address in self.own]

    def _below_svc(self, base: tuple[bytes, ...], labels: tuple[bytes, ...], kind: int, depth: int) -> Answer:
        if not base:
            return _NODATA
        namespace = _text(base[-1])
        if len(base) == 1:
            return Answer(NOERROR if namespace in self.namespaces else NXDOMAIN, depends_on=(namespace, ""))
        if len(base) > 4:
            return _NXDOMAIN
        key = (namespace, _text(base[-2]))
        service = self.services.get(key) if namespace in self.namespaces else None
        if service is None:
            return Answer(NXDOMAIN, depends_on=key)
        if service.external_name:
            return self._external(service, labels, kind, len(base) > 2, depth)
        port = protocol = endpoint = ""
        if len(base) == 3:
            endpoint = _text(base[0])
        elif len(base) == 4:
            port, protocol = _text(base[0]).removeprefix("_"), _text(base[1]).removeprefix("_")
        if service.headless or endpoint:
            entries = self._endpoint_entries(service, endpoint, port, protocol)
        else:
            entries = self._cluster_entries(service, port, protocol)
        if entries is None:
            return Answer(NXDOMAIN, depends_on=key)
        if kind in {A, AAAA}:
            size = 4 if kind == A else 16
            name = _join(labels)
            addresses = dict.fromkeys(address for _, address, _ in entries if len(address) == size)
            return Answer(NOERROR, tuple(Record(name, kind, self.ttl, a) for a in addresses), depends_on=key)
        if kind == SRV:
            return self._srv(_join(labels), entries, key)
        return Answer(NOERROR, depends_on=key)

    # An entry is (owner of the address, packed address, port number or -1): one per address and matching port.

    def _cluster_entries(self, service: Service, port: str, protocol: str) -> list[tuple[bytes, bytes, int]] | None:
        numbers = _matching(service.ports, port, protocol)
        if not numbers:
            return None
        name = self._service_name(*service.key)
        return [(name, address, number) for number in numbers for address in service.addresses]

    def _endpoint_entries(
        self, service: Service, endpoint: str, port: str, protocol: str
    ) -> list[tuple[bytes, bytes, int]] | None:
        entries = []
        for group in service.groups:
            numbers = _matching(group.ports, port, protocol)
            if not numbers:
                continue
            for hostname, address in group.endpoints:
                if endpoint and endpoint != (hostname or dashed(address)):
                    continue
                name = self._endpoint_name(service, hostname, address)
                entries += [(name, address, number) for number in numbers]
        return entries or None

    def _srv(self, name: bytes, entries: list[tuple[bytes, bytes, int]], key: Key) -> Answer:
        weight = max(100 // len(entries), 1)
        records, additional = {}, {}
        for target, address, number in entries:
            if number < 0:
                continue
            records[target, number] = Record(name, SRV, self.ttl, _SRV.pack(0, weight, number) + target)
            additional[target, address] = self._address(target, address)
        return Answer(NOERROR, tuple(records.values()), tuple(additional.values()), depends_on=key)

    def _external(self, service: Service, labels: tuple[bytes, ...], kind: int, below: bool, depth: int) -> Answer:
        """A Service of type ExternalName. An IP address is no name and so gives nothing; SRV is suppressed; a target in
        the zone is followed here, any other is left to be resolved upstream."""
        try:
            target = wire_name(service.external_name)
        except ValueError:
            target = ROOT
        if below or target == ROOT or packed_address(service.external_name) is not None:
            return Answer(NXDOMAIN, depends_on=service.key)
        record = Record(_join(labels), CNAME, self.ttl, target)
        if kind == CNAME:
            return Answer(NOERROR, (record,), depends_on=service.key)
        target_labels = split_name(target.lower())
        if kind not in {A, AAAA} or depth >= MAX_CHAIN or target_labels == labels:
            return Answer(NOERROR, depends_on=service.key)
        if not self.holds(target_labels):
            return Answer(NOERROR, (record,), keep=False, unresolved=target)
        base = target_labels[: len(target_labels) - len(self._suffix)]
        if base and base[-1] == b"svc":
            found = self._below_svc(base[:-1], target_labels, kind, depth + 1)
        else:
            found = self.find(target_labels, kind)
        if found.rcode != NOERROR or not found.records:
            return Answer(NOERROR, keep=False)
        return Answer(NOERROR, (record, *found.records), keep=False, unresolved=found.unresolved)

    def _below_pod(self, base: tuple[bytes, ...], labels: tuple[bytes, ...], kind: int) -> Answer:
        if not base:
            return _NODATA
        namespace = _text(base[-1])
        if len(base) > 4 or namespace not in self.namespaces or self.pods == "disabled":
            return Answer(NXDOMAIN, depends_on=(namespace, ""))
        if len(base) == 1:
            return Answer(NOERROR, depends_on=(namespace, ""))
        address = undashed(base[-2])
        if address is None:
            return Answer(NXDOMAIN, depends_on=(namespace, ""))
        records = (self._address(_join(labels), address),)
        return Answer(NOERROR, records if records[0].type == kind else (), depends_on=(namespace, ""))

    # -- names -------------------------------------------------------------------------------------------------------

    def _service_name(self, namespace: str, name: str) -> bytes:
        return wire_label(name) + wire_label(namespace) + self._svc

    def _endpoint_name(self, service: Service, hostname: str, address: bytes) -> bytes:
        return wire_label(hostname or dashed(address)) + self._service_name(*service.key)

    def _endpoint_names(self, service: Service, address: bytes) -> list[bytes]:
        return [
            self._endpoint_name(service, hostname, address)
            for group in service.groups
            for hostname, candidate in group.endpoints
            if candidate == address
        ]

    def _address(self, name: bytes, address: bytes) -> Record:
        return Record(name, A if len(address) == 4 else AAAA, self.ttl, address)


def _matching(ports: tuple[Port, ...], port: str, protocol: str) -> list[int]:
    """The numbers of the ports that match; an empty word matches all. No ports at all count as one nameless port
    without a number, so that addresses are found and SRV records are not."""
    return [
        number
        for name, proto, number in ports or (("", "", -1),)
        if (not port or port == name) and (not protocol or protocol == proto)
    ]


def _text(label: bytes) -> str:
    return label.decode("latin-1")


def _join(labels: tuple[bytes, ...]) -> bytes:
    return b"".join([bytes((len(label),)) + label for label in labels]) + ROOT


def _endpoint_addresses(service: Service) -> tuple[bytes, ...]:
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
