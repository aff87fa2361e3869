"""The pods' addresses, as the DNS needs them: for `pods verified`, and to know which namespace asks. Pure.

Stands in the follower, between its watch of Pods and the deltas. Invariant: what it says of an address depends only on
the pods there are now.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fairlead.api.events import WatchEvent
from fairlead.api.kinds import PODS
from fairlead.dns.names import packed_address
from fairlead.dns.records import PodAddress

_OVER = ("Succeeded", "Failed")


class PodTable:
    """Who has which address."""

    def __init__(self) -> None:
        self._addresses: dict[tuple[str, str], tuple[bytes, ...]] = {}
        self._pods: dict[bytes, dict[tuple[str, str], bool]] = {}  # address → pod → whether the address is its own

    def take(self, events: Iterable[WatchEvent]) -> tuple[PodAddress, ...]:
        """What the events change; events of other resources are passed over."""
        touched: dict[bytes, PodAddress] = {}
        for event in events:
            if event.resource is not PODS:
                continue
            meta = event.object.get("metadata") or {}
            key = (meta.get("namespace") or "", meta.get("name") or "")
            addresses: tuple[bytes, ...] = ()
            if event.type != "DELETED":
                addresses = _addresses(event.object)
            before = self._addresses.pop(key, ())
            if addresses == before:
                if addresses:
                    self._addresses[key] = addresses
                continue
            if addresses:
                self._addresses[key] = addresses
            for address in before:
                touched.setdefault(address, self._of(address))
                pods = self._pods[address]
                del pods[key]
                if not pods:
                    del self._pods[address]
            own = not (event.object.get("spec") or {}).get("hostNetwork")
            for address in addresses:
                touched.setdefault(address, self._of(address))
                self._pods.setdefault(address, {})[key] = own
        return tuple(now for address, was in touched.items() if (now := self._of(address)) != was)

    def _of(self, address: bytes) -> PodAddress:
        pods = self._pods.get(address, {})
        namespaces = tuple(sorted({namespace for namespace, _ in pods}))
        alone = len(pods) == 1 and all(pods.values())
        return PodAddress(address, namespaces, namespaces[0] if alone else "")


def _addresses(pod: dict[str, Any]) -> tuple[bytes, ...]:
    status = pod.get("status") or {}
    if status.get("phase") in _OVER:  # its address may be another's by now
        return ()
    listed = [entry.get("ip") or "" for entry in status.get("podIPs") or ()] or [status.get("podIP") or ""]
    return tuple(dict.fromkeys(filter(None, (packed_address(text) for text in listed if text))))
