"""What of a cluster is to be had on the machine's own ports, and where each port leads. Pure.

In: `--publish` as written, the Services. Out: per listener (address, port, protocol) the ways in, the best first.
Invariant: what cannot be carried (SCTP, a port that the Service has not) leads nowhere, and is never mistaken for
another.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from fairlead.discovery.model import Service, ServiceKey, ServicePort

INGRESS = ServiceKey("kube-system", "fairlead-ingress")
LOOPBACK = "127.0.0.1"

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_FORM = "[HOSTIP:]HOSTPORT:[SERVICE[.NAMESPACE]:]PORT[/udp]"
Transport = Literal["tcp", "udp"]


class Listener(NamedTuple):
    """A port of the machine."""

    address: str
    port: int
    transport: Transport

    def __str__(self) -> str:
        return f"port {self.port}/{self.transport} of {self.address}"


class Publication(NamedTuple):
    """One `--publish`: the machine's port, the Service, and its port by number or name."""

    listener: Listener
    service: ServiceKey
    port: str


class Way(NamedTuple):
    """Where connections go. `inside`: the address is reached from a node (a cluster IP, the node's own port; then
    `address` is empty); otherwise from the machine itself."""

    address: str
    port: int
    inside: bool


def parse_publication(text: str) -> Publication:
    """Raises ValueError that says what is wrong."""
    body, slash, transport = text.partition("/")
    if slash and transport not in ("tcp", "udp"):
        raise ValueError(f"{text!r} has the protocol {transport!r}; there are tcp and udp")
    parts = _split(body)
    address = LOOPBACK
    if parts and not parts[0].isdigit():
        try:
            address = str(ipaddress.ip_address(parts[0]))
        except ValueError:
            raise ValueError(f"{text!r} is not {_FORM}: {parts[0]!r} is neither an address nor a port") from None
        parts = parts[1:]
    if len(parts) not in (2, 3):
        raise ValueError(f"{text!r} is not {_FORM}")
    if not parts[0].isdigit() or not 1 <= int(parts[0]) <= 65535:
        raise ValueError(f"{text!r} is not {_FORM}: {parts[0]!r} is no port")
    service = INGRESS
    if len(parts) == 3:
        name, _, namespace = parts[1].partition(".")
        service = ServiceKey(namespace or "default", name)
        if not _NAME.fullmatch(service.name) or not _NAME.fullmatch(service.namespace):
            raise ValueError(f"{text!r} is not {_FORM}: {parts[1]!r} is no Service, as web or web.shop")
    port = parts[-1]
    if not (1 <= int(port) <= 65535 if port.isdigit() else _NAME.fullmatch(port)):
        raise ValueError(f"{text!r} is not {_FORM}: {port!r} is neither a port's number nor its name")
    return Publication(Listener(address, int(parts[0]), "udp" if transport == "udp" else "tcp"), service, port)


def _split(text: str) -> list[str]:
    if text.startswith("[") and "]:" in text:
        address, _, rest = text[1:].partition("]:")
        return [address, *rest.split(":")]
    return text.split(":")


def ways_of(publication: Publication, service: Service | None) -> tuple[Way, ...]:
    """The load balancer's address, then the cluster IP; none while there is no such Service, or no such port."""
    if service is None:
        return ()
    port = next((p for p in service.ports if _is(p, publication)), None)
    if port is None:
        return ()
    outside = [entry.ip for entry in service.load_balancer if not entry.proxied]
    ways = [Way(ip, port.port, False) for ip in outside] + [Way(ip, port.port, True) for ip in service.cluster_ips]
    return tuple(ways)


def _is(port: ServicePort, publication: Publication) -> bool:
    named = publication.port in (str(port.port), port.name)
    return named and port.protocol == publication.listener.transport.upper()


def node_ports(services: Iterable[Service]) -> dict[Listener, tuple[ServiceKey, Way]]:
    """Every node port as a port of the machine's loopback."""
    found: dict[Listener, tuple[ServiceKey, Way]] = {}
    for service in services:
        for port in service.ports:
            transport = _TRANSPORTS.get(port.protocol)
            if port.node_port and transport is not None:
                found[Listener(LOOPBACK, port.node_port, transport)] = (service.key, Way("", port.node_port, True))
    return found


_TRANSPORTS: Mapping[str, Transport] = {"TCP": "tcp", "UDP": "udp"}
