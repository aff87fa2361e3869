"""Services before pods: which Services a pod's containers wait for. Pure.

The environment of a container names the Services that are there when it starts; whoever creates them in the other order
finds nothing. The annotation `fairlead.dev/wait-for-services: "redis-master, db.shop=ready"` holds the containers until
those Services exist, with `=ready` until they have a ready endpoint. Invariant: without it nothing is awaited; once a
container was started nothing is awaited again.
"""

from __future__ import annotations

from typing import Any

import msgspec

from fairlead.api.labels import check_dns1035_label, check_dns1123_label
from fairlead.discovery.model import ServiceKey, ServiceSnapshot

Object = dict[str, Any]
ANNOTATION = "fairlead.dev/wait-for-services"
CONDITION = "fairlead.dev/ServicesFound"


class Wanted(msgspec.Struct, frozen=True):
    """One Service to wait for."""

    key: ServiceKey
    ready: bool = False


def wanted_services(pod: Object) -> tuple[Wanted, ...]:
    """What the pod waits for. ValueError names the entry that is none."""
    metadata = pod["metadata"]
    text = (metadata.get("annotations") or {}).get(ANNOTATION) or ""
    found = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, equals, state = (part.strip() for part in entry.partition("="))
        service, dot, namespace = name.partition(".")
        if check_dns1035_label(service) or (dot and check_dns1123_label(namespace)) or (equals and state != "ready"):
            raise ValueError(
                f'annotation {ANNOTATION}: "{entry}" is no Service: write NAME or NAME.NAMESPACE, with =ready to wait '
                "for a ready endpoint"
            )
        found.append(Wanted(ServiceKey(namespace or metadata["namespace"], service), bool(equals)))
    return tuple(dict.fromkeys(found))


def missing_services(wanted: tuple[Wanted, ...], snapshot: ServiceSnapshot) -> str:
    """What is not there yet, in words; "" when all is."""
    missing = []
    for one in wanted:
        service = snapshot.services.get(one.key)
        if service is None:
            missing.append(f"Service {one.key} does not exist")
        elif one.ready and not any(e.ready for each in service.slices for e in each.endpoints):
            missing.append(f"Service {one.key} has no ready endpoint")
    return "; ".join(missing)
