"""Who may refer to what: ReferenceGrants, and the Services behind backendRefs. ◆ Pure.

Source: Gateway API v1, ReferenceGrant, BackendObjectReference. Invariant: what is not granted looks, from outside its
namespace, the same whether it is there or not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from fairlead.discovery.model import ServiceKey, ServiceSnapshot
from fairlead.ingress.gateway.conditions import RESOLVED, Condition
from fairlead.ingress.gateway.kinds import GROUP
from fairlead.ingress.gateway.policies import Policies
from fairlead.ingress.ingresses import protocol_of
from fairlead.ingress.table import Protocol, Section

Object = dict[str, Any]


class Grants:
    """All ReferenceGrants."""

    def __init__(self, grants: Iterable[Object]) -> None:
        self._by_namespace: dict[str, list[Object]] = {}
        for grant in grants:
            self._by_namespace.setdefault(grant["metadata"]["namespace"], []).append(grant.get("spec") or {})

    def allow(self, kind: str, namespace: str, to_group: str, to_kind: str, to: tuple[str, str]) -> bool:
        """Whether a `kind` of this group in `namespace` may refer to the object `to` (namespace, name)."""
        if namespace == to[0]:
            return True
        source = {"group": GROUP, "kind": kind, "namespace": namespace}
        return any(
            any(entry == source for entry in spec.get("from") or ())
            and any(
                entry.get("group", "") == to_group
                and entry.get("kind") == to_kind
                and entry.get("name") in (None, to[1])
                for entry in spec.get("to") or ()
            )
            for spec in self._by_namespace.get(to[0], ())
        )


class Found(msgspec.Struct, frozen=True):
    """What a backendRef means: a section; or none, and why not."""

    section: Section | None
    condition: Condition = RESOLVED


def _not(reason: str, message: str) -> Found:
    return Found(None, Condition("ResolvedRefs", False, reason, message))


class Known(msgspec.Struct, frozen=True):
    """What references are looked up in."""

    grants: Grants
    snapshot: ServiceSnapshot
    policies: Policies


def find_backend(ref: Object, kind: str, namespace: str, known: Known) -> Found:
    """The Service port that a backendRef of a `kind` in `namespace` names, spoken to as a policy for it demands; a 502
    where that can't be done."""
    name, there = ref["name"], ref.get("namespace") or namespace
    if (ref.get("group") or "", ref.get("kind") or "Service") != ("", "Service"):
        return _not(
            "InvalidKind", f"{ref.get('group') or 'core'} {ref.get('kind')} is no backend here: only Services are"
        )
    if not known.grants.allow(kind, namespace, "", "Service", (there, name)):
        return _not("RefNotPermitted", f"no ReferenceGrant lets {namespace} refer to Service {there}/{name}")
    key = ServiceKey(there, name)
    service = known.snapshot.services.get(key)
    if service is None:
        return _not("BackendNotFound", f"there is no Service {key}")
    number = ref.get("port")
    port = next((p for p in service.ports if p.port == number and p.protocol == "TCP"), None)
    if port is None:
        return _not("BackendNotFound", f"Service {key} has no TCP port {number}")
    protocol: Protocol = protocol_of(port)
    if kind == "GRPCRoute":
        protocol = "h2" if protocol in ("https", "h2") else "h2c"
    section = Section(
        key,
        port.name,
        port.port,
        service.external_name,
        protocol,
        affinity_seconds=service.affinity_seconds,
        tcp=kind == "TLSRoute",
    )
    if section.tcp:
        return Found(msgspec.structs.replace(section, protocol="http"))
    policy = known.policies.of(key, port.name)
    if policy is None:
        return Found(section)
    if policy.trust is None:
        return Found(Section(status=502))
    secure: Protocol = "h2" if protocol in ("h2c", "h2") else "https"
    return Found(msgspec.structs.replace(section, protocol=secure, trust=policy.trust))
