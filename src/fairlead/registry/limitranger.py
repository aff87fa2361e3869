"""The admission of pods and claims by the LimitRanges of their namespace.

Stands beside pods.py and storage.py. Invariant: a pod that is created, and a claim that is created or grows, is within
every LimitRange that was there then.
"""

from __future__ import annotations

from typing import Any

import orjson

from fairlead.api import limits
from fairlead.api.errors import access_forbidden
from fairlead.api.kinds import LIMITRANGES, PERSISTENTVOLUMECLAIMS, PODS, Resource
from fairlead.registry.stored import prefix_of
from fairlead.store.interface import Store

Object = dict[str, Any]


async def apply_limit_ranges(store: Store, pod: Object) -> None:
    """Fill in the pod's requests and limits, and check them. 403 in upstream's words."""
    items = await _items(store, pod)
    if items:
        limits.fill_in(pod, items)
        _refuse(PODS, pod, limits.violations(pod, items))


async def check_limit_ranges(store: Store, claim: Object) -> None:
    """Check a claim. 403 in upstream's words."""
    _refuse(PERSISTENTVOLUMECLAIMS, claim, limits.claim_violations(claim, await _items(store, claim)))


async def _items(store: Store, obj: Object) -> list[Object]:
    records = (await store.list(prefix_of(LIMITRANGES, obj["metadata"].get("namespace") or "default"))).records
    return [item for record in records for item in (orjson.loads(record.value).get("spec") or {}).get("limits") or ()]


def _refuse(resource: Resource, obj: Object, found: list[str]) -> None:
    if found:
        name = obj["metadata"].get("name") or obj["metadata"].get("generateName", "")
        text = found[0] if len(found) == 1 else f"[{', '.join(found)}]"
        raise access_forbidden(f'{resource.plural} "{name}" is forbidden: {text}', resource.plural, "", name)
