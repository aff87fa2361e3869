"""port-forward: whichever protocol the client speaks, joined to legs through the pod's kubelet.

Invariant: whatever can be refused is refused as a plain Status before anything is upgraded; what goes wrong with one
connection later is said on its own error stream and leaves the others alone.

Clients: kubectl from 1.30 opens a WebSocket with the subprotocol `SPDY/3.1+portforward.k8s.io`, SPDY frames in its
messages; older ones upgrade the connection to SPDY/3.1; the Python and Node libraries use `v4.channel.k8s.io` with
`?ports=`: for the i-th port, channel 2i carries bytes and 2i+1 errors, each begun by the port (two bytes, little end
first). Upgrade and stream headers: k8s.io/apimachinery `httpstream`, k8s.io/kubelet `portforward`.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Final

import aiohttp
from aiohttp import web

from fairlead.api import errors
from fairlead.apiserver import kubelets, respond
from fairlead.apiserver.call import Call
from fairlead.apiserver.channels import MAX_MESSAGE, V4
from fairlead.apiserver.legs import Leg, OpenLeg, opener
from fairlead.apiserver.request import port_number
from fairlead.apiserver.streams import NothingToSend, Streams

TUNNEL: Final = "SPDY/3.1+portforward.k8s.io"
SPDY_PROTOCOL: Final = "portforward.k8s.io"
_QUEUED = 16  # messages of a client, for one port, not yet sent on; then it is no longer read


async def serve(call: Call, nodes: kubelets.Kubelets, streams: Streams) -> web.StreamResponse:
    """pods/NAME/portforward: GET (WebSocket) and POST (SPDY/3.1)."""
    info, request = call.info, call.request
    pod = await nodes.pod(call.namespace, info.name)
    node = (pod.get("spec") or {}).get("nodeName")
    if not node:
        raise errors.bad_request(f"pod {info.name} does not have a host assigned")
    open_leg = opener(nodes, await nodes.base_url(node), call.namespace, info.name)
    upgrade = request.headers.get("Upgrade", "").lower()
    if upgrade == "websocket":
        offered = [p.strip() for p in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if p.strip()]
        if TUNNEL in offered:
            return await _tunnel(call, open_leg, streams)
        if V4 in offered:
            return await _channels(call, open_leg, streams, _ports(call))
        raise errors.bad_request(
            f"unable to upgrade: unsupported subprotocols {offered or 'none'}; this server speaks {TUNNEL} and {V4}"
        )
    if upgrade != "spdy/3.1":
        raise errors.bad_request("Upgrade request required")
    offered = [p.strip() for line in request.headers.getall("X-Stream-Protocol-Version", []) for p in line.split(",")]
    if SPDY_PROTOCOL not in offered:
        raise errors.access_forbidden(
            "unable to upgrade: unable to negotiate protocol: "
            f"client supports {offered}, server accepts [{SPDY_PROTOCOL}]"
        )
    from fairlead.apiserver.spdy import carriers, forward

    taken = carriers.take_over(request, SPDY_PROTOCOL)
    if taken is not None:
        with streams.open(request, taken.abort):
            await forward.Forwarding(taken, open_leg).run()
    return NothingToSend()


async def _websocket(call: Call, protocol: str) -> web.WebSocketResponse:
    client = web.WebSocketResponse(protocols=(protocol,), max_msg_size=MAX_MESSAGE, compress=False, timeout=2.0)
    client.headers.update(respond.BASE_HEADERS)
    await client.prepare(call.request)
    return client


async def _tunnel(call: Call, open_leg: OpenLeg, streams: Streams) -> web.StreamResponse:
    from fairlead.apiserver.spdy import carriers, forward

    client = await _websocket(call, TUNNEL)
    task = asyncio.create_task(forward.Forwarding(carriers.Tunnel(client), open_leg).run())
    with streams.open(call.request, lambda: _cancel(task)):
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()
    await client.close()
    return client


def _ports(call: Call) -> list[int]:
    """`?ports=80&ports=81`, or with commas. Raises 400."""
    texts = [text for line in call.request.query.getall("ports", []) for text in line.split(",") if text]
    if not texts:
        raise errors.bad_request('query parameter "ports" is required')
    for text in texts:
        if port_number(text) is None:
            raise errors.bad_request(f'unable to parse "{text}" as a port')
    return [int(text) for text in texts]


async def _channels(call: Call, open_leg: OpenLeg, streams: Streams, ports: list[int]) -> web.StreamResponse:
    client = await _websocket(call, V4)
    queues: list[asyncio.Queue[bytes]] = [asyncio.Queue(_QUEUED) for _ in ports]
    for index, port in enumerate(ports):
        for channel in (2 * index, 2 * index + 1):
            await client.send_bytes(bytes((channel,)) + struct.pack("<H", port))

    async def one(index: int, port: int) -> None:
        leg: Leg | None = None
        try:
            leg = await open_leg(port)
            sending = asyncio.create_task(_send_on(leg, queues[index]))
            try:
                while piece := await leg.receive():
                    await client.send_bytes(bytes((2 * index,)) + piece)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        except errors.StatusError as failure:
            await client.send_bytes(bytes((2 * index + 1,)) + failure.message.encode())
        except ConnectionError as failure:
            await client.send_bytes(bytes((2 * index + 1,)) + str(failure).encode())
        finally:
            if leg is not None:
                await leg.close()

    async def from_client() -> None:
        async for message in client:
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                continue
            index, odd = divmod(message.data[0], 2)
            if not odd and index < len(queues) and len(message.data) > 1:
                await queues[index].put(message.data[1:])

    carrying = [asyncio.create_task(one(index, port)) for index, port in enumerate(ports)]
    reading = asyncio.create_task(from_client())
    over = asyncio.create_task(_all(carrying))
    with streams.open(call.request, lambda: _cancel(reading)):
        await asyncio.wait({over, reading}, return_when=asyncio.FIRST_COMPLETED)
    _cancel(reading, over, *carrying)
    await asyncio.gather(reading, over, *carrying, return_exceptions=True)
    await client.close()
    return client


async def _all(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()


async def _send_on(leg: Leg, queue: asyncio.Queue[bytes]) -> None:
    while True:
        await leg.send(await queue.get())
