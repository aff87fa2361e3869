"""The LoadBalancer controller on the real API server: addresses, clean-up, restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fairlead.api.addresspool import parse_pool
from fairlead.api.errors import StatusError
from fairlead.api.kinds import EVENTS, NAMESPACES, SERVICES
from fairlead.client import Client
from fairlead.controllers import ControllerOptions, run_controllers
from tests.contract.client_over_http import real_client, real_server

Object = dict[str, Any]
DEADLINE = 30.0
POOL = "192.0.2.1-192.0.2.2"
FINALIZER = "service.kubernetes.io/load-balancer-cleanup"


class Lab:
    """An API server; controllers can be started and stopped."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._task: asyncio.Task[None] | None = None

    async def start(self, pool: str = POOL) -> None:
        options = ControllerOptions(ca_pem="PEM", load_balancer_pool=parse_pool(pool))
        self._task = asyncio.create_task(run_controllers(self.client, options))
        await eventually(lambda: self.client.get(NAMESPACES, "default"))

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def make(self, name: str, annotations: dict[str, str] | None = None, **spec: Any) -> Object:
        spec = {"type": "LoadBalancer", "ports": [{"name": "http", "port": 80}], **spec}
        metadata = {"name": name, "namespace": "default", "annotations": annotations or {}}
        return await self.client.create(
            SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
        )

    async def addresses(self, name: str) -> list[str]:
        service = await self.client.get(SERVICES, name, "default")
        return [entry["ip"] for entry in service["status"]["loadBalancer"].get("ingress") or ()]

    async def gets(self, name: str, *wanted: str) -> None:
        async def has() -> bool:
            return await self.addresses(name) == list(wanted)

        await eventually(has)

    async def is_told(self, name: str, words: str) -> None:
        async def told() -> bool:
            events = (await self.client.list(EVENTS, "default"))["items"]
            return any(e["involvedObject"]["name"] == name and words in e["message"] for e in events)

        await eventually(told)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """Controllers with a pool of two addresses."""
    async with real_server(tmp_path) as server, real_client(server) as client:
        made = Lab(client)
        await made.start()
        try:
            yield made
        finally:
            await made.stop()


async def eventually(condition: Callable[[], Awaitable[Any]]) -> Any:
    """The first true answer."""
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                if answer := await condition():
                    return answer
            except StatusError as error:
                if error.code not in {404, 409}:
                    raise
            await asyncio.sleep(0.01)


async def test_an_address_and_the_finalizer(lab: Lab) -> None:
    """The status says VIP; the finalizer is upstream's; an Event names the address."""
    await lab.make("a", allocateLoadBalancerNodePorts=False)
    await lab.gets("a", "192.0.2.1")
    service = await lab.client.get(SERVICES, "a", "default")
    assert service["status"]["loadBalancer"]["ingress"] == [{"ip": "192.0.2.1", "ipMode": "VIP"}]
    assert service["metadata"]["finalizers"] == [FINALIZER]
    assert not any(port.get("nodePort") for port in service["spec"]["ports"])
    await lab.is_told("a", "Assigned IP 192.0.2.1")


async def test_deletion_frees_the_address_for_who_waits(lab: Lab) -> None:
    """A third Service waits and is told who has the addresses; it gets the one that becomes free."""
    for name, address in (("a", "192.0.2.1"), ("b", "192.0.2.2")):
        await lab.make(name)
        await lab.gets(name, address)
    await lab.make("c")
    await lab.is_told("c", "its 2 IPv4 addresses are held by default/a, default/b;")
    await lab.client.delete(SERVICES, "a", "default")
    await lab.gets("c", "192.0.2.1")
    with pytest.raises(StatusError, match="not found"):
        await lab.client.get(SERVICES, "a", "default")


async def test_a_change_of_type_frees_the_address(lab: Lab) -> None:
    """The status is empty and the finalizer gone; back again, it gets one again."""
    await lab.make("a")
    await lab.gets("a", "192.0.2.1")
    await lab.client.patch(SERVICES, "a", {"spec": {"type": "ClusterIP"}}, "default")

    async def clean() -> bool:
        service = await lab.client.get(SERVICES, "a", "default")
        return not service["metadata"].get("finalizers") and not service["status"]["loadBalancer"]

    await eventually(clean)
    await lab.make("b", loadBalancerIP="192.0.2.1")
    await lab.gets("b", "192.0.2.1")
    await lab.client.patch(SERVICES, "a", {"spec": {"type": "LoadBalancer"}}, "default")
    await lab.gets("a", "192.0.2.2")


async def test_another_class_is_left_alone(lab: Lab) -> None:
    """No address, no finalizer, and what another controller wrote stays; its address is not given out."""
    await lab.make("other", loadBalancerClass="example.com/lb")
    status = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}}}
    await lab.client.patch(SERVICES, "other", status, "default", subresource="status")
    await lab.make("ours", loadBalancerClass="fairlead.dev/lan")
    await lab.gets("ours", "192.0.2.2")
    assert await lab.addresses("other") == ["192.0.2.1"]
    assert not (await lab.client.get(SERVICES, "other", "default"))["metadata"].get("finalizers")


async def test_a_request_that_changes(lab: Lab) -> None:
    """Another address asked for is given; an impossible one takes the address away and says why."""
    await lab.make("a")
    await lab.gets("a", "192.0.2.1")
    await lab.client.patch(SERVICES, "a", {"spec": {"loadBalancerIP": "192.0.2.2"}}, "default")
    await lab.gets("a", "192.0.2.2")
    await lab.client.patch(SERVICES, "a", {"spec": {"loadBalancerIP": "192.0.2.9"}}, "default")
    await lab.gets("a")
    await lab.is_told("a", "it is not in the pool (192.0.2.1-192.0.2.2)")


async def test_two_share_an_address_until_they_clash(lab: Lab) -> None:
    """By annotation and with other ports; when a port becomes the same, the younger moves."""
    key = {"fairlead.dev/allow-shared-ip": "web"}
    await lab.make("a", key)
    await lab.gets("a", "192.0.2.1")
    await lab.make("b", key, ports=[{"name": "https", "port": 443}])
    await lab.gets("b", "192.0.2.1")
    await lab.client.patch(SERVICES, "b", {"spec": {"ports": [{"name": "https", "port": 80}]}}, "default")
    await lab.gets("b", "192.0.2.2")
    assert await lab.addresses("a") == ["192.0.2.1"]


async def test_a_status_changed_by_hand_is_put_right(lab: Lab) -> None:
    """An address that is not from the pool gives way to one that is."""
    await lab.make("a")
    await lab.gets("a", "192.0.2.1")
    status = {"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1", "ipMode": "VIP"}]}}}
    await lab.client.patch(SERVICES, "a", status, "default", subresource="status")
    await lab.gets("a", "192.0.2.1")


async def test_a_restart_keeps_what_was_given(lab: Lab) -> None:
    """The status in the API is the state: whatever was made meanwhile, nobody moves and nothing is given twice."""
    await lab.make("b", loadBalancerIP="192.0.2.2")
    await lab.gets("b", "192.0.2.2")
    await lab.client.patch(SERVICES, "b", {"spec": {"loadBalancerIP": None}}, "default")
    await lab.stop()
    await lab.make("a")
    await lab.make("c")
    await lab.start("192.0.2.2-192.0.2.3")
    await lab.is_told("c", "held by")
    assert await lab.addresses("b") == ["192.0.2.2"]
    assert await lab.addresses("a") == ["192.0.2.3"]


async def test_many_at_once_get_one_each(lab: Lab) -> None:
    """Forty Services made together: forty addresses, none twice."""
    await lab.stop()
    await asyncio.gather(*(lab.make(f"s{number}") for number in range(40)))
    await lab.start("192.0.2.0/26")

    async def all_have() -> list[str] | None:
        found = [await lab.addresses(f"s{number}") for number in range(40)]
        return [each[0] for each in found] if all(found) else None

    assert len(set(await eventually(all_have))) == 40
