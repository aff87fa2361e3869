"""The proxy as a whole over nftables in memory: when it acts, what a change costs, what it does when refused."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterable

from immutables import Map

from fairlead.client.fake import FakeAPI, FakeClient
from fairlead.discovery.model import (
    Changes,
    Endpoint,
    EndpointPort,
    Service,
    ServiceKey,
    ServicePort,
    ServiceSnapshot,
    Slice,
)
from fairlead.linux.conntrack import Flow
from fairlead.linux.netlink import NetlinkError
from fairlead.linux.nft.memory import MemoryNftables
from fairlead.linux.nft.objects import TableName
from fairlead.linux.nft.transaction import AddElements, Change, DropChain, DropElements
from fairlead.proxy.nftables.backend import NftablesBackend
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.run import Proxy, Sync

OPTIONS = ProxyOptions("n1", manage_sysctls=False)
TABLE = TableName("ip", "fairlead")


class Stubborn(MemoryNftables):
    """Refuses the next `refusals` commits."""

    refusals = 0

    def commit(self, table: TableName, changes: Iterable[Change]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise NetlinkError(12)
        super().commit(table, changes)


class OldKernel(MemoryNftables):
    """Like kernels before 6.2: a chain is busy in the transaction that takes the last element leading to it."""

    def commit(self, table: TableName, changes: Iterable[Change]) -> None:
        changes = tuple(changes)
        if any(isinstance(c, DropElements) for c in changes) and any(isinstance(c, DropChain) for c in changes):
            raise NetlinkError(errno.EBUSY)
        super().commit(table, changes)


class NoFlows:
    """Connection tracking that tracks nothing."""

    def unanswered(self, family: int, protocol: int) -> list[Flow]:
        return []

    def flows(self, family: int, protocol: int, destination: str = "") -> list[Flow]:
        return []

    def delete(self, flow: Flow) -> bool:
        return False

    def close(self) -> None:
        pass


def proxy(nft: MemoryNftables, on_sync: Callable[[Sync], None] | None = None) -> Proxy:
    backend = NftablesBackend(OPTIONS, ("IPv4",), lambda: nft)
    return Proxy(OPTIONS, backend=backend, flows=NoFlows, on_sync=on_sync)


def service(number: int, *addresses: str) -> Service:
    return Service(
        ServiceKey("shop", f"web-{number}"),
        cluster_ips=(f"10.96.{number // 250}.{number % 250 + 1}",),
        ports=(ServicePort("", "TCP", 80, 8080),),
        slices=(
            Slice("s", "IPv4", (EndpointPort("", "TCP", 8080),), tuple(Endpoint(a, node="n9") for a in addresses)),
        ),
    )


def snapshot(*services: Service, synced: bool = True) -> ServiceSnapshot:
    return ServiceSnapshot(Map({s.key: s for s in services}), synced=synced)


async def test_endpoints_come_and_go_by_elements_alone() -> None:
    """Among 300 services, an endpoint more or less changes a few slots of its own service, and never a verdict: for
    those the kernel would look through all services."""
    nft = MemoryNftables()
    p = proxy(nft)
    p.backend.start()
    services = {n: service(n, "10.244.2.1", "10.244.2.2") for n in range(300)}
    await p.apply(snapshot(*services.values()))
    for count in (3, 4, 5, 6, 7, 8, 7, 6, 5, 4, 3, 2, 1, 2):
        services[7] = service(7, *(f"10.244.2.{n}" for n in range(1, count + 1)))
        await p.apply(snapshot(*services.values()), Changes(frozenset([services[7].key])))
        elements = [c for c in nft.committed[-1] if isinstance(c, AddElements | DropElements)]
        assert {c.set.name for c in elements} == {"eps"}
        assert sum(len(c.elements if isinstance(c, AddElements) else c.keys) for c in elements) <= 16
        held = [e.data for key, e in nft.tables[TABLE].elements["eps"].items() if key[0] == "10.96.0.8"]
        assert {held.count(data) for data in held} == {8 // count}
        assert len(set(held)) == count


async def test_an_endpoint_replaced_costs_two_elements() -> None:
    """A rolling update's step is one element out, one in, whatever its place."""
    nft = MemoryNftables()
    p = proxy(nft)
    p.backend.start()
    await p.apply(snapshot(service(1, *(f"10.244.2.{n}" for n in range(10, 16)))))
    await p.apply(snapshot(service(1, *(f"10.244.2.{n}" for n in range(11, 17)))), Changes(frozenset([service(1).key])))
    assert [type(c).__name__ for c in nft.committed[-1]] == ["DropElements", "AddElements"]


async def test_not_yet_synced_is_not_empty() -> None:
    """Nothing is committed for a snapshot that is not complete."""
    nft = MemoryNftables()
    p = proxy(nft)
    p.backend.start()
    await p.apply(snapshot(synced=False))
    assert nft.committed == []


async def test_nothing_to_do_commits_nothing() -> None:
    """The same snapshot again makes no transaction."""
    nft = MemoryNftables()
    p = proxy(nft)
    p.backend.start()
    same = snapshot(service(1, "10.244.2.1"))
    for _ in range(2):
        await p.apply(same)
    await p.apply(same, Changes(frozenset([service(1).key])))
    assert len(nft.committed) == 1


async def test_a_refused_change_is_made_by_reading_anew() -> None:
    """If the kernel is not as we thought, it is read and mended in the same breath."""
    nft = MemoryNftables()
    p = proxy(nft)
    p.backend.start()
    await p.apply(snapshot(service(1, "10.244.2.1")))
    del nft.tables[TABLE]  # a stranger's doing, not noticed yet
    await p.apply(snapshot(service(1, "10.244.2.2")), Changes(frozenset([service(1).key])))
    assert next(iter(nft.tables[TABLE].elements["eps"].values())).data == ("10.244.2.2", 8080)


async def test_a_kernel_that_refuses_is_tried_again() -> None:
    """A failure does not end the proxy; it tries again until the rules hold."""
    nft, syncs = Stubborn(), asyncio.Queue[Sync]()
    p = proxy(nft, syncs.put_nowait)
    p.backend.start()
    nft.refusals = 7
    await p.apply(snapshot(service(1, "10.244.2.1")))
    assert TABLE not in nft.tables
    assert (await asyncio.wait_for(syncs.get(), 5)).repaired
    assert nft.tables[TABLE].elements["eps"]


async def test_an_old_kernel_keeps_a_chain_for_a_moment() -> None:
    """Where the kernel calls a chain busy it is emptied, and dropped with the next change; used again, it is filled."""
    nft = OldKernel()
    p = proxy(nft)
    p.backend.start()
    many, few = (service(1, *(f"10.244.2.{n}" for n in range(count))) for count in (20, 2))
    change = Changes(frozenset([few.key]))
    for wanted in (many, few, many, few):
        await p.apply(snapshot(wanted), change)
        taken = 20 if wanted is many else 8
        assert nft.tables[TABLE].elements["eps"].keys() == {("10.96.0.2", "TCP", 80, n) for n in range(taken)}
        assert bool(nft.tables[TABLE].chains["class-32"].rules) == (wanted is many)
    await p.apply(snapshot(), change)
    assert "class-32" not in nft.tables[TABLE].chains


async def test_two_services_with_one_address() -> None:
    """The one that sorts first has the address, also its empty slots; when it goes, the other gets it."""
    nft = MemoryNftables()
    p = proxy(nft)
    p.backend.start()
    first = service(1, "10.244.2.1", "10.244.2.3", "10.244.2.4")
    second = Service(
        ServiceKey("shop", "web-2"),
        cluster_ips=first.cluster_ips,
        ports=first.ports,
        slices=service(2, "10.244.2.2").slices,
    )
    for order in ((second, first), (first, second)):
        await p.apply(snapshot())
        await p.apply(snapshot(order[0]))
        await p.apply(snapshot(*order))
        held = sorted(address for address, _ in (e.data for e in nft.tables[TABLE].elements["eps"].values()))
        assert held == ["10.244.2.1"] * 2 + ["10.244.2.3"] * 2 + ["10.244.2.4"] * 2
    await p.apply(snapshot(second))
    assert [e.data for e in nft.tables[TABLE].elements["eps"].values()] == [("10.244.2.2", 8080)] * 8


async def test_run_follows_an_api_server() -> None:
    """`run` needs nothing but a client: what is created there ends in the rules."""
    nft, syncs, api = MemoryNftables(), asyncio.Queue[Sync](), FakeAPI()
    task = asyncio.create_task(proxy(nft, syncs.put_nowait).run(FakeClient(api)))
    try:
        await asyncio.wait_for(syncs.get(), 5)
        assert nft.tables[TABLE].elements["no-endpoints"] == {}
        api.add(_service_object())
        await asyncio.wait_for(syncs.get(), 5)
        assert len(nft.tables[TABLE].elements["no-endpoints"]) == 1
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _service_object() -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], "ports": [{"port": 80, "protocol": "TCP"}]},
    }
