"""exec and attach: a WebSocket's channels joined to a process's streams.

Wire: subprotocol v5.channel.k8s.io; each binary message begins with its channel: 0 stdin, 1 stdout, 2 stderr, 3 the
final Status, 4 the terminal's size, 255 a channel that is closed. Invariant: the Status comes after all output.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

import aiohttp
import msgspec
import orjson
from aiohttp import web

from fairlead.kubelet.pipes import Pipe
from fairlead.kubelet.runtime import Sandbox, SandboxGone, StartError

PROTOCOL = "v5.channel.k8s.io"
PROTOCOLS = (PROTOCOL, "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
_LINGER = 0.5


class StreamOptions(msgspec.Struct, frozen=True):
    """What the client wants to be joined to."""

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    tty: bool = False


class _Ends:
    """Our ends of the streams; `theirs` go to the process."""

    def __init__(self, options: StreamOptions) -> None:
        self.theirs: list[int] = []
        self.outputs: dict[int, Pipe] = {}
        read, write = os.pipe()
        self.theirs.append(read)
        self.stdin: Pipe | None = Pipe(write)
        if not options.stdin:
            self.stdin.close()
            self.stdin = None
        for channel, wanted in ((STDOUT, options.stdout), (STDERR, options.stderr)):
            if wanted:
                read, write = os.pipe()
                self.outputs[channel] = Pipe(read)
                self.theirs.append(write)
            else:
                self.theirs.append(os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC))

    def handed_over(self) -> None:
        for fd in self.theirs:
            os.close(fd)
        self.theirs = []

    def close(self) -> None:
        self.handed_over()
        for pipe in (self.stdin, *self.outputs.values()):
            if pipe is not None:
                pipe.close()


async def serve_exec(
    socket: web.WebSocketResponse, sandbox: Sandbox, container: tuple[str, int], argv: list[str], options: StreamOptions
) -> None:
    """Run `argv` in (name, attempt) joined to the socket, and say how it ended."""
    ends = _Ends(StreamOptions(options.stdin, options.stdout, False, True) if options.tty else options)
    try:
        try:
            fds = () if options.tty else tuple(ends.theirs)
            code, terminal = await sandbox.execute(*container, argv, fds, tty=options.tty)
        except (StartError, SandboxGone) as error:
            why = str(error) or "the container is gone"
            await _finish(socket, _not_started(argv, why))
            return
        if terminal >= 0:
            ends.close()
            ends.outputs = {STDOUT: Pipe(terminal)}
            ends.stdin = ends.outputs[STDOUT] if options.stdin else None
        ends.handed_over()
        await _join(socket, ends, code)
        await _finish(socket, _ended(argv, code.result() if code.done() else 137))
    finally:
        ends.close()


async def serve_attach(
    socket: web.WebSocketResponse, sandbox: Sandbox, container: tuple[str, int], options: StreamOptions
) -> None:
    """Join the socket to what the container's first process reads and writes."""
    ends = _Ends(StreamOptions(False, options.stdout, options.stderr))
    try:
        name, attempt = container
        try:
            fds = (ends.theirs[1], ends.theirs[2])
            message, received = await sandbox.request("attach", fds, name=name, attempt=attempt, stdin=options.stdin)
        except SandboxGone:
            message, received = {"error": "the container is gone"}, []
        if "error" in message:
            await _finish(socket, _failure(f"error attaching to container: {message['error']}"))
            return
        ends.handed_over()
        for fd in received:
            if ends.stdin is None and options.stdin:
                ends.stdin = Pipe(fd)
            else:
                os.close(fd)
        if message.get("terminal") and ends.stdin is not None:
            ends.stdin.resize(80, 24)
        await _join(socket, ends, None)
        await _finish(socket, {"metadata": {}, "status": "Success"})
    finally:
        ends.close()


async def _join(socket: web.WebSocketResponse, ends: _Ends, code: asyncio.Future[int] | None) -> None:
    """Until the process has ended and its output is sent, or the client is gone."""
    incoming = asyncio.create_task(_from_client(socket, ends))
    outgoing = [asyncio.create_task(_to_client(socket, channel, pipe)) for channel, pipe in ends.outputs.items()]
    try:
        over = asyncio.create_task(_all(outgoing) if code is None else _until_exit(code, outgoing))
        await asyncio.wait({over, incoming}, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
    finally:
        for task in (incoming, *outgoing):
            task.cancel()
        await asyncio.gather(incoming, *outgoing, return_exceptions=True)


async def _all(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


async def _until_exit(code: asyncio.Future[int], outgoing: list[asyncio.Task[None]]) -> None:
    await code
    if outgoing:  # a child that it left behind may hold the streams: do not wait for that
        await asyncio.wait(outgoing, timeout=_LINGER)


async def _to_client(socket: web.WebSocketResponse, channel: int, pipe: Pipe) -> None:
    while data := await pipe.read():
        await socket.send_bytes(bytes([channel]) + data)


async def _from_client(socket: web.WebSocketResponse, ends: _Ends) -> None:
    """Returns when the client has gone."""
    async for message in socket:
        if message.type != aiohttp.WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel == STDIN and ends.stdin is not None:
            with contextlib.suppress(OSError):
                await ends.stdin.write(data)
        elif channel == RESIZE:
            terminal = ends.stdin or ends.outputs.get(STDOUT)
            with contextlib.suppress(orjson.JSONDecodeError, OSError, KeyError, TypeError, ValueError):
                size = orjson.loads(data)
                if terminal is not None:
                    terminal.resize(int(size["Width"]), int(size["Height"]))
        elif channel == CLOSE and data[:1] == bytes([STDIN]) and ends.stdin is not None:
            if ends.stdin not in ends.outputs.values():
                ends.stdin.close()
            ends.stdin = None


async def _finish(socket: web.WebSocketResponse, status: dict[str, Any]) -> None:
    with contextlib.suppress(ConnectionError, RuntimeError):
        await socket.send_bytes(bytes([ERROR]) + orjson.dumps(status))
        await socket.close()


def _failure(message: str) -> dict[str, Any]:
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {message}",
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    }


def _not_started(argv: list[str], why: str) -> dict[str, Any]:
    return _failure(
        f"error executing command in container: failed to exec in container: failed to start exec: {why}: unknown"
    )


def _ended(argv: list[str], code: int) -> dict[str, Any]:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": "command terminated with non-zero exit code: error executing command "
        f"[{' '.join(argv)}], exit code {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }
