"""Where a proxied request goes: the address behind `[scheme:]name[:port]` of a Service, a pod or a node.

Under `proxying`. Rules and messages: upstream's `ResourceLocation` of services, pods and nodes. Invariant: a target is
never this machine's own loopback, nor a link-local or multicast address.
"""

from __future__ import annotations

import ipaddress
import random
from typing import Any

import msgspec

from fairlead.api import errors, nodenetworks
from fairlead.api.kinds import ENDPOINTSLICES, NODES, PODS, SERVICES
from fairlead.apiserver.call import Call
from fairlead.apiserver.kubelets import Kubelets
from fairlead.apiserver.request import RequestInfo, port_number
from fairlead.registry import ListOptions, Registry

Object = dict[str, Any]


class Target(msgspec.Struct, frozen=True):
    """`base` is `scheme://host:port`; `kubelet`: to be reached with the kubelets' client certificate."""

    base: str
    kubelet: bool = False


def remainder(raw_path: str, info: RequestInfo) -> str:
    """What follows `…/proxy` in the path, still encoded: empty, or beginning with a slash."""
    return raw_path[len(base_path(raw_path, info)) :]


def base_path(raw_path: str, info: RequestInfo) -> str:
    """The path up to and with `…/proxy`."""
    end, seen = 0, 0
    wanted = len(info.segments) - len(info.extra)
    while seen < wanted:
        while raw_path[end] == "/":
            end += 1
        end = raw_path.find("/", end)
        seen += 1
        if end < 0:
            return raw_path
    return raw_path[:end]


def split(text: str) -> tuple[str, str, str] | None:
    """(scheme, name, port) of `name`, `name:port` or `scheme:name:port`; None if it is none of them."""
    parts = text.split(":")
    match parts:
        case [name]:
            scheme, port = "", ""
        case [name, port]:
            scheme = ""
        case [scheme, name, port] if scheme in ("", "http", "https"):
            pass
        case _:
            return None
    return (scheme, name, port) if name else None


async def find(registry: Registry, nodes: Kubelets, call: Call) -> Target:
    """The target of a request. Raises 400, 404 or 503 in upstream's words."""
    info, text = call.info, call.info.name
    parts = split(text)
    if parts is None:
        raise errors.bad_request(f'invalid {info.plural[:-1]} request "{text}"')
    scheme, name, port = parts
    if info.resource == SERVICES:
        return await _service(registry, call.namespace, name, scheme, port)
    if info.resource == PODS:
        return await _pod(registry, call.namespace, name, scheme, port)
    return await _node(registry, nodes, name, scheme, port)


async def _service(registry: Registry, namespace: str, name: str, scheme: str, port: str) -> Target:
    service = await registry.get(SERVICES, namespace, name)
    if port.isdecimal():
        for known in (service.get("spec") or {}).get("ports") or ():
            if known.get("port") == port_number(port):
                port = known.get("name") or ""
                break
        else:
            raise errors.unavailable(f'no service port {port} found for service "{name}"', 0)
    listed = await registry.list(
        ENDPOINTSLICES, namespace, ListOptions(label_selector=f"kubernetes.io/service-name={name}")
    )
    found: list[tuple[str, int]] = []
    for piece in listed.items:
        numbers = [p["port"] for p in piece.get("ports") or () if (p.get("name") or "") == port and p.get("port")]
        for endpoint in piece.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") is not False:
                found += [(endpoint["addresses"][0], number) for number in numbers]
    if not found:
        raise errors.unavailable(f'no endpoints available for service "{name}"', 0)
    host, number = random.choice(found)
    return Target(_address(scheme, host, str(number)))


async def _pod(registry: Registry, namespace: str, name: str, scheme: str, port: str) -> Target:
    pod = await registry.get(PODS, namespace, name)
    host = (pod.get("status") or {}).get("podIP") or ""
    if not port:
        ports = [p["containerPort"] for c in pod["spec"].get("containers") or () for p in c.get("ports") or ()]
        port = str(ports[0]) if ports else ""
    elif not port.isdecimal():
        named = (p for c in pod["spec"].get("containers") or () for p in c.get("ports") or () if p.get("name") == port)
        port = str(next((p["containerPort"] for p in named), port))
    return Target(_address(scheme, host, port))


async def _node(registry: Registry, nodes: Kubelets, name: str, scheme: str, port: str) -> Target:
    base = await nodes.base_url(name)
    if not port or base.endswith(f":{port}"):
        return Target(base, kubelet=True)
    node = await registry.get(NODES, "", name)
    return Target(_address(scheme, nodenetworks.kubelet_address(node), port))


def _address(scheme: str, host: str, port: str) -> str:
    if not allowed(host):
        raise errors.bad_request("address not allowed")
    if port and port_number(port) is None:
        raise errors.bad_request(f'"{port}" is no port')
    authority = f"[{host}]" if ":" in host else host
    return f"{scheme or 'http'}://{authority}" + (f":{port}" if port else "")


def allowed(host: str) -> bool:
    """Whether requests may be carried to that address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified)
