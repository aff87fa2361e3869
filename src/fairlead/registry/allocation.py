"""Cluster IPs and node ports: ranges, bands, and who has what.

An allocation is a key of its own (of a cluster IP its IPAddress object, of a node port `allocations/nodeports/<port>`),
put with "must not exist" in the same commit as the Service that owns it and deleted in the commit that gives it up.
Invariant: nothing is handed out twice and nothing leaks, whatever races or crashes, because the store decides.
Source of the bands: KEP-3070 (cluster IPs), KEP-3668 (node ports).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Any, Protocol

import msgspec
import orjson

from fairlead.api.kinds import IPADDRESSES, SERVICES
from fairlead.registry.metadata import fill_for_create
from fairlead.registry.requests import Dice
from fairlead.registry.stored import encode, prefix_of
from fairlead.store.interface import Delete, Operation, Put, Record, Require, Store

Object = dict[str, Any]

MANAGED_BY = "ipaddress.kubernetes.io/managed-by"
IP_FAMILY = "ipaddress.kubernetes.io/ip-family"
ALLOCATOR = "ipallocator.k8s.io"

_TRIES = 32
_MAX_SIZE = 1 << 16  # of an IPv6 range that is used: upstream's bitmap is not larger


class Refused(Exception):
    """An allocation can't be had; the message is upstream's."""


class Owner(msgspec.Struct, frozen=True):
    """The Service something is claimed for, and with what its objects are made."""

    namespace: str
    name: str
    clock: Callable[[], datetime]
    dice: Dice

    def address(self, ip: str) -> bytes:
        """The IPAddress object that claims `ip`, as it is stored."""
        metadata: Object = {
            "name": ip,
            "labels": {IP_FAMILY: f"IPv{ip_address(ip).version}", MANAGED_BY: ALLOCATOR},
        }
        fill_for_create(metadata, self.clock(), self.dice)
        parent = {"group": "", "resource": SERVICES.plural, "namespace": self.namespace, "name": self.name}
        obj = {"kind": "IPAddress", "apiVersion": IPADDRESSES.api_version, "metadata": metadata}
        return encode(IPADDRESSES, obj | {"spec": {"parentRef": parent}})

    def has(self, record: Record) -> bool:
        """Whether the claim in that record is this owner's."""
        return claimant(record) == (self.namespace, self.name)


def claimant(record: Record) -> tuple[str, str] | None:
    """The namespace and name of the Service that the claim in a record is for."""
    if record.key.startswith(PortPool.prefix):
        namespace, _, name = record.value.decode().partition("/")
        return namespace, name
    parent = (orjson.loads(record.value).get("spec") or {}).get("parentRef") or {}
    if parent.get("resource") != SERVICES.plural or parent.get("group"):
        return None
    return parent.get("namespace", ""), parent.get("name", "")


class Pool(Protocol):
    """A numbered range of things, the first `offset` of which are kept for those who ask for them by name."""

    size: int
    offset: int
    condition: Require | None

    def key(self, index: int) -> str:
        """The allocation's key."""
        ...

    def claim(self, index: int, owner: Owner) -> bytes:
        """What is kept at the key."""
        ...

    @property
    def prefix(self) -> str:
        """The prefix of all its keys."""
        ...


def static_band(size: int, step: int, low: int, high: int) -> int:
    """How many at the beginning are kept for static requests: `min(max(low, size / step), high)`, 0 if tiny."""
    return 0 if size <= low else min(max(low, size // step), high)


class AddressPool:
    """The addresses of one service CIDR, without the network's own and (IPv4) the broadcast one.

    `condition` must hold when one of them is claimed: the ServiceCIDR is as it was seen.
    """

    prefix = prefix_of(IPADDRESSES) + "/"

    def __init__(self, cidr: str, condition: Require | None = None) -> None:
        self.condition = condition
        self.network = ip_network(cidr)
        self.family = f"IPv{self.network.version}"
        total = self.network.num_addresses
        if self.network.version == 6:
            total = min(total, _MAX_SIZE)
        self.size = max(0, total - (2 if self.network.version == 4 else 1))
        self.offset = static_band(total, 16, 16, 256)

    def key(self, index: int) -> str:
        return f"{self.prefix}{self.name(index)}"

    def claim(self, index: int, owner: Owner) -> bytes:
        return owner.address(self.name(index))

    def name(self, index: int) -> str:
        """The address, as text."""
        return str(self.network.network_address + 1 + index)

    def index(self, text: str) -> int:
        """Which one that address is. Refused if it is not one of them."""
        address = ip_address(text)
        index = int(address) - int(self.network.network_address) - 1
        if address not in self.network or not 0 <= index < self.size:
            raise Refused(
                f"the provided IP ({text}) is not in the valid range. The range of valid IPs is {self.network}"
            )
        return index


class PortPool:
    """The node ports, both ends included."""

    condition: Require | None = None
    prefix = "allocations/nodeports/"

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self.size = last - first + 1
        self.offset = static_band(self.size, 32, 16, 128)

    def key(self, index: int) -> str:
        return f"{self.prefix}{self.first + index}"

    def claim(self, index: int, owner: Owner) -> bytes:
        return f"{owner.namespace}/{owner.name}".encode()

    def index(self, port: int) -> int:
        """Which one that port is. Refused if it is not one of them."""
        if not self.first <= port <= self.last:
            raise Refused(
                f"provided port is not in the valid range. The range of valid ports is {self.first}-{self.last}"
            )
        return port - self.first


class Claims:
    """What one write claims and releases for its owner."""

    def __init__(self, store: Store, owner: Owner) -> None:
        self._store, self._owner = store, owner
        self._claimed: dict[str, bytes] = {}
        self._conditions: dict[str, Require] = {}
        self._released: set[str] = set()

    async def take(self, pool: Pool, index: int, what: str) -> None:
        """Claim that one. Refused if it is taken, also by this very write."""
        key = pool.key(index)
        if key in self._claimed or await self._store.get(key) is not None:
            raise Refused(f"provided {what} is already allocated")
        self._claim(pool, index)

    async def take_any(self, pool: Pool) -> int:
        """Claim a free one: at random above the static band, then below it. Refused when all are taken."""
        taken: set[str] | None = None
        for low, high in ((pool.offset, pool.size), (0, pool.offset)):
            for _ in range(min(_TRIES, high - low)):
                index = self._owner.dice.randrange(low, high)
                if await self._free(pool.key(index)):
                    return self._claim(pool, index)
            if taken is None:
                taken = {record.key for record in (await self._store.list(pool.prefix)).records} | set(self._claimed)
            free = [index for index in range(low, high) if pool.key(index) not in taken]
            if free:
                return self._claim(pool, free[self._owner.dice.randrange(0, len(free))])
        raise Refused("range is full")

    def release(self, keys: Iterable[str]) -> None:
        """Give those up, as far as the owner has them."""
        self._released.update(keys)

    async def operations(self) -> list[Operation]:
        """What to commit with the owner. A claim someone else was quicker with fails the commit."""
        operations: list[Operation] = [Put(key, value, expected=0) for key, value in sorted(self._claimed.items())]
        operations += self._conditions.values()
        for key in sorted(self._released - set(self._claimed)):
            record = await self._store.get(key)
            if record is not None and self._owner.has(record):
                operations.append(Delete(key, expected=record.modified))
        return operations

    def _claim(self, pool: Pool, index: int) -> int:
        self._claimed[pool.key(index)] = pool.claim(index, self._owner)
        if pool.condition is not None:
            self._conditions[pool.condition.key] = pool.condition
        return index

    async def _free(self, key: str) -> bool:
        return key not in self._claimed and await self._store.get(key) is None
