"""Endpoints and EndpointSlices: addresses traffic can be sent to, and the ports they serve.

A slice's endpoints are checked only when they change: what an older server took stays usable.
Source: kubernetes `pkg/apis/core/validation`, `pkg/apis/discovery/validation`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fairlead.api.addresses import check_ip, check_not_special, family
from fairlead.api.errors import FieldError, duplicate, invalid, not_supported, required, too_many
from fairlead.api.labels import (
    check_dns1123_label,
    check_dns1123_subdomain,
    check_label_value,
    check_port_number,
    check_qualified_name,
    validate_labels,
)
from fairlead.api.validation.metadata import immutable
from fairlead.api.validation.service import PROTOCOLS

ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")
MAX_ENDPOINTS = 1000
MAX_ADDRESSES = 100
MAX_PORTS = 20000
MAX_HINTS = 8
MAX_TOPOLOGY_LABELS = 16


def validate_endpoints(obj: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[FieldError]:
    """Endpoints, beyond their metadata."""
    subsets = obj.get("subsets") or ()
    before = (old or {}).get("subsets") or ()
    if old is not None and subsets == before:
        return []
    kept = {
        address.get("ip")
        for subset in before
        for key in ("addresses", "notReadyAddresses")
        for address in subset.get(key) or ()
    }
    errors: list[FieldError] = []
    for index, subset in enumerate(subsets):
        field = f"subsets[{index}]"
        ports = subset.get("ports") or ()
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            errors.append(required(field, "must specify `addresses` or `notReadyAddresses`"))
        for key in ("addresses", "notReadyAddresses"):
            for place, address in enumerate(subset.get(key) or ()):
                errors += _validate_address(address, f"{field}.{key}[{place}]", kept)
        for place, port in enumerate(ports):
            errors += _validate_port(port, f"{field}.ports[{place}]", name_required=len(ports) > 1)
    return errors


def _validate_address(address: Mapping[str, Any], field: str, kept: set[Any]) -> list[FieldError]:
    ip, hostname, node = address.get("ip") or "", address.get("hostname"), address.get("nodeName")
    errors = check_ip(f"{field}.ip", ip, kept=kept)
    if hostname:
        errors += [invalid(f"{field}.hostname", hostname, message) for message in check_dns1123_label(hostname)]
    if node is not None:
        errors += [invalid(f"{field}.nodeName", node, message) for message in check_dns1123_subdomain(node)]
    return errors + check_not_special(f"{field}.ip", ip)


def _validate_port(port: Mapping[str, Any], field: str, *, name_required: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    name, number = port.get("name") or "", port.get("port") or 0
    if name:
        errors += [invalid(f"{field}.name", name, message) for message in check_dns1123_label(name)]
    elif name_required:
        errors.append(required(f"{field}.name"))
    errors += [invalid(f"{field}.port", number, message) for message in check_port_number(number)]
    return errors + _validate_protocols(port, field)


def _validate_protocols(port: Mapping[str, Any], field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    protocol, application = port.get("protocol"), port.get("appProtocol")
    if not protocol:
        errors.append(required(f"{field}.protocol"))
    elif protocol not in PROTOCOLS:
        errors.append(not_supported(f"{field}.protocol", protocol, PROTOCOLS))
    if application is not None:
        errors += [
            invalid(f"{field}.appProtocol", application, message) for message in check_qualified_name(application)
        ]
    return errors


def validate_endpointslice(obj: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[FieldError]:
    """An EndpointSlice, beyond its metadata; with `old`, a change to one."""
    errors: list[FieldError] = []
    kind, endpoints = obj.get("addressType") or "", obj.get("endpoints") or ()
    if not kind:
        errors.append(required("addressType"))
    elif kind not in ADDRESS_TYPES:
        errors.append(not_supported("addressType", kind, ADDRESS_TYPES))
    errors += _validate_slice_ports(obj.get("ports") or ())
    before = (old or {}).get("endpoints") or ()
    if old is None or endpoints != before:
        if len(endpoints) > MAX_ENDPOINTS:
            errors.append(too_many("endpoints", len(endpoints), MAX_ENDPOINTS))
        else:
            kept = {address for endpoint in before for address in endpoint.get("addresses") or ()}
            for index, endpoint in enumerate(endpoints):
                errors += _validate_endpoint(endpoint, kind, f"endpoints[{index}]", kept)
    if old is not None:
        errors += immutable(kind, old.get("addressType"), "addressType")
    return errors


def _validate_slice_ports(ports: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    if len(ports) > MAX_PORTS:
        return [too_many("ports", len(ports), MAX_PORTS)]
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, port in enumerate(ports):
        field, name = f"ports[{index}]", port.get("name") or ""
        if name:
            errors += [invalid(f"{field}.name", name, message) for message in check_dns1123_label(name)]
        if name in names:
            errors.append(duplicate(f"{field}.name", name))
        names.add(name)
        errors += _validate_protocols(port, field)
    return errors


def _validate_endpoint(endpoint: Mapping[str, Any], kind: str, field: str, kept: set[str]) -> list[FieldError]:
    errors: list[FieldError] = []
    addresses = endpoint.get("addresses") or ()
    if not addresses:
        errors.append(required(f"{field}.addresses", "must contain at least 1 address"))
    elif len(addresses) > MAX_ADDRESSES:
        errors.append(too_many(f"{field}.addresses", len(addresses), MAX_ADDRESSES))
    for index, address in enumerate(addresses):
        path = f"{field}.addresses[{index}]"
        if kind == "FQDN":
            errors += _validate_domain(address, path)
        elif kind in ("IPv4", "IPv6"):
            wrong = check_ip(path, address, kept=kept)
            if not wrong and family(address) not in (kind, None):
                wrong = [invalid(path, address, f"must be an {kind} address")]
            errors += wrong or check_not_special(path, address)
    node, hostname = endpoint.get("nodeName"), endpoint.get("hostname")
    if node is not None:
        errors += [invalid(f"{field}.nodeName", node, message) for message in check_dns1123_subdomain(node)]
    topology = endpoint.get("deprecatedTopology")
    if topology:
        if len(topology) > MAX_TOPOLOGY_LABELS:
            errors.append(too_many(f"{field}.deprecatedTopology", len(topology), MAX_TOPOLOGY_LABELS))
        errors += validate_labels(topology, f"{field}.deprecatedTopology")
    if hostname is not None:
        errors += [invalid(f"{field}.hostname", hostname, message) for message in check_dns1123_label(hostname)]
    hints = endpoint.get("hints")
    if hints:
        errors += _validate_hints(hints.get("forZones") or (), f"{field}.hints.forZones", check_label_value)
        errors += _validate_hints(hints.get("forNodes") or (), f"{field}.hints.forNodes", check_dns1123_subdomain)
    return errors


def _validate_domain(name: str, field: str) -> list[FieldError]:
    if not name:
        return [required(field)]
    bare = name.removesuffix(".")
    messages = check_dns1123_subdomain(bare)
    if messages:
        return [invalid(field, bare, ",".join(messages))]
    if "." not in bare:
        return [invalid(field, bare, "should be a domain with at least two segments separated by dots")]
    for label in bare.split("."):
        messages = check_dns1123_label(label)
        if messages:
            return [invalid(field, label, ",".join(messages))]
    return []


def _validate_hints(hints: Sequence[Mapping[str, Any]], field: str, check: Any) -> list[FieldError]:
    if len(hints) > MAX_HINTS:
        return [too_many(field, len(hints), MAX_HINTS)]
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, hint in enumerate(hints):
        name = hint.get("name") or ""
        if name in names:
            errors.append(duplicate(f"{field}[{index}].name", name))
        names.add(name)
        errors += [invalid(f"{field}[{index}].name", name, message) for message in check(name)]
    return errors
