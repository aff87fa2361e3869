"""Which connections are at work, as the kernel tells it."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from fairlead.linux import namespaces
from fairlead.linux.connections import Connection, busy_inbound, connections
from fairlead.linux.links import Links

pytestmark = pytest.mark.kernel
ADDRESS = "192.0.2.1"


@pytest.fixture
def server(make_namespace: Callable[[str], str]) -> Iterator[socket.socket]:
    """A listening socket in a namespace of its own, at an address that is not loopback."""
    with namespaces.entered(namespaces.path(make_namespace("tcp"))):
        with Links() as links:
            index = links.index("lo")
            links.set_up(index)
            links.ensure_address(index, ipaddress.ip_interface(f"{ADDRESS}/32"))
        with socket.create_server((ADDRESS, 0)) as made:
            yield made


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, connections()
        time.sleep(0.005)


def busy() -> int:
    return busy_inbound(connections())


def test_a_connection_is_at_work_until_it_was_answered(server: socket.socket) -> None:
    """From the handshake on, also before the server took it; an answered one that idles is not."""
    assert busy() == 0
    with socket.create_connection(server.getsockname()) as client:
        time.sleep(0.05)
        assert busy() == 1, "the request is still to come"
        taken, _ = server.accept()
        with taken:
            client.sendall(b"question")
            until(lambda: any(c.unread for c in connections() if c.state == 1))
            assert busy() == 1
            taken.recv(100)
            time.sleep(0.05)
            assert busy() == 1, "it owes an answer"
            taken.sendall(b"answer")
            client.recv(100)
            until(lambda: busy() == 0)
            client.sendall(b"another")
            until(lambda: busy() == 1)
    until(lambda: busy() == 0)


def test_connections_of_the_pod_with_itself_do_not_count() -> None:
    """Nor do those that it made."""
    listener = Connection(10, 80, "0.0.0.0")
    assert busy_inbound([listener, Connection(1, 80, "127.0.0.1", unread=5)]) == 0
    assert busy_inbound([listener, Connection(1, 40000, "10.0.0.1", unread=5)]) == 0
    assert busy_inbound([listener, Connection(1, 80, "10.0.0.1", unread=5)]) == 1
    assert busy_inbound([Connection(10, 80, "::"), Connection(4, 80, "10.0.0.1", unsent=1)]) == 0
