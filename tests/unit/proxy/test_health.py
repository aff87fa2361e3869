"""Health checks of load balancers, the proxy's own health, and its metrics, asked over HTTP."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from immutables import Map

from fairlead.discovery.model import Changes, Endpoint, EndpointPort, Node, Service, ServiceSnapshot, Slice
from fairlead.discovery.parse import parse_node
from fairlead.linux.iptables_memory import MemoryIptables
from fairlead.proxy.iptables.backend import IptablesBackend
from fairlead.proxy.nftables.backend import NftablesBackend
from fairlead.proxy.run import Proxy
from fairlead.proxy.serving import Bind, ProxyServers
from tests.ports import free_port
from tests.unit.proxy.flows import HERE, THERE, service
from tests.unit.proxy.test_run import OPTIONS, NoFlows, Stubborn


def snapshot(*services: Service, leaving: bool = False) -> ServiceSnapshot:
    nodes = Map({"n1": Node("n1", ("192.0.2.1",), leaving=leaving)})
    return ServiceSnapshot(Map({s.key: s for s in services}), nodes, synced=True)


async def ask(port: int, path: str = "/") -> tuple[int, str, dict[str, str]]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.text(), dict(response.headers)


@pytest.fixture
async def proxy() -> AsyncIterator[tuple[Proxy, ProxyServers, Stubborn]]:
    nft = Stubborn()
    made = Proxy(OPTIONS, backend=NftablesBackend(OPTIONS, ("IPv4",), lambda: nft), flows=NoFlows)
    servers = ProxyServers(made, "nftables", Bind("127.0.0.1", 0), Bind("127.0.0.1", 0))
    made.backend.start()
    await servers.start()
    yield made, servers, nft
    await servers.stop()
    await made.stop()


async def test_health_check_node_port(proxy: tuple[Proxy, ProxyServers, Stubborn]) -> None:
    """200 with the number of local ready endpoints, else 503; gone with the Service, moved with its port."""
    made, _, _ = proxy
    port, other = free_port(), free_port()
    web = service(HERE, THERE, external_local=True, health_check_node_port=port)
    await made.apply(snapshot(web))
    status, text, headers = await ask(port)
    assert (status, headers["X-Load-Balancing-Endpoint-Weight"]) == (200, "1")
    assert text == '{"service":{"namespace":"shop","name":"web"},"localEndpoints":1,"serviceProxyHealthy":true}'
    draining = Endpoint(HERE, ready=False, serving=True, terminating=True, node="n1")
    slices = (Slice("web-1", "IPv4", (EndpointPort("http", "TCP", 8080),), (draining,)),)
    change = Changes(frozenset([web.key]))
    await made.apply(snapshot(service(health_check_node_port=port, external_local=True, slices=slices)), change)
    status, _, headers = await ask(port)
    assert (status, headers["X-Load-Balancing-Endpoint-Weight"]) == (503, "0")
    await made.apply(snapshot(service(HERE, health_check_node_port=other)), change)
    assert (await ask(other))[0] == 200
    with pytest.raises(aiohttp.ClientConnectionError):
        await ask(port)
    await made.apply(snapshot(), change)
    with pytest.raises(aiohttp.ClientConnectionError):
        await ask(other)


async def test_a_taken_port_is_said_and_tried_again(
    proxy: tuple[Proxy, ProxyServers, Stubborn], caplog: pytest.LogCaptureFixture
) -> None:
    """A health check port somebody else has does not keep the rules away; it is served when it is free."""
    made, _, nft = proxy
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        web = service(HERE, health_check_node_port=port)
        await made.apply(snapshot(web))
        assert f"health check node port {port} of Service shop/web" in caplog.text
        assert len(nft.tables) == 1
    await made.apply(snapshot(web), Changes(frozenset([web.key])))
    assert (await ask(port))[0] == 200


async def test_healthz_and_livez(proxy: tuple[Proxy, ProxyServers, Stubborn]) -> None:
    """Not healthy before the first application and while a change waits for too long; a node that leaves lives."""
    made, servers, nft = proxy
    port, metrics = servers.ports
    status, text, _ = await ask(port, "/healthz")
    assert (status, '"lastUpdated":"0001-01-01T00:00:00Z"' in text) == (503, True)
    await made.apply(snapshot())
    status, text, _ = await ask(port, "/healthz")
    assert status == 200
    time = r'"[-:TZ0-9]+"'
    status = f'{{"IPv4":{{"lastUpdated":{time},"healthy":true}}}}'
    wanted = f'{{"lastUpdated":{time},"currentTime":{time},"nodeEligible":true,"healthy":true,"status":{status}}}'
    assert re.fullmatch(wanted, text)
    await made.apply(snapshot(leaving=True), Changes(nodes=frozenset(["n1"])))
    assert ((await ask(port, "/healthz"))[0], (await ask(port, "/livez"))[0]) == (503, 200)
    nft.refusals = 100
    await made.apply(snapshot(service(HERE)), Changes(frozenset([service().key])))
    assert (await ask(port, "/livez"))[0] == 200
    assert made.failing_since is not None
    made.failing_since -= 61
    assert (await ask(port, "/livez"))[0] == 503
    counted = (await ask(metrics, "/metrics"))[1]
    assert 'kubeproxy_proxy_livez_total{code="503"} 1.0' in counted
    assert "_created" not in counted


def test_a_node_that_leaves() -> None:
    """A deletion timestamp or the autoscaler's taint says so."""
    assert parse_node({"metadata": {"name": "n", "deletionTimestamp": "2030-01-01T00:00:00Z"}}).leaving
    assert parse_node({"spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler"}]}}).leaving
    assert not parse_node({"spec": {"taints": [{"key": "other"}]}}).leaving


async def test_metrics(proxy: tuple[Proxy, ProxyServers, Stubborn]) -> None:
    """Applications are counted under kube-proxy's names, and the mode is told."""
    made, servers, _ = proxy
    port = servers.ports[1]
    await made.apply(snapshot(service(THERE, external_local=True)))
    changed = service(THERE, HERE, internal_local=True)
    timed = Slice("web-1", "IPv4", changed.slices[0].ports, (Endpoint(THERE, node="n2"),), "2020-01-01T00:00:00Z")
    await made.apply(snapshot(service(internal_local=True, slices=(timed,))), Changes(frozenset([changed.key])))
    text = (await ask(port, "/metrics"))[1]
    for line in (
        "kubeproxy_sync_proxy_rules_duration_seconds_count 2.0",
        "kubeproxy_sync_full_proxy_rules_duration_seconds_count 1.0",
        "kubeproxy_sync_partial_proxy_rules_duration_seconds_count 1.0",
        "kubeproxy_network_programming_duration_seconds_count 1.0",
        "kubeproxy_sync_proxy_rules_endpoint_changes_total 1.0",
        'kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy="internal"} 2.0',
        'kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy="external"} 0.0',
        "kubeproxy_sync_proxy_rules_nftables_sync_failures_total 0.0",
        "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total 0.0",
    ):
        assert line in text, line
    assert (await ask(port, "/proxyMode"))[1] == "nftables"
    assert (await ask(port, "/nothing"))[0] == 404


async def test_metrics_of_iptables() -> None:
    """How many rules each table has and got last; a refused change that was made by reading anew."""
    memory = Reluctant()
    made = Proxy(OPTIONS, backend=IptablesBackend(OPTIONS, ("IPv4",), lambda family: memory), flows=NoFlows)
    servers = ProxyServers(made, "iptables", Bind("127.0.0.1", 0), Bind("127.0.0.1", 0))
    made.backend.start()
    await servers.start()
    try:
        web = service(HERE, THERE)
        await made.apply(snapshot(web))
        rules = {table: sum(map(len, memory.read(table).values())) for table in ("filter", "nat")}
        text = (await ask(servers.ports[1], "/metrics"))[1]
        for table, count in rules.items():
            assert f'kubeproxy_sync_proxy_rules_iptables_total{{table="{table}"}} {count}.0' in text
            assert f'kubeproxy_sync_proxy_rules_iptables_last{{table="{table}"}} {count}.0' in text
        memory.refusals = 1
        await made.apply(snapshot(service(HERE)), Changes(frozenset([web.key])))
        rules["nat"] = sum(map(len, memory.read("nat").values()))
        text = (await ask(servers.ports[1], "/metrics"))[1]
        assert f'kubeproxy_sync_proxy_rules_iptables_total{{table="nat"}} {rules["nat"]}.0' in text
        assert "kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total 1.0" in text
    finally:
        await servers.stop()
        await made.stop()


class Reluctant(MemoryIptables):
    """Refuses so many restores."""

    refusals = 0

    def restore(self, text: str) -> None:
        if self.refusals:
            self.refusals -= 1
            raise OSError("not now")
        super().restore(text)
