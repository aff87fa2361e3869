"""Allocation under a race: nothing is handed out twice, nothing leaks."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.api import kinds
from fairlead.api.errors import StatusError
from fairlead.registry import DeleteOptions, ListOptions, Registry, RegistryOptions, RequestContext
from fairlead.registry.allocation import AddressPool, PortPool
from fairlead.registry.repair import Repair
from fairlead.store.interface import Operation
from fairlead.store.memory import MemoryStore

SVC = kinds.SERVICES


class SlowStore(MemoryStore):
    """Lets others go between any decision and its commit, as a disk does."""

    async def commit(self, *operations: Operation) -> int:
        """As ever, a moment later."""
        await asyncio.sleep(0)
        return await super().commit(*operations)


actions = st.lists(
    st.tuples(
        st.sampled_from(
            ["create", "create", "delete", "ClusterIP", "NodePort", "LoadBalancer", "ExternalName", "ports"]
        ),
        st.integers(0, 5),  # which Service
        st.sampled_from([0, 0, 1, 2, 3]),  # a static request, or none
        st.booleans(),
    ),
    max_size=40,
)


async def act(registry: Registry, action: tuple[str, int, int, bool]) -> None:
    """One request; being refused is fine."""
    what, which, static, local = action
    name, ctx = f"s{which}", RequestContext()
    port: dict[str, Any] = {"name": "a", "port": 80, "protocol": "TCP"}
    try:
        if what == "create":
            spec: dict[str, Any] = {"ports": [port], "type": "NodePort" if local else "ClusterIP"}
            if static:
                spec["clusterIP"] = f"10.96.0.{static}"
                if local:
                    port["nodePort"] = 30000 + static
            await registry.create(SVC, "default", {"metadata": {"name": name}, "spec": spec}, ctx)
        elif what == "delete":
            await registry.delete(SVC, "default", name, DeleteOptions(), ctx)
        else:

            def change(obj: dict[str, Any]) -> dict[str, Any]:
                spec = obj["spec"]
                if what == "ports":
                    second = {"name": "b", "port": 81, "protocol": "TCP"} | (
                        {"nodePort": 30000 + static} if static else {}
                    )
                    spec["ports"] = [spec["ports"][0], second] if local else spec["ports"][:1]
                    return obj
                spec["type"] = what
                spec["externalName"] = "example.com" if what == "ExternalName" else None
                if what == "LoadBalancer" and local:
                    spec["externalTrafficPolicy"] = "Local"
                return obj

            await registry.patch(SVC, "default", name, change, ctx)
    except StatusError as error:
        assert error.code in {404, 409, 422} or "range is full" in error.message, error


@given(rounds=st.lists(actions, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_allocations_are_exactly_what_services_have(rounds: list[list[Any]], seed: int) -> None:
    """After any racing requests, what is claimed are the addresses and ports of the Services, each once."""

    async def run() -> None:
        options = RegistryOptions(
            service_cidrs=("10.96.0.0/29",), node_port_range=(30000, 30005), dice=random.Random(seed)
        )
        store = SlowStore()
        registry = Registry(store, options)
        await registry.create(kinds.NAMESPACES, "", {"metadata": {"name": "default"}}, RequestContext())
        for racing in rounds:
            await asyncio.gather(*(act(registry, action) for action in racing))
            held: list[str] = []
            for obj in (await registry.list(SVC, "", ListOptions())).items:
                spec = obj["spec"]
                held += [AddressPool.prefix + ip for ip in spec.get("clusterIPs", ())]
                ports = {p["nodePort"] for p in spec["ports"] if p.get("nodePort") and spec["type"] != "ExternalName"}
                ports |= {spec["healthCheckNodePort"]} if spec.get("healthCheckNodePort") else set()
                assert not ports or spec["type"] in {"NodePort", "LoadBalancer"}
                held += [f"allocations/nodeports/{port}" for port in ports]
                assert bool(spec.get("clusterIP")) == (spec["type"] != "ExternalName")
            assert len(held) == len(set(held))
            claims = [(await store.list(prefix)).records for prefix in (PortPool.prefix, AddressPool.prefix)]
            assert sorted(held) == [record.key for records in claims for record in records]
            assert await Repair(store, options).repair() == 0

    asyncio.run(run())


async def test_the_last_address_goes_to_one_of_many() -> None:
    """Racing for three free addresses, three win and the rest are told that the range is full."""
    store = SlowStore()
    registry = Registry(store, RegistryOptions(service_cidrs=("10.96.0.0/29",)))
    await registry.create(kinds.NAMESPACES, "", {"metadata": {"name": "default"}}, RequestContext())
    bodies = [{"metadata": {"name": f"s{i}"}, "spec": {"ports": [{"port": 80}]}} for i in range(20)]
    results = await asyncio.gather(
        *(registry.create(SVC, "default", body, RequestContext()) for body in bodies), return_exceptions=True
    )
    ips = [r["spec"]["clusterIP"] for r in results if isinstance(r, dict)]
    assert len(ips) == len(set(ips)) == 6
    assert all(r.code == 500 and "range is full" in r.message for r in results if isinstance(r, StatusError))
