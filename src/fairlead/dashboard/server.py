"""The page's server: on 127.0.0.1 only, for who brings the token, and for no page of another site.

Stands on the feed and `survey.answering`. Invariant: without the token nothing is answered but 401; no other origin can
read or ask anything (host names and origins are checked, the cookie is of this site alone), and the page may load
nothing from elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

import msgspec
import orjson
from aiohttp import web

from fairlead.client import Client
from fairlead.dashboard.feed import Feed
from fairlead.explain.question import Origin, Question, QuestionError, parse_origin, parse_target
from fairlead.survey.answering import answer
from fairlead.survey.eyes import Eyes

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ADDRESS = "127.0.0.1"
_COOKIE = "fairlead-dashboard"
_AT_ONCE = 2
_PING_SECONDS = 15.0
_FILES = {
    "": ("index.html", "text/html"),
    "app.js": ("app.js", "text/javascript"),
    "panel.js": ("panel.js", "text/javascript"),
    "style.css": ("style.css", "text/css"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class DashboardServer:
    """One page. `port` 0: any."""

    def __init__(self, client: Client, eyes: Eyes, feed: Feed, port: int = 0, token: str = "") -> None:
        self._client, self._eyes, self._feed, self.port = client, eyes, feed, port
        self._token = token or secrets.token_urlsafe(24)
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """What to open; it holds the token."""
        return f"http://{ADDRESS}:{self.port}/?token={self._token}"

    async def start(self) -> None:
        """Listen. Raises OSError if the port is taken."""
        application = web.Application(middlewares=[self._guard])
        application.add_routes([web.get("/{file:[a-z.]*}", self._file), web.get("/api/stream", self._stream)])
        application.add_routes([web.post("/api/explain", self._explain)])
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, ADDRESS, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close every connection."""
        if self._runner is not None:
            await self._runner.cleanup()

    # -- who may ask ---------------------------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if refused := self._refusal(request):
            return web.Response(status=refused[0], text=refused[1] + "\n", headers=_HEADERS)
        if "token" in request.query:
            # Out of the address, so that it is not shown, kept in the history or copied on.
            moved = web.Response(status=303, headers={"Location": request.path, **_HEADERS})
            moved.set_cookie(self._cookie, self._token, httponly=True, samesite="Strict", path="/")
            return moved
        try:
            return await handler(request)
        except web.HTTPException as error:
            error.headers.update(_HEADERS)
            raise

    @property
    def _cookie(self) -> str:
        return f"{_COOKIE}-{self.port}"  # cookies do not tell ports apart

    def _refusal(self, request: web.Request) -> tuple[int, str] | None:
        hosts = {f"{ADDRESS}:{self.port}", f"localhost:{self.port}"}
        if request.host not in hosts:
            return 421, f"this page is at {ADDRESS}:{self.port} only"
        origin = request.headers.get("Origin")
        if origin is not None and origin.removeprefix("http://") not in hosts:
            return 403, "another site may not ask here"
        given = request.query.get("token") or request.cookies.get(self._cookie) or ""
        if not secrets.compare_digest(given.encode(), self._token.encode()):
            return 401, "open the address that `fairlead dashboard` printed: it holds the token"
        return None

    # -- what is answered ----------------------------------------------------------------------------------------------

    async def _file(self, request: web.Request) -> web.Response:
        known = _FILES.get(request.match_info["file"])
        if known is None:
            raise web.HTTPNotFound(text="there is no such page\n")
        body = (files("fairlead.dashboard") / "page" / known[0]).read_bytes()
        return web.Response(body=body, content_type=known[1], charset="utf-8", headers=_HEADERS)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={**_HEADERS, "Content-Type": "text/event-stream"})
        await response.prepare(request)
        messages = self._feed.listen()
        waiting: asyncio.Future[Any] | None = None
        try:
            while True:
                waiting = waiting or asyncio.ensure_future(anext(messages))
                done, _ = await asyncio.wait([waiting], timeout=_PING_SECONDS)
                if not done:
                    await response.write(b": still here\n\n")
                    continue
                kind, document = waiting.result()
                waiting = None
                await response.write(b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps(document)))
        except (ConnectionError, StopAsyncIteration):
            return response
        finally:
            if waiting is not None:
                waiting.cancel()
                with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                    await waiting
            await messages.aclose()

    async def _explain(self, request: web.Request) -> web.Response:
        try:
            asked = orjson.loads(await request.read())
            question = question_of(asked)
        except (orjson.JSONDecodeError, QuestionError) as error:
            return _json({"error": str(error)}, 400)
        async with self._turn:
            report = await answer(self._client, self._eyes, question)
        return _json(report.document())


def question_of(asked: Any) -> Question:
    """What the page asks: `target`, and perhaps `from`, `via`, `namespace`. Raises QuestionError."""
    if not isinstance(asked, dict) or not isinstance(asked.get("target"), str):
        raise QuestionError("a question is an object with a target, e.g. svc/web.shop")
    namespace = str(asked.get("namespace") or "default")
    question = parse_target(tuple(asked["target"].split()), namespace)
    origin = parse_origin(str(asked["from"]), namespace) if asked.get("from") else Origin("outside")
    via = asked.get("via") or None
    if via not in (None, "dns", "clusterip", "nodeport", "lb", "ingress"):
        raise QuestionError(f"via {via!r} is no way; use dns, clusterip, nodeport, lb or ingress")
    if via == "dns" and origin.kind != "pod":
        raise QuestionError("by name asks a pod: choose one to start from")
    return msgspec.structs.replace(question, origin=origin, via=via)


def _json(document: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json", headers=_HEADERS)
