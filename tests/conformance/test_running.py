"""How the server behaves while it runs: metrics, silent connections, new certificates, verbs on the wrong path."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from fairlead.apiserver import APIServer, ServerConfig, pki
from fairlead.registry import Registry
from fairlead.store.memory import MemoryStore


def test_metrics_count_requests_under_upstreams_names(curl):
    """Requests by verb, resource and code; durations in buckets that add up; only who may sees them."""
    assert curl("/api/v1/namespaces/default/pods")[0] == 200
    assert curl("/api/v1/namespaces/default/pods/nope")[0] == 404
    status, head, body = curl("/metrics")
    text = body.decode()
    assert status == 200
    assert "Content-Type: text/plain; version=0.0.4" in head
    labels = 'component="apiserver",group="",resource="pods",scope="{}",subresource="",verb="{}",version="v1"'
    for scope, verb, code in (("namespace", "LIST", 200), ("resource", "GET", 404)):
        found = labels.format(scope, verb)
        assert [
            line
            for line in text.splitlines()
            if line.startswith("apiserver_request_total{")
            and f'code="{code}"' in line
            and f'verb="{verb}"' in line
            and f'scope="{scope}"' in line
        ], found
    assert "apiserver_request_duration_seconds_bucket{" in text
    assert 'apiserver_current_inflight_requests{request_kind="readOnly"} 1.0' in text
    assert "apiserver_registered_watchers" in text
    assert "process_resident_memory_bytes" in text
    assert curl("/metrics", user="bob")[0] == 403
    assert curl("/metrics", "-X", "POST")[0] == 405


def test_put_and_patch_on_a_collection_are_not_allowed(curl):
    """405, not a complaint about the body."""
    for method in ("PUT", "PATCH"):
        words = ("-X", method, "-H", "Content-Type: application/json", "--data-binary", "{}")
        assert curl("/api/v1/namespaces/default/configmaps", *words)[0] == 405
        assert curl("/api/v1/nodes", *words)[0] == 405


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """An authority `ca`, and a server certificate `server` of it."""
    ca = pki.create_authority("running")
    (tmp_path / "ca.crt").write_bytes(ca.cert_pem)
    for name, cn in (("server", "first"), ("next", "second")):
        pair = pki.issue(ca, cn, ips=["127.0.0.1"], server=True)
        (tmp_path / f"{name}.crt").write_bytes(pair.cert_pem)
        (tmp_path / f"{name}.key").write_bytes(pair.key_pem)
    return tmp_path


async def started(files: Path, **options: Any) -> APIServer:
    server = APIServer(
        ServerConfig(
            registry=Registry(MemoryStore()),
            cert_file=files / "server.crt",
            key_file=files / "server.key",
            client_ca_file=files / "ca.crt",
            **options,
        )
    )
    await server.start()
    return server


async def common_name(server: APIServer, files: Path) -> str:
    """Of the certificate that a new connection sees."""
    context = ssl.create_default_context(cafile=str(files / "ca.crt"))
    _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    certificate = writer.get_extra_info("peercert")
    writer.close()
    return dict(pair for rdn in certificate["subject"] for pair in rdn)["commonName"]


async def test_a_connection_that_asks_for_nothing_is_ended(files):
    """Silent, or stuck within its headers: closed; one that asks in time stays open."""
    server = await started(files, first_request_seconds=0.3)
    context = ssl.create_default_context(cafile=str(files / "ca.crt"))
    try:
        for words in (b"", b"GET /livez HTTP/1.1\r\nHost: x\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
            writer.write(words)
            begun = time.monotonic()
            try:
                async with asyncio.timeout(5):
                    assert await reader.read() == b""
            except ConnectionError:
                pass
            assert time.monotonic() - begun >= 0.2
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
        for _ in range(2):
            writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200" in await reader.readline()
            await reader.readuntil(b"ok")
            await asyncio.sleep(0.5)
        writer.close()
    finally:
        await server.stop()


async def test_a_new_certificate_is_taken_into_use(files):
    """Replaced files are seen by the next connections; broken ones are not taken."""
    server = await started(files, reload_seconds=0.02)
    try:
        assert await common_name(server, files) == "first"
        for kind in ("key", "crt"):
            shutil.copy(files / f"next.{kind}", files / f"server.{kind}")
        deadline = time.monotonic() + 5
        while await common_name(server, files) != "second":
            assert time.monotonic() < deadline
        (files / "server.crt").write_text("nonsense")
        await asyncio.sleep(0.1)
        assert await common_name(server, files) == "second"
    finally:
        await server.stop()


def test_plain_http_gets_no_answer(cluster):
    """Nothing is served without TLS."""
    with socket.create_connection(("127.0.0.1", cluster.server.port), 5) as end:
        end.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        end.settimeout(5)
        with contextlib.suppress(ConnectionError):
            assert not end.recv(1000).startswith(b"HTTP")
