"""Whether a request fits its namespace's quotas, and what the quotas' status is with it; and the recount."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fairlead.api.kinds import PODS, Resource
from fairlead.api.quantity import ZERO, Quantity, parse
from fairlead.api.quota import scopes
from fairlead.api.quota.usage import Amounts, amounts, compute, counts_for, names_of, usage

Object = Mapping[str, Any]

QUOTA_AMOUNTS = ("cpu", "memory", *(f"{side}.{name}" for side in ("requests", "limits") for name in ("cpu", "memory")))
"""What every container must say of itself once it is limited."""


class QuotaRefused(Exception):
    """A request does not fit. The message is upstream's."""


def charge(
    resource: Resource, new: Object, old: Object | None, quotas: Iterable[Object], now: datetime.datetime
) -> list[tuple[Object, dict[str, str]]]:
    """The quotas whose `status.used` a create (`old` is None) or update changes, each with what it becomes.

    QuotaRefused if the object exceeds one, does not say what one limits, or one was not counted yet.
    """
    matching = [quota for quota in quotas if _is_about(quota, resource, new)]
    for quota in matching:
        _check_said(quota, resource, new)
    if not matching:
        return []
    wanted = usage(resource, new, now)
    negative = [name for name, amount in wanted.items() if amount.nano < 0]
    if negative:
        raise QuotaRefused(f"quota usage is negative for resource(s): {names_of(negative)}")
    before = usage(resource, old, now) if old is not None else {}
    changed: list[tuple[Object, dict[str, str]]] = []
    for quota in matching:
        had = before if old is not None and _is_about(quota, resource, old) else {}
        more = {name: amount - had.get(name, ZERO) for name, amount in wanted.items()}
        used = _used_with(quota, {name: amount for name, amount in more.items() if amount.nano > 0})
        if used is not None:
            changed.append((quota, used))
    return changed


def counted(quota: Object, resource: Resource, objects: Iterable[Object], now: datetime.datetime) -> Amounts:
    """What objects of one kind use of a quota: every name it limits that such objects count for."""
    used = {name: ZERO for name in _hard(quota, "spec") if counts_for(resource, name)}
    for obj in objects:
        if resource == PODS and not scopes.matches(quota.get("spec") or {}, obj):
            continue
        for name, amount in usage(resource, obj, now).items():
            if name in used:
                used[name] += amount
    return used


def render(used: Mapping[str, Quantity]) -> dict[str, str]:
    """As a status has it."""
    return {name: str(amount) for name, amount in sorted(used.items())}


def _hard(quota: Object, part: str) -> dict[str, str]:
    return (quota.get(part) or {}).get("hard") or {}


def _is_about(quota: Object, resource: Resource, obj: Object) -> bool:
    """Whether the quota, as it was counted last, limits something this object counts for."""
    if not any(counts_for(resource, name) for name in _hard(quota, "status")):
        return False
    spec = quota.get("spec") or {}
    return scopes.matches(spec, obj) if resource == PODS else not scopes.requirements(spec)


def _check_said(quota: Object, resource: Resource, obj: Object) -> None:
    name, limited = quota["metadata"]["name"], [n for n in _hard(quota, "status") if counts_for(resource, n)]
    if resource == PODS:
        missing = _missing(obj, [n for n in limited if n in QUOTA_AMOUNTS])
        if missing:
            text = "; ".join(f"{what} for: {names_of(containers)}" for what, containers in sorted(missing.items()))
            raise QuotaRefused(f"failed quota: {name}: must specify {text}")
    used = (quota.get("status") or {}).get("used") or {}
    if any(n not in used for n in limited):
        raise QuotaRefused(f"status unknown for quota: {name}, resources: {names_of(limited)}")


def _missing(pod: Object, limited: Sequence[str]) -> dict[str, list[str]]:
    """What is limited and not said → the containers that don't."""
    missing: dict[str, list[str]] = {}
    spec = pod.get("spec") or {}
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        said = compute(amounts(container, "requests"), amounts(container, "limits"))
        for name in limited:
            if name not in said:
                missing.setdefault(name, []).append(container.get("name") or "")
    return missing


def _used_with(quota: Object, more: Amounts) -> dict[str, str] | None:
    """`status.used` with that added; None if it is none of the quota's business."""
    status = quota.get("status") or {}
    hard = {name: parse(value) for name, value in (status.get("hard") or {}).items()}
    used = {name: parse(value) for name, value in (status.get("used") or {}).items()}
    requested = {name: amount for name, amount in more.items() if name in hard}
    if not requested:
        return None
    exceeded = sorted(n for n, amount in requested.items() if hard[n] < used.get(n, ZERO) + amount)
    if exceeded:
        asked, there, limit = (_listed(exceeded, of) for of in (requested, used, hard))
        name = quota["metadata"]["name"]
        raise QuotaRefused(f"exceeded quota: {name}, requested: {asked}, used: {there}, limited: {limit}")
    return render(used | {name: used.get(name, ZERO) + amount for name, amount in requested.items()})


def _listed(names: Sequence[str], of: Amounts) -> str:
    return ",".join(f"{name}={of.get(name, ZERO)}" for name in names)
