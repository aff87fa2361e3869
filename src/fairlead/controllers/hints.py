"""For whom an endpoint is meant: the hints of EndpointSlices. ◆ Pure; upstream: k8s.io/endpointslice/{topologycache,
trafficdist}, KEP-2433, KEP-4444, KEP-3015.

`trafficDistribution` hints each ready endpoint to its own zone (and node). The annotation topology-mode: Auto, which
goes before it, shares the endpoints out by the zones' CPUs: all ready endpoints are hinted, or none and a reason.
Invariant: only ready endpoints have hints.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from fairlead.api import quantity
from fairlead.controllers import pods

Object = dict[str, Any]

ZONE = "topology.kubernetes.io/zone"
_MODES = ("service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints")
_CONTROL_PLANE = frozenset({"node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"})
_OVERLOAD = 0.2  # how much more than its share a zone may be asked to bear

NO_NODE_INFO = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"
ONE_ZONE = "Nodes only ready in one zone"
TOO_FEW = "Insufficient number of endpoints"
NO_ZONE = "One or more endpoints do not have a zone specified"
OVERLOADED = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold"


class Zones(msgspec.Struct, frozen=True):
    """The share of the cluster's CPUs in each zone, or why there is none to go by."""

    shares: tuple[tuple[str, float], ...] = ()
    problem: str = ""

    @classmethod
    def of(cls, nodes: Iterable[Object]) -> Zones:
        """Of the nodes that are ready and run workloads."""
        cpus: dict[str, float] = {}
        for share in filter(None, map(share_of, nodes)):
            zone, cpu = share
            if not zone or not cpu:
                return cls(problem=NO_NODE_INFO)
            cpus[zone] = cpus.get(zone, 0.0) + cpu
        total = sum(cpus.values())
        if not total:
            return cls(problem=NO_NODE_INFO)
        if len(cpus) < 2:
            return cls(problem=ONE_ZONE)
        return cls(tuple(sorted((zone, cpu / total) for zone, cpu in cpus.items())))


def share_of(node: Object | None) -> tuple[str, float] | None:
    """The zone of a node and the CPUs it brings to it; None for one that takes no part."""
    if node is None:
        return None
    labels = node["metadata"].get("labels") or {}
    if _CONTROL_PLANE & labels.keys() or (pods.condition(node, "Ready") or {}).get("status") != "True":
        return None
    allocatable = ((node.get("status") or {}).get("allocatable") or {}).get("cpu") or "0"
    return labels.get(ZONE, ""), float(quantity.to_decimal(quantity.parse(allocatable)))


def is_auto(service: Object) -> bool:
    """The annotation asks for it."""
    annotations = service["metadata"].get("annotations") or {}
    found = next((annotations[name] for name in _MODES if name in annotations), "")
    return found in {"Auto", "auto"}


def assign(service: Object, endpoints: Sequence[Object], zones: Zones) -> str:
    """Put the hints into `endpoints`, all those of one family, in place. Gives why Auto could not be done, if so."""
    for endpoint in endpoints:
        endpoint.pop("hints", None)
    if is_auto(service):
        return _share_out([endpoint for endpoint in endpoints if endpoint["conditions"].get("ready")], zones)
    distribution = service["spec"].get("trafficDistribution")
    for endpoint in endpoints:
        hints = _own(endpoint, distribution)
        if hints:
            endpoint["hints"] = hints
    return ""


def _own(endpoint: Object, distribution: str | None) -> Object:
    """The hints by which an endpoint serves its own surroundings."""
    if not endpoint["conditions"].get("ready"):
        return {}
    hints: Object = {}
    node, zone = endpoint.get("nodeName"), endpoint.get("zone")
    if distribution == "PreferSameNode" and node:
        hints["forNodes"] = [{"name": node}]
    if zone and (distribution in {"PreferClose", "PreferSameZone"} or "forNodes" in hints):
        hints["forZones"] = [{"name": zone}]
    return hints


def _share_out(ready: Sequence[Object], zones: Zones) -> str:
    """Every zone gets as much of the endpoints as it has of the CPUs; endpoints stay in their zone as far as can be."""
    if zones.problem:
        return zones.problem
    if len(zones.shares) > len(ready):
        return f"{TOO_FEW} ({len(ready)} endpoints, {len(zones.shares)} zones)"
    wanted: dict[str, float] = {}
    least = 0
    for zone, share in zones.shares:
        desired = share * len(ready)
        minimum = math.ceil(desired / (1 + _OVERLOAD))
        wanted[zone] = max(desired, float(minimum))
        least += minimum
    if least > len(ready):
        return f"{OVERLOADED} ({len(ready)} endpoints, {len(zones.shares)} zones)"
    if any(not endpoint.get("zone") for endpoint in ready):
        return NO_ZONE
    in_zone: dict[str, int] = {}
    for endpoint in ready:
        in_zone[endpoint["zone"]] = in_zone.get(endpoint["zone"], 0) + 1
    giving, receiving = _moves(wanted, in_zone)
    for endpoint in ready:
        zone = endpoint["zone"]
        if giving.get(zone):
            giving[zone] -= 1
            zone = next(z for z in sorted(receiving) if receiving[z])
            receiving[zone] -= 1
        endpoint["hints"] = {"forZones": [{"name": zone}]}
    return ""


def _moves(wanted: Mapping[str, float], in_zone: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """How many endpoints each zone gives away, and how many it gets: as many in all. A zone that only has endpoints
    and no ready node gives all."""
    spare = {zone: count - wanted.get(zone, 0.0) for zone, count in in_zone.items()}
    lacking = {zone: desired - in_zone.get(zone, 0) for zone, desired in wanted.items()}
    giving: dict[str, int] = {}
    receiving: dict[str, int] = {}
    while True:
        giver = max(sorted(spare), key=lambda zone: spare[zone])
        receiver = max(sorted(lacking), key=lambda zone: lacking[zone])
        give, get = spare[giver], lacking[receiver]
        if give < 0.5 or get < 0.5 or (give < 1 and get < 1):
            return giving, receiving
        giving[giver] = giving.get(giver, 0) + 1
        receiving[receiver] = receiving.get(receiver, 0) + 1
        spare[giver] -= 1
        lacking[receiver] -= 1
