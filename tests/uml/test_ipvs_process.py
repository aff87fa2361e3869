"""`fairlead proxy --proxy-mode ipvs` as a process against an API server that is one, too."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fairlead.linux.ipvs import IpvsSocket
from tests.kernel.conftest import make_namespace  # noqa: F401  (the fixture)
from tests.kernel.proxy_lab import POD_A, POD_B, Lab, accepted, until
from tests.kernel.resilience_lab import DEADLINE, VIP, Stand, standing

BOTH = {POD_A, POD_B}


@pytest.fixture
def stand(make_namespace: Callable[[str], str], tmp_path: Path) -> Iterator[Stand]:  # noqa: F811
    with standing(make_namespace, tmp_path) as made:
        yield made


def reached(lab: Lab, listening: dict[str, socket.socket], times: int = 4) -> set[str]:
    """Who answers for the virtual IP."""
    found = set()
    for _ in range(times):
        client = lab.connect(POD_A, VIP)
        name, _, connection = accepted(listening)
        found.add(name)
        connection.close()
        client.close()
    return found


def test_follows_the_api_restarts_and_cleans_up(stand: Stand) -> None:
    """What the API says is served, and what changes; an open connection outlives an endpoint that leaves and the
    proxy's death and return over what is there; --cleanup leaves no virtual server."""
    lab = stand.lab
    listening = {pod: lab.listen(pod) for pod in BOTH}
    stand.start_api()
    stand.fill()
    stand.start_proxy("ipvs")
    assert reached(lab, listening) == BOTH
    client = lab.connect(POD_A, VIP)
    name, _, connection = accepted(listening)
    (other,) = BOTH - {name}
    stand.endpoints(other)
    until(lambda: reached(lab, listening) == {other}, DEADLINE)
    stand.kill("proxy")
    stand.endpoints(*BOTH)
    stand.start_proxy("ipvs")
    assert reached(lab, listening) == BOTH
    client.send(b"still there?")
    connection.settimeout(DEADLINE)
    assert connection.recv(100) == b"still there?"
    stand.kill("proxy", signal.SIGTERM)
    assert reached(lab, listening) == BOTH
    stand.run(sys.executable, "-m", "fairlead", "proxy", "--cleanup")
    with lab.at("node"):
        ipvs = IpvsSocket()
    assert ipvs.read() == {}
    ipvs.close()
