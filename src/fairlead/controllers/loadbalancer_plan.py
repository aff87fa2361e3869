"""Which address a Service of type LoadBalancer gets. Pure.

In: what the Service wishes, who holds which address, the pool, the nodes' own addresses. Out: its addresses, or why it
gets none and what would help. Invariants: an address has one holder, or several that said they share it (same key,
other ports, the same policy); who has a fitting address keeps it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from fairlead.api.addresspool import Address, Pool

Object = dict[str, Any]

CLASS = "fairlead.dev/lan"
FINALIZER = "service.kubernetes.io/load-balancer-cleanup"
ADDRESSES = ("fairlead.dev/load-balancer-ips", "metallb.io/loadBalancerIPs", "metallb.universe.tf/loadBalancerIPs")
SHARE = ("fairlead.dev/allow-shared-ip", "metallb.io/allow-shared-ip", "metallb.universe.tf/allow-shared-ip")
_NAMED_POOLS = ("metallb.io/address-pool", "metallb.universe.tf/address-pool")
_LISTED = 5  # Services named in a message


class Refusal(msgspec.Struct, frozen=True):
    """Why a Service gets no address, and the way out."""

    message: str


class Wish(msgspec.Struct, frozen=True):
    """What a Service asks for, and what decides whether it can live with another at one address.

    `versions`: an address of each (4, 6); all of them if `all_versions`, else of those the pool has. `since`: when it
    was made; of two that hold one address and may not, the elder keeps it.
    """

    name: str
    since: str
    versions: tuple[int, ...]
    all_versions: bool = True
    addresses: tuple[Address, ...] = ()
    share: str = ""
    local: bool = False
    selector: tuple[tuple[str, str], ...] = ()
    ports: frozenset[tuple[str, int]] = frozenset()


class Ledger:
    """Who holds which address, by the Services' UIDs."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[Wish, tuple[Address, ...]]] = {}
        self._at: dict[Address, dict[str, Wish]] = {}

    def __contains__(self, address: object) -> bool:
        return address in self._at

    def put(self, uid: str, wish: Wish, addresses: Iterable[Address]) -> None:
        """The Service holds these addresses, and no others."""
        self.drop(uid)
        held = tuple(addresses)
        self._entries[uid] = (wish, held)
        for address in held:
            self._at.setdefault(address, {})[uid] = wish

    def drop(self, uid: str) -> None:
        """The Service holds nothing."""
        _, held = self._entries.pop(uid, (None, ()))
        for address in held:
            holders = self._at[address]
            del holders[uid]
            if not holders:
                del self._at[address]

    def held_by(self, uid: str) -> tuple[Address, ...]:
        """The addresses of a Service."""
        return self._entries[uid][1] if uid in self._entries else ()

    def others_at(self, address: Address, uid: str) -> list[Wish]:
        """Who else is at the address."""
        return [wish for holder, wish in self._at.get(address, {}).items() if holder != uid]

    def companions(self, uid: str) -> set[str]:
        """The UIDs of the others at this Service's addresses."""
        return {holder for address in self.held_by(uid) for holder in self._at[address]} - {uid}

    def shared_with(self, key: str, version: int) -> list[Address]:
        """The addresses of that IP version whose holders share them by that key."""
        return sorted(
            (
                address
                for address, holders in self._at.items()
                if address.version == version and all(wish.share == key for wish in holders.values())
            ),
            key=int,
        )

    def holders(self, pool: Pool, version: int) -> list[str]:
        """The names of the Services that hold the pool's addresses of that IP version."""
        found = {
            wish.name
            for address, holders in self._at.items()
            if address.version == version and address in pool
            for wish in holders.values()
        }
        return sorted(found)


class Supply(msgspec.Struct, frozen=True):
    """What there is to give: the pool, who holds what of it, and the addresses that nobody gets, with what they are."""

    pool: Pool
    ledger: Ledger
    reserved: Mapping[Address, str] = {}

    def __contains__(self, address: object) -> bool:
        """Whether the address is not free."""
        return address in self.ledger or address in self.reserved


def is_ours(service: Object, classes: Iterable[str] = (CLASS, "")) -> bool:
    """Whether the Service wants an address from here: its type, its class, and that it is not on its way out."""
    spec = service.get("spec") or {}
    return (
        spec.get("type") == "LoadBalancer"
        and (spec.get("loadBalancerClass") or "") in tuple(classes)
        and not service["metadata"].get("deletionTimestamp")
    )


def reported(service: Object) -> tuple[Address, ...]:
    """The addresses in the Service's status."""
    entries = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return tuple(address for entry in entries if (address := _address(entry.get("ip") or "")) is not None)


def status_with(service: Object, addresses: Iterable[Address]) -> Object:
    """The Service's status with these addresses, served by the nodes themselves (ipMode VIP)."""
    kept = {field: value for field, value in (service.get("status") or {}).items() if field != "loadBalancer"}
    ingress = [{"ip": str(address), "ipMode": "VIP"} for address in addresses]
    return {**kept, "loadBalancer": {"ingress": ingress} if ingress else {}}


def name_of(service: Object) -> str:
    """namespace/name."""
    return f"{service['metadata'].get('namespace', '')}/{service['metadata']['name']}"


def wish_of(service: Object) -> Wish:
    """What the Service asks for; what can't be read of its requests is left to `refusal_of`."""
    metadata, spec = service["metadata"], service.get("spec") or {}
    families = spec.get("ipFamilies") or ["IPv4"]
    local = spec.get("externalTrafficPolicy") == "Local"
    ports = spec.get("ports") or ()
    return Wish(
        name=name_of(service),
        since=metadata.get("creationTimestamp") or "",
        versions=tuple(6 if family == "IPv6" else 4 for family in families),
        all_versions=len(families) == 1 or spec.get("ipFamilyPolicy") != "PreferDualStack",
        addresses=tuple(a for _, text in _requests(service) if (a := _address(text)) is not None),
        share=_annotation(service, SHARE)[1],
        local=local,
        selector=tuple(sorted((spec.get("selector") or {}).items())) if local else (),
        ports=frozenset((port.get("protocol") or "TCP", port["port"]) for port in ports if "port" in port),
    )


def refusal_of(service: Object) -> Refusal | None:
    """What is wrong with the Service's requests themselves."""
    by_name, pool = _annotation(service, _NAMED_POOLS)
    if pool:
        return Refusal(
            f"the annotation {by_name} names the pool {pool!r}, and there is one pool only, without a name; "
            f"take it away, or ask for an address by {ADDRESSES[0]}"
        )
    requests = _requests(service)
    seen: dict[int, str] = {}
    wish = wish_of(service)
    for where, text in requests:
        address = _address(text)
        if address is None:
            return Refusal(f"{where} has {text!r}, which is no IP address")
        if address.version not in wish.versions:
            return Refusal(f"{where} asks for {address}, and spec.ipFamilies have no IPv{address.version}")
        if seen.setdefault(address.version, str(address)) != str(address):
            return Refusal(f"{where} asks for {address}, and {seen[address.version]} is asked for, too; ask for one")
    return None


def assign(uid: str, wish: Wish, supply: Supply) -> tuple[Address, ...] | Refusal:
    """The Service's addresses: what it asks for, else what it has, else one it may share, else the first free one."""
    found: list[Address] = []
    missing: Refusal | None = None
    for version in wish.versions:
        asked = next((address for address in wish.addresses if address.version == version), None)
        if asked is not None:
            refused = _refused(asked, uid, wish, supply)
            if refused is not None:
                return Refusal(f"{asked} is asked for, and {refused}")
            found.append(asked)
            continue
        free = _choose(version, uid, wish, supply)
        if free is not None:
            found.append(free)
            continue
        missing = _exhausted(version, supply)
        if wish.all_versions:
            return missing
    return tuple(found) if found or missing is None else missing


def _choose(version: int, uid: str, wish: Wish, supply: Supply) -> Address | None:
    candidates = [address for address in supply.ledger.held_by(uid) if address.version == version]
    if wish.share:
        candidates += supply.ledger.shared_with(wish.share, version)
    for address in candidates:
        if _refused(address, uid, wish, supply) is None:
            return address
    return supply.pool.first_free(version, supply)


def _refused(address: Address, uid: str, wish: Wish, supply: Supply) -> str | None:
    """Why the Service can't have that address; None if it can."""
    if address not in supply.pool:
        return f"it is not in the pool ({supply.pool}); ask for one that is, or give a larger pool"
    if address in supply.reserved:
        return f"it is the address of {supply.reserved[address]}; ask for another"
    has_it = address in supply.ledger.held_by(uid)
    for other in supply.ledger.others_at(address, uid):
        if has_it and (wish.since, wish.name) < (other.since, other.name):
            continue  # the other one came later, and goes
        why = _apart(wish, other)
        if why:
            return f"it is held by {other.name}: {why}"
    return None


def _apart(one: Wish, other: Wish) -> str:
    """Why the two can't be at one address; empty if they can."""
    if not one.share or one.share != other.share:
        return (
            f"ask for another, or give both Services the annotation {SHARE[0]} with the same value "
            "and ports that differ"
        )
    both = sorted(one.ports & other.ports)
    if both:
        return f"both have port {both[0][1]}/{both[0][0]}"
    if one.local != other.local:
        return "their externalTrafficPolicy differs"
    if one.selector != other.selector:
        return "with externalTrafficPolicy Local, Services share an address only if their selectors are the same"
    return ""


def _exhausted(version: int, supply: Supply) -> Refusal:
    pool = supply.pool
    size = pool.size(version)
    if not size:
        return Refusal(f"the pool ({pool}) has no IPv{version} addresses; give it some")
    holders = supply.ledger.holders(pool, version)
    more = f" and {len(holders) - _LISTED} more" if len(holders) > _LISTED else ""
    addresses = f"its {size} IPv{version} addresses are" if size > 1 else f"its one IPv{version} address is"
    return Refusal(
        f"no available IPs: the pool ({pool}) is exhausted, {addresses} held by {', '.join(holders[:_LISTED])}{more}; "
        f"delete one of these Services, share an address (annotation {SHARE[0]}), or give a larger pool"
    )


def _requests(service: Object) -> list[tuple[str, str]]:
    """(where it is asked, the address)."""
    found = []
    single = (service.get("spec") or {}).get("loadBalancerIP")
    if single:
        found.append(("spec.loadBalancerIP", single))
    name, value = _annotation(service, ADDRESSES)
    found += [(f"the annotation {name}", part.strip()) for part in value.split(",") if part.strip()]
    return found


def _annotation(service: Object, names: Iterable[str]) -> tuple[str, str]:
    """The first of these annotations that is there, and its value; empty if none is."""
    annotations = service["metadata"].get("annotations") or {}
    for name in names:
        if annotations.get(name):
            return name, annotations[name]
    return "", ""


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
