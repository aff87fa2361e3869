"""services/proxy, pods/proxy and nodes/proxy: an HTTP request carried on to what an object stands for.

Beside the verbs. `proxytargets` says where to; this carries: every method, bodies of any length both ways, upgrades
byte by byte. Invariants: the client's credentials never leave this server; headers of one hop stay on that hop; nothing
of a body is held here; whoever leaves first ends the other side.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from typing import Final

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from fairlead.api import errors
from fairlead.apiserver import bodies, kubelets, proxytargets
from fairlead.apiserver.call import Call
from fairlead.apiserver.config import ServerConfig
from fairlead.apiserver.streams import NothingToSend, Streams

_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_OURS: Final = frozenset({"authorization", "host", "expect", "content-length"})
_CREDENTIALS: Final = "impersonate-"
CONNECT_SECONDS = 10.0
_HEAD_LIMIT = 64 * 1024
_PIECE = 64 * 1024


class Proxying:
    """Carries requests. One pool of connections for pods and Services, the kubelets' own for nodes."""

    def __init__(self, config: ServerConfig, nodes: kubelets.Kubelets, streams: Streams) -> None:
        self._config, self._nodes, self._streams = config, nodes, streams
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def serve(self, call: Call) -> web.StreamResponse:
        """Carry one request. Raises StatusError for what has no target, 503 when the target can't be reached."""
        request, info = call.request, call.info
        path = proxytargets.remainder(request.rel_url.raw_path, info)
        if not path and request.method in ("GET", "HEAD"):
            query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
            return web.Response(status=301, headers={"Location": f"{request.rel_url.raw_path}/{query}"})
        target = await proxytargets.find(self._config.registry, self._nodes, call)
        address = URL(f"{target.base}{path or '/'}", encoded=True)
        if request.rel_url.raw_query_string:
            address = URL(f"{address}?{request.rel_url.raw_query_string}", encoded=True)
        if "upgrade" in request.headers.get("Connection", "").lower() and request.headers.get("Upgrade"):
            return await self._upgrade(call, target, address)
        return await self._carry(call, target, address)

    async def _client(self, target: proxytargets.Target) -> aiohttp.ClientSession:
        if target.kubelet:
            return await self._nodes.session()
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # As upstream: a pod's certificate is for whoever knows it; the network is the cluster's own.
                connector=aiohttp.TCPConnector(ssl=False, limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def _carry(self, call: Call, target: proxytargets.Target, address: URL) -> web.StreamResponse:
        request = call.request
        session = await self._client(target)
        headers = _forwarded(request)
        body: AsyncIterator[bytes] | None = None
        if request.body_exists:
            bodies.invite(request)
            body = request.content.iter_any().__aiter__()
            if request.content_length is not None:
                headers["Content-Length"] = str(request.content_length)
        try:
            async with session.request(
                request.method,
                address,
                headers=headers,
                data=body,
                allow_redirects=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            ) as answer:
                response = web.StreamResponse(status=answer.status, reason=answer.reason)
                response.headers.extend(_end_to_end(answer.headers))
                location = answer.headers.get("Location")
                if location:
                    response.headers["Location"] = _relocated(location, target, call)
                if "Content-Length" not in response.headers and request.method != "HEAD":
                    response.enable_chunked_encoding()
                await response.prepare(request)
                try:
                    with self._streams.open(request, answer.close):
                        async for piece in answer.content.iter_any():
                            await response.write(piece)
                except (aiohttp.ClientError, ConnectionError):
                    if request.transport is not None:
                        request.transport.abort()  # the client must not take a part for the whole
                    return NothingToSend()
                await response.write_eof()
                return response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(target, error) from None

    async def _upgrade(self, call: Call, target: proxytargets.Target, address: URL) -> web.StreamResponse:
        """The request as it came, then bytes both ways."""
        from fairlead.apiserver.spdy import carriers

        request = call.request
        host, port = address.host or "", address.port or 80
        context: ssl.SSLContext | None = None
        if address.scheme == "https":
            context = self._nodes.tls() if target.kubelet else _unverified()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=_HEAD_LIMIT)
        except (OSError, TimeoutError) as error:
            raise _unreachable(target, error) from None
        try:
            headers = _forwarded(request)
            headers["Host"] = f"{address.host_subcomponent}:{port}"
            headers["Connection"], headers["Upgrade"] = "Upgrade", request.headers["Upgrade"]
            head = f"{request.method} {address.raw_path_qs} HTTP/1.1\r\n"
            head += "".join(f"{key}: {value}\r\n" for key, value in headers.items())
            writer.write(f"{head}\r\n".encode("utf-8", "surrogateescape"))
            try:
                said = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError) as error:
                raise _unreachable(target, error) from None
            transport = request.transport
            if transport is None:
                return NothingToSend()
            taken = carriers.Taken(transport, request.protocol)
            with self._streams.open(request, taken.abort):
                await _join(taken, said, reader, writer)
        finally:
            writer.close()
        return NothingToSend()


async def _join(client: object, said: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    from fairlead.apiserver.spdy import carriers

    assert isinstance(client, carriers.Taken)

    async def upward() -> None:
        while data := await client.read():
            writer.write(data)
            await writer.drain()

    async def downward() -> None:
        await client.write(said)
        while data := await reader.read(_PIECE):
            await client.write(data)

    tasks = [asyncio.create_task(upward()), asyncio.create_task(downward())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await client.close()


def _forwarded(request: web.BaseRequest) -> CIMultiDict[str]:
    """The request's headers for the next hop."""
    headers = _end_to_end(request.headers, also=_OURS)
    for name in [name for name in headers if name.lower().startswith(_CREDENTIALS)]:
        del headers[name]
    if request.remote:
        known = request.headers.get("X-Forwarded-For")
        headers["X-Forwarded-For"] = f"{known}, {request.remote}" if known else request.remote
    headers["X-Forwarded-Host"] = request.headers.get("Host", "")
    headers["X-Forwarded-Proto"] = "https"
    headers["X-Forwarded-Uri"] = request.rel_url.raw_path
    return headers


def _end_to_end(headers: Iterable[tuple[str, str]] | object, also: frozenset[str] = frozenset()) -> CIMultiDict[str]:
    given: CIMultiDict[str] = CIMultiDict(headers)  # type: ignore[arg-type]
    named = {word.strip().lower() for line in given.getall("Connection", []) for word in line.split(",")}
    kept: CIMultiDict[str] = CIMultiDict()
    for name, value in given.items():
        if name.lower() not in _HOP_BY_HOP | also | named:
            kept.add(name, value)
    return kept


def _relocated(location: str, target: proxytargets.Target, call: Call) -> str:
    """A redirection within the target, as one within the proxied path; any other as it is."""
    parsed = URL(location, encoded=True)
    if parsed.host is not None and f"{parsed.scheme}://{parsed.raw_authority}" != target.base:
        return location
    if not parsed.raw_path.startswith("/"):
        return location
    base = proxytargets.base_path(call.request.rel_url.raw_path, call.info)
    query = f"?{parsed.raw_query_string}" if parsed.raw_query_string else ""
    return f"{base}{parsed.raw_path}{query}"


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _unreachable(target: proxytargets.Target, error: BaseException) -> errors.StatusError:
    if isinstance(error, TimeoutError):
        why = f"dial tcp {target.base.partition('://')[2]}: i/o timeout"
    elif isinstance(error, aiohttp.ClientConnectorError):
        why = f"dial tcp {error.host}:{error.port}: connect: {(error.strerror or str(error)).lower()}"
    else:
        why = str(error) or type(error).__name__
    return errors.unavailable(f"error trying to reach service: {why}", 0)
