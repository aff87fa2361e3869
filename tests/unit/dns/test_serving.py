"""A Corefile in force: its processes, listeners and pages; another Corefile; the end. All on loopback."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import dns.asyncquery
import dns.message
import dns.rcode
import dns.zone
import pytest
from aiohttp import ClientError, ClientSession

from fairlead.apiserver import pki
from tests.unit.dns.test_processes import api, free_ports, gone, kubeconfig
from tests.unit.dns.worlds import lines

DEADLINE = 15.0


class Running:
    """`fairlead dns --config …` in a process of its own."""

    def __init__(self, corefile: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "fairlead", "dns", "--config", str(corefile), *arguments]
        self.corefile = corefile
        self.log = corefile.with_suffix(".log")
        with self.log.open("wb") as log:
            self.popen = subprocess.Popen(command, stdout=log, stderr=log)

    def said(self) -> str:
        return self.log.read_text()

    def children(self) -> list[int]:
        """The other processes of it."""
        pid = self.popen.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    async def until(self, condition: Callable[[], Awaitable[object]]) -> None:
        end = time.monotonic() + DEADLINE
        while not await condition():
            assert time.monotonic() < end, f"deadline passed; it said: {self.said()}"
            await asyncio.sleep(0.01)

    async def says(self, text: str) -> None:
        async def found() -> bool:
            return text in self.said()

        await self.until(found)

    async def ended(self) -> int:
        async def over() -> bool:
            return self.popen.poll() is not None

        await self.until(over)
        assert self.popen.returncode is not None
        return self.popen.returncode


@asynccontextmanager
async def serving(folder: Path, text: str, *arguments: str) -> AsyncIterator[Running]:
    path = folder / "Corefile"
    path.write_text(text)
    process = Running(path, *arguments)
    try:
        await process.says("answering on")
        yield process
    finally:
        process.popen.kill()
        process.popen.wait()


async def ask(port: int, name: str, kind: str = "A") -> list[str]:
    query = dns.message.make_query(name, kind)
    return lines((await dns.asyncquery.udp(query, "127.0.0.1", port=port, timeout=DEADLINE)).answer)


async def page(port: int, path: str) -> tuple[int, str]:
    try:
        async with ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
            return response.status, await response.text()
    except ClientError:
        return 0, ""


def template(address: str) -> str:
    return f'template IN A {{\n answer "{{{{ .Name }}}} 5 IN A {address}"\n}}\n'


async def test_a_corefile_for_a_cluster(tmp_path: Path) -> None:
    """Names of the cluster, ready, health, metrics with CoreDNS's names, the query log; SIGTERM ends it with 0."""
    port, health, ready, metrics = free_ports(4)
    async with api() as served:
        text = f"""
.:{port} {{
    bind 127.0.0.1
    errors
    log . "{{name}} {{rcode}}"
    health 127.0.0.1:{health} {{
        lameduck 100ms
    }}
    ready 127.0.0.1:{ready}
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig(tmp_path, served.port)}
        fallthrough in-addr.arpa
    }}
    prometheus 127.0.0.1:{metrics}
    cache 30
}}
"""
        async with serving(tmp_path, text) as process:

            async def is_ready() -> bool:
                return (await page(ready, "/ready"))[0] == 200

            await process.until(is_ready)
            assert await page(health, "/health") == (200, "OK")
            for _ in range(3):
                assert await ask(port, "web.shop.svc.cluster.local") == [
                    "web.shop.svc.cluster.local. 5 IN A 10.96.0.20"
                ]
            await process.says("[INFO] web.shop.svc.cluster.local. NOERROR")
            _, text = await page(metrics, "/metrics")
            common = f'server="dns://127.0.0.1:{port}",zone=".",view=""'
            assert f'coredns_dns_requests_total{{{common},proto="udp",family="1",type="A"}} 3' in text
            assert f'coredns_dns_responses_total{{{common},rcode="NOERROR",plugin=""}} 3' in text
            assert f'coredns_dns_request_duration_seconds_count{{{common},type="A"}} 3' in text
            assert f'coredns_plugin_enabled{{{common},name="kubernetes"}} 1' in text
            process.popen.send_signal(signal.SIGTERM)
            assert await process.ended() == 0


async def test_both_families(tmp_path: Path) -> None:
    """Without `bind` a Corefile's server answers over IPv4 and IPv6, and knows a client by its own address."""
    (port,) = free_ports(1)
    async with serving(tmp_path, f".:{port} {{\n whoami\n}}\n"):
        for address in ("127.0.0.1", "::1"):
            query = dns.message.make_query("example.org", "A")
            found = await dns.asyncquery.udp(query, address, port=port, timeout=DEADLINE)
            assert lines(found.additional)[0].split()[-1] == address
            found = await dns.asyncquery.tcp(query, address, port=port, timeout=DEADLINE)
            assert lines(found.additional)[0].split()[-1] == address


async def test_remembered_answers_are_counted_too(tmp_path: Path) -> None:
    """Without a log they are only looked up; none is lost to the counts."""
    port, metrics = free_ports(2)
    text = f".:{port} {{\n bind 127.0.0.1\n prometheus 127.0.0.1:{metrics}\n {template('192.0.2.1')}}}\n"
    async with serving(tmp_path, text):
        for _ in range(20):
            await ask(port, "example.org")
        _, text = await page(metrics, "/metrics")
        assert 'zone=".",view="",rcode="NOERROR",plugin=""} 20' in text


async def test_another_corefile(tmp_path: Path) -> None:
    """Read again on a signal: what it says is in force, new ports and all; one that is wrong changes nothing."""
    first, second = free_ports(2)

    def text(port: int, address: str) -> str:
        return f".:{port} {{\n bind 127.0.0.1\n {template(address)}}}\n"

    async with serving(tmp_path, text(first, "192.0.2.1")) as process:
        assert await ask(first, "a.example") == ["a.example. 5 IN A 192.0.2.1"]
        process.corefile.write_text(text(first, "192.0.2.2") + text(second, "192.0.2.3"))
        process.popen.send_signal(signal.SIGUSR1)
        await process.says("Corefile read again")
        assert await ask(first, "a.example") == ["a.example. 5 IN A 192.0.2.2"]
        assert await ask(second, "a.example") == ["a.example. 5 IN A 192.0.2.3"]
        process.corefile.write_text(text(first, "192.0.2.4") + "frob {\n")
        process.popen.send_signal(signal.SIGUSR1)
        await process.says(f"{process.corefile}:7: frob: its brace is never closed")
        assert await ask(first, "a.example") == ["a.example. 5 IN A 192.0.2.2"]
        taken, _ = await asyncio.open_connection("127.0.0.1", second)
        process.corefile.write_text(text(first, "192.0.2.5"))
        process.popen.send_signal(signal.SIGHUP)

        async def changed() -> bool:
            return await ask(first, "a.example") == ["a.example. 5 IN A 192.0.2.5"]

        await process.until(changed)
        async with asyncio.timeout(DEADLINE):
            assert await taken.read() == b""  # the listener that is gone ends its connections


async def test_a_port_that_is_taken_keeps_the_old_corefile(tmp_path: Path) -> None:
    """The new one's sockets are bound before anything of the old is touched."""
    port, other = free_ports(2)
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", other)
    async with serving(tmp_path, f".:{port} {{\n bind 127.0.0.1\n {template('192.0.2.1')}}}\n") as process:
        process.corefile.write_text(f".:{port} .:{other} {{\n bind 127.0.0.1\n {template('192.0.2.2')}}}\n")
        process.popen.send_signal(signal.SIGUSR1)
        await process.says(f"cannot listen on 127.0.0.1:{other}/tcp")
        assert await ask(port, "a.example") == ["a.example. 5 IN A 192.0.2.1"]
    server.close()


async def test_a_wrong_corefile_is_said_in_one_line(tmp_path: Path) -> None:
    """Exit code 1, file and line, no traceback; `--check` says the same and serves nothing."""
    path = tmp_path / "Corefile"
    path.write_text(". {\n frob\n}\n")
    for arguments in ((), ("--check",)):
        process = Running(path, *arguments)
        assert await process.ended() == 1
        assert f"{path}:2: frob: unknown plugin" in process.said()
        assert "Traceback" not in process.said()
    path.write_text(". {\n whoami\n}\n")
    assert await Running(path, "--check").ended() == 0


async def test_workers_share_the_port(tmp_path: Path) -> None:
    """Each is fed the same; if one dies all end; a change reaches them all."""
    (port,) = free_ports(1)
    async with api() as served:
        config = kubeconfig(tmp_path, served.port)
        text = f".:{port} {{\n bind 127.0.0.1\n kubernetes cluster.local {{\n kubeconfig {config}\n }}\n}}\n"
        async with serving(tmp_path, text, "--workers", "3") as process:
            await process.says("synced")

            async def everywhere() -> bool:
                found = [await ask(port, "web.shop.svc.cluster.local") for _ in range(30)]
                return all(found)

            await process.until(everywhere)
            children = process.children()
            assert len(children) == 3
            os.kill(children[-1], signal.SIGKILL)
            assert await process.ended() == 1


async def test_workers_do_not_outlive_the_first(tmp_path: Path) -> None:
    """Also where nothing is followed, and however it ends."""
    (port,) = free_ports(1)
    async with serving(tmp_path, f".:{port} {{\n bind 127.0.0.1\n whoami\n}}\n", "--workers", "3") as process:
        children = process.children()
        assert len(children) == 2
        process.popen.kill()

        async def all_gone() -> bool:
            return all(gone(child) for child in children)

        await process.until(all_gone)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path, ssl.SSLContext]:
    authority = pki.create_authority("test")
    pair = pki.issue(authority, "dns", ips=("127.0.0.1",), dns_names=("localhost",), server=True)
    cert, key, ca = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem"
    cert.write_bytes(_bytes(pair.cert_pem))
    key.write_bytes(_bytes(pair.key_pem))
    ca.write_bytes(_bytes(authority.cert_pem))
    return cert, key, ssl.create_default_context(cafile=ca)


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


async def test_dns_over_tls(tmp_path: Path, certificate: tuple[Path, Path, ssl.SSLContext]) -> None:
    """A DoT listener, and a server that asks it as its upstream over TLS, on one connection."""
    cert, key, context = certificate
    port, plain = free_ports(2)
    text = f"""
tls://.:{port} {{
    bind 127.0.0.1
    tls {cert} {key}
    {template("192.0.2.1")}
}}
.:{plain} {{
    bind 127.0.0.1
    forward . tls://127.0.0.1%localhost:{port} {{
        tls {tmp_path / "ca.pem"}
    }}
}}
"""
    async with serving(tmp_path, text):
        query = dns.message.make_query("example.org", "A")
        found = await dns.asyncquery.tls(query, "127.0.0.1", port=port, timeout=DEADLINE, ssl_context=context)
        assert lines(found.answer) == ["example.org. 5 IN A 192.0.2.1"]
        for name in ("a.example", "b.example"):
            assert await ask(plain, name) == [f"{name}. 5 IN A 192.0.2.1"]


async def test_dns_over_https(tmp_path: Path, certificate: tuple[Path, Path, ssl.SSLContext]) -> None:
    """GET and POST of RFC 8484, more than one on a connection; what is none is refused."""
    cert, key, context = certificate
    (port,) = free_ports(1)
    text = f"https://.:{port} {{\n bind 127.0.0.1\n tls {cert} {key}\n {template('192.0.2.1')}}}\n"
    packet = dns.message.make_query("example.org", "A", id=0).to_wire()
    url = f"https://127.0.0.1:{port}/dns-query"
    encoded = base64.urlsafe_b64encode(packet).rstrip(b"=").decode()
    header = {"content-type": "application/dns-message"}
    async with serving(tmp_path, text), ClientSession() as session:
        for _ in range(2):
            async with session.get(url, params={"dns": encoded}, ssl=context) as response:
                assert response.headers["Cache-Control"] == "max-age=5"
                assert response.content_type == "application/dns-message"
                assert dns.message.from_wire(await response.read()).answer
        async with session.post(url, data=packet, headers=header, ssl=context) as response:
            assert dns.message.from_wire(await response.read()).answer
        for code, path, body in ((404, "/other", None), (400, "/dns-query?dns=!", None), (415, "/dns-query", packet)):
            method = "GET" if body is None else "POST"
            async with session.request(method, f"https://127.0.0.1:{port}{path}", data=body, ssl=context) as response:
                assert response.status == code


async def test_a_loop_is_seen(tmp_path: Path) -> None:
    """A server that is its own upstream says so and ends."""
    (port,) = free_ports(1)
    text = f".:{port} {{\n bind 127.0.0.1\n loop\n forward . 127.0.0.1:{port}\n}}\n"
    async with serving(tmp_path, text) as process:
        assert await process.ended() == 1
        assert "detected for zone '.'" in process.said()


async def test_a_transfer(tmp_path: Path) -> None:
    """A secondary gets the whole zone over TCP, in several messages if need be, as dnspython reads it."""
    (port,) = free_ports(1)
    records = "".join(f"host-{i} A 192.0.2.{i % 250}\n" for i in range(3000))
    (tmp_path / "db").write_text(f"$TTL 60\n@ SOA ns root 7 1 1 1 1\n@ NS ns\nns A 192.0.2.1\n{records}")
    text = f"example.org:{port} {{\n bind 127.0.0.1\n file db\n transfer {{\n to *\n }}\n}}\n"
    async with serving(tmp_path, text):
        zone = dns.zone.Zone("example.org")
        await dns.asyncquery.inbound_xfr("127.0.0.1", zone, port=port, timeout=DEADLINE)
        assert len(zone.nodes) == 3002


async def test_files_are_read_again(tmp_path: Path) -> None:
    """A hosts file that changes changes the answers, also those that were remembered."""
    (port,) = free_ports(1)
    (tmp_path / "hosts").write_text("192.0.2.1 a.example\n")
    async with serving(tmp_path, f".:{port} {{\n bind 127.0.0.1\n hosts hosts {{\n reload 20ms\n }}\n}}\n") as process:
        assert await ask(port, "a.example") == ["a.example. 3600 IN A 192.0.2.1"]
        (tmp_path / "hosts").write_text("192.0.2.22 a.example\n")

        async def changed() -> bool:
            return await ask(port, "a.example") == ["a.example. 3600 IN A 192.0.2.22"]

        await process.until(changed)


async def test_hand_over(tmp_path: Path) -> None:
    """A second server takes the port while the first one goes: no query is lost."""
    (port,) = free_ports(1)
    text = f".:{port} {{\n bind 127.0.0.1\n health 127.0.0.1:{free_ports(1)[0]} {{\n lameduck 300ms\n }}\n whoami\n}}\n"
    other = tmp_path / "other"
    other.mkdir()
    async with serving(tmp_path, text, "--share-port") as old:
        lost = asked = 0
        done = asyncio.Event()

        async def client() -> None:
            nonlocal lost, asked
            while not done.is_set():
                try:
                    query = dns.message.make_query("example.org", "A")
                    await dns.asyncquery.udp(query, "127.0.0.1", port=port, timeout=1)
                    asked += 1
                except (dns.exception.Timeout, OSError):
                    lost += 1

        clients = [asyncio.create_task(client()) for _ in range(4)]
        new_text = text.replace("health 127", "ready 127").replace(" {\n lameduck 300ms\n }", "")
        async with serving(other, new_text, "--share-port", "--workers", "2"):
            old.popen.send_signal(signal.SIGTERM)
            assert await old.ended() == 0
            done.set()
            await asyncio.gather(*clients)
            assert asked > 50
            assert lost == 0
    assert dns.rcode.NOERROR == 0
