"""Sockets of the machine's own ports, for what is published.

Used by `up`, which must say at once what is taken, and by the publisher. Invariant: a socket that comes back listens.
"""

from __future__ import annotations

import errno
import ipaddress
import socket

from fairlead.cluster.config import ClusterConfig
from fairlead.cluster.errors import ClusterError
from fairlead.cluster.publish import Listener, Publication, parse_publication

Bound = list[tuple[Publication, socket.socket]]
"""The sockets of `--publish`."""


def bind(config: ClusterConfig) -> Bound:
    """The sockets of `--publish`, listening. Raises ClusterError naming the one that is taken."""
    made: Bound = []
    try:
        for text in config.publish:
            publication = parse_publication(text)
            made.append((publication, listen(publication.listener)))
    except OSError as error:
        close(made)
        where = publication.listener
        if error.errno == errno.EADDRINUSE:
            raise ClusterError(f"--publish {text}: {where} is in use", "choose another, or end what has it") from error
        raise ClusterError(f"--publish {text}: {where} can't be had: {error.strerror}", "choose another") from error
    return made


def close(bound: Bound) -> None:
    """Close this process' copies."""
    for _, one in bound:
        one.close()


def listen(listener: Listener) -> socket.socket:
    """A socket bound to the machine's port, and listening. Raises OSError."""
    family = socket.AF_INET if ipaddress.ip_address(listener.address).version == 4 else socket.AF_INET6
    made = socket.socket(family, socket.SOCK_STREAM if listener.transport == "tcp" else socket.SOCK_DGRAM)
    try:
        if listener.transport == "tcp":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((listener.address, listener.port))
        if listener.transport == "tcp":
            made.listen(1024)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made
