"""Cluster IPs and node ports: ranges, bands, and who has what.

An allocation is a key of its own (`allocations/clusterips/<ip>`, `allocations/nodeports/<port>`), put with "must not
exist" in the same commit as the Service that owns it and deleted in the commit that gives it up. Invariant: nothing is
handed out twice and nothing leaks, whatever races or crashes, because the store decides.
Source of the bands: KEP-3070 (cluster IPs), KEP-3668 (node ports).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import Protocol

from fairlead.registry.requests import Dice
from fairlead.store.interface import Delete, Operation, Put, Store

_TRIES = 32
_MAX_SIZE = 1 << 16  # of an IPv6 range that is used: upstream's bitmap is not larger


class Refused(Exception):
    """An allocation can't be had; the message is upstream's."""


class Pool(Protocol):
    """A numbered range of things, the first `offset` of which are kept for those who ask for them by name."""

    size: int
    offset: int

    def key(self, index: int) -> str:
        """The allocation's key."""
        ...

    @property
    def prefix(self) -> str:
        """The prefix of all its keys."""
        ...


def static_band(size: int, step: int, low: int, high: int) -> int:
    """How many at the beginning are kept for static requests: `min(max(low, size / step), high)`, 0 if tiny."""
    return 0 if size <= low else min(max(low, size // step), high)


class AddressPool:
    """The addresses of one service CIDR, without the network's own and (IPv4) the broadcast one."""

    prefix = "allocations/clusterips/"

    def __init__(self, cidr: str) -> None:
        self.network = ip_network(cidr)
        self.family = f"IPv{self.network.version}"
        total = self.network.num_addresses
        if self.network.version == 6:
            total = min(total, _MAX_SIZE)
        self.size = max(0, total - (2 if self.network.version == 4 else 1))
        self.offset = static_band(total, 16, 16, 256)

    def key(self, index: int) -> str:
        return f"{self.prefix}{self.name(index)}"

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

    prefix = "allocations/nodeports/"

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self.size = last - first + 1
        self.offset = static_band(self.size, 32, 16, 128)

    def key(self, index: int) -> str:
        return f"{self.prefix}{self.first + index}"

    def index(self, port: int) -> int:
        """Which one that port is. Refused if it is not one of them."""
        if not self.first <= port <= self.last:
            raise Refused(
                f"provided port is not in the valid range. The range of valid ports is {self.first}-{self.last}"
            )
        return port - self.first


class Claims:
    """What one write claims and releases. `owner` (`namespace/name`) is kept with each claim."""

    def __init__(self, store: Store, dice: Dice, owner: str) -> None:
        self._store, self._dice, self._owner = store, dice, owner.encode()
        self._claimed: set[str] = set()
        self._released: set[str] = set()

    async def take(self, pool: Pool, index: int, what: str) -> None:
        """Claim that one. Refused if it is taken, also by this very write."""
        key = pool.key(index)
        if key in self._claimed or await self._store.get(key) is not None:
            raise Refused(f"provided {what} is already allocated")
        self._claimed.add(key)

    async def take_any(self, pool: Pool) -> int:
        """Claim a free one: at random above the static band, then below it. Refused when all are taken."""
        taken: set[str] | None = None
        for low, high in ((pool.offset, pool.size), (0, pool.offset)):
            for _ in range(min(_TRIES, high - low)):
                index = self._dice.randrange(low, high)
                if await self._free(pool.key(index)):
                    self._claimed.add(pool.key(index))
                    return index
            if taken is None:
                taken = {record.key for record in (await self._store.list(pool.prefix)).records} | self._claimed
            free = [index for index in range(low, high) if pool.key(index) not in taken]
            if free:
                index = free[self._dice.randrange(0, len(free))]
                self._claimed.add(pool.key(index))
                return index
        raise Refused("range is full")

    def release(self, keys: Iterable[str]) -> None:
        """Give those up, as far as the owner has them."""
        self._released.update(keys)

    async def operations(self) -> list[Operation]:
        """What to commit with the owner. A claim someone else was quicker with fails the commit."""
        operations: list[Operation] = [Put(key, self._owner, expected=0) for key in sorted(self._claimed)]
        for key in sorted(self._released - self._claimed):
            record = await self._store.get(key)
            if record is not None and record.value == self._owner:
                operations.append(Delete(key, expected=record.modified))
        return operations

    async def _free(self, key: str) -> bool:
        return key not in self._claimed and await self._store.get(key) is None
