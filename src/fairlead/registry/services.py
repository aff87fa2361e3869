"""Services: linked fields, type changes, and their cluster IPs and node ports.

An update that leaves out what was allocated keeps it; a type that has no use for it gives it up.
Invariant: the cluster IPs and node ports of the stored Services are exactly what is claimed (allocation.py).
Source of the rules: upstream's `pkg/registry/core/service` (strategy and storage).
"""

from __future__ import annotations

import contextlib
from typing import Any

from fairlead.api import kinds
from fairlead.api.addresses import family
from fairlead.api.errors import FieldError, internal, invalid, unprocessable
from fairlead.registry.allocation import AddressPool, Claims, Owner, PortPool, Refused
from fairlead.registry.requests import RequestContext
from fairlead.registry.servicecidrs import ServiceRanges, pool_of
from fairlead.registry.stored import key_of, prefix_of
from fairlead.registry.strategy import CreatedByPut, Surroundings
from fairlead.store.interface import CompareFailed, Delete, Operation

Object = dict[str, Any]

NONE = "None"


def _type(spec: Object) -> str:
    return str(spec.get("type") or "ClusterIP")


def _has_cluster_ip(spec: Object) -> bool:
    return _type(spec) != "ExternalName"


def _has_node_ports(spec: Object) -> bool:
    return _type(spec) in {"NodePort", "LoadBalancer"}


def _has_health_port(spec: Object) -> bool:
    return _type(spec) == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _node_ports(spec: Object) -> set[int]:
    return {port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")}


def _held_ports(spec: Object) -> set[int]:
    """Those that are allocated: an ExternalName Service may name some without having them."""
    return _node_ports(spec) if _has_node_ports(spec) else set()


def _addresses(spec: Object) -> list[str]:
    return [ip for ip in spec.get("clusterIPs") or () if ip and ip != NONE]


def keep_allocated(new: Object, old: Object) -> None:
    """Fill in what a client left out because it was allocated for it (`spec`s, in place)."""
    if _has_cluster_ip(old) and _has_cluster_ip(new):
        if not new.get("clusterIP") and old.get("clusterIP"):
            new["clusterIP"] = old["clusterIP"]
        if not new.get("clusterIPs") and old.get("clusterIPs"):
            new["clusterIPs"] = list(old["clusterIPs"])
    if _has_node_ports(old) and _has_node_ports(new):
        in_both = _node_ports(old) & _node_ports(new)
        by_name = {port.get("name"): port.get("nodePort") for port in old.get("ports") or ()}
        for port in new.get("ports") or ():
            known = by_name.get(port.get("name"))
            if not port.get("nodePort") and known and known not in in_both:
                port["nodePort"] = known
    if _has_health_port(old) and _has_health_port(new) and not new.get("healthCheckNodePort"):
        new["healthCheckNodePort"] = old.get("healthCheckNodePort", 0)


def link_addresses(new: Object, old: Object | None) -> None:
    """Make clusterIP and clusterIPs agree where a client knows only the singular (`spec`s, in place)."""
    for field in ("clusterIP", "clusterIPs"):
        if not new.get(field):
            new.pop(field, None)
    if old is None:
        if new.get("clusterIP") and not new.get("clusterIPs"):
            new["clusterIPs"] = [new["clusterIP"]]
        return
    before, after = old.get("clusterIP"), new.get("clusterIP")
    if before == after:
        if old.get("clusterIPs") and not new.get("clusterIPs"):
            new["clusterIPs"] = list(old["clusterIPs"])
    elif (old.get("clusterIPs") or []) == (new.get("clusterIPs") or []):
        if after:
            new["clusterIPs"] = [after]
        else:
            new.pop("clusterIPs", None)


def drop_useless(new: Object, old: Object) -> None:
    """On a type change, drop what the new type has no use for and the client did not touch (`spec`s, in place)."""
    if _has_cluster_ip(old) and not _has_cluster_ip(new):
        if all(old.get(field) == new.get(field) for field in ("clusterIP", "clusterIPs")):
            new.pop("clusterIP", None)
            new.pop("clusterIPs", None)
        for field in ("ipFamilies", "ipFamilyPolicy"):
            if old.get(field) == new.get(field):
                new.pop(field, None)
    if _has_node_ports(old) and not _has_node_ports(new) and _node_ports(old) >= _node_ports(new):
        for port in new.get("ports") or ():
            port.pop("nodePort", None)
    if _has_health_port(old) and not _has_health_port(new):
        _drop_same(new, old, "healthCheckNodePort")
    if _type(old) == "LoadBalancer" != _type(new):
        _drop_same(new, old, "allocateLoadBalancerNodePorts")
        _drop_same(new, old, "loadBalancerClass")
    if not _has_node_ports(new) and not new.get("externalIPs") and (_has_node_ports(old) or old.get("externalIPs")):
        _drop_same(new, old, "externalTrafficPolicy")


def _drop_same(new: Object, old: Object, field: str) -> None:
    if field in new and new[field] == old.get(field):
        del new[field]


def trim_to_single_stack(new: Object, old: Object) -> None:
    """Asking for SingleStack is enough to give up the second family (`spec`s, in place)."""
    if old.get("ipFamilyPolicy") in {"RequireDualStack", "PreferDualStack"} and new.get("ipFamilyPolicy") == (
        "SingleStack"
    ):
        for field in ("clusterIPs", "ipFamilies"):
            if len(new.get(field) or ()) > 1:
                new[field] = new[field][:1]


def claimed_keys(spec: Object) -> set[str]:
    """The keys of all that a Service with that spec holds."""
    keys = {AddressPool.prefix + ip for ip in _addresses(spec)}
    ports = _held_ports(spec) | ({spec.get("healthCheckNodePort") or 0} if _has_health_port(spec) else set())
    return keys | {f"{PortPool.prefix}{port}" for port in ports if port}


_WORTH_ANOTHER_TRY = (AddressPool.prefix, PortPool.prefix, prefix_of(kinds.SERVICECIDRS), prefix_of(kinds.ENDPOINTS))


class Services(CreatedByPut):
    """The strategy of the kind."""

    returns_deleted = True

    def __init__(self, resource: kinds.Resource, around: Surroundings) -> None:
        super().__init__(resource, around)
        self.ranges = ServiceRanges(around.store, around.options.service_cidrs)
        self.families = around.options.ip_families
        missing = [name for name in self.families if name not in self.ranges.families]
        if missing:
            raise ValueError(f"service_cidrs {around.options.service_cidrs} have no range for {', '.join(missing)}")
        self.ports = PortPool(*around.options.node_port_range)

    def prepare_for_create(self, obj: Object, ctx: RequestContext) -> None:
        obj["status"] = {"loadBalancer": {}}
        link_addresses(obj["spec"], None)

    def prepare_for_update(self, new: Object, old: Object, ctx: RequestContext) -> None:
        super().prepare_for_update(new, old, ctx)
        spec, before = new["spec"], old["spec"]
        keep_allocated(spec, before)
        link_addresses(spec, before)
        drop_useless(spec, before)
        trim_to_single_stack(spec, before)

    async def allocate(self, new: Object, old: Object | None) -> list[Operation]:
        metadata, spec = new["metadata"], new["spec"]
        claims = self._claims(metadata)
        before = old["spec"] if old else {}
        self._settle_families(metadata["name"], spec, before or None)
        await self._allocate_addresses(metadata["name"], spec, set(_addresses(before)), claims)
        await self._allocate_ports(metadata["name"], spec, before, claims)
        gone = self._keys(before) - self._keys(spec)
        claims.release(gone)
        return await claims.operations()

    async def release(self, old: Object) -> list[Operation]:
        metadata = old["metadata"]
        claims = self._claims(metadata)
        claims.release(self._keys(old["spec"]))
        operations = await claims.operations()
        endpoints = key_of(kinds.ENDPOINTS, metadata["namespace"], metadata["name"])
        if await self.around.store.get(endpoints) is not None:
            operations.append(Delete(endpoints))
        return operations

    def retry_allocation(self, failed: CompareFailed) -> bool:
        return failed.key.startswith(_WORTH_ANOTHER_TRY)

    def _claims(self, metadata: Object) -> Claims:
        options = self.around.options
        owner = Owner(metadata["namespace"], metadata["name"], options.clock, options.dice)
        return Claims(self.around.store, owner)

    def _keys(self, spec: Object) -> set[str]:
        return claimed_keys(spec)

    def _settle_families(self, name: str, spec: Object, old: Object | None) -> None:
        """Fill in ipFamilyPolicy and ipFamilies, and refuse what this cluster does not have."""
        if not _has_cluster_ip(spec):
            return
        headless_without_selector = spec.get("clusterIP") == NONE and not spec.get("selector")
        if not spec.get("ipFamilyPolicy"):
            if old and old.get("ipFamilyPolicy"):
                spec["ipFamilyPolicy"] = old["ipFamilyPolicy"]
            else:
                spec["ipFamilyPolicy"] = "RequireDualStack" if headless_without_selector else "SingleStack"
        policy = spec["ipFamilyPolicy"]
        families: list[str] = spec.get("ipFamilies") or []
        spec["ipFamilies"] = families
        errors = _family_errors(spec, old)
        for index, ip in enumerate(_addresses(spec)):
            if index < len(families):
                continue
            of_ip = family(ip)
            if of_ip is None or of_ip not in self.families:
                text = f"{of_ip or 'unknown'} is not configured on this cluster"
                errors.append(invalid(f"spec.clusterIPs[{index}]", spec["clusterIPs"], text))
            else:
                families.append(of_ip)
        _refuse(name, errors)
        if headless_without_selector:
            families[:] = families or [self.families[0]]
            if len(families) < 2 and policy != "SingleStack":
                families.append("IPv6" if families[0] == "IPv4" else "IPv4")
            return
        if policy == "RequireDualStack" and len(self.families) < 2:
            text = "this cluster is not configured for dual-stack services"
            errors.append(invalid("spec.ipFamilyPolicy", policy, text))
        for index, one in enumerate(families):
            if one not in self.families:
                errors.append(invalid(f"spec.ipFamilies[{index}]", one, "not configured on this cluster"))
        _refuse(name, errors)
        families[:] = families or [self.families[0]]
        if policy != "SingleStack" and len(families) == 1 and len(self.families) == 2 and not _unchanged(spec, old):
            families.append("IPv6" if families[0] == "IPv4" else "IPv4")

    async def _allocate_addresses(self, name: str, spec: Object, had: set[str], claims: Claims) -> None:
        if not _has_cluster_ip(spec) or (spec.get("clusterIPs") or [""])[0] == NONE:
            return
        addresses: list[str] = list(spec.get("clusterIPs") or ())
        for index, one in enumerate(spec["ipFamilies"]):
            if index >= len(addresses):
                addresses.append("")
            ip = addresses[index]
            if ip and ip in had:
                continue
            pools = await self.ranges.pools(one)
            try:
                if ip:
                    pool = pool_of(pools, ip)
                    await claims.take(pool, pool.index(ip), "IP")
                else:
                    addresses[index] = await _take_any(claims, pools)
            except Refused as refused:
                if not ip:
                    raise internal(f"Internal error occurred: failed to allocate a serviceIP: {refused}") from None
                text = f"failed to allocate IP {ip}: {refused}"
                _refuse(name, [invalid("spec.clusterIPs", spec["clusterIPs"], text)])
        spec["clusterIPs"] = addresses
        spec["clusterIP"] = addresses[0]

    async def _allocate_ports(self, name: str, spec: Object, before: Object, claims: Claims) -> None:
        if _has_node_ports(spec):
            await self._allocate_node_ports(name, spec, _held_ports(before) if before else None, claims)
        old_health = (before.get("healthCheckNodePort") or 0) if _has_health_port(before) else 0
        if _has_health_port(spec):
            wanted = spec.get("healthCheckNodePort") or 0
            if not wanted or wanted != old_health:
                try:
                    if wanted:
                        await claims.take(self.ports, self.ports.index(wanted), "port")
                    else:
                        spec["healthCheckNodePort"] = self.ports.first + await claims.take_any(self.ports)
                except Refused as refused:
                    which = f"requested HealthCheck NodePort {wanted}" if wanted else "a HealthCheck NodePort 0"
                    raise internal(f"Internal error occurred: failed to allocate {which}: {refused}") from None
        elif not spec.get("healthCheckNodePort"):
            spec.pop("healthCheckNodePort", None)

    async def _allocate_node_ports(self, name: str, spec: Object, had: set[int] | None, claims: Claims) -> None:
        """Fill in node ports. In a new Service (`had` is None), ports of the same number share one: their protocols
        differ. In an updated one, a node port it had, or has just got, is not asked for again."""
        ports: list[Object] = spec.get("ports") or []
        automatic = _type(spec) == "NodePort" or spec.get("allocateLoadBalancerNodePorts", True)
        shared: dict[int, int] = {}
        mine = set(had or ())
        for index, port in enumerate(ports):
            wanted, number = port.get("nodePort") or 0, port["port"]
            if not wanted and not automatic:
                port.pop("nodePort", None)
                continue
            if not wanted and had is None:
                asked = (p["nodePort"] for p in ports if p["port"] == number and p.get("nodePort"))
                wanted = shared.get(number) or next(asked, 0)
            known = shared.get(number) == wanted if had is None else wanted in mine
            try:
                if not wanted:
                    wanted = self.ports.first + await claims.take_any(self.ports)
                elif not known:
                    await claims.take(self.ports, self.ports.index(wanted), "port")
            except Refused as refused:
                if not wanted:
                    raise internal(f"Internal error occurred: failed to allocate a nodePort: {refused}") from None
                _refuse(name, [invalid(f"spec.ports[{index}].nodePort", wanted, str(refused))])
            mine.add(wanted)
            shared.setdefault(number, wanted)
            port["nodePort"] = wanted


async def _take_any(claims: Claims, pools: list[AddressPool]) -> str:
    """A free address of the first pool that has one."""
    for pool in pools[:-1]:
        with contextlib.suppress(Refused):
            return pool.name(await claims.take_any(pool))
    return pools[-1].name(await claims.take_any(pools[-1]))


def _unchanged(spec: Object, old: Object | None) -> bool:
    """A PreferDualStack Service is not widened by an update that asks for nothing new."""
    if old is None or _type(old) != _type(spec):
        return False
    return spec.get("ipFamilyPolicy") == old.get("ipFamilyPolicy") == "PreferDualStack" and all(
        (spec.get(field) or []) == (old.get(field) or []) for field in ("clusterIPs", "ipFamilies")
    )


def _family_errors(spec: Object, old: Object | None) -> list[FieldError]:
    policy = spec["ipFamilyPolicy"]
    errors: list[FieldError] = []
    for field, one, several in (
        ("clusterIPs", "cluster IP", "cluster IPs"),
        ("ipFamilies", "IP family", "IP families"),
    ):
        count, before = len(spec.get(field) or ()), len((old or {}).get(field) or ())
        if policy == "SingleStack" and count == 2:
            text = f"must be 'RequireDualStack' or 'PreferDualStack' when multiple {several} are specified"
            errors.append(invalid("spec.ipFamilyPolicy", policy, text))
        elif policy != "SingleStack" and 0 < count < before:
            text = f"must be 'SingleStack' to release the secondary {one}"
            errors.append(invalid("spec.ipFamilyPolicy", policy, text))
    return errors


def _refuse(name: str, errors: list[FieldError]) -> None:
    if errors:
        raise unprocessable("Service", "", name, errors)
