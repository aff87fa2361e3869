"""How fast an autoscaler may change a number: windows, policies, bounds.

Pure but for `Past`, which remembers. Source: upstream's pkg/controller/podautoscaler/horizontal.go. Without `behavior`
up is to double what is there, or to four; down waits until nothing within five minutes asked for more.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

Object = dict[str, Any]

DOWN_WINDOW = 300.0
_POLICIES: dict[str, list[Object]] = {
    "scaleUp": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
    "scaleDown": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
}
_WINDOWS = {"scaleUp": 0.0, "scaleDown": DOWN_WINDOW}
_HIGHER = "recent recommendations were higher than current one, applying the highest recent recommendation"
_LOWER = "recent recommendations were lower than current one, applying the lowest recent recommendation"
_FEW = "the desired replica count is less than the minimum replica count"
_MANY = "the desired replica count is more than the maximum replica count"
_FAST_UP = "the desired replica count is increasing faster than the maximum scale rate"
_FAST_DOWN = "the desired replica count is decreasing faster than the maximum scale rate"
_WITHIN = "the desired count is within the acceptable range"
Said = tuple[str, str, str]  # a condition, `!` before it if it does not hold; reason; message


class Past(msgspec.Struct):
    """What was recommended and what was done to one target, with the seconds of a clock at which it was."""

    recommended: list[tuple[float, int]] = []
    changes: list[tuple[float, int]] = []  # how many pods more, or fewer

    def scaled(self, at: float, by: int) -> None:
        """The target was scaled."""
        self.changes = [(when, much) for when, much in self.changes if when > at - 1800.0]
        self.changes.append((at, by))


class Paced(msgspec.Struct, frozen=True):
    """The number to scale to, and what the status says about it."""

    replicas: int
    said: list[Said]


def pace(hpa: Object, current: int, wanted: int, past: Past, now: float) -> Paced:
    """What of a recommendation is done now. Remembers it."""
    spec = hpa["spec"]
    least, most = int(spec.get("minReplicas") or 1), int(spec.get("maxReplicas") or 0)
    behavior = spec.get("behavior")
    if not past.recommended:
        past.recommended.append((now, current))  # so that the first look after a start takes nothing away
    if behavior is None:
        steady, why = _steadied(wanted, past, now), "ScaleDownStabilized"
        said: list[Said] = [("AbleToScale", "ReadyForNewScale", "recommended size matches current size")]
        if steady != wanted:
            said = [("AbleToScale", why, _HIGHER)]
        replicas, limited = _plain(current, steady, least, most)
    else:
        steady = _windowed(behavior, current, wanted, past, now)
        said = [("AbleToScale", "ReadyForNewScale", "recommended size matches current size")]
        if steady != wanted:
            up = wanted >= current
            said = [("AbleToScale", "ScaleUpStabilized" if up else "ScaleDownStabilized", _LOWER if up else _HIGHER)]
        replicas, limited = _by_rules(behavior, current, steady, (least, most), changes=past.changes, now=now)
    return Paced(replicas, [*said, limited])


def _remember(past: Past, wanted: int, now: float, longest: float) -> None:
    past.recommended = [(when, much) for when, much in past.recommended if when > now - longest]
    past.recommended.append((now, wanted))


def _steadied(wanted: int, past: Past, now: float) -> int:
    most = max([wanted, *(much for when, much in past.recommended if when > now - DOWN_WINDOW)])
    _remember(past, wanted, now, DOWN_WINDOW)
    return most


def _windowed(behavior: Object, current: int, wanted: int, past: Past, now: float) -> int:
    """The number within what was recommended in the two windows that is nearest to the current one."""
    up, down = _window(behavior, "scaleUp"), _window(behavior, "scaleDown")
    lowest = min([wanted, *(much for when, much in past.recommended if when > now - up)])
    highest = max([wanted, *(much for when, much in past.recommended if when > now - down)])
    _remember(past, wanted, now, max(up, down))
    return min(max(current, lowest), highest)


def _window(behavior: Object, way: str) -> float:
    given = (behavior.get(way) or {}).get("stabilizationWindowSeconds")
    return _WINDOWS[way] if given is None else float(given)


def _plain(current: int, wanted: int, least: int, most: int) -> tuple[int, Said]:
    limit = max(2 * current, 4)
    allowed, reason, message = (most, "TooManyReplicas", _MANY) if most <= limit else (limit, "ScaleUpLimit", _FAST_UP)
    if wanted < least:
        return least, ("ScalingLimited", "TooFewReplicas", _FEW)
    if wanted > allowed:
        return allowed, ("ScalingLimited", reason, message)
    return wanted, ("!ScalingLimited", "DesiredWithinRange", _WITHIN)


def _by_rules(
    behavior: Object,
    current: int,
    wanted: int,
    bounds: tuple[int, int],
    *,
    changes: list[tuple[float, int]],
    now: float,
) -> tuple[int, Said]:
    least, most = bounds
    if wanted > current:
        limit = max(current, up_limit(behavior.get("scaleUp") or {}, current, changes, now))
        if wanted > min(most, limit):
            said = ("ScaleUpLimit", _FAST_UP) if limit < most else ("TooManyReplicas", _MANY)
            return min(most, limit), ("ScalingLimited", *said)
    elif wanted < current:
        limit = min(current, down_limit(behavior.get("scaleDown") or {}, current, changes, now))
        if wanted < max(least, limit):
            said = ("ScaleDownLimit", _FAST_DOWN) if limit > least else ("TooFewReplicas", _FEW)
            return max(least, limit), ("ScalingLimited", *said)
    return wanted, ("!ScalingLimited", "DesiredWithinRange", _WITHIN)


def up_limit(rules: Object, current: int, changes: list[tuple[float, int]], now: float) -> int:
    """The most pods that the policies allow now."""
    if rules.get("selectPolicy") == "Disabled":
        return current
    limits: list[int] = []
    for policy in rules.get("policies") or _POLICIES["scaleUp"]:
        start = current - _changed(changes, now - policy["periodSeconds"])
        value = policy["value"]
        limits.append(start + value if policy["type"] == "Pods" else math.ceil(start * (100 + value) / 100))
    return min(limits) if rules.get("selectPolicy") == "Min" else max(limits)


def down_limit(rules: Object, current: int, changes: list[tuple[float, int]], now: float) -> int:
    """The fewest pods that the policies allow now."""
    if rules.get("selectPolicy") == "Disabled":
        return current
    limits: list[int] = []
    for policy in rules.get("policies") or _POLICIES["scaleDown"]:
        start = current - _changed(changes, now - policy["periodSeconds"])
        value = policy["value"]
        limits.append(start - value if policy["type"] == "Pods" else start * (100 - value) // 100)
    return max(limits) if rules.get("selectPolicy") == "Min" else min(limits)


def _changed(changes: list[tuple[float, int]], since: float) -> int:
    return sum(much for when, much in changes if when > since)
