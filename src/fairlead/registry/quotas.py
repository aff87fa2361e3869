"""The admission of objects by the ResourceQuotas of their namespace.

Stands beside writing.py. Invariant: an object that counts for a quota is written in the same commit as the quota's new
`status.used`, decided on the quota as it was seen: whatever races, the sum of what passed never exceeds it.
"""

from __future__ import annotations

from typing import Any

from fairlead.api import quota
from fairlead.api.errors import access_forbidden
from fairlead.api.kinds import RESOURCEQUOTAS, Resource
from fairlead.registry.requests import RequestContext
from fairlead.registry.stored import decode, encode, key_of, prefix_of
from fairlead.store.interface import CompareFailed, Operation, Put, Store

Object = dict[str, Any]

_PREFIX = prefix_of(RESOURCEQUOTAS)


async def charge_quotas(
    store: Store, resource: Resource, new: Object, old: Object | None, ctx: RequestContext
) -> list[Operation]:
    """What to commit with the object. 403 in upstream's words if it does not fit."""
    if not resource.namespaced or (old is not None and not quota.measured_on_update(resource)):
        return []
    records = (await store.list(prefix_of(RESOURCEQUOTAS, new["metadata"]["namespace"]))).records
    if not records:
        return []
    seen = {record.key: record for record in records}
    quotas = [decode(RESOURCEQUOTAS, record) for record in records]
    try:
        changed = quota.charge(resource, new, old, quotas, ctx.now)
    except quota.QuotaRefused as refused:
        name = new["metadata"].get("name") or new["metadata"].get("generateName", "")
        message = f'{resource.group_plural} "{name}" is forbidden: {refused}'
        raise access_forbidden(message, resource.plural, resource.group, name) from None
    operations: list[Operation] = []
    for obj, used in changed:
        record = seen[key_of(RESOURCEQUOTAS, obj["metadata"]["namespace"], obj["metadata"]["name"])]
        after = {**obj, "status": {**obj["status"], "used": used}}
        operations.append(Put(record.key, encode(RESOURCEQUOTAS, after), expected=record.modified))
    return operations


def counted_meanwhile(failed: CompareFailed) -> bool:
    """Whether a commit failed because a quota was charged for something else in between."""
    return failed.key.startswith(_PREFIX)
