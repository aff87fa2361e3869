"""The tables of Services, Endpoints and EndpointSlices."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from fairlead.api.tables.cells import AGE, NAME, NONE, Column, Printer, age, listed, name, pairs


def _external(service: dict[str, Any]) -> str:
    spec = service.get("spec") or {}
    external = list(spec.get("externalIPs") or ())
    kind = spec.get("type")
    if kind in ("ClusterIP", "NodePort"):
        return ",".join(external) or NONE
    if kind == "LoadBalancer":
        ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
        balanced = sorted({i.get("ip") or i.get("hostname") for i in ingress} - {None, ""})
        return ",".join(balanced + external) or "<pending>"
    if kind == "ExternalName":
        return str(spec.get("externalName") or "")
    return "<unknown>"


def _port(port: dict[str, Any]) -> str:
    node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port.get('port')}{node_port}/{port.get('protocol') or 'TCP'}"


def _service(service: dict[str, Any], now: datetime) -> list[Any]:
    spec = service.get("spec") or {}
    addresses = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    return [
        name(service),
        spec.get("type") or "",
        addresses[0] if addresses else NONE,
        _external(service),
        ",".join(map(_port, spec.get("ports") or ())) or NONE,
        age(service, now),
        pairs(spec.get("selector")),
    ]


SERVICES = Printer(
    (
        NAME,
        Column("Type", "How the service can be reached."),
        Column("Cluster-IP", "The service's address within the cluster."),
        Column("External-IP", "The addresses the service has outside of the cluster."),
        Column("Port(s)", "The service's ports, with node ports after a colon."),
        AGE,
        Column("Selector", "The labels of the pods that serve.", 1),
    ),
    _service,
)


def _pairs_of_subset(subset: dict[str, Any]) -> Iterator[str]:
    addresses = [a.get("ip") or "" for a in subset.get("addresses") or ()]
    ports = subset.get("ports") or ()
    if not ports:
        yield from addresses
    for port in ports:
        for address in addresses:
            yield f"[{address}]:{port.get('port')}" if ":" in address else f"{address}:{port.get('port')}"


def _endpoints(endpoints: dict[str, Any], now: datetime) -> list[Any]:
    subsets = endpoints.get("subsets") or ()
    if not subsets:
        return [name(endpoints), NONE, age(endpoints, now)]
    every = [pair for subset in subsets for pair in _pairs_of_subset(subset)]
    return [name(endpoints), listed(every) if every else "", age(endpoints, now)]


ENDPOINTS = Printer((NAME, Column("Endpoints", "Addresses and ports that serve."), AGE), _endpoints)


def _slice_port(port: dict[str, Any]) -> str:
    number = port.get("port")
    if number is not None:
        return str(number)
    return str(port["name"]) if port.get("name") is not None else "*"


def _endpointslice(endpointslice: dict[str, Any], now: datetime) -> list[Any]:
    addresses = (a for endpoint in endpointslice.get("endpoints") or () for a in endpoint.get("addresses") or ())
    return [
        name(endpointslice),
        endpointslice.get("addressType") or "",
        listed(map(_slice_port, endpointslice.get("ports") or ())),
        listed(addresses),
        age(endpointslice, now),
    ]


ENDPOINTSLICES = Printer(
    (
        NAME,
        Column("AddressType", "The family of the slice's addresses."),
        Column("Ports", "The ports every endpoint of the slice serves."),
        Column("Endpoints", "The addresses of the endpoints."),
        AGE,
    ),
    _endpointslice,
)


def _servicecidr(cidr: dict[str, Any], now: datetime) -> list[Any]:
    return [name(cidr), ",".join((cidr.get("spec") or {}).get("cidrs") or ()), age(cidr, now)]


SERVICECIDRS = Printer((NAME, Column("CIDRs", "The ranges that cluster IPs are taken from."), AGE), _servicecidr)


def _ipaddress(address: dict[str, Any], now: datetime) -> list[Any]:
    parent = (address.get("spec") or {}).get("parentRef") or {}
    path = [parent.get(part) for part in ("group", "resource", "namespace", "name")]
    return [name(address), "/".join(part for part in path if part), age(address, now)]


IPADDRESSES = Printer((NAME, Column("ParentRef", "The object the address is for."), AGE), _ipaddress)
