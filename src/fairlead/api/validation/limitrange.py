"""LimitRanges: each kind of limit once, and its numbers in order.

Source: upstream's `ValidateLimitRange`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fairlead.api import quantity
from fairlead.api.errors import FieldError, duplicate, forbidden, invalid, not_supported, required

Object = Mapping[str, Any]

TYPES = ("Container", "PersistentVolumeClaim", "Pod")
_LISTS = ("min", "max", "default", "defaultRequest", "maxLimitRequestRatio")


def validate_limitrange(obj: Object) -> list[FieldError]:
    """What is wrong with one."""
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, item in enumerate((obj.get("spec") or {}).get("limits") or ()):
        path, kind = f"spec.limits[{index}]", item.get("type") or ""
        if kind not in TYPES:
            errors.append(not_supported(f"{path}.type", kind, TYPES))
            continue
        if kind in seen:
            errors.append(duplicate(f"{path}.type", kind))
        seen.add(kind)
        if kind == "PersistentVolumeClaim" and not any("storage" in (item.get(part) or {}) for part in ("min", "max")):
            text = "either minimum or maximum storage value is required, but neither was provided"
            errors.append(required(f"{path}.limits", text))
        bad = list(_unreadable(item, path))
        errors += bad or _order(item, path, kind)
    return errors


def _unreadable(item: Object, path: str) -> Iterator[FieldError]:
    for field in _LISTS:
        for name, value in (item.get(field) or {}).items():
            try:
                quantity.parse(value)
            except quantity.QuantityError as error:
                yield invalid(f"{path}.{field}[{name}]", value, str(error))


def _order(item: Object, path: str, kind: str) -> Iterator[FieldError]:
    if kind == "Pod":
        for field in ("default", "defaultRequest"):
            if item.get(field):
                yield forbidden(f"{path}.{field}", "may not be specified when `type` is 'Pod'")
    rising = ("min", "defaultRequest", "default", "max")
    words = {"min": "min", "defaultRequest": "default request", "default": "default", "max": "max"}
    for low_at, low in enumerate(rising):
        for high in rising[low_at + 1 :]:
            for name, value in sorted((item.get(low) or {}).items()):
                limit = (item.get(high) or {}).get(name)
                if limit is not None and quantity.compare(value, limit) > 0:
                    text = f"{words[low]} value {value} is greater than {words[high]} value {limit}"
                    yield invalid(f"{path}.{low}[{name}]", value, text)
    for name, ratio in sorted((item.get("maxLimitRequestRatio") or {}).items()):
        if quantity.compare(ratio, "1") < 0:
            yield invalid(f"{path}.maxLimitRequestRatio[{name}]", ratio, f"ratio {ratio} is less than 1")
