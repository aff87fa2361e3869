"""The programs that the kernel runs when a pod's socket connects, sends, receives, or is asked for its peer. Pure.

Stands on the assembler; the maps are those of `desired`. Each takes a `bpf_sock_addr` (linux/bpf.h) and always lets the
call go on; where there is nothing to take over, with the address it had, so that the rules do their work.

- connect: TCP only. A connected UDP socket would be bound to its endpoint for good; the rules move it when that goes.
- sendmsg: datagrams of sockets that are not connected. A flow (socket, virtual IP, port) stays with its endpoint as
  long as that serves, as connection tracking would have it.
- recvmsg, getpeername: who connected or sent to a virtual IP sees it, not the endpoint.
"""

from __future__ import annotations

import sys
from typing import Literal

from fairlead.linux.bpf.assembler import FP, R0, R1, R2, R3, R4, R6, R7, R8, R9, Assembler, Program, Size
from fairlead.proxy.sockets.desired import (
    DATAGRAM_ORIGINS,
    ENDPOINTS,
    FLOWS,
    MEMBERS,
    ORIGIN_SLOTS,
    ORIGINS,
    PROTOCOLS,
    SERVICES,
)

Version = Literal[4, 6]

# struct bpf_sock_addr
IP4, IP6, PORT, PROTOCOL = 4, 8, 24, 36
CONTEXT_BYTES = 72

# The stack, from its end: the key of ENDPOINTS, which begins as that of SERVICES does; the key of DATAGRAM_ORIGINS; the
# key of FLOWS; the key of MEMBERS. For TCP, after the first: the value of ORIGINS and its key.
_ENDPOINT_KEY, _SLOT = -24, -4
_ORIGIN_KEY, _FLOW_KEY, _MEMBER_KEY = -56, -88, -128
_ORIGIN, _ORIGIN_SLOT = -72, -80
_COOKIE_BYTES, _SERVICE_BYTES, _ENDPOINT_BYTES = 8, 20, 20

_PROCEED = 1
_MAPPED = int.from_bytes(b"\0\0\xff\xff", sys.byteorder)


def programs(version: Version, own_namespace: int) -> dict[str, Program]:
    """By hook. `own_namespace`: the cookie of the node's network namespace, whose sockets are left alone."""
    return {
        f"connect{version}": _connect(version, own_namespace),
        f"sendmsg{version}": _sendmsg(version, own_namespace),
        f"recvmsg{version}": _recvmsg(version),
        f"getpeername{version}": _getpeername(version),
    }


def _connect(version: Version, own_namespace: int) -> Program:
    a = Assembler()
    _take_pods_only(a, "TCP", own_namespace)
    _find_service(a, version, "TCP")
    _choose(a)
    _find_origin_slot(a)
    _copy(a, (FP, _ORIGIN + _COOKIE_BYTES), (R8, 0), _ENDPOINT_BYTES)
    _copy(a, (FP, _ORIGIN + _COOKIE_BYTES + _ENDPOINT_BYTES), (FP, _ENDPOINT_KEY), _SERVICE_BYTES)
    _write(a, ORIGINS, _ORIGIN_SLOT, (FP, _ORIGIN))
    _send_there(a, version)
    a.label("proceed")
    a.exit(_PROCEED)
    return a.program()


def _sendmsg(version: Version, own_namespace: int) -> Program:
    a = Assembler()
    _take_pods_only(a, "UDP", own_namespace)
    _find_service(a, version, "UDP")
    a.move(R1, R6)
    a.call("get_socket_cookie")
    a.store(8, FP, _FLOW_KEY, R0)
    _copy(a, (FP, _FLOW_KEY + _COOKIE_BYTES), (FP, _ENDPOINT_KEY), _SERVICE_BYTES)
    a.store_number(4, FP, _FLOW_KEY + _COOKIE_BYTES + _SERVICE_BYTES, 0)
    _lookup(a, FLOWS, _FLOW_KEY)
    a.when(R0, 0, "choose")
    a.move(R8, R0)
    _copy(a, (FP, _MEMBER_KEY), (FP, _ENDPOINT_KEY), _SERVICE_BYTES)
    _copy(a, (FP, _MEMBER_KEY + _SERVICE_BYTES), (R8, 0), _ENDPOINT_BYTES)
    _lookup(a, MEMBERS, _MEMBER_KEY)
    a.unless(R0, 0, "chosen")
    a.label("choose")
    _choose(a)
    _write(a, FLOWS, _FLOW_KEY, (R8, 0))
    a.label("chosen")
    _remember_origin(a)
    _send_there(a, version)
    a.label("proceed")
    a.exit(_PROCEED)
    return a.program()


def _recvmsg(version: Version) -> Program:
    """Whose datagram it is, by the name it was asked for."""
    a = Assembler()
    a.move(R6, R1)
    a.load(4, R7, R6, PROTOCOL)
    a.unless(R7, PROTOCOLS["UDP"], "proceed")
    a.call("get_socket_cookie")
    a.store(8, FP, _ORIGIN_KEY, R0)
    _store_address(a, version, _ORIGIN_KEY + _COOKIE_BYTES)
    a.load(4, R7, R6, PORT)
    a.store(2, FP, _ORIGIN_KEY + 24, R7)
    _end_origin_key(a)
    _lookup(a, DATAGRAM_ORIGINS, _ORIGIN_KEY)
    a.when(R0, 0, "proceed")
    a.move(R8, R0)
    _send_there(a, version)
    a.label("proceed")
    a.exit(_PROCEED)
    return a.program()


def _getpeername(version: Version) -> Program:
    """Who is at the other end, by the name it was asked for: if the place is still this socket's, and the other end is
    what was chosen then."""
    a = Assembler()
    a.move(R6, R1)
    a.load(4, R7, R6, PROTOCOL)
    a.unless(R7, PROTOCOLS["TCP"], "proceed")
    _find_origin_slot(a)
    _store_address(a, version, _ORIGIN + _COOKIE_BYTES)
    a.load(4, R7, R6, PORT)
    a.store(2, FP, _ORIGIN + 24, R7)
    a.store_number(2, FP, _ORIGIN + 26, 0)
    _lookup(a, ORIGINS, _ORIGIN_SLOT)
    a.when(R0, 0, "proceed")
    _unless_alike(a, R0, (FP, _ORIGIN), _COOKIE_BYTES + _ENDPOINT_BYTES, "proceed")
    a.address(R8, R0, _COOKIE_BYTES + _ENDPOINT_BYTES)
    _send_there(a, version)
    a.label("proceed")
    a.exit(_PROCEED)
    return a.program()


def _find_origin_slot(a: Assembler) -> None:
    """The socket's number begins the value of ORIGINS on the stack, its place there is the key."""
    a.move(R1, R6)
    a.call("get_socket_cookie")
    a.store(8, FP, _ORIGIN, R0)
    a.move_number(R7, ORIGIN_SLOTS)
    a.remainder(R0, R7)
    a.store(4, FP, _ORIGIN_SLOT, R0)


def _unless_alike(a: Assembler, base: int, other: tuple[int, int], length: int, label: str) -> None:
    """Go to the label unless the bytes are the same, in words; each place is a register and an offset."""
    for position in range(0, length, 4):
        a.load(4, R7, base, position)
        a.load(4, R9, other[0], other[1] + position)
        a.unless_same(R7, R9, label)


def _take_pods_only(a: Assembler, protocol: str, own_namespace: int) -> None:
    """R6: the context. Other protocols, and the node's own sockets, go on as they are."""
    a.move(R6, R1)
    a.load(4, R7, R6, PROTOCOL)
    a.unless(R7, PROTOCOLS[protocol], "proceed")
    a.call("get_netns_cookie")
    a.move_wide(R1, own_namespace)
    a.when_same(R0, R1, "proceed")


def _find_service(a: Assembler, version: Version, protocol: str) -> None:
    """R7: how many endpoints it has; the key is on the stack."""
    _store_address(a, version, _ENDPOINT_KEY)
    a.load(4, R7, R6, PORT)
    a.store(2, FP, _ENDPOINT_KEY + 16, R7)
    a.store_number(2, FP, _ENDPOINT_KEY + 18, PROTOCOLS[protocol])
    _lookup(a, SERVICES, _ENDPOINT_KEY)
    a.when(R0, 0, "proceed")
    a.load(4, R7, R0, 0)
    a.when(R7, 0, "proceed")


def _choose(a: Assembler) -> None:
    """R8: one of R7 endpoints, by chance."""
    a.call("get_prandom_u32")
    a.remainder(R0, R7)
    a.store(4, FP, _SLOT, R0)
    _lookup(a, ENDPOINTS, _ENDPOINT_KEY)
    a.when(R0, 0, "proceed")
    a.move(R8, R0)


def _remember_origin(a: Assembler) -> None:
    """That this socket means the service on the stack when it has to do with the endpoint R8; where that is known, it
    is only looked up: to write it costs seven times as much."""
    a.move(R1, R6)
    a.call("get_socket_cookie")
    a.store(8, FP, _ORIGIN_KEY, R0)
    _copy(a, (FP, _ORIGIN_KEY + _COOKIE_BYTES), (R8, 0), 16)
    a.load(2, R9, R8, 16)
    a.store(2, FP, _ORIGIN_KEY + 24, R9)
    _end_origin_key(a)
    _lookup(a, DATAGRAM_ORIGINS, _ORIGIN_KEY)
    a.when(R0, 0, "remember")
    _unless_alike(a, R0, (FP, _ENDPOINT_KEY), _SERVICE_BYTES, "remember")
    a.goto("remembered")
    a.label("remember")
    _write(a, DATAGRAM_ORIGINS, _ORIGIN_KEY, (FP, _ENDPOINT_KEY))
    a.label("remembered")


def _end_origin_key(a: Assembler) -> None:
    a.store_number(2, FP, _ORIGIN_KEY + 26, 0)
    a.store_number(4, FP, _ORIGIN_KEY + 28, 0)


def _send_there(a: Assembler, version: Version) -> None:
    """The address and port at R8 become the socket's."""
    if version == 4:
        a.load(4, R9, R8, 12)
        a.store(4, R6, IP4, R9)
    else:
        for word in range(0, 16, 4):
            a.load(4, R9, R8, word)
            a.store(4, R6, IP6 + word, R9)
    a.load(2, R9, R8, 16)
    a.store(4, R6, PORT, R9)


def _store_address(a: Assembler, version: Version, offset: int) -> None:
    """The context's address on the stack, as 16 bytes."""
    if version == 4:
        a.store_number(4, FP, offset, 0)
        a.store_number(4, FP, offset + 4, 0)
        a.store_number(4, FP, offset + 8, _MAPPED)
        a.load(4, R9, R6, IP4)
        a.store(4, FP, offset + 12, R9)
    else:
        for word in range(0, 16, 4):
            a.load(4, R9, R6, IP6 + word)
            a.store(4, FP, offset + word, R9)


def _copy(a: Assembler, to: tuple[int, int], source: tuple[int, int], length: int) -> None:
    """Whole words; each place is a register and an offset."""
    size: Size = 4
    for position in range(0, length, size):
        a.load(size, R9, source[0], source[1] + position)
        a.store(size, to[0], to[1] + position, R9)


def _lookup(a: Assembler, name: str, offset: int) -> None:
    """R0: where the value is for the key on the stack, or 0."""
    a.move_map(R1, name)
    a.address(R2, FP, offset)
    a.call("map_lookup_elem")


def _write(a: Assembler, name: str, offset: int, value: tuple[int, int]) -> None:
    """The value, at a register and an offset, for the key on the stack; who can't remember it leaves the socket as it
    is."""
    a.move_map(R1, name)
    a.address(R2, FP, offset)
    a.address(R3, *value)
    a.move_number(R4, 0)
    a.call("map_update_elem")
    a.unless(R0, 0, "proceed")
