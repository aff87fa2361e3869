"""Startup, readiness and liveness probes of one container.

Probes run as upstream's kubelet runs them: from the node's network toward the pod's address, or as a command in the
container. One task per probe. Invariants: a probe of another attempt never counts; until the startup probe has
succeeded neither of the others runs; what a probe finds is told at once.

Until it has succeeded for the first time a network probe is also tried between its periods (after 20 ms, doubling), so
that a server that is up in a moment is ready in a moment. Those extra tries count for success, never for failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import aiohttp
import msgspec

from fairlead.api import version
from fairlead.kubelet import grpchealth

log = logging.getLogger("fairlead.kubelet")

Kind = Literal["startup", "readiness", "liveness"]
Object = dict[str, Any]
KINDS: dict[Kind, str] = {"startup": "startupProbe", "readiness": "readinessProbe", "liveness": "livenessProbe"}
_FIRST_RETRY = 0.02
_MAX_BODY = 10 * 1024


class Outcome(msgspec.Struct, frozen=True):
    """One try. `output` is what the event says of a failure."""

    success: bool
    output: str = ""


class Target(msgspec.Struct, frozen=True):
    """What is probed. `run` executes a command in the container: (exit code, output)."""

    ip: str
    container: Object
    run: Callable[[list[str]], Awaitable[tuple[int, str]]]


class Prober:
    """The probes of one attempt of a container. `on_result` hears of every change; it is called in the event loop."""

    def __init__(
        self,
        target: Target,
        on_change: Callable[[], None],
        on_failure: Callable[[Kind, str], None],
    ) -> None:
        self._target, self._on_change, self._on_failure = target, on_change, on_failure
        container = target.container
        self.started = not container.get("startupProbe")
        self.ready = self.started and not container.get("readinessProbe")
        self.unhealthy: Kind | None = None
        """Set when the startup or liveness probe has failed for good: the container must be killed."""
        self._tasks = [
            asyncio.create_task(self._run(kind, container[field]), name=f"probe-{container['name']}-{kind}")
            for kind, field in KINDS.items()
            if container.get(field)
        ]
        self._started = asyncio.Event()
        if self.started:
            self._started.set()

    def stop(self, *, all_kinds: bool = True) -> None:
        """End the probes: all, or all but readiness."""
        for task in self._tasks:
            if all_kinds or not task.get_name().endswith("-readiness"):
                task.cancel()

    async def _run(self, kind: Kind, probe: Object) -> None:
        if kind != "startup":
            await self._started.wait()
        await asyncio.sleep(probe.get("initialDelaySeconds") or 0)
        period = float(probe.get("periodSeconds") or 10)
        good = bad = 0
        ever = False
        while True:
            begun = asyncio.get_running_loop().time()
            outcome = await attempt(probe, self._target)
            if outcome.success:
                ever, good, bad = True, good + 1, 0
                if good >= int(probe.get("successThreshold") or 1):
                    self._succeeded(kind)
                    if kind == "startup":
                        return
            else:
                good, bad = 0, bad + 1
                self._on_failure(kind, outcome.output)
                if bad >= int(probe.get("failureThreshold") or 3):
                    self._failed(kind)
            until = begun + period
            if not ever and "exec" not in probe and await self._succeeds_early(probe, until):
                continue  # and count it in its turn
            await asyncio.sleep(max(0.0, until - asyncio.get_running_loop().time()))

    async def _succeeds_early(self, probe: Object, until: float) -> bool:
        loop = asyncio.get_running_loop()
        pause = _FIRST_RETRY
        while loop.time() + pause < until:
            await asyncio.sleep(pause)
            if (await attempt(probe, self._target)).success:
                return True
            pause *= 2
        return False

    def _succeeded(self, kind: Kind) -> None:
        before = (self.started, self.ready)
        if kind == "startup":
            self.started = True
            self._started.set()
            self.ready = not self._target.container.get("readinessProbe")
        elif kind == "readiness":
            self.ready = True
        if (self.started, self.ready) != before:
            self._on_change()

    def _failed(self, kind: Kind) -> None:
        if kind == "readiness":
            if self.ready:
                self.ready = False
                self._on_change()
        elif self.unhealthy is None:
            self.unhealthy = kind
            self._on_change()


async def attempt(probe: Object, target: Target) -> Outcome:
    """Try once, within the probe's timeoutSeconds."""
    seconds = float(probe.get("timeoutSeconds") or 1)
    try:
        async with asyncio.timeout(seconds):
            if (action := probe.get("exec")) is not None:
                return await _exec(action, target)
            if (action := probe.get("httpGet")) is not None:
                return await http_get(action, target)
            if (action := probe.get("tcpSocket")) is not None:
                return await _tcp(action, target)
            if (action := probe.get("grpc")) is not None:
                return await _grpc(action, target)
    except TimeoutError:
        if "exec" in probe:
            return Outcome(
                False,
                f'command timed out: "{" ".join(probe["exec"].get("command") or ())}" timed out after {seconds:g}s',
            )
        if "httpGet" in probe:
            why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            return Outcome(False, f'Get "{_url(probe["httpGet"], target)}": {why}')
        if "grpc" in probe:
            address = _address(probe["grpc"], target)
            return Outcome(False, f'timeout: failed to connect service "{address}" within {seconds:g}s')
        return Outcome(False, f"dial tcp {_address(probe['tcpSocket'], target)}: i/o timeout")
    return Outcome(False, f"missing probe handler: {', '.join(probe) or 'none'}")


async def _grpc(action: Object, target: Target) -> Outcome:
    address = _address(action, target)
    try:
        reader, writer = await asyncio.open_connection(target.ip, int(action["port"]))
    except OSError as error:
        return Outcome(False, f'failed to connect service "{address}": {_refused(error, address)}')
    answer = grpchealth.Answer()
    try:
        writer.write(grpchealth.request(action.get("service") or "", address))
        while not answer.done and (data := await reader.read(65536)):
            writer.write(answer.take(data))
    except OSError as error:
        return Outcome(False, f"error: health rpc failed: {os.strerror(error.errno) if error.errno else error}")
    finally:
        writer.close()
    if answer.status is None:
        return Outcome(False, "error: health rpc failed: this server or service does not answer health checks")
    if answer.status != grpchealth.SERVING:
        said = grpchealth.STATUSES.get(answer.status, str(answer.status))
        return Outcome(False, f'service unhealthy (responded with "{said}")')
    return Outcome(True)


async def _exec(action: Object, target: Target) -> Outcome:
    code, output = await target.run(list(action.get("command") or ()))
    return Outcome(code == 0, output)


def port_number(port: int | str, container: Object) -> int | None:
    """A port given by number or by the name of one of the container's; None if there is none of that name."""
    if isinstance(port, int):
        return port
    for known in container.get("ports") or ():
        if known.get("name") == port:
            return int(known["containerPort"])
    return int(port) if port.isdigit() else None


def _address(action: Object, target: Target) -> str:
    host = action.get("host") or target.ip
    return f"{f'[{host}]' if ':' in host else host}:{port_number(action['port'], target.container)}"


def _url(action: Object, target: Target) -> str:
    scheme = (action.get("scheme") or "HTTP").lower()
    path = action.get("path") or "/"
    return f"{scheme}://{_address(action, target)}{path if path.startswith('/') else '/' + path}"


async def _tcp(action: Object, target: Target) -> Outcome:
    port = port_number(action["port"], target.container)
    if port is None:
        return Outcome(False, f"invalid port number: {action['port']}")
    try:
        _, writer = await asyncio.open_connection(action.get("host") or target.ip, port)
    except OSError as error:
        return Outcome(False, _refused(error, _address(action, target)))
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return Outcome(True)


def _refused(error: OSError, address: str) -> str:
    text = os.strerror(error.errno) if error.errno else str(error)
    return f"dial tcp {address}: connect: {text.lower()}"


async def http_get(action: Object, target: Target) -> Outcome:
    """A GET of an httpGet action: 200–399 is success; certificates are not checked; redirects are followed only to the
    same host."""
    if port_number(action["port"], target.container) is None:
        return Outcome(False, f"invalid port number: {action['port']}")
    headers = {"User-Agent": f"kube-probe/{version.MAJOR}.{version.MINOR}", "Accept": "*/*", "Connection": "close"}
    headers |= {h["name"]: h["value"] for h in action.get("httpHeaders") or ()}
    url = _url(action, target)
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False), auto_decompress=False) as session,
            session.get(url, headers=headers, allow_redirects=False) as response,
        ):
            await response.content.read(_MAX_BODY)
            if 200 <= response.status < 400:
                return Outcome(True)
            return Outcome(False, f"HTTP probe failed with statuscode: {response.status}")
    except (aiohttp.ClientError, OSError) as error:
        if isinstance(error, aiohttp.ClientConnectorError):
            return Outcome(False, f'Get "{url}": {_refused(error.os_error, _address(action, target))}')
        return Outcome(False, f'Get "{url}": {str(error) or type(error).__name__}')
