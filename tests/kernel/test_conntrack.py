"""Connection tracking in this kernel: our listing and deletions against conntrack(8)."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable

import pytest

from fairlead.linux import namespaces
from fairlead.linux.conntrack import UDP, ConntrackSocket
from fairlead.linux.links import Links

pytestmark = pytest.mark.kernel


def _conntrack(namespace: str, *arguments: str) -> str:
    with namespaces.entered(namespaces.path(namespace)):
        done = subprocess.run(["conntrack", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _add(namespace: str, protocol: str, destination: str, answers: str) -> None:
    client = "2001:db8::9" if ":" in destination else "192.0.2.9"
    state = ["--state", "ESTABLISHED"] if protocol == "tcp" else []
    _conntrack(
        namespace,
        *("-I", "-p", protocol, "-s", client, "-d", destination, "-r", answers, "-q", client),
        *("--sport", "5555", "--dport", "53", "--reply-port-src", "5353", "--reply-port-dst", "5555", "-t", "60"),
        *state,
    )


@pytest.fixture
def place(make_namespace: Callable[[str], str]) -> str:
    name = make_namespace("ct")
    with Links(namespaces.path(name)) as links:
        links.set_up(links.index("lo"))
    return name


def test_listing_and_deleting(place: str) -> None:
    """UDP flows are listed by destination with both directions; exactly the one deleted is gone."""
    _add(place, "udp", "10.96.0.10", "10.244.1.2")
    _add(place, "udp", "10.96.0.11", "10.244.1.3")
    _add(place, "tcp", "10.96.0.10", "10.244.1.2")
    _add(place, "udp", "fd00:96::10", "fd00:244::2")
    with namespaces.entered(namespaces.path(place)):
        tracking = ConntrackSocket()
    with tracking:
        assert {f.original.destination for f in tracking.flows(socket.AF_INET, UDP)} == {"10.96.0.10", "10.96.0.11"}
        (flow,) = tracking.flows(socket.AF_INET, UDP, "10.96.0.10")
        assert flow.original == (socket.AF_INET, UDP, "192.0.2.9", 5555, "10.96.0.10", 53)
        assert flow.reply == (socket.AF_INET, UDP, "10.244.1.2", 5353, "192.0.2.9", 5555)
        assert tracking.delete(flow)
        assert not tracking.delete(flow)
        (six,) = tracking.flows(socket.AF_INET6, UDP, "fd00:96::10")
        assert six.reply.source == "fd00:244::2"
        assert tracking.delete(six)
    listed = _conntrack(place, "-L")
    assert ("10.96.0.11" in listed, "tcp" in listed) == (True, True)
    assert listed.count("dst=10.96.0.10") == 1
