"""The kubelet's HTTPS server: logs, exec, attach, port-forward and what pods use, for the API server.

Only clients with a certificate of the cluster's CA, of the right organization, are let in. Invariant: nothing here
changes a pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from fairlead.api import times
from fairlead.kubelet import logs, portforward, streams
from fairlead.kubelet.containers import PodContainer
from fairlead.kubelet.metering import Meter
from fairlead.kubelet.options import KubeletOptions
from fairlead.kubelet.runtime import Runtime, Sandbox

if TYPE_CHECKING:
    from fairlead.kubelet.podworker import PodWorker

log = logging.getLogger("fairlead.kubelet")
_TRUE = ("1", "true", "True")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Join = Callable[[web.WebSocketResponse, Sandbox, tuple[str, int], streams.StreamOptions], Awaitable[None]]


class KubeletServer:
    """One node's. `find` gives the pod of a namespace and name, `pods` all of them."""

    def __init__(
        self,
        options: KubeletOptions,
        runtime: Runtime,
        find: Callable[[str, str], PodWorker | None],
        pods: Callable[[], Iterable[PodWorker]],
        more: Iterable[web.RouteDef] = (),
    ) -> None:
        """`more`: routes of the node's other parts, for the same clients."""
        self._options, self._runtime, self._find, self._pods = options, runtime, find, pods
        self._more = tuple(more)
        self._meter = Meter(options.node_name, pods)
        self._runner: web.AppRunner | None = None
        self._context: ssl.SSLContext | None = None

    async def start(self) -> None:
        """Listen. OSError if the address is taken or a file can't be read."""
        application = web.Application(middlewares=[self._authorize])
        target = "{namespace}/{pod}/{container}"
        application.add_routes(
            [
                web.get("/healthz", _healthz),
                web.get("/pods", self._list),
                web.get("/stats/summary", self._summary),
                web.get(f"/containerLogs/{target}", self._logs),
                web.get(f"/exec/{target}", self._exec),
                web.get(f"/attach/{target}", self._attach),
                web.get("/portForward/{namespace}/{pod}", self._port_forward),
                *self._more,
            ]
        )
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        options = self._options
        self._context = self._tls()
        site = web.TCPSite(self._runner, options.address or options.node_ip, options.port, ssl_context=self._context)
        await site.start()

    def take_certificate(self) -> None:
        """Show new connections the certificate that is in the files now; open ones stay. Raises OSError."""
        if self._context is not None and self._options.server_cert_file is not None:
            self._context.load_cert_chain(self._options.server_cert_file, self._options.server_key_file)

    async def stop(self) -> None:
        """Close the socket and every connection."""
        if self._runner is not None:
            await self._runner.cleanup()

    def _tls(self) -> ssl.SSLContext:
        options = self._options
        if not (options.server_cert_file and options.server_key_file and options.client_ca_file):
            raise ValueError("the kubelet's server needs server_cert_file, server_key_file and client_ca_file")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(options.client_ca_file))
        context.load_cert_chain(options.server_cert_file, options.server_key_file)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    @web.middleware
    async def _authorize(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """By the organization of the client's certificate."""
        peer = request.get_extra_info("peercert") or {}
        groups = {value for part in peer.get("subject", ()) for key, value in part if key == "organizationName"}
        if not groups & set(self._options.client_groups):
            raise web.HTTPForbidden(text="the client certificate's organization may not use the kubelet's API")
        return await handler(request)

    def _container(self, request: web.Request) -> tuple[PodWorker, PodContainer]:
        info = request.match_info
        worker = self._find(info["namespace"], info["pod"])
        if worker is None:
            raise web.HTTPNotFound(text=f'pod "{info["namespace"]}/{info["pod"]}" not found')
        container = worker.containers.get(info["container"])
        if container is None:
            text = f"container {info['container']} is not valid for pod {info['pod']}"
            raise web.HTTPBadRequest(text=text)
        return worker, container

    async def _list(self, request: web.Request) -> web.Response:
        items = [worker.pod for worker in self._pods()]
        body = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    async def _summary(self, request: web.Request) -> web.Response:
        return web.json_response(await self._meter.summary(), dumps=lambda body: orjson.dumps(body).decode())

    # -- logs ---------------------------------------------------------------------------------------------------------

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        worker, container = self._container(request)
        query = request.query
        records = container.records
        where = f'container "{container.name}" in pod "{request.match_info["pod"]}"'
        if query.get("previous") in _TRUE:
            if len(records) < 2:
                text = f"previous terminated {where} not found"
                raise web.HTTPBadRequest(text=text)
            record = records[-2]
        elif not records:
            reason = container.waiting[0] if container.waiting else "ContainerCreating"
            raise web.HTTPBadRequest(text=f"{where} is waiting to start: {reason}")
        else:
            record = records[-1]
        try:
            options = logs.LogOptions(
                follow=query.get("follow") in _TRUE,
                tail=int(query.get("tailLines", "-1")),
                since=_since(query.get("sinceSeconds"), query.get("sinceTime")),
                timestamps=query.get("timestamps") in _TRUE,
                limit_bytes=int(query.get("limitBytes", "-1")),
            )
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        path = self._runtime.log_dir(worker.pod) / container.name / f"{record.attempt}.log"
        ended_file = self._runtime.container_dir(worker.uid, container.name, record.attempt) / "exit.json"

        def ended() -> bool:
            sandbox, transport = worker.sandbox, request.transport
            left = transport is None or transport.is_closing()
            return left or ended_file.exists() or sandbox is None or sandbox.gone

        if not path.exists():
            raise web.HTTPNotFound(text=f"the log of {where} is not there (any more)")
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        response.enable_chunked_encoding()
        with contextlib.suppress(ConnectionError):  # who follows a log leaves when it likes
            await response.prepare(request)
            async with contextlib.aclosing(logs.read(path, options, ended)) as blocks:
                async for block in blocks:
                    await response.write(block)
            await response.write_eof()
        return response

    # -- exec and attach ----------------------------------------------------------------------------------------------

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        argv = request.query.getall("command", [])
        if not argv:
            raise web.HTTPBadRequest(text="you must specify at least 1 command for the container")

        async def join(
            socket: web.WebSocketResponse,
            sandbox: Sandbox,
            container: tuple[str, int],
            options: streams.StreamOptions,
        ) -> None:
            await streams.serve_exec(socket, sandbox, container, argv, options)

        return await self._stream(request, join)

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        return await self._stream(request, streams.serve_attach)

    async def _stream(self, request: web.Request, join: _Join) -> web.StreamResponse:
        worker, container = self._container(request)
        if worker.sandbox is None or container.current is None or not container.running:
            raise web.HTTPInternalServerError(text=f'container not found ("{container.name}")')
        query = request.query
        tty = query.get("tty") in _TRUE
        options = streams.StreamOptions(
            stdin=query.get("input", query.get("stdin")) in _TRUE,
            stdout=query.get("output", query.get("stdout")) in _TRUE,
            stderr=query.get("error", query.get("stderr")) in _TRUE and not tty,
            tty=tty,
        )
        socket = web.WebSocketResponse(protocols=streams.PROTOCOLS, max_msg_size=0, compress=False)
        if not socket.can_prepare(request).ok:
            raise web.HTTPBadRequest(text=f"exec and attach need a WebSocket with protocol {streams.PROTOCOL}")
        await socket.prepare(request)
        try:
            await join(socket, worker.sandbox, (container.name, container.current.attempt), options)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("streams of %s/%s broke", worker.name, container.name)
            await socket.close(code=1011)
        return socket

    # -- port-forward -------------------------------------------------------------------------------------------------

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        info = request.match_info
        worker = self._find(info["namespace"], info["pod"])
        if worker is None:
            raise web.HTTPNotFound(text=f'pod "{info["namespace"]}/{info["pod"]}" not found')
        port = request.query.get("port", "")
        if not port.isdigit() or not 0 < int(port) < 65536:
            raise web.HTTPBadRequest(text=f'"{port}" is not a port')
        if worker.sandbox is None or worker.sandbox.gone:
            raise web.HTTPInternalServerError(text=f"the pod {info['pod']} has no network: it does not run")
        socket = web.WebSocketResponse(protocols=(portforward.PROTOCOL,), max_msg_size=0, compress=False)
        if not socket.can_prepare(request).ok:
            raise web.HTTPBadRequest(text=f"port-forward needs a WebSocket with protocol {portforward.PROTOCOL}")
        try:
            reader, writer = await portforward.connect(worker.sandbox.network_namespace, int(port))
        except OSError as error:
            where = f"failed to connect to localhost:{port} inside the pod's network namespace"
            text = f"error forwarding port {port} to pod {worker.uid}, uid : {where}: {error}"
            raise web.HTTPInternalServerError(text=text) from error
        try:
            await socket.prepare(request)
        except BaseException:
            writer.close()
            raise
        await portforward.join(socket, reader, writer)
        return socket


def _since(seconds: str | None, time: str | None) -> int:
    """Nanoseconds since the epoch; 0 if neither is given."""
    if seconds:
        return int((datetime.now(UTC).timestamp() - int(seconds)) * 1e9)
    return int(times.parse(time).timestamp() * 1e9) if time else 0


async def _healthz(request: web.Request) -> web.Response:
    return web.Response(text="ok")
