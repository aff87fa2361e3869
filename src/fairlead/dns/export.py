"""A cluster's zone as a list of records: for transfers, and to hold other servers to the same. Pure.

Stands beside the zone. Invariant: every record is one that the zone gives as an answer, and every answer of a name that
exists by itself is here; names that only spell what they mean (`pods insecure`) are not, as there is no end of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from fairlead.dns.message import AAAA, CNAME, NOERROR, NS, PTR, SOA, SRV, TXT, A, Record
from fairlead.dns.names import ROOT, dashed, reverse_name, split_name, wire_name
from fairlead.dns.records import ServiceRecords
from fairlead.dns.zone import Zone

_TYPES = (A, AAAA, SRV, CNAME)


def records(zone: Zone) -> list[Record]:
    """All of a forward zone but its SOA, each once."""
    apex = split_name(zone.domain)
    found: dict[Record, None] = {}
    for labels, kinds in (
        (apex, (NS,)),
        ((b"dns-version", *apex), (TXT,)),
        ((b"ns", b"dns", *apex), (A, AAAA)),
    ):
        for kind in kinds:
            found.update(dict.fromkeys(zone.find(labels, kind).records))
    for service in zone.services.values():
        if not zone.shows(service.namespace):
            continue
        for prefix in _prefixes(service):
            labels = (*prefix, service.name.encode(), service.namespace.encode(), b"svc", *apex)
            for kind in _TYPES:
                answer = zone.find(labels, kind)
                owner = _wire(labels)
                if answer.rcode == NOERROR:  # a CNAME's answer goes on to its target, which is there by itself
                    found.update(dict.fromkeys(record for record in answer.records if record.name == owner))
    if zone.pods == "verified":
        for address, pod in zone.book.pods.items():
            for namespace in pod.namespaces:
                labels = (dashed(address).encode(), namespace.encode(), b"pod", *apex)
                for kind in (A, AAAA):
                    found.update(dict.fromkeys(zone.find(labels, kind).records))
    return [record for record in found if record.type != SOA]


def _prefixes(service: ServiceRecords) -> Iterator[tuple[bytes, ...]]:
    """What stands before the service's own name."""
    yield ()
    if service.external_name:
        return
    ports = {port[:2] for port in service.ports}
    for group in service.groups:
        ports |= {port[:2] for port in group.ports}
        for hostname, address in group.endpoints:
            yield ((hostname or dashed(address)).encode(),)
    for name, protocol in sorted(ports):
        if name:
            yield (f"_{name}".encode(), f"_{protocol}".encode())


def reverse_records(zone: Zone) -> list[Record]:
    """The PTR records of all addresses that have one."""
    found: list[Record] = []
    for address in {**zone.by_cluster_ip, **zone.by_endpoint}:
        labels = split_name(wire_name(reverse_name(address)))
        answer = zone.find_reverse(labels, PTR)
        if answer is not None:
            found += answer.records
    return found


def _wire(labels: tuple[bytes, ...]) -> bytes:
    return b"".join(bytes((len(label),)) + label for label in labels) + ROOT
