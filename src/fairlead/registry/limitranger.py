"""The admission of pods by the LimitRanges of their namespace.

Stands beside pods.py. Invariant: a pod that is created is within every LimitRange that was there then.
"""

from __future__ import annotations

from typing import Any

import orjson

from fairlead.api import limits
from fairlead.api.errors import access_forbidden
from fairlead.api.kinds import LIMITRANGES, PODS
from fairlead.registry.stored import prefix_of
from fairlead.store.interface import Store

Object = dict[str, Any]


async def apply_limit_ranges(store: Store, pod: Object) -> None:
    """Fill in the pod's requests and limits, and check them. 403 in upstream's words."""
    metadata = pod["metadata"]
    records = (await store.list(prefix_of(LIMITRANGES, metadata.get("namespace") or "default"))).records
    items = [item for record in records for item in (orjson.loads(record.value).get("spec") or {}).get("limits") or ()]
    if not items:
        return
    limits.fill_in(pod, items)
    found = limits.violations(pod, items)
    if found:
        name = metadata.get("name") or metadata.get("generateName", "")
        text = found[0] if len(found) == 1 else f"[{', '.join(found)}]"
        raise access_forbidden(f'pods "{name}" is forbidden: {text}', PODS.plural, "", name)
