"""Ports for servers that a test starts."""

from __future__ import annotations

import contextlib
import random
import socket

SPAN = range(18000, 29000)
"""Below NodePorts and below the ports the kernel gives to connections, so that nobody takes one between its choice and
its use."""


def free_ports(count: int) -> list[int]:
    """Ports of TCP and UDP that are free on every address at the moment."""
    found: list[int] = []
    for port in random.sample(SPAN, len(SPAN)):
        with (
            contextlib.suppress(OSError),
            socket.create_server(("", port)),
            socket.socket(type=socket.SOCK_DGRAM) as udp,
        ):
            udp.bind(("", port))
            found.append(port)
        if len(found) == count:
            break
    return found


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]
