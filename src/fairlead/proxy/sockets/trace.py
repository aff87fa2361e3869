"""Where a pod's socket ends up by the balancer's own programs and maps. Pure.

Stands beside the kernel, on the interpreter; tests hold it to the rules. Invariant: every draw is followed, so the
outcomes are all that are possible.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from functools import lru_cache

from fairlead.linux.bpf import interpret
from fairlead.linux.bpf.assembler import Program
from fairlead.proxy.sockets.desired import PROTOCOLS, SERVICES, SHAPES, Step, address_bytes
from fairlead.proxy.sockets.programs import CONTEXT_BYTES, IP4, IP6, PORT, PROTOCOL, programs

Place = tuple[str, int]
Maps = dict[str, dict[bytes, bytes]]

NODE_NAMESPACE, POD_NAMESPACE = 11, 22
_CONNECTING, _ASKING = {"TCP": "connect", "UDP": "sendmsg"}, {"TCP": "getpeername", "UDP": "recvmsg"}


def empty() -> Maps:
    """Maps as they are before anything was written."""
    return {name: {} for name in SHAPES}


def take(maps: Maps, steps: Iterable[Step]) -> None:
    """Change the maps. Raises KeyError for what is dropped and not there."""
    for step in steps:
        for key, value in step.elements:
            if step.act == "put":
                maps[step.map][key] = value
            else:
                del maps[step.map][key]


def connect(
    maps: Maps, protocol: str, to: Place, *, cookie: int = 1, draw: int = 0, namespace: int = POD_NAMESPACE
) -> Place:
    """Where a socket that wants to `to` is sent (a datagram each time, for UDP); changes what the maps remember."""
    return _run(maps, _CONNECTING[protocol], protocol, to, cookie=cookie, draw=draw, namespace=namespace)


def peer(maps: Maps, protocol: str, other: Place, *, cookie: int = 1) -> Place:
    """Whom the socket is told it talks to, when `other` is at the other end."""
    return _run(maps, _ASKING[protocol], protocol, other, cookie=cookie)


def outcomes(maps: Maps, protocol: str, to: Place, namespace: int = POD_NAMESPACE) -> frozenset[Place]:
    """Everywhere a fresh socket may be sent; `to` itself if it is left to the rules. The maps stay as they are."""
    held = maps[SERVICES].get(address_bytes(to[0]) + struct.pack("!H", to[1]) + struct.pack("=H", PROTOCOLS[protocol]))
    draws = struct.unpack("=I", held)[0] if held is not None else 1
    found = set()
    for draw in range(draws):
        copy = {name: dict(held) if SHAPES[name].recent else held for name, held in maps.items()}
        found.add(connect(copy, protocol, to, draw=draw, namespace=namespace))
    return frozenset(found)


@lru_cache(maxsize=2)
def _programs(version: int) -> dict[str, Program]:
    return programs(4 if version == 4 else 6, NODE_NAMESPACE)


def _run(
    maps: Maps, hook: str, protocol: str, to: Place, *, cookie: int, draw: int = 0, namespace: int = POD_NAMESPACE
) -> Place:
    address = ipaddress.ip_address(to[0])
    version = address.version
    program = _programs(version)[f"{hook}{version}"]
    context = bytearray(CONTEXT_BYTES)
    where = slice(IP4, IP4 + 4) if version == 4 else slice(IP6, IP6 + 16)
    context[where] = address.packed
    context[PORT : PORT + 2] = struct.pack("!H", to[1])
    context[PROTOCOL : PROTOCOL + 4] = struct.pack("=I", PROTOCOLS[protocol])
    machine = interpret.Machine(maps, SHAPES, context, cookie, namespace, lambda: draw)
    if interpret.run(program, machine) != 1:
        raise ValueError(f"{hook} does not let the call go on")
    return str(ipaddress.ip_address(bytes(context[where]))), struct.unpack("!H", context[PORT : PORT + 2])[0]
