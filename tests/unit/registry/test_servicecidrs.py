"""ServiceCIDRs and IPAddresses: where addresses come from, whose they are, and what is put right."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fairlead.api import kinds
from fairlead.api.errors import StatusError
from fairlead.registry import DeleteOptions
from fairlead.registry.allocation import AddressPool, PortPool
from fairlead.registry.repair import Repair
from fairlead.store.interface import Delete, Put

SVC, CIDR, IP = kinds.SERVICES, kinds.SERVICECIDRS, kinds.IPADDRESSES
READY = {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}


def service(name: str, **spec: Any) -> dict[str, Any]:
    """A Service of one port."""
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}, **spec}}


async def remove(cluster: Any, resource: kinds.Resource, name: str) -> None:
    """Delete it."""
    namespace = "default" if resource.namespaced else ""
    await cluster.registry.delete(resource, namespace, name, DeleteOptions(), cluster.ctx())


async def more(cluster: Any, cidr: str, status: Any = READY) -> None:
    """A second ServiceCIDR."""
    await cluster.create(CIDR, {"metadata": {"name": "more"}, "spec": {"cidrs": [cidr]}})
    if status:
        await cluster.patch(CIDR, "more", lambda o: o.update(status=status), subresource="status")


async def test_a_cluster_ip_is_an_ipaddress(new_cluster: Any) -> None:
    """It comes and goes with the Service, and says whose it is."""
    cluster = await new_cluster()
    made = await cluster.create(SVC, service("s"))
    ip = made["spec"]["clusterIP"]
    address = await cluster.get(IP, ip)
    assert address["spec"] == {"parentRef": {"group": "", "resource": "services", "namespace": "default", "name": "s"}}
    assert address["metadata"]["labels"] == {
        "ipaddress.kubernetes.io/ip-family": "IPv4",
        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
    }
    await remove(cluster, SVC, "s")
    with pytest.raises(StatusError) as caught:
        await cluster.get(IP, ip)
    assert caught.value.code == 404


async def test_an_ipaddress_that_someone_made_keeps_its_address(new_cluster: Any) -> None:
    """Whoever has the object has the address, and repair leaves it alone."""
    cluster = await new_cluster()
    parent = {"resource": "services", "namespace": "default", "name": "none"}
    await cluster.create(IP, {"metadata": {"name": "10.96.3.4"}, "spec": {"parentRef": parent}})
    with pytest.raises(StatusError, match="provided IP is already allocated"):
        await cluster.create(SVC, service("s", clusterIP="10.96.3.4"))
    assert await Repair(cluster.store, cluster.registry.options).repair() == 0


async def test_addresses_of_a_ready_servicecidr_can_be_had(new_cluster: Any) -> None:
    """By name, and when the first range is full; not before it is ready, nor on its way out."""
    cluster = await new_cluster(service_cidrs=("10.96.0.0/29",))
    await more(cluster, "10.97.0.0/29", status=None)
    with pytest.raises(StatusError, match="is not in the valid range"):
        await cluster.create(SVC, service("early", clusterIP="10.97.0.3"))
    await cluster.patch(CIDR, "more", lambda o: o.update(status=READY), subresource="status")
    made = await cluster.create(SVC, service("named", clusterIP="10.97.0.3"))
    assert made["spec"]["clusterIP"] == "10.97.0.3"
    got = [(await cluster.create(SVC, service(f"s{i}")))["spec"]["clusterIP"] for i in range(11)]
    assert sorted(got) == [f"10.96.0.{i}" for i in range(1, 7)] + [f"10.97.0.{i}" for i in (1, 2, 4, 5, 6)]
    await remove(cluster, SVC, "s10")
    await cluster.patch(CIDR, "more", lambda o: o["metadata"].update(finalizers=["x/y"]))
    await remove(cluster, CIDR, "more")
    if got[10].startswith("10.97."):
        with pytest.raises(StatusError, match="range is full"):
            await cluster.create(SVC, service("late"))


async def test_repair_puts_back_what_was_deleted(new_cluster: Any) -> None:
    """An IPAddress and a node port in use come back; claims of Services that are not there go."""
    cluster = await new_cluster()
    made = await cluster.create(SVC, service("s", type="NodePort"))
    ip, port = made["spec"]["clusterIP"], made["spec"]["ports"][0]["nodePort"]
    await remove(cluster, IP, ip)
    await cluster.store.commit(Delete(f"{PortPool.prefix}{port}"))
    await cluster.store.commit(Put(f"{PortPool.prefix}31000", b"default/gone"))
    repair = Repair(cluster.store, cluster.registry.options)
    assert await repair.repair() == 3
    assert await cluster.keys(AddressPool.prefix) == [ip]
    assert await cluster.keys(PortPool.prefix) == [str(port)]
    assert await repair.repair() == 0


async def test_an_ipaddress_in_use_comes_back_at_once(new_cluster: Any) -> None:
    """Nobody can take it away from the Service."""
    cluster = await new_cluster()
    ip = (await cluster.create(SVC, service("s")))["spec"]["clusterIP"]
    task = asyncio.create_task(Repair(cluster.store, cluster.registry.options).run())
    await asyncio.sleep(0)
    await remove(cluster, IP, ip)
    async with asyncio.timeout(5):
        while not await cluster.keys(AddressPool.prefix):  # noqa: ASYNC110 (the repair has no event of its own)
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, "at least one CIDR required"),
        ({"cidrs": ["10.0.0.0/24", "10.1.0.0/24"]}, "may specify no more than one IP for each IP family"),
        ({"cidrs": ["10.0.0.0/24", "fd00::/64", "fd01::/64"]}, "may only hold up to 2 values"),
        ({"cidrs": ["10.0.0.1/24"]}, r"spec.cidrs\[0\]"),
    ],
)
async def test_what_is_no_servicecidr_is_refused(new_cluster: Any, spec: dict[str, Any], words: str) -> None:
    """In upstream's words."""
    cluster = await new_cluster()
    with pytest.raises(StatusError, match=words):
        await cluster.create(CIDR, {"metadata": {"name": "c"}, "spec": spec})


async def test_ranges_and_owners_stay(new_cluster: Any) -> None:
    """Both are immutable; an IPAddress is named by its canonical address."""
    cluster = await new_cluster()
    await more(cluster, "10.97.0.0/24")
    with pytest.raises(StatusError, match="field is immutable"):
        await cluster.patch(CIDR, "more", lambda o: o["spec"].update(cidrs=["10.98.0.0/24"]))
    parent = {"resource": "services", "namespace": "default", "name": "x"}
    for name in ("x", "10.96.0.01", "FD00::1"):
        with pytest.raises(StatusError, match=r"metadata\.name"):
            await cluster.create(IP, {"metadata": {"name": name}, "spec": {"parentRef": parent}})
    with pytest.raises(StatusError, match=r"spec\.parentRef: Required"):
        await cluster.create(IP, {"metadata": {"name": "10.96.0.9"}, "spec": {}})
    await cluster.create(IP, {"metadata": {"name": "fd00::1"}, "spec": {"parentRef": parent}})
    with pytest.raises(StatusError, match="field is immutable"):
        await cluster.patch(IP, "fd00::1", lambda o: o["spec"]["parentRef"].update(name="y"))
