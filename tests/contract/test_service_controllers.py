"""The controllers of Services' other kinds, on the real API server: ServiceCIDRs, mirrored Endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fairlead.api.errors import StatusError
from fairlead.api.kinds import ENDPOINTS, ENDPOINTSLICES, IPADDRESSES, NAMESPACES, SERVICECIDRS, SERVICES
from fairlead.client import Client
from fairlead.controllers import ControllerOptions, run_controllers
from tests.contract.client_over_http import real_client, real_server

Object = dict[str, Any]
DEADLINE = 15.0


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """Of an API server whose controllers run."""
    async with real_server(tmp_path) as server, real_client(server) as made:
        task = asyncio.create_task(run_controllers(made, ControllerOptions(ca_pem="PEM")))
        await eventually(lambda: made.get(NAMESPACES, "default"))
        try:
            yield made
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


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


def service(name: str, **spec: Any) -> Object:
    """A Service of one port."""
    metadata = {"name": name, "namespace": "default"}
    spec = {"ports": [{"name": "http", "port": 80, "targetPort": 8080}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


async def test_the_default_servicecidr(client: Client) -> None:
    """It is made, ready, and can't go while the cluster's own Service has an address in it."""

    async def ready() -> bool:
        found = await client.get(SERVICECIDRS, "kubernetes")
        return bool((found.get("status") or {}).get("conditions"))

    await eventually(ready)
    found = await client.get(SERVICECIDRS, "kubernetes")
    assert found["spec"] == {"cidrs": ["10.96.0.0/16"]}
    assert found["metadata"]["finalizers"] == ["networking.k8s.io/service-cidr-finalizer"]
    condition = found["status"]["conditions"][0]
    assert (condition["type"], condition["status"], condition["message"]) == (
        "Ready",
        "True",
        "Kubernetes Service CIDR is ready",
    )
    await eventually(lambda: client.get(IPADDRESSES, "10.96.0.1"))
    await client.delete(SERVICECIDRS, "kubernetes")

    async def terminating() -> bool:
        there = await client.get(SERVICECIDRS, "kubernetes")
        return bool(there["status"]["conditions"][0]["reason"] == "Terminating")

    await eventually(terminating)


async def test_a_servicecidr_goes_when_its_last_address_does(client: Client) -> None:
    """Used, it waits; unused, it goes."""
    body = {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "more"}}
    await client.create(SERVICECIDRS, body | {"spec": {"cidrs": ["10.97.0.0/28"]}})

    async def create() -> Object | None:
        try:
            return await client.create(SERVICES, service("s", clusterIP="10.97.0.5"))
        except StatusError as error:
            assert "not in the valid range" in error.message
            return None

    await eventually(create)
    await client.delete(SERVICECIDRS, "more")

    async def waits() -> bool:
        there = await client.get(SERVICECIDRS, "more")
        return bool(there["status"]["conditions"][0]["reason"] == "Terminating")

    await eventually(waits)
    await client.delete(SERVICES, "s", "default")

    async def gone() -> bool:
        try:
            await client.get(SERVICECIDRS, "more")
        except StatusError as error:
            return error.code == 404
        return False

    await eventually(gone)


async def test_endpoints_of_a_selectorless_service_are_mirrored(client: Client) -> None:
    """Created, changed and deleted with the Endpoints; not when a selector comes."""
    body: Object = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "db", "namespace": "default"},
        "subsets": [{"addresses": [{"ip": "10.9.8.7"}], "ports": [{"name": "http", "port": 8080}]}],
    }
    await client.create(SERVICES, service("db"))
    made = await client.create(ENDPOINTS, body)

    async def mirrored() -> list[str]:
        listed = await client.list(ENDPOINTSLICES, "default", label_selector="kubernetes.io/service-name=db")
        return sorted(e["addresses"][0] for s in listed["items"] for e in s["endpoints"])

    async def says(*ips: str) -> bool:
        return await mirrored() == sorted(ips)

    await eventually(lambda: says("10.9.8.7"))
    made["subsets"][0]["addresses"].append({"ip": "10.9.8.8"})
    await client.update(ENDPOINTS, made)
    await eventually(lambda: says("10.9.8.7", "10.9.8.8"))
    await client.delete(ENDPOINTS, "db", "default")
    await eventually(says)


async def test_warnings_are_headers(tmp_path: Path) -> None:
    """Every request for Endpoints is answered with the deprecation, a Service with what it does oddly."""
    import aiohttp

    async with real_server(tmp_path) as server, aiohttp.ClientSession() as session:
        headers = {"Authorization": "Bearer t0ken"}

        async def warned(method: str, path: str, body: Object | None = None) -> list[str]:
            async with session.request(method, server.url + path, json=body, headers=headers, ssl=False) as answer:
                assert answer.status < 300, await answer.text()
                return answer.headers.getall("Warning", [])

        await warned("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
        said = ['299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"']
        path = "/api/v1/namespaces/default/endpoints"
        body: Object = {"metadata": {"name": "e"}}
        assert await warned("POST", path, body) == said
        assert await warned("GET", path) == said
        assert await warned("GET", path + "/e") == said
        assert await warned("GET", path + "?watch=1&timeoutSeconds=1") == said
        assert await warned("DELETE", path + "/e") == said
        odd = service("odd", externalIPs=["1.2.3.4"], trafficDistribution="PreferClose")
        assert await warned("POST", "/api/v1/namespaces/default/services", odd) == [
            '299 - "spec.externalIPs is deprecated"',
            r'299 - "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\""',
        ]
        assert await warned("GET", "/api/v1/namespaces/default/services") == []
