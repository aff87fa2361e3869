"""The admission of objects by the ResourceQuotas of their namespace.

Stands beside writing.py. Invariant: an object that counts for a quota is written in the same commit as the quota's new
`status.used`, decided on the quota as it was seen: whatever races, the sum of what passed never exceeds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakValueDictionary

from fairlead.api import quota
from fairlead.api.errors import access_forbidden
from fairlead.api.kinds import RESOURCEQUOTAS, Resource
from fairlead.registry.requests import RequestContext
from fairlead.registry.stored import decode, encode, key_of, prefix_of
from fairlead.store.interface import CompareFailed, Operation, Put, Record, Store

Object = dict[str, Any]

_PREFIX = prefix_of(RESOURCEQUOTAS)


class Quotas:
    """Charges quotas, in a namespace that has some for one write after the other: of many that race each would make all
    others decide anew. (Other API servers' writes still do.)"""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def charged(
        self, resource: Resource, new: Object, old: Object | None, ctx: RequestContext, *, subresource: str = ""
    ) -> AsyncIterator[list[Operation]]:
        """What to commit with the object, within the context. 403 in upstream's words if it does not fit."""
        namespace = new["metadata"].get("namespace") or ""
        settled = bool(subresource) or (old is not None and not quota.measured_on_update(resource))
        if settled or not resource.namespaced or not await self._of(namespace):
            yield []
        else:
            async with self._turns.setdefault(namespace, asyncio.Lock()):
                yield _charge(resource, new, old, ctx, await self._of(namespace))

    async def _of(self, namespace: str) -> Sequence[Record]:
        return (await self._store.list(prefix_of(RESOURCEQUOTAS, namespace))).records


def _charge(
    resource: Resource, new: Object, old: Object | None, ctx: RequestContext, records: Sequence[Record]
) -> list[Operation]:
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
