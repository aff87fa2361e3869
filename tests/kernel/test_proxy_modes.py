"""From one mode to another on a live node, and restarts, under traffic: connections go on, and none is missed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from fairlead.linux import namespaces
from fairlead.linux.iptables import IptablesTools
from fairlead.proxy import backends, sysctls
from fairlead.proxy.compile import compile_table
from fairlead.proxy.options import ProxyOptions
from tests.kernel.proxy_lab import NODE, POD_A, POD_B, Lab, accepted, service, snapshot, until
from tests.kernel.test_proxy import KINDS, backend_of

pytestmark = pytest.mark.kernel

VIP = "10.96.0.5"
WEB = service("web", VIP, (POD_A, POD_B), node_port=30080)


@pytest.fixture
def lab(make_namespace: Callable[[str], str]) -> Iterator[Lab]:
    made = Lab(make_namespace)
    yield made
    made.close()


def apply(lab: Lab, kind: str) -> None:
    """The rules of one kind, then those of the other modes away, as a proxy does at its start."""
    table, changed = compile_table(snapshot(WEB), ProxyOptions(NODE))
    backend = backend_of(kind)
    with lab.at("node"):
        assert sysctls.ensure(("IPv4",)) == []
        backend.start()
        backend.apply(table, changed)
        backends.clean_others(kind.partition("-")[0])
        backend.stop()


class Traffic:
    """Connects again and again from the first pod until stopped, on a thread in its namespace; counts what fails."""

    def __init__(self, lab: Lab) -> None:
        self.done = self.failed = 0
        self._servers = [lab.listen(pod) for pod in (POD_A, POD_B)]
        self._stop = threading.Event()
        self._namespace = namespaces.path(lab.pods[POD_A])
        self._threads = [threading.Thread(target=self._serve, args=(s,), daemon=True) for s in self._servers]
        self._client = threading.Thread(target=self._ask)
        for thread in (*self._threads, self._client):
            thread.start()

    def _serve(self, server: socket.socket) -> None:
        server.settimeout(0.1)
        while not self._stop.is_set():
            try:
                server.accept()[0].close()
            except OSError:
                continue

    def _ask(self) -> None:
        with namespaces.entered(self._namespace):
            while not self._stop.is_set():
                try:
                    with socket.create_connection((VIP, 80), timeout=2):
                        self.done += 1
                except OSError:
                    self.failed += 1

    def stop(self) -> tuple[int, int]:
        """(connections made, connections that failed), after a few more were made."""
        enough = self.done + 5
        until(lambda: self.done >= enough or self.failed > 0, 10)
        self._stop.set()
        for thread in (*self._threads, self._client):
            thread.join(5)
        return self.done, self.failed


@pytest.mark.parametrize(
    ("old", "new"),
    [(a, b) for a in KINDS for b in KINDS if a.partition("-")[0] != b.partition("-")[0]],
)
def test_switched_under_traffic(lab: Lab, old: str, new: str) -> None:
    """New connections all get through while the mode changes, an established one goes on, the old rules are gone."""
    apply(lab, old)
    listening = {pod: lab.listen(pod, 8080) for pod in (POD_A, POD_B)}
    client = lab.connect(POD_A, VIP)
    connection = accepted(listening)[2]
    for server in listening.values():
        server.close()
    traffic = Traffic(lab)
    apply(lab, new)
    done, failed = traffic.stop()
    assert (failed, done > 3) == (0, True), (done, failed)
    client.send(b"still there?")
    connection.settimeout(2)
    assert connection.recv(100) == b"still there?"
    connection.close()
    with lab.at("node"):
        held = "table ip fairlead" in lab.nft("list ruleset")
        chains = [c for v in ("nft", "legacy") for c in IptablesTools("IPv4", v).read("nat") if c.startswith("KUBE")]
    assert (held, bool(chains)) == (new == "nftables", new != "nftables")


@pytest.mark.parametrize("kind", KINDS)
def test_restarts_under_traffic(lab: Lab, kind: str) -> None:
    """A proxy that starts over its own rules, again and again, cuts no connection and misses none."""
    apply(lab, kind)
    traffic = Traffic(lab)
    for _ in range(5):
        apply(lab, kind)
    done, failed = traffic.stop()
    assert (failed, done > 3) == (0, True), (done, failed)


@pytest.mark.parametrize("kind", KINDS)
def test_kube_proxys_tables_go(lab: Lab, kind: str) -> None:
    """What kube-proxy's mode nftables left, of either family, would send connections where its last endpoints were; a
    clean-up leaves it to kube-proxy, which may be at work again."""
    service = f"add rule ip kube-proxy hook-nat ip daddr {VIP} tcp dport 80 dnat to 10.244.1.99:8080"
    for family in ("ip", "ip6"):
        lab.nft(f"add table {family} kube-proxy")
        lab.nft(f"add chain {family} kube-proxy hook-nat {{ type nat hook prerouting priority -100 ; }}")
    lab.nft(service)
    listening = {pod: lab.listen(pod) for pod in (POD_A, POD_B)}
    apply(lab, kind)
    lab.connect(POD_A, VIP)
    assert accepted(listening)[0] in listening
    assert "kube-proxy" not in lab.nft("list tables")
    lab.nft("add table ip kube-proxy")
    with lab.at("node"):
        backends.cleanup()
    assert "kube-proxy" in lab.nft("list tables")
