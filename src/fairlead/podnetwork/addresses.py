"""Which pod has which address on this node, kept in one small file per address.

Invariant: an address has one owner, also after the agent is killed at any moment; an address given back is the last to
be given out again, so that a stale packet rarely meets a new pod.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path

from fairlead.podnetwork.plan import Address, Network


class AddressesExhausted(Exception):
    """Every address of the pod CIDR is taken."""

    def __init__(self, network: Network) -> None:
        super().__init__(f"no free address in {network}: delete pods on this node, or give nodes larger pod CIDRs")


class AddressBook:
    """The addresses of one pod CIDR. `directory` holds a file per taken address, named by it, with the pod's UID."""

    def __init__(self, network: Network, directory: Path) -> None:
        self._network, self._directory = network, directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._owner: dict[Address, str] = {}
        for file in directory.iterdir():
            address = ipaddress.ip_address(file.name)
            if address in network:
                self._owner[address] = file.read_text()
        self._last = max(self._owner, key=int, default=network.network_address + 1)

    def take(self, owner: str) -> Address:
        """The owner's address: the one it has, else the next free one. Raises AddressesExhausted."""
        held = self.of(owner)
        if held is not None:
            return held
        # The first address is the gateway's; the network's own and the last (broadcast) are nobody's.
        first, usable = int(self._network.network_address) + 2, self._network.num_addresses - 3
        for step in range(1, usable + 1):
            address = ipaddress.ip_address(first + (int(self._last) - first + step) % usable)
            if address not in self._owner:
                self._write(address, owner)
                self._owner[address], self._last = owner, address
                return address
        raise AddressesExhausted(self._network)

    def of(self, owner: str) -> Address | None:
        """The address `owner` has, or None."""
        return next((address for address, who in self._owner.items() if who == owner), None)

    def give_back(self, owner: str) -> None:
        """The owner's address is free again."""
        address = self.of(owner)
        if address is not None:
            (self._directory / str(address)).unlink(missing_ok=True)
            del self._owner[address]

    def owners(self) -> set[str]:
        """Everyone who has an address."""
        return set(self._owner.values())

    def _write(self, address: Address, owner: str) -> None:
        # Written aside and renamed: a kill in the middle leaves no empty claim.
        draft = self._directory.parent / f".{self._directory.name}-draft"
        draft.write_text(owner)
        draft.replace(self._directory / str(address))
