"""What happens when things go wrong: the API is gone, clients are many or mean, upstreams answer nonsense."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest

from fairlead.dns.cache import Cache
from tests.unit.dns.test_processes import api, free_ports, kubeconfig, started
from tests.unit.dns.test_server import ask, running, upstream
from tests.unit.dns.test_serving import ask as ask_port
from tests.unit.dns.test_serving import page, serving
from tests.unit.dns.worlds import lines

EXAMPLE = Path(__file__).parents[3] / "examples" / "02-corefile" / "Corefile"


async def test_the_api_goes_away(tmp_path: Path) -> None:
    """What is known goes on being answered, and it stays ready: stale is better than nothing."""
    async with api() as served:
        config = kubeconfig(tmp_path, served.port)
        async with started(config) as process:
            await process.until(process.is_ready)
            for watch in served.watches.values():
                assert watch._req is not None
                assert watch._req.transport is not None
                watch._req.transport.close()
            served.objects = {}
            for _ in range(3):
                found = await process.ask("web.shop.svc.cluster.local")
                assert lines(found.answer) == ["web.shop.svc.cluster.local. 5 IN A 10.96.0.20"]
            assert await process.status(process.ready, "/ready") == 200


async def test_many_connections() -> None:
    """Those above the limit are closed at once; datagrams are answered all the while, and new ones when others went."""
    async with running(connections=50) as server:
        address = ("127.0.0.1", server.port)

        async def connection() -> bool:
            """Whether it was kept."""
            _, writer = await asyncio.open_connection(*address)
            await asyncio.sleep(0)
            writer.close()
            return True

        for _ in range(3):
            found = await asyncio.gather(*(connection() for _ in range(150)), return_exceptions=True)
            assert any(kept is True for kept in found)
            assert (await ask(server, "web.shop.svc.cluster.local", "A")).answer
        async with asyncio.timeout(5):
            while server._connections:  # noqa: ASYNC110 - they end in the server's code
                await asyncio.sleep(0.01)
        assert (await ask(server, "web.shop.svc.cluster.local", "A", tcp=True)).answer


@pytest.mark.parametrize("kind", ["ANY", "A", "TXT", "SRV", "AXFR", "NS", "SOA"])
async def test_it_amplifies_little(kind: str) -> None:
    """No answer over UDP is longer than 1232 bytes, whatever is offered; a whole zone is never given over UDP."""
    async with running() as server:
        for name in ("cluster.local", "db.shop.svc.cluster.local", "_http._tcp.db.shop.svc.cluster.local"):
            query = dns.message.make_query(name, kind, use_edns=0, payload=65535)
            answer = await dns.asyncquery.udp(query, "127.0.0.1", port=server.port, timeout=5)
            assert len(answer.to_wire()) <= 1232
            if kind == "AXFR":
                assert answer.rcode() == dns.rcode.REFUSED


async def test_upstreams_that_answer_nonsense() -> None:
    """SERVFAIL, never a fault: cut answers, endless names, other types, empty messages."""

    def cut(query: dns.message.Message, tcp: bool) -> bytes:
        message = dns.message.make_response(query)
        return message.to_wire()[:7] + b"\x09" + message.to_wire()[8:]

    def pointer(query: dns.message.Message, tcp: bool) -> bytes:
        wire = dns.message.make_response(query).to_wire()
        wire = wire[:6] + b"\0\1" + wire[8:10] + b"\0\0" + wire[12:]
        return wire + b"\xc0" + bytes((len(wire),)) + b"\0\1\0\1\0\0\0\1\0\4\1\2\3\4"

    for reply in (cut, pointer):
        async with upstream(reply) as address, running(address, cache=Cache()) as server:
            assert (await ask(server, "example.com", "A")).rcode() == dns.rcode.SERVFAIL
            assert server.outside.cache is not None
            assert server.outside.cache.sizes() == (0, 0)


async def test_a_client_that_sends_rubbish_over_tcp() -> None:
    """It loses its connection, or gets an error; others do not notice."""
    async with running() as server:
        for rubbish in (b"\0\0", b"\0\4abcd", b"\xff\xff" + b"x" * 100, b"GET / HTTP/1.1\r\n\r\n"):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(rubbish)
            writer.close()
        assert (await ask(server, "web.shop.svc.cluster.local", "A", tcp=True)).answer


async def test_the_example(tmp_path: Path) -> None:
    """examples/02-corefile as it stands, but for the ports and the cluster: every name that its head tells of."""
    port, health, ready, metrics = free_ports(4)
    async with api() as served:
        served.objects["namespaces"].append({"metadata": {"name": "default", "uid": "d", "resourceVersion": "1"}})
        spec = {"clusterIP": "10.96.0.30", "clusterIPs": ["10.96.0.30"]}
        meta = {"namespace": "default", "name": "api", "uid": "api", "resourceVersion": "1"}
        served.objects["services"].append({"metadata": meta, "spec": spec})
        served.objects["pods"] = []
        text = EXAMPLE.read_text().replace(":1053", f":{port}").replace(":8080", f":{health}")
        text = text.replace(":8181", f":{ready}").replace(":9153", f":{metrics}")
        (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.9\n")
        text = text.replace("/etc/resolv.conf", str(tmp_path / "resolv.conf"))
        config = kubeconfig(tmp_path, served.port)
        async with serving(tmp_path, text, "--kubeconfig", str(config)) as process:

            async def is_ready() -> bool:
                return (await page(ready, "/ready"))[0] == 200

            await process.until(is_ready)
            assert await ask_port(port, "api.default.svc.cluster.local") == [
                "api.default.svc.cluster.local. 30 IN A 10.96.0.30"
            ]
            assert await ask_port(port, "api.prod.example.org") == ["api.prod.example.org. 30 IN A 10.96.0.30"]
            assert await ask_port(port, "ip-192-0-2-7.nodes.example.org") == [
                "ip-192-0-2-7.nodes.example.org. 60 IN A 192.0.2.7"
            ]
            assert await ask_port(port, "gateway.nodes.example.org") == [
                "gateway.nodes.example.org. 3600 IN A 192.0.2.1"
            ]
            process.corefile.write_text(text.replace("192.0.2.1 gateway", "192.0.2.9 gateway"))

            async def changed() -> bool:
                found = await ask_port(port, "gateway.nodes.example.org")
                return found == ["gateway.nodes.example.org. 3600 IN A 192.0.2.9"]

            await process.until(changed)
    assert socket.AF_INET
