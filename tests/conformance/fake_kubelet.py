"""A kubelet with pods that are nothing: it speaks the API server's side of the wire, and runs commands right here.

Logs: `GET /containerLogs/NS/POD/CONTAINER`. Exec and attach: WebSocket `v5.channel.k8s.io`, channel byte first.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import orjson
from aiohttp import WSMsgType, web

from fairlead.apiserver import pki

LINES = ["one", "two", "three", "four"]


class FakeKubelet:
    """Serves on loopback; `port` is known after `start`. `open_execs` counts commands under way,
    `open_forwards` forwarded connections; a pod's ports are this machine's own."""

    def __init__(self, directory: Path, ca: pki.KeyPair) -> None:
        self._directory, self._ca = directory, ca
        self._runner: web.AppRunner | None = None
        self.port = 0
        self.open_execs = 0
        self.open_forwards = 0
        self.queries: list[dict[str, list[str]]] = []
        self.measured: list[dict[str, str]] = []  # the podRefs of the pods that it says to have measured
        self.sizes: list[dict[str, int]] = []  # of terminals, as clients told them

    async def start(self) -> None:
        """Listen with a certificate of the cluster's authority; demand one in return."""
        pair = pki.issue(self._ca, "system:node:n1", ["system:nodes"], ips=["127.0.0.1"], server=True)
        certificate, key = self._directory / "kubelet.crt", self._directory / "kubelet.key"
        certificate.write_bytes(pair.cert_pem)
        key.write_bytes(pair.key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(cadata=self._ca.cert_pem.decode())
        context.verify_mode = ssl.CERT_REQUIRED
        app = web.Application()
        app.router.add_get("/stats/summary", self._summary)
        app.router.add_get("/containerLogs/{ns}/{pod}/{container}", self._logs)
        app.router.add_get("/exec/{ns}/{pod}/{container}", self._exec)
        app.router.add_get("/attach/{ns}/{pod}/{container}", self._exec)
        app.router.add_get("/portForward/{ns}/{pod}", self._port_forward)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close everything."""
        if self._runner:
            await self._runner.cleanup()

    async def _summary(self, request: web.Request) -> web.Response:
        figures = {
            "cpu": {"time": "2026-01-01T12:00:00Z", "usageNanoCores": 250_000_000, "windowNanoSeconds": 15_000_000_000},
            "memory": {"time": "2026-01-01T12:00:00Z", "workingSetBytes": 64 << 20, "rssBytes": 64 << 20},
        }
        pods = [{"podRef": ref, "containers": [{"name": "main", **figures}], **figures} for ref in self.measured]
        return web.json_response({"node": {"nodeName": "n1", **figures}, "pods": pods})

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        self.queries.append({key: query.getall(key) for key in query})
        if request.match_info["container"] == "waiting":
            status = {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "reason": "BadRequest",
                "message": 'container "waiting" in pod "web-0" is waiting to start: ContainerCreating',
                "code": 400,
            }
            return web.json_response(status, status=400)
        lines = LINES[-int(query["tailLines"]) :] if query.get("tailLines") else LINES
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for line in lines:
            await response.write(f"{line}\n".encode())
        if query.get("follow"):
            for number in range(3):
                await asyncio.sleep(0.05)
                await response.write(f"later {number}\n".encode())
        return response

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        port = int(request.query["port"])
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return web.Response(status=500, text=f"failed to connect to localhost:{port}: connection refused")
        socket = web.WebSocketResponse(protocols=("portforward.fairlead",))
        await socket.prepare(request)
        self.open_forwards += 1

        async def down() -> None:
            while data := await reader.read(65536):
                await socket.send_bytes(data)
            await socket.send_bytes(b"")

        downward = asyncio.create_task(down())
        try:
            async for message in socket:
                if message.data:
                    writer.write(message.data)
                    await writer.drain()
                else:
                    writer.write_eof()
        except ConnectionError:
            pass
        finally:
            downward.cancel()
            writer.close()
            self.open_forwards -= 1
        return socket

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        self.queries.append({key: query.getall(key) for key in query})
        if request.match_info["container"] == "waiting":
            return web.Response(status=404, text='container "waiting" is not running')
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io",))
        await socket.prepare(request)
        self.open_execs += 1
        command = query.getall("command", ["cat"])
        try:
            await self._run(socket, command, "input" in query)
        except ConnectionError:
            pass  # the API server hung up
        finally:
            self.open_execs -= 1
        await socket.close()
        return socket

    async def _run(self, socket: web.WebSocketResponse, command: list[str], stdin: bool) -> None:
        if command == ["crash"]:
            socket.get_extra_info("socket").shutdown(2)
            return
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

        async def pump(channel: int, stream: asyncio.StreamReader) -> None:
            while data := await stream.read(32768):
                await socket.send_bytes(bytes([channel]) + data)
            await socket.send_bytes(bytes([255, channel]))

        async def feed() -> None:
            async for message in socket:
                if message.type is WSMsgType.BINARY and message.data[0] == 4:
                    self.sizes.append(orjson.loads(message.data[1:]))
                if message.type is not WSMsgType.BINARY or process.stdin is None:
                    continue
                if message.data[0] == 0:
                    process.stdin.write(message.data[1:])
                    await process.stdin.drain()
                elif message.data[:2] == b"\xff\x00":
                    process.stdin.close()
            process.kill()

        feeding = asyncio.create_task(feed())
        try:
            await asyncio.gather(pump(1, process.stdout), pump(2, process.stderr))
            code = await process.wait()
        finally:
            feeding.cancel()
            if process.returncode is None:
                process.kill()
        status = {"metadata": {}, "status": "Success"}
        if code:
            status |= {
                "status": "Failure",
                "reason": "NonZeroExitCode",
                "message": f"command terminated with non-zero exit code: exit status {code}",
                "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
            }
        await socket.send_bytes(b"\x03" + orjson.dumps(status))
