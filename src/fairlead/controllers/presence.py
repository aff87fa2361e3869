"""Where the API servers are: each says so in a Lease; who leads the controllers reads them. Pure.

In: Leases, and when each was first seen to say what it says. Out: the addresses of the servers that are there. Stands
before `bootstrap`, which writes them into the endpoints of the Service `kubernetes`. Invariant: a server that does not
renew its Lease for its duration is not there, by our own clock; times in Leases are not compared with ours.
Source: upstream's API server identity Leases (KEP 1965) and its lease endpoint reconciler.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

Object = dict[str, Any]

NAMESPACE = "kube-system"
IDENTITY, IDENTITY_VALUE = "apiserver.kubernetes.io/identity", "kube-apiserver"
ADDRESS = "fairlead.dev/advertise-address"
SECONDS = 15
"""How long a server counts as there without a renewal; upstream's endpoint leases last as long."""


def lease(address: str, port: int, now: datetime.datetime, spec: Object | None = None) -> Object:
    """The Lease of the server at that address; `spec` is what it said before."""
    at = now.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    place = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    name = "apiserver-" + hashlib.sha256(place.encode()).hexdigest()[:26]
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {IDENTITY: IDENTITY_VALUE},
            "annotations": {ADDRESS: place},
        },
        "spec": {
            **(spec or {"acquireTime": at}),
            "holderIdentity": name,
            "leaseDurationSeconds": SECONDS,
            "renewTime": at,
        },
    }


def is_presence(obj: Object) -> bool:
    """Whether a Lease is an API server's that says where it is."""
    metadata = obj["metadata"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    return metadata.get("namespace") == NAMESPACE and labels.get(IDENTITY) == IDENTITY_VALUE and ADDRESS in annotations


def present(leases: Iterable[Object], seen: Mapping[str, tuple[str, float]], clock: float) -> list[tuple[str, int]]:
    """The (address, port) of the servers that are there, in order. `seen`: name → the renewTime it was seen to have,
    and since when by our monotonic clock. Endpoints have one port: servers with another one than the first's are left
    out, and so is what is no address."""
    found = []
    for obj in leases:
        name, spec = obj["metadata"]["name"], obj.get("spec") or {}
        renewed, since = seen.get(name, ("", clock))
        if renewed == spec.get("renewTime") and clock - since >= (spec.get("leaseDurationSeconds") or SECONDS):
            continue
        host, _, port = obj["metadata"]["annotations"][ADDRESS].rpartition(":")
        try:
            found.append((ipaddress.ip_address(host.strip("[]")), int(port)))
        except ValueError:
            continue
    ordered = sorted(found, key=lambda place: (place[0].version, place[0].packed, place[1]))
    return [(str(ip), port) for ip, port in ordered if port == ordered[0][1] and ip.version == ordered[0][0].version]
