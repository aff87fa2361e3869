"""ResourceQuotas: names that can be limited, amounts, and scopes that fit them. Source: `ValidateResourceQuota`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fairlead.api.errors import FieldError, invalid, required
from fairlead.api.labels import check_qualified_name
from fairlead.api.quota import QUOTA_AMOUNTS, scopes
from fairlead.api.validation.metadata import IMMUTABLE
from fairlead.api.validation.resources import is_for_quotas, is_standard, validate_amount

Object = Mapping[str, Any]

_UNSUPPORTED = "unsupported scope"
_NOT_FOR_RESOURCE = "unsupported scope applied to resource"
_CONFLICTING = ((scopes.BEST_EFFORT, scopes.NOT_BEST_EFFORT), (scopes.TERMINATING, scopes.NOT_TERMINATING))
_ONLY_EXISTS = (
    "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "
    "ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
)


def validate_resourcequota(obj: Object) -> list[FieldError]:
    """What is wrong with one."""
    spec = obj.get("spec") or {}
    hard = spec.get("hard") or {}
    return [*_amounts(hard, "spec.hard"), *_scopes(spec, hard), *_selector(spec, hard)]


def validate_resourcequota_update(new: Object, old: Object) -> list[FieldError]:
    """What it is about is decided once."""
    errors = validate_resourcequota(new)
    now, before = ((o.get("spec") or {}).get("scopes") or [] for o in (new, old))
    if set(now) != set(before):
        errors.append(invalid("spec.scopes", now, IMMUTABLE))
    return errors


def validate_resourcequota_status(new: Object, _: Object) -> list[FieldError]:
    """Names and amounts, as in a spec."""
    status = new.get("status") or {}
    return [e for part in ("hard", "used") for e in _amounts(status.get(part) or {}, f"status.{part}")]


def _amounts(amounts: Object, path: str) -> Iterator[FieldError]:
    for name, value in amounts.items():
        field = f"{path}[{name}]"
        yield from _name(name, field)
        yield from validate_amount(name, value, field)[1]


def _name(name: str, field: str) -> list[FieldError]:
    errors = [invalid(field, name, message) for message in check_qualified_name(name)]
    if "/" in name:
        return errors
    if not errors and not is_standard(name) and not is_for_quotas(name):
        errors.append(invalid(field, name, "must be a standard resource type or fully qualified"))
    if not is_for_quotas(name):
        errors.append(invalid(field, name, "must be a standard resource for quota"))
    return errors


def _fits(scope: str, hard: Iterable[str]) -> bool:
    """Whether a scope makes sense for every standard name that is limited."""
    allowed = {"pods"} if scope == scopes.BEST_EFFORT else {"pods", *QUOTA_AMOUNTS}
    return all(name in allowed for name in hard if is_for_quotas(name))


def _scopes(spec: Object, hard: Object) -> Iterator[FieldError]:
    given = spec.get("scopes") or []
    for scope in given:
        if scope not in scopes.POD_SCOPES:
            yield invalid("spec.scopes", given, _UNSUPPORTED)
        if not _fits(scope, hard):
            yield invalid("spec.scopes", given, _NOT_FOR_RESOURCE)
    for pair in _CONFLICTING:
        if set(pair) <= set(given):
            yield invalid("spec.scopes", given, "conflicting scopes")


def _selector(spec: Object, hard: Object) -> Iterator[FieldError]:
    selector = spec.get("scopeSelector")
    path = "spec.scopeSelector.matchExpressions"
    expressions = (selector or {}).get("matchExpressions") or ()
    for expression in expressions:
        scope, operator = expression.get("scopeName") or "", expression.get("operator") or ""
        if scope not in scopes.POD_SCOPES:
            yield invalid(f"{path}.scopeName", scope, _UNSUPPORTED)
        if not _fits(scope, hard):
            yield invalid(path, selector, _NOT_FOR_RESOURCE)
        if scope in scopes.POD_SCOPES and scope != scopes.PRIORITY_CLASS and operator != "Exists":
            yield invalid(f"{path}.operator", operator, _ONLY_EXISTS)
        yield from _operator(operator, expression.get("values") or [], path)
    named = {expression.get("scopeName") for expression in expressions}
    for pair in _CONFLICTING:
        if set(pair) <= named:
            yield invalid(path, spec.get("scopes") or [], "conflicting scopes")


def _operator(operator: str, values: list[str], path: str) -> Iterator[FieldError]:
    if operator in ("In", "NotIn"):
        if not values:
            text = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
            yield required(f"{path}.values", text)
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            text = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
            yield invalid(f"{path}.values", values, text)
    else:
        yield invalid(f"{path}.operator", operator, "not a valid selector operator")
