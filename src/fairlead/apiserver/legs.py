"""One forwarded connection's way from the API server to a port of a pod, through the pod's kubelet.

Under port-forward. Wire: see `kubelet.portforward`: a WebSocket per connection, binary messages are its bytes, an empty
one the end of that direction. Invariant: a leg that was opened has reached the pod's port.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp

from fairlead.apiserver import kubelets

PROTOCOL: Final = "portforward.fairlead"
_PIECE = 64 * 1024


class Leg:
    """One connection. Close it, whatever happens."""

    def __init__(self, websocket: aiohttp.ClientWebSocketResponse) -> None:
        self._websocket = websocket

    async def send(self, data: bytes) -> None:
        """Bytes for the pod. Raises ConnectionError when it is gone."""
        for start in range(0, len(data), _PIECE):
            await self._websocket.send_bytes(data[start : start + _PIECE])

    async def end(self) -> None:
        """Nothing more will be sent."""
        await self._websocket.send_bytes(b"")

    async def receive(self) -> bytes:
        """Bytes from the pod; empty at their end. Raises ConnectionError when the connection broke."""
        while True:
            message = await self._websocket.receive()
            if message.type is aiohttp.WSMsgType.BINARY:
                data: bytes = message.data
                return data
            if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
                raise ConnectionResetError("the kubelet ended the connection")

    async def close(self) -> None:
        """Let go of it."""
        await self._websocket.close()


OpenLeg = Callable[[int], Awaitable[Leg]]
"""A leg to that port. Raises StatusError with what the kubelet said."""


def opener(nodes: kubelets.Kubelets, base: str, namespace: str, pod: str) -> OpenLeg:
    """How legs to a pod are opened. `base` is its kubelet's URL."""

    async def open_leg(port: int) -> Leg:
        url = f"{base}/portForward/{namespace}/{pod}"
        return Leg(await kubelets.dial(nodes, url, [("port", str(port))], PROTOCOL))

    return open_leg
