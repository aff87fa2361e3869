"""The agent's side of `explain`: what it says of its node's kernel and its pods, over the kubelet's HTTPS server.

Whoever may use the kubelet's API may ask: through the API server that is who has the right to the node's subresource
`proxy` (`get` to look, `create` for a real request); see docs/decisions/0014. Stands on `NodeSide`. Invariant: `GET`
changes nothing; a look runs in a thread, and at most two at once, so that asking never holds up the agent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from fairlead.explain.evidence import Facts
from fairlead.linux.nft.kernel import Tape
from fairlead.survey.nodeside import NodeSide, Request
from fairlead.survey.wire import node_document

T = TypeVar("T")
PREFIX = "/explain"
_AT_ONCE = 2
_encode = msgspec.json.Encoder().encode


class NodeSights:
    """The routes of one node."""

    def __init__(self, side: NodeSide, facts: Facts) -> None:
        self._side, self._facts = side, facts
        self._turn = asyncio.Semaphore(_AT_ONCE)

    def routes(self) -> list[web.RouteDef]:
        """For the kubelet's server."""
        return [
            web.get(f"{PREFIX}/node", self._node),
            web.get(f"{PREFIX}/pods", self._pods),
            web.get(f"{PREFIX}/names/{{uid}}", self._names),
            web.get(f"{PREFIX}/flow", self._flow),
            web.get(f"{PREFIX}/traffic", self._traffic),
            web.post(f"{PREFIX}/request", self._request),
        ]

    async def _apart(self, work: Callable[..., T], *arguments: Any) -> T:
        async with self._turn:
            return await asyncio.to_thread(work, *arguments)

    async def _node(self, request: web.Request) -> web.Response:
        tapes: dict[str, Tape] = {}
        query = request.query
        kernel = await self._apart(self._side.node, query.getall("target", []), query.getall("destination", []), tapes)
        return _json(node_document(self._facts, kernel, tapes))

    async def _pods(self, request: web.Request) -> web.Response:
        query = request.query
        wanted = dict.fromkeys(query.getall("uid", []), False) | dict.fromkeys(query.getall("shared", []), True)
        return _json(await self._apart(self._side.pods, wanted, query.getall("toward", [])))

    async def _names(self, request: web.Request) -> web.Response:
        query = request.query
        found = await self._apart(
            self._side.names, request.match_info["uid"], query.getall("name", []), query.get("family", "IPv4")
        )
        return _json(found)

    async def _flow(self, request: web.Request) -> web.Response:
        query = request.query
        try:
            asked = Request(query["address"], int(query["port"]), query["protocol"])
            source_port = int(query["source"])
        except (KeyError, ValueError) as error:
            raise web.HTTPBadRequest(text=f"address, port, protocol and source are needed: {error}") from error
        return _json(await self._apart(self._side.tracked, asked, source_port))

    async def _traffic(self, request: web.Request) -> web.Response:
        try:
            return _json(await self._apart(self._side.traffic))
        except OSError as error:
            raise web.HTTPInternalServerError(text=f"connection tracking can't be read: {error}") from error

    async def _request(self, request: web.Request) -> web.Response:
        try:
            asked = msgspec.json.decode(await request.read(), type=Request)
        except msgspec.MsgspecError as error:
            raise web.HTTPBadRequest(text=f"the body is no request: {error}") from error
        return _json(
            await self._apart(self._side.request, request.query.get("uid", ""), asked, "trace" in request.query)
        )


def _json(value: Any) -> web.Response:
    return web.Response(body=_encode(value), content_type="application/json")
