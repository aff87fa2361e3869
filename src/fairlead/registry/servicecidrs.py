"""Where cluster IPs may be taken from: the ranges the cluster was started with, then those of ServiceCIDR objects.

Stands beside services.py. Invariant: an address of a ServiceCIDR is claimed only in a commit that requires the
ServiceCIDR to be as it was seen: ready, and not on its way out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from fairlead.api.kinds import SERVICECIDRS
from fairlead.registry.allocation import AddressPool, Refused
from fairlead.registry.stored import prefix_of
from fairlead.store.interface import Record, Require, Store

Object = dict[str, Any]


class ServiceRanges:
    """The pools of each family. `given`: the CIDRs of the flags, which need no object to be used."""

    def __init__(self, store: Store, given: Sequence[str]) -> None:
        self._store = store
        self._given = [AddressPool(cidr) for cidr in given]
        self.families = {pool.family for pool in self._given}

    async def pools(self, family: str) -> list[AddressPool]:
        """Those of one family, the cluster's own first, the others by name."""
        chosen = [pool for pool in self._given if pool.family == family]
        known = {pool.network for pool in chosen}
        for record in (await self._store.list(prefix_of(SERVICECIDRS))).records:
            for pool in _pools_of(record):
                if pool.family == family and pool.network not in known:
                    known.add(pool.network)
                    chosen.append(pool)
        return chosen


def is_usable(cidr: Object) -> bool:
    """Addresses may be taken from that ServiceCIDR."""
    conditions = (cidr.get("status") or {}).get("conditions") or []
    ready = any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)
    return ready and not cidr["metadata"].get("deletionTimestamp")


def pool_of(pools: Sequence[AddressPool], ip: str) -> AddressPool:
    """The pool that has `ip`. Refused if none has, in upstream's words."""
    for pool in pools:
        try:
            pool.index(ip)
        except Refused:
            continue
        return pool
    ranges = ", ".join(str(pool.network) for pool in pools)
    raise Refused(f"the provided IP ({ip}) is not in the valid range. The range of valid IPs is {ranges}")


def _pools_of(record: Record) -> list[AddressPool]:
    """A record's pools, made once."""
    pools: list[AddressPool] | None = record.__dict__.get("pools")
    if pools is None:
        cidr = orjson.loads(record.value)
        usable = is_usable(cidr)
        condition = Require(record.key, record.modified)
        pools = [AddressPool(text, condition) for text in cidr["spec"]["cidrs"]] if usable else []
        record.__dict__["pools"] = pools
    return pools
