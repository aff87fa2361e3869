"""Resource names and quantities: what containers ask for and what nodes have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.api.errors import FieldError, duplicate, forbidden, invalid, required
from fairlead.api.labels import check_qualified_name
from fairlead.api.quantity import Quantity, QuantityError, parse
from fairlead.api.validation.metadata import NOT_NEGATIVE

_FOR_CONTAINERS = frozenset({"cpu", "memory", "ephemeral-storage"})
_WHOLE = frozenset(
    {
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    }
)
_STANDARD = (
    _FOR_CONTAINERS
    | _WHOLE
    | {"storage", "requests.storage"}
    | {f"{side}.{name}" for side in ("requests", "limits") for name in _FOR_CONTAINERS}
)


def is_standard(name: str) -> bool:
    """Whether it is one of Kubernetes' own resource names."""
    return name in _STANDARD or _is_huge_page(name)


def is_for_quotas(name: str) -> bool:
    """Whether a quota can limit it by that name (`count/…` and others with a slash aside)."""
    return (name in _STANDARD and name != "storage") or name.startswith(("hugepages-", "requests.hugepages-"))


def _is_huge_page(name: str) -> bool:
    return name.startswith("hugepages-")


def _is_native(name: str) -> bool:
    return "/" not in name or "kubernetes.io/" in name


def _is_extended(name: str) -> bool:
    return not _is_native(name) and not name.startswith("requests.") and not check_qualified_name(f"requests.{name}")


def _can_overcommit(name: str) -> bool:
    return _is_native(name) and not _is_huge_page(name)


def validate_amount(name: str, value: Any, field: str) -> tuple[Quantity | None, list[FieldError]]:
    """The quantity under a resource name, and what is wrong with it."""
    try:
        amount = parse(value)
    except QuantityError as error:
        return None, [invalid(field, value, str(error))]
    errors: list[FieldError] = []
    if amount.nano < 0:
        errors.append(invalid(field, str(amount), NOT_NEGATIVE))
    if (name in _WHOLE or _is_extended(name)) and amount.nano % 10**9:
        errors.append(invalid(field, str(amount), "must be an integer"))
    return amount, errors


def _validate_container_name(name: str, field: str) -> list[FieldError]:
    if name in _FOR_CONTAINERS:
        return []
    errors = [invalid(field, name, message) for message in check_qualified_name(name)]
    standard = _is_huge_page(name)
    if not errors and "/" not in name and name not in _STANDARD and not standard:
        errors.append(invalid(field, name, "must be a standard resource type or fully qualified"))
    if "/" not in name:
        if not standard:
            errors.append(invalid(field, name, "must be a standard resource for containers"))
    elif not _is_native(name) and not _is_extended(name):
        errors.append(invalid(field, name, "doesn't follow extended resource name standard"))
    return errors


def validate_resources(resources: Mapping[str, Any] | None, field: str, claims: frozenset[str]) -> list[FieldError]:
    """Limits and requests of a container, and the claims it names (`claims`: those the pod has)."""
    if not resources:
        return []
    errors: list[FieldError] = []
    limits: dict[str, Quantity] = {}
    names: set[str] = set()
    for name, value in (resources.get("limits") or {}).items():
        path = f"{field}.limits[{name}]"
        amount, wrong = validate_amount(name, value, path)
        errors += _validate_container_name(name, path) + wrong
        names.add(name)
        if amount is not None:
            limits[name] = amount
    for name, value in (resources.get("requests") or {}).items():
        path = f"{field}.requests[{name}]"
        amount, wrong = validate_amount(name, value, path)
        errors += _validate_container_name(name, path) + wrong
        names.add(name)
        limit = limits.get(name)
        if limit is None:
            if not _can_overcommit(name):
                errors.append(required(f"{field}.limits", "Limit must be set for non overcommitable resources"))
        elif amount is not None and amount != limit and not _can_overcommit(name):
            errors.append(invalid(f"{field}.requests", str(amount), f"must be equal to {name} limit of {limit}"))
        elif amount is not None and limit < amount:
            message = f"must be less than or equal to {name} limit of {limit}"
            errors.append(invalid(f"{field}.requests", str(amount), message))
    if any(map(_is_huge_page, names)) and not names & {"cpu", "memory"}:
        errors.append(forbidden(field, "HugePages require cpu or memory"))
    return errors + _validate_claims(resources.get("claims") or (), f"{field}.claims", claims)


def _validate_claims(named: Any, field: str, claims: frozenset[str]) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, claim in enumerate(named):
        name = claim.get("name") or ""
        if not name:
            errors.append(required(f"{field}[{index}]"))
            continue
        key = f"{name}/{claim['request']}" if claim.get("request") else name
        if key in seen:
            errors.append(duplicate(f"{field}[{index}]", key))
        seen.add(key)
        if name not in claims:
            known = f": {', '.join(sorted(claims))}" if claims else " which is empty"
            detail = f"must be one of the names in pod.spec.resourceClaims{known}"
            errors.append(FieldError("FieldValueNotFound", f"{field}[{index}]", name, detail))
    return errors
