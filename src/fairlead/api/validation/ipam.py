"""ServiceCIDRs and IPAddresses: where cluster IPs come from, and who has one.

Source: upstream's `pkg/apis/networking/validation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.api.addresses import AddressError, check_cidr, check_ip, parse_cidr
from fairlead.api.errors import FieldError, invalid, required
from fairlead.api.labels import check_dns1123_subdomain, check_path_segment

Object = Mapping[str, Any]

_IMMUTABLE = "field is immutable"
_ONE_OF_EACH = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"


def check_ipaddress_name(name: str) -> list[str]:
    """An IPAddress is named by its address, in canonical form."""
    return [error.detail for error in check_ip("metadata.name", name, canonical=True)]


def validate_servicecidr(obj: Object) -> list[FieldError]:
    """One range, or one of each family."""
    spec = obj.get("spec") or {}
    cidrs = list(spec.get("cidrs") or ())
    if not cidrs:
        return [required("spec.cidrs", "at least one CIDR required")]
    if len(cidrs) > 2:
        return [invalid("spec.cidrs", spec, "may only hold up to 2 values")]
    if len(cidrs) == 2:
        try:
            dual = len({parse_cidr(cidr).version for cidr in cidrs}) == 2
        except AddressError:
            dual = False
        if not dual:
            return [invalid("spec.cidrs", spec, _ONE_OF_EACH)]
    errors: list[FieldError] = []
    for index, cidr in enumerate(cidrs):
        errors += check_cidr(f"spec.cidrs[{index}]", cidr, canonical=True)
    return errors


def validate_servicecidr_update(new: Object, old: Object) -> list[FieldError]:
    """Its ranges stay."""
    cidrs = (new.get("spec") or {}).get("cidrs")
    return [] if cidrs == (old.get("spec") or {}).get("cidrs") else [invalid("spec.cidrs", cidrs, _IMMUTABLE)]


def validate_ipaddress(obj: Object) -> list[FieldError]:
    """It says whose it is."""
    parent = (obj.get("spec") or {}).get("parentRef")
    if parent is None:
        return [required("spec.parentRef")]
    errors: list[FieldError] = []
    if parent.get("group"):
        messages = check_dns1123_subdomain(parent["group"])
        errors += [invalid("spec.parentRef.group", parent["group"], text) for text in messages]
    for part, must in (("resource", True), ("name", True), ("namespace", False)):
        value, path = parent.get(part), f"spec.parentRef.{part}"
        if value:
            errors += [invalid(path, value, text) for text in check_path_segment(value)]
        elif must:
            errors.append(required(path))
    return errors


def validate_ipaddress_update(new: Object, old: Object) -> list[FieldError]:
    """Its owner stays."""
    parent = (new.get("spec") or {}).get("parentRef")
    if parent == (old.get("spec") or {}).get("parentRef"):
        return []
    return [invalid("spec.parentRef", parent, _IMMUTABLE)]
