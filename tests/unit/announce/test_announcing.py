"""When a node's announcer begins, and what it is told."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from fairlead.announce import announcing
from fairlead.announce.announcing import Announcing
from fairlead.api.addresspool import Pool, parse_pool
from fairlead.api.events import WatchEvent
from fairlead.api.kinds import NODES, SERVICES
from fairlead.client.fake import FakeAPI, FakeClient
from fairlead.discovery.fold import fold
from fairlead.discovery.model import ServiceSnapshot

POOL = parse_pool("192.0.2.0/28")
VIP = ipaddress.ip_address("192.0.2.1")


class Spy:
    """An announcer without sockets."""

    made: list[Spy] = []

    def __init__(self, node: str, key: bytes, **more: Any) -> None:
        self.wanted: list[Any] = []
        Spy.made.append(self)

    def start(self) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""

    def want(self, rankings: Any, home: Any) -> None:
        """Remember."""
        self.wanted.append((rankings, home))


class Node:
    """A node that is fed with objects."""

    def __init__(self, pool: Pool = POOL) -> None:
        self.snapshot = ServiceSnapshot()
        self.part = Announcing(FakeClient(FakeAPI()), "n1", b"k" * 32, pool)

    def see(self, *objects: dict[str, Any], synced: bool = True) -> None:
        events = [WatchEvent("MODIFIED", SERVICES if o["kind"] == "Service" else NODES, o) for o in objects]
        self.snapshot, changes = fold(self.snapshot, events, synced)
        self.part.see(self.snapshot, changes)


def node(name: str) -> dict[str, Any]:
    status = {"addresses": [{"type": "InternalIP", "address": "192.0.2.11"}], "conditions": []}
    return {"kind": "Node", "metadata": {"name": name}, "status": status}


def service(type: str, *ips: str) -> dict[str, Any]:
    spec = {"type": type, "clusterIPs": ["10.96.0.9"], "ports": [{"port": 80}]}
    ingress = [{"ip": ip, "ipMode": "VIP"} for ip in ips]
    metadata = {"name": "web", "namespace": "shop"}
    return {"kind": "Service", "metadata": metadata, "spec": spec, "status": {"loadBalancer": {"ingress": ingress}}}


@pytest.fixture(autouse=True)
def _spies(monkeypatch: pytest.MonkeyPatch) -> None:
    Spy.made = []
    monkeypatch.setattr(announcing, "Announcer", Spy)


async def test_nothing_begins_without_an_address() -> None:
    """No Service with an address from the pool: no announcer, hence no thread and no socket."""
    quiet = Node()
    quiet.see(node("n1"), service("ClusterIP"))
    quiet.see(service("LoadBalancer"))
    quiet.see(service("LoadBalancer", "198.51.100.1"))
    Node(Pool()).see(node("n1"), service("LoadBalancer", "192.0.2.1"))
    assert Spy.made == []


async def test_nothing_is_decided_before_everything_is_known() -> None:
    """A Service that was seen before the list was whole is announced once it is."""
    late = Node()
    late.see(node("n1"), service("LoadBalancer", "192.0.2.1"), synced=False)
    assert Spy.made == []
    late.see(synced=True)
    assert [wanted for wanted, _ in Spy.made[0].wanted] == [{VIP: ("n1",)}]


async def test_what_is_told_is_what_differs() -> None:
    """Once per difference: an address comes, another node may, the address goes with the type."""
    told = Node()
    told.see(node("n1"), service("LoadBalancer", "192.0.2.1"))
    told.see(service("LoadBalancer", "192.0.2.1"))
    told.see(node("n2"))
    told.see(service("ClusterIP"))
    wanted = [{address: set(nodes) for address, nodes in ranks.items()} for ranks, _ in Spy.made[0].wanted]
    assert wanted == [{VIP: {"n1"}}, {VIP: {"n1", "n2"}}, {}]
    assert Spy.made[0].wanted[0][1] == (ipaddress.ip_address("192.0.2.11"),)
