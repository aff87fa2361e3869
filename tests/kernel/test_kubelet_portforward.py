"""The kubelet's port-forward over real TLS: bytes both ways, half-closed connections, refusals."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.kernel.kubelet_lab import Lab, running
from tests.kernel.test_kubelet_server import lab, session  # noqa: F401  (a fixture)

pytestmark = pytest.mark.kernel
PROTOCOL = "portforward.fairlead"
_SERVER = """
import socket
server = socket.create_server(("127.0.0.1", 7000))
print("up", flush=True)
while True:
    end, _ = server.accept()
    got = b""
    while piece := end.recv(65536):
        got += piece
    end.sendall(b"%d:" % len(got) + got)
    end.close()
"""


async def test_bytes_both_ways_and_each_end_on_its_own(lab: Lab) -> None:  # noqa: F811
    """A server on the pod's loopback that answers after the client's end is reached; a free port is refused by name."""
    await lab.start()
    lab.pod("box", "python3", "-c", _SERVER)
    await lab.wait("box", running)
    path = "/portForward/default/box"
    async with session(lab) as client:
        data = b"x" * 1_000_000

        async def ask() -> bytes:
            async with client.ws_connect(f"{path}?port=7000", protocols=[PROTOCOL], max_msg_size=0) as socket:
                await socket.send_bytes(data)
                await socket.send_bytes(b"")
                got = b""
                async for message in socket:
                    assert message.type is aiohttp.WSMsgType.BINARY
                    if not message.data:
                        break
                    got += message.data
                return got

        async with asyncio.timeout(20):
            while True:
                try:
                    assert await ask() == b"1000000:" + data
                    break
                except aiohttp.WSServerHandshakeError:
                    await asyncio.sleep(0.05)  # the server is not up yet
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        upgrade |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": PROTOCOL}
        for query, status, text in (
            ("port=7001", 500, "failed to connect to localhost:7001 inside the pod's network namespace"),
            ("port=0", 400, '"0" is not a port'),
            ("port=x", 400, '"x" is not a port'),
        ):
            async with client.get(f"{path}?{query}", headers=upgrade) as response:
                assert response.status == status
                assert text in await response.text()
        async with client.get("/portForward/default/nobody?port=1", headers=upgrade) as response:
            assert response.status == 404
    await lab.stop()
