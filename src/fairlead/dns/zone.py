"""The cluster's zone: names → records, by the DNS specification 1.1.0 and as CoreDNS answers. Pure.

Stands between the book and the answers. Invariant: until the book is synced the zone denies nothing.

Sources: kubernetes/dns docs/specification.md; CoreDNS 1.14 plugin/kubernetes for what the specification leaves open.
"""

from __future__ import annotations

import struct
from typing import Literal, NamedTuple

from fairlead.dns.book import Book, Key, Touched, pod_key
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

Pods = Literal["disabled", "insecure", "verified"]
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


_NODATA = Answer(NOERROR)
_NXDOMAIN = Answer(NXDOMAIN)


class Zone:
    """The zone of one cluster domain, a view of `book`. `own` are the packed addresses of this server itself: the
    Services whose endpoints they are name it in NS records. `exposed` are the only namespaces that are shown; None:
    all. `ignore_empty`: a Service without ready endpoints does not exist."""

    def __init__(
        self,
        domain: str = "cluster.local",
        ttl: int = 5,
        pods: Pods = "insecure",
        own: tuple[bytes, ...] = (),
        *,
        book: Book | None = None,
        exposed: frozenset[str] | None = None,
        ignore_empty: bool = False,
    ):
        self.domain = wire_name(domain.lower())
        self.ttl = ttl
        self.pods = pods
        self.own = own
        self.book = book if book is not None else Book()
        self.services = self.book.services
        self.namespaces = self.book.namespaces
        self.by_cluster_ip = self.book.by_cluster_ip
        self.by_endpoint = self.book.by_endpoint
        self._exposed, self._ignore_empty = exposed, ignore_empty
        self._suffix = split_name(self.domain)
        self._ns = wire_name("ns.dns")[:-1] + self.domain
        self._svc = wire_label("svc") + self.domain

    def apply(self, step: Delta) -> Touched:
        """Take the step into the book. Returns what it invalidates."""
        return self.book.apply(step)

    @property
    def synced(self) -> bool:
        """Whether all was listed once; until then nothing is denied."""
        return self.book.synced

    @property
    def serial(self) -> int:
        """The SOA's."""
        return self.book.serial

    # -- questions -------------------------------------------------------------------------------------------------

    def shows(self, namespace: str) -> bool:
        """Whether there is such a namespace, for this zone."""
        return namespace in self.namespaces and (self._exposed is None or namespace in self._exposed)

    def holds(self, labels: tuple[bytes, ...]) -> bool:
        """Whether the name (in lower case) is in the cluster domain."""
        suffix = self._suffix
        return labels[len(labels) - len(suffix) :] == suffix

    def soa(self, origin: bytes = b"") -> Record:
        """The zone's SOA, as it goes with negative answers: its TTL is at most 300 (RFC 2308, CoreDNS). `origin` is
        that of a reverse zone."""
        owner = origin or self.domain
        numbers = struct.pack("!IIIII", self.book.serial & 0xFFFFFFFF, 7200, 1800, 86400, self.ttl)
        names = b"".join(wire_name(name)[:-1] + owner for name in ("ns.dns", "hostmaster"))
        return Record(owner, SOA, min(self.ttl, 300), names + numbers)

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
        owners = [key for key in self.by_cluster_ip.get(address, ()) if self.shows(key[0])]
        if owners:
            targets.append(self._service_name(*owners[0]))
        else:
            for key in self.by_endpoint.get(address, ()):
                if self.shows(key[0]):
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
        keys = dict.fromkeys(
            key for address in self.own for key in self.by_endpoint.get(address, ()) if self.shows(key[0])
        )
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
            return Answer(NOERROR if self.shows(namespace) else NXDOMAIN, depends_on=(namespace, ""))
        if len(base) > 4:
            return _NXDOMAIN
        key = (namespace, _text(base[-2]))
        service = self.services.get(key) if self.shows(namespace) else None
        if service is None or (self._ignore_empty and not service.groups and service.addresses):
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
        if len(base) > 4 or self.pods == "disabled" or not self.shows(namespace):
            return Answer(NXDOMAIN, depends_on=(namespace, ""))
        if len(base) == 1:
            return Answer(NOERROR, depends_on=(namespace, ""))
        address = undashed(base[-2])
        if address is None:
            return Answer(NXDOMAIN, depends_on=(namespace, ""))
        depends_on = (namespace, "")
        if self.pods == "verified":
            depends_on = (namespace, pod_key(address))
            pod = self.book.pods.get(address)
            if pod is None or namespace not in pod.namespaces:
                return Answer(NXDOMAIN, depends_on=depends_on)
        records = (self._address(_join(labels), address),)
        return Answer(NOERROR, records if records[0].type == kind else (), depends_on=depends_on)

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
