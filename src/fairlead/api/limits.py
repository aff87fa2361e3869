"""LimitRanges: what a namespace's containers get where they say nothing, and how much they, and claims, may ask for.

Pure; asked at the admission of a pod or claim. Invariant: what a container says itself is never changed.
Source: upstream's `plugin/pkg/admission/limitranger`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fairlead.api import quantity, storage

Object = dict[str, Any]

ANNOTATION = "kubernetes.io/limit-ranger"
_RATIO = "{} max limit to request ratio per {} is {}, "


def default_limitrange(obj: Object) -> None:
    """What a limit of containers leaves out: a default limit is the maximum, a default request the default limit, else
    the minimum."""
    for item in (obj.get("spec") or {}).get("limits") or ():
        if item.get("type") != "Container":
            continue
        wanted = dict(item.get("max") or {}) | (item.get("default") or {})
        requested = dict(item.get("min") or {}) | wanted | (item.get("defaultRequest") or {})
        for field, values in (("default", wanted), ("defaultRequest", requested)):
            if values:
                item[field] = values


def fill_in(pod: Object, items: Sequence[Object]) -> None:
    """Give the pod's containers their default requests and limits, and say so in an annotation."""
    said: list[str] = []
    limits: Object = {}
    requests: Object = {}
    for item in items:
        if item.get("type") == "Container":
            limits = dict(item.get("default") or {}) | limits
            requests = dict(item.get("defaultRequest") or {}) | requests
    for field, word in (("containers", "container"), ("initContainers", "init container")):
        for container in pod["spec"].get(field) or ():
            resources = container.get("resources") or {}
            for part, values, what in (("requests", requests, "request"), ("limits", limits, "limit")):
                missing = {name: value for name, value in values.items() if name not in (resources.get(part) or {})}
                if missing:
                    resources[part] = dict(resources.get(part) or {}) | missing
                    said.append(f"{', '.join(sorted(missing))} {what} for {word} {container.get('name', '')}")
            if resources:
                container["resources"] = resources
    if said:
        annotations = pod["metadata"].setdefault("annotations", {})
        annotations[ANNOTATION] = "LimitRanger plugin set: " + "; ".join(said)


def violations(pod: Object, items: Iterable[Object]) -> list[str]:
    """What of the pod is beyond what is allowed."""
    found: list[str] = []
    for item in items:
        kind = item.get("type")
        if kind == "Container":
            for field in ("containers", "initContainers"):
                for container in pod["spec"].get(field) or ():
                    resources = container.get("resources") or {}
                    found += _check(item, resources.get("requests") or {}, resources.get("limits") or {})
        elif kind == "Pod":
            found += _check(item, _whole(pod, "requests"), _whole(pod, "limits"))
    return found


def claim_violations(claim: Object, items: Iterable[Object]) -> list[str]:
    """What of a claim is beyond what is allowed."""
    wanted = storage.wanted(claim)
    found: list[str] = []
    for item in items:
        if item.get("type") != "PersistentVolumeClaim":
            continue
        for word, bounds, sign in (("minimum", item.get("min"), -1), ("maximum", item.get("max"), 1)):
            for name, bound in sorted((bounds or {}).items()):
                head = f"{word} {name} usage per PersistentVolumeClaim is {quantity.canonical(bound)}"
                if name != "storage":
                    found.append(f"{head}.  No request is specified")
                elif quantity.compare(wanted, bound) == sign:
                    found.append(f"{head}, but request is {quantity.canonical(wanted)}")
    return found


def _whole(pod: Object, part: str) -> dict[str, str]:
    """Of the pod as a whole: its containers and sidecars together, or the init container that takes most."""
    total: dict[str, str] = {}
    first: list[Mapping[str, str]] = []
    for field in ("containers", "initContainers"):
        for container in pod["spec"].get(field) or ():
            values = (container.get("resources") or {}).get(part) or {}
            if field == "initContainers" and container.get("restartPolicy") != "Always":
                first.append(values)
                continue
            for name, value in values.items():
                total[name] = quantity.add(total[name], value) if name in total else str(value)
    for values in first:
        for name, value in values.items():
            if name not in total or quantity.compare(value, total[name]) > 0:
                total[name] = str(value)
    return total


def _check(item: Object, requests: Mapping[str, str], limits: Mapping[str, str]) -> Iterator[str]:
    kind = item["type"]
    for name, least in sorted((item.get("min") or {}).items()):
        head = f"minimum {name} usage per {kind} is {quantity.canonical(least)}"
        if name not in requests:
            yield f"{head}.  No request is specified"
        elif quantity.compare(requests[name], least) < 0:
            yield f"{head}, but request is {quantity.canonical(requests[name])}"
        elif name in limits and quantity.compare(limits[name], least) < 0:
            yield f"{head}, but limit is {quantity.canonical(limits[name])}"
    for name, most in sorted((item.get("max") or {}).items()):
        head = f"maximum {name} usage per {kind} is {quantity.canonical(most)}"
        if name not in limits:
            yield f"{head}.  No limit is specified"
        elif quantity.compare(limits[name], most) > 0:
            yield f"{head}, but limit is {quantity.canonical(limits[name])}"
        elif name in requests and quantity.compare(requests[name], most) > 0:
            yield f"{head}, but request is {quantity.canonical(requests[name])}"
    for name, ratio in sorted((item.get("maxLimitRequestRatio") or {}).items()):
        head = _RATIO.format(name, kind, quantity.canonical(ratio))
        request = quantity.parse(requests.get(name, "0")).nano
        if not request:
            yield f"{head}but no request is specified or request is 0"
        elif name not in limits or not quantity.parse(limits[name]).nano:
            yield f"{head}but no limit is specified or limit is 0"
        else:
            actual = quantity.parse(limits[name]).nano / request
            if actual > float(quantity.to_decimal(quantity.parse(ratio))):
                yield f"{head}but provided ratio is {actual:f}"
