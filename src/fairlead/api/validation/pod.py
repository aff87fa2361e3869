"""Pods and pod templates.

`validate_pod_spec` is what both share. A pod hardly changes once it is made: `validate_pod_update` lets pass what
upstream does and names what else was changed. Source: kubernetes `pkg/apis/core/validation`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fairlead.api.addresses import check_ip, family
from fairlead.api.errors import FieldError, duplicate, forbidden, invalid, not_supported, required
from fairlead.api.labels import (
    check_dns1123_label,
    check_dns1123_subdomain,
    check_qualified_name,
    range_message,
    regex_message,
    validate_annotations,
    validate_labels,
)
from fairlead.api.validation.containers import (
    PodContext,
    validate_containers,
    validate_ephemeral_containers,
    validate_init_containers,
)
from fairlead.api.validation.metadata import immutable
from fairlead.api.validation.resources import validate_resources
from fairlead.api.validation.scheduling import (
    validate_affinity,
    validate_gates,
    validate_spread,
    validate_tolerations,
)
from fairlead.api.validation.security import validate_pod_security
from fairlead.api.validation.volumes import validate_volumes

Spec = Mapping[str, Any]

MAX_NAMESERVERS = 3
MAX_SEARCHES = 32
MAX_SEARCH_CHARACTERS = 2048
_INT32 = 2**31 - 1

_RESTART_POLICIES = ("Always", "OnFailure", "Never")
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_UNDERSCORE_LABEL = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SEARCH = rf"{_UNDERSCORE_LABEL}(\.{_UNDERSCORE_LABEL})*"
_is_search = re.compile(_SEARCH).fullmatch
_SEARCH_MESSAGE = regex_message(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must "
    "start and end with an alphanumeric character",
    _SEARCH,
    "example.com",
)
_MIRROR = "kubernetes.io/config.mirror"
_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_is_cost = re.compile(r"0|-?[1-9][0-9]*|\+[1-9][0-9]*").fullmatch


def validate_pod(obj: Mapping[str, Any]) -> list[FieldError]:
    """A defaulted Pod, beyond its metadata, as it may be on any write."""
    spec: Spec = obj.get("spec") or {}
    annotations = (obj.get("metadata") or {}).get("annotations")
    errors = _validate_annotations(annotations, spec, "metadata.annotations") if annotations else []
    errors += validate_pod_spec(spec, "spec", is_pod=True)
    if not spec.get("serviceAccountName"):
        for index, volume in enumerate(spec.get("volumes") or ()):
            for place, source in enumerate((volume.get("projected") or {}).get("sources") or ()):
                if source.get("serviceAccountToken") is not None:
                    field = f"spec.volumes[{index}].projected.sources[{place}].serviceAccountToken"
                    errors.append(forbidden(field, "must not be specified when serviceAccountName is not set"))
    return errors


def validate_pod_create(obj: Mapping[str, Any]) -> list[FieldError]:
    """A new Pod, beyond its metadata."""
    spec: Spec = obj.get("spec") or {}
    errors = validate_pod(obj)
    if spec.get("ephemeralContainers"):
        errors.append(forbidden("spec.ephemeralContainers", "cannot be set on create"))
    if spec.get("nodeName") and spec.get("schedulingGates"):
        errors.append(forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared"))
    return errors


def validate_template(template: Mapping[str, Any], field: str) -> list[FieldError]:
    """The pods a controller makes."""
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    annotations = metadata.get("annotations") or {}
    errors = validate_labels(metadata.get("labels") or {}, f"{field}.labels")
    errors += validate_annotations(annotations, f"{field}.annotations")
    errors += _validate_annotations(annotations, spec, f"{field}.annotations")
    errors += validate_pod_spec(spec, f"{field}.spec", is_pod=False)
    if spec.get("ephemeralContainers"):
        message = "ephemeral containers not allowed in pod template"
        errors.append(forbidden(f"{field}.spec.ephemeralContainers", message))
    return errors


def _validate_annotations(annotations: Mapping[str, str], spec: Spec, field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if _MIRROR in annotations and not spec.get("nodeName"):
        message = "must set spec.nodeName if mirror pod annotation is set"
        errors.append(invalid(f"{field}[{_MIRROR}]", annotations[_MIRROR], message))
    cost = annotations.get(_DELETION_COST)
    if cost is not None and (not _is_cost(cost) or abs(int(cost)) > _INT32):
        errors.append(invalid(f"{field}[{_DELETION_COST}]", cost, "must be a 32bit integer"))
    return errors


def validate_pod_spec(spec: Spec, field: str, *, is_pod: bool) -> list[FieldError]:
    """A defaulted spec of a pod (`is_pod`) or of a template."""
    errors: list[FieldError] = []
    grace, policy = spec.get("terminationGracePeriodSeconds"), spec.get("restartPolicy") or ""
    if grace is None:
        errors.append(required(f"{field}.terminationGracePeriodSeconds"))
    volumes, wrong = validate_volumes(spec.get("volumes") or (), f"{field}.volumes")
    errors += wrong
    claims = spec.get("resourceClaims") or ()
    if claims:
        errors += _validate_claims(claims, f"{field}.resourceClaims")
    names = frozenset(claim.get("name") or "" for claim in claims)
    host_users = spec.get("hostUsers") is not False
    pod = PodContext(volumes, names, grace, policy, host_users=host_users, is_pod=is_pod)
    containers = spec.get("containers") or ()
    errors += validate_containers(containers, f"{field}.containers", pod)
    if initial := spec.get("initContainers"):
        errors += validate_init_containers(initial, containers, f"{field}.initContainers", pod)
    if temporary := spec.get("ephemeralContainers"):
        others = (*containers, *(initial or ()))
        errors += validate_ephemeral_containers(temporary, others, f"{field}.ephemeralContainers", pod)
    if spec.get("hostNetwork"):
        errors += _validate_host_network(containers, f"{field}.containers", is_pod=is_pod)
    errors += _one_of(policy, f"{field}.restartPolicy", _RESTART_POLICIES)
    errors += _one_of(spec.get("dnsPolicy") or "", f"{field}.dnsPolicy", _DNS_POLICIES)
    if selector := spec.get("nodeSelector"):
        errors += validate_labels(selector, f"{field}.nodeSelector")
    errors += validate_pod_security(spec, field)
    if affinity := spec.get("affinity"):
        errors += validate_affinity(affinity, f"{field}.affinity")
    errors += _validate_dns(spec.get("dnsConfig"), spec.get("dnsPolicy"), f"{field}.dnsConfig")
    for index, gate in enumerate(spec.get("readinessGates") or ()):
        kind, path = gate.get("conditionType") or "", f"{field}.readinessGates[{index}].conditionType"
        errors += [invalid(path, kind, message) for message in check_qualified_name(kind)]
    if gates := spec.get("schedulingGates"):
        errors += validate_gates(gates, f"{field}.schedulingGates")
    if constraints := spec.get("topologySpreadConstraints"):
        errors += validate_spread(constraints, f"{field}.topologySpreadConstraints")
    return errors + _validate_names(spec, field)


def _validate_names(spec: Spec, field: str) -> list[FieldError]:
    """The plain fields that name something or count something."""
    errors: list[FieldError] = []
    for key in ("serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"):
        value = spec.get(key)
        if value:
            errors += [invalid(f"{field}.{key}", value, message) for message in check_dns1123_subdomain(value)]
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= _INT32:
        errors.append(invalid(f"{field}.activeDeadlineSeconds", deadline, range_message(1, _INT32)))
    for key in ("hostname", "subdomain"):
        value = spec.get(key)
        if value:
            errors += [invalid(f"{field}.{key}", value, message) for message in check_dns1123_label(value)]
    if tolerations := spec.get("tolerations"):
        errors += validate_tolerations(tolerations, f"{field}.tolerations")
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        path = f"{field}.hostAliases[{index}]"
        errors += check_ip(f"{path}.ip", alias.get("ip") or "")
        errors += [
            invalid(f"{path}.hostnames[{place}]", name, message)
            for place, name in enumerate(alias.get("hostnames") or ())
            for message in check_dns1123_subdomain(name)
        ]
    preemption = spec.get("preemptionPolicy")
    if preemption is not None:
        errors += _one_of(preemption, f"{field}.preemptionPolicy", ("PreemptLowerPriority", "Never"))
    if overhead := spec.get("overhead"):
        errors += validate_resources({"limits": overhead}, f"{field}.overhead", frozenset())
    system = (spec.get("os") or {}).get("name")
    if spec.get("os") is not None and system not in ("linux", "windows"):
        errors.append(
            not_supported(f"{field}.os", system, ("linux", "windows"))
            if system
            else required(f"{field}.os.name", "cannot be empty")
        )
    return errors


def _one_of(value: str, field: str, valid: Sequence[str]) -> list[FieldError]:
    if value in valid:
        return []
    return [not_supported(field, value, valid)] if value else [required(field)]


def _validate_claims(claims: Sequence[Spec], field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, claim in enumerate(claims):
        path, name = f"{field}[{index}]", claim.get("name") or ""
        if not name:
            errors.append(required(f"{path}.name"))
        elif name in seen:
            errors.append(duplicate(f"{path}.name", name))
        else:
            errors += [invalid(f"{path}.name", name, message) for message in check_dns1123_label(name)]
        seen.add(name)
        given = [key for key in ("resourceClaimName", "resourceClaimTemplateName") if claim.get(key) is not None]
        if not given:
            message = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            errors.append(invalid(path, dict(claim), message))
        elif len(given) > 1:
            message = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            errors.append(invalid(path, dict(claim), message))
    return errors


def _validate_host_network(containers: Sequence[Spec], field: str, *, is_pod: bool) -> list[FieldError]:
    return [
        invalid(
            f"{field}[{index}].ports[{place}].hostPort",
            port.get("hostPort") or 0,
            "must match `containerPort` when `hostNetwork` is true",
        )
        for index, container in enumerate(containers)
        for place, port in enumerate(container.get("ports") or ())
        if (is_pod or port.get("hostPort")) and (port.get("hostPort") or 0) != (port.get("containerPort") or 0)
    ]


def _validate_dns(config: Spec | None, policy: str | None, field: str) -> list[FieldError]:
    if policy == "None":
        if config is None:
            return [required(field, "must provide `dnsConfig` when `dnsPolicy` is None")]
        if not config.get("nameservers"):
            message = "must provide at least one DNS nameserver when `dnsPolicy` is None"
            return [required(f"{field}.nameservers", message)]
    if config is None:
        return []
    errors: list[FieldError] = []
    servers, searches = config.get("nameservers") or (), config.get("searches") or ()
    if len(servers) > MAX_NAMESERVERS:
        message = f"must not have more than {MAX_NAMESERVERS} nameservers"
        errors.append(invalid(f"{field}.nameservers", list(servers), message))
    for index, server in enumerate(servers):
        errors += check_ip(f"{field}.nameservers[{index}]", server)
    if len(searches) > MAX_SEARCHES:
        message = f"must not have more than {MAX_SEARCHES} search paths"
        errors.append(invalid(f"{field}.searches", list(searches), message))
    if len(" ".join(searches)) > MAX_SEARCH_CHARACTERS:
        message = f"must not have more than {MAX_SEARCH_CHARACTERS} characters (including spaces) in the search list"
        errors.append(invalid(f"{field}.searches", list(searches), message))
    for index, search in enumerate(searches):
        name = search.removesuffix(".")
        if search == ".":
            continue
        if len(name) > 253:
            errors.append(invalid(f"{field}.searches[{index}]", name, "must be no more than 253 characters"))
        if not _is_search(name):
            errors.append(invalid(f"{field}.searches[{index}]", name, _SEARCH_MESSAGE))
    errors += [
        required(f"{field}.options[{index}]", "must not be empty")
        for index, option in enumerate(config.get("options") or ())
        if not option.get("name")
    ]
    return errors


def validate_pod_status(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[FieldError]:
    """What a node reports about a pod, beyond metadata."""
    spec, old_spec = new.get("spec") or {}, old.get("spec") or {}
    status, old_status = new.get("status") or {}, old.get("status") or {}
    errors: list[FieldError] = []
    for index, condition in enumerate(status.get("conditions") or ()):
        kind = condition.get("type") or ""
        if kind not in ("PodScheduled", "Ready", "Initialized"):
            path = f"metadata.conditions[{index}].Type"  # upstream's path
            errors += [invalid(path, kind, message) for message in check_qualified_name(kind)]
    if (spec.get("nodeName") or "") != (old_spec.get("nodeName") or ""):
        errors.append(forbidden("status.nodeName", "may not be changed directly"))
    nominated = status.get("nominatedNodeName")
    if nominated and nominated != old_status.get("nominatedNodeName"):
        messages = check_dns1123_subdomain(nominated)
        errors += [invalid("status.nominatedNodeName", nominated, message) for message in messages]
    quality = status.get("qosClass")
    if quality and old_status.get("qosClass"):
        errors += immutable(quality, old_status["qosClass"], "status.qosClass")
    policy = old_spec.get("restartPolicy")
    if policy != "Always":
        sidecars = {c.get("name") for c in old_spec.get("initContainers") or () if c.get("restartPolicy") == "Always"}
        for key, skipped in (("containerStatuses", set()), ("initContainerStatuses", sidecars)):
            before = old_status.get(key) or ()
            errors += _validate_states(status.get(key) or (), before, f"status.{key}", policy, skipped)
    for key, single in (("podIPs", "podIP"), ("hostIPs", "hostIP")):
        errors += _validate_addresses(status, key, single)
    return errors


def _validate_states(
    new: Sequence[Spec], old: Sequence[Spec], field: str, policy: str | None, skipped: set[Any]
) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, before in enumerate(old):
        terminated = (before.get("state") or {}).get("terminated")
        if terminated is None or before.get("name") in skipped:
            continue
        if terminated.get("exitCode") and policy == "OnFailure":
            continue
        for after in new:
            if after.get("name") == before.get("name") and (after.get("state") or {}).get("terminated") is None:
                errors.append(forbidden(f"{field}[{index}].state", "may not be transitioned to non-terminated state"))
    return errors


def _validate_addresses(status: Spec, key: str, single: str) -> list[FieldError]:
    several = status.get(key) or ()
    field = f"status.{key}"
    errors: list[FieldError] = []
    addresses = [item.get("ip") or "" for item in several]
    if several and key == "hostIPs" and status.get(single) != addresses[0]:
        errors.append(invalid(f"{field}[0].ip", addresses[0], f"must be equal to `{single}`"))
    for index, address in enumerate(addresses):
        errors += check_ip(f"{field}[{index}]", address)
    if len(addresses) > 1:
        if len(addresses) > 2 or len({family(address) for address in addresses}) < 2:
            message = "may specify no more than one IP for each IP family"
            errors.append(invalid(field, list(several), message))
        errors += [
            duplicate(f"{field}[{index}]", {"ip": address})
            for index, address in enumerate(addresses)
            if address in addresses[:index]
        ]
    return errors
