"""exec and attach: whichever protocol the client speaks, joined to the kubelet's WebSocket.

Invariant: whatever can be refused is refused as a plain Status before anything is upgraded; after that the only news is
channel 3's Status. Either side's end ends the other's.
"""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp import web

from fairlead.api import errors
from fairlead.apiserver import kubelets, respond
from fairlead.apiserver.call import Call
from fairlead.apiserver.channels import ERROR, LOST, MAX_MESSAGE, V4, V5
from fairlead.apiserver.request import is_true
from fairlead.apiserver.streams import Streams


async def serve(call: Call, nodes: kubelets.Kubelets, streams: Streams) -> web.StreamResponse:
    """pods/NAME/exec and pods/NAME/attach: GET (WebSocket) and POST (SPDY/3.1, or WebSocket too)."""
    url, query = await _target(call, nodes)
    upgrade = call.request.headers.get("Upgrade", "").lower()
    if upgrade == "websocket":
        offered = [p.strip() for p in call.request.headers.get("Sec-WebSocket-Protocol", "").split(",") if p.strip()]
        if V5 not in offered and V4 not in offered:
            raise errors.bad_request(
                f"unable to upgrade: unsupported subprotocols {offered or 'none'}; this server speaks {V5} and {V4}"
            )
    elif upgrade != "spdy/3.1":
        raise errors.bad_request("Upgrade request required")
    kubelet = await kubelets.dial(nodes, url, query, V5)
    try:
        if upgrade == "websocket":
            return await _pass_through(call, kubelet, streams)
        from fairlead.apiserver.spdy import bridge

        return await bridge.serve(call, kubelet, streams, query)
    finally:
        await kubelet.close()


async def _target(call: Call, nodes: kubelets.Kubelets) -> tuple[str, list[tuple[str, str]]]:
    """The kubelet's URL and query. Raises 400/404 in upstream's words."""
    info, query = call.info, call.request.query
    pod = await nodes.pod(call.namespace, info.name)
    phase = (pod.get("status") or {}).get("phase", "")
    if phase in ("Succeeded", "Failed"):
        raise errors.bad_request(f"cannot {info.subresource} a container in a completed pod; current phase is {phase}")
    container = kubelets.choose_container(pod, query.get("container", ""))
    node = (pod.get("spec") or {}).get("nodeName")
    if not node:
        raise errors.bad_request(f"pod {info.name} does not have a host assigned")
    wanted: list[tuple[str, str]] = []
    if info.subresource == "exec":
        command = query.getall("command", [])
        if not command:
            missing = [errors.required("command")]
            raise errors.unprocessable("PodExecOptions", "", info.name, missing)
        wanted += [("command", word) for word in command]
    flags = {key: is_true(query, key) for key in ("stdin", "stdout", "stderr", "tty")}
    if not (flags["stdin"] or flags["stdout"] or flags["stderr"]):
        raise errors.bad_request("you must specify at least 1 of stdin, stdout, stderr")
    for key, name in (("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")):
        if flags[key] and not (key == "stderr" and flags["tty"]):
            wanted.append((name, "1"))
    base = await nodes.base_url(node)
    return f"{base}/{info.subresource}/{call.namespace}/{info.name}/{container}", wanted


async def _pass_through(call: Call, kubelet: aiohttp.ClientWebSocketResponse, streams: Streams) -> web.StreamResponse:
    """Messages both ways until one side ends. Close messages go only upward: clients know none (nor do upstream's)."""
    client = web.WebSocketResponse(
        protocols=(V5, V4), max_msg_size=MAX_MESSAGE, autoping=True, compress=False, timeout=2.0
    )
    for key, value in respond.BASE_HEADERS.items():
        client.headers[key] = value
    await client.prepare(call.request)

    async def upward() -> None:
        async for message in client:
            if message.type is aiohttp.WSMsgType.BINARY:
                await kubelet.send_bytes(message.data)
            elif message.type is aiohttp.WSMsgType.TEXT:
                await kubelet.send_bytes(message.data.encode())

    async def downward() -> None:
        status_seen = False
        async for message in kubelet:
            if message.type is aiohttp.WSMsgType.BINARY and message.data[:1] != b"\xff":
                status_seen = status_seen or message.data[:1] == b"\x03"
                await client.send_bytes(message.data)
        if not status_seen:
            await client.send_bytes(bytes((ERROR,)) + LOST)

    tasks = [asyncio.create_task(upward()), asyncio.create_task(downward())]

    def end() -> None:
        for task in tasks:
            task.cancel()

    with streams.open(call.request, end):
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        end()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.close()
    return client
