"""BackendTLSPolicies: how backends that speak TLS are known, and what the policies are told. ◆ Pure.

Source: Gateway API v1, BackendTLSPolicy; GEP-713 for ancestors. Invariant: where a policy can't be followed, nothing
goes to the backend: neither in clear, nor without a look at its certificate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from fairlead.discovery.model import ServiceKey, ServiceSnapshot
from fairlead.ingress.gateway.conditions import ACCEPTED, RESOLVED, Condition
from fairlead.ingress.ingresses import age
from fairlead.ingress.table import Trust

Object = dict[str, Any]
CaOf = Callable[[str, str], tuple[str, str]]
"""(namespace, name of a ConfigMap) → the authorities in it, in PEM, or empty and why not."""


class Policy(msgspec.Struct, frozen=True):
    """One policy, judged. `trust`: None if it can't be followed. `targets`: Services, and the names of their ports."""

    found: Object
    targets: tuple[tuple[ServiceKey, str], ...]
    trust: Trust | None
    accepted: Condition
    resolved: Condition


class Policies:
    """All policies, and which of them holds for a port."""

    def __init__(self, policies: Iterable[Object], ca_of: CaOf, snapshot: ServiceSnapshot) -> None:
        self._by_target: dict[tuple[ServiceKey, str], Policy] = {}
        self.all: list[Policy] = []
        for found in sorted(policies, key=age):
            policy = judge(found, ca_of, snapshot)
            held = [target for target in policy.targets if target in self._by_target]
            if held:
                other = self._by_target[held[0]].found["metadata"]["name"]
                said = f"the policy {other}, which is older, is for {_told(held[0])}, too"
                policy = msgspec.structs.replace(policy, accepted=Condition("Accepted", False, "Conflicted", said))
            for target in policy.targets:
                self._by_target.setdefault(target, policy)
            self.all.append(policy)

    def of(self, service: ServiceKey, port: str) -> Policy | None:
        """The one for a port: for it by name before those for all of the Service."""
        named = self._by_target.get((service, port)) if port else None
        return named or self._by_target.get((service, ""))


def judge(found: Object, ca_of: CaOf, snapshot: ServiceSnapshot) -> Policy:
    """A policy by itself."""
    namespace, spec = found["metadata"]["namespace"], found["spec"]
    targets: list[tuple[ServiceKey, str]] = []
    wrong = ""
    for ref in spec["targetRefs"]:
        if (ref.get("group") or "", ref["kind"]) == ("", "Service"):
            targets.append((ServiceKey(namespace, ref["name"]), ref.get("sectionName") or ""))
        else:
            wrong = f"spec.targetRefs: {ref['kind']} {ref['name']} is no Service"
    validation = spec["validation"]
    names = validation.get("subjectAltNames") or ()
    if names and [name.get("hostname") for name in names] != [validation["hostname"]]:
        wrong = "spec.validation.subjectAltNames: HAProxy compares spec.validation.hostname alone; leave them out"
    missing = _missing(targets, snapshot)
    authorities, resolved, usable = "", RESOLVED, True
    if not validation.get("wellKnownCACertificates"):
        authorities, resolved = _authorities(validation.get("caCertificateRefs") or (), namespace, ca_of)
        usable = bool(authorities)
    if wrong:
        accepted = Condition("Accepted", False, "Invalid", wrong)
    elif missing:
        accepted = Condition("Accepted", False, "TargetNotFound", missing)
    elif not usable:
        accepted = Condition("Accepted", False, "NoValidCACertificate", resolved.message)
    else:
        accepted = ACCEPTED
    trust = Trust(validation["hostname"], authorities) if usable and not wrong else None
    return Policy(found, tuple(targets), trust, accepted, resolved)


def _missing(targets: Iterable[tuple[ServiceKey, str]], snapshot: ServiceSnapshot) -> str:
    for key, port in targets:
        service = snapshot.services.get(key)
        if service is None or (port and all(known.name != port for known in service.ports)):
            return f"there is no {_told((key, port))}"
    return ""


def _authorities(refs: Iterable[Object], namespace: str, ca_of: CaOf) -> tuple[str, Condition]:
    found: list[str] = []
    resolved = RESOLVED
    for index, ref in enumerate(refs):
        where = f"spec.validation.caCertificateRefs[{index}]"
        if (ref.get("group") or "", ref["kind"]) != ("", "ConfigMap"):
            said = f"{where}: {ref['kind']} {ref['name']} is none of the kinds that are read: only ConfigMaps are"
            resolved = Condition("ResolvedRefs", False, "InvalidKind", said) if resolved.holds else resolved
            continue
        pem, why = ca_of(namespace, ref["name"])
        if pem:
            found.append(pem)
        elif resolved.holds:
            said = f"{where}: ConfigMap {namespace}/{ref['name']} {why}"
            resolved = Condition("ResolvedRefs", False, "InvalidCACertificateRef", said)
    return "".join(found), resolved


def _told(target: tuple[ServiceKey, str]) -> str:
    key, port = target
    return f"port {port} of Service {key}" if port else f"Service {key}"
