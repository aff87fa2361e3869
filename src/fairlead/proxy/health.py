"""Answers to those who ask whether traffic should come to this node: load balancers, and the kubelet.

Stands beside `Proxy`, which says what to answer. One listener for each Service's healthCheckNodePort, and one for the
proxy's own health (:10256 /healthz and /livez). Formats are kube-proxy's (pkg/proxy/healthcheck). Invariant: a port
that cannot be had is no reason to stop; it is tried again with the next change.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime

import orjson
from aiohttp import web

from fairlead.discovery.model import Service, ServiceKey, ServiceSnapshot

log = logging.getLogger("fairlead.proxy")

HEALTHZ_PORT, METRICS_PORT = 10256, 10249
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def local_endpoints(service: Service, node: str) -> int:
    """How many addresses serve the Service on this node: ready ones only, so a node that drains says so at once."""
    return len({e.address for entry in service.slices for e in entry.endpoints if e.ready and e.node == node})


def health_ports(services: Iterable[Service]) -> dict[int, ServiceKey]:
    """Where health checks are to be answered, and for which Service. Of two with one port (which the API forbids) the
    first by name has it."""
    ports: dict[int, ServiceKey] = {}
    for service in services:
        port = service.health_check_node_port
        if port and not service.ignored_by_proxy and (port not in ports or service.key < ports[port]):
            ports[port] = service.key
    return ports


def service_answer(key: ServiceKey, count: int, healthy: bool) -> web.Response:
    """200 if the node has an endpoint and a proxy that works, else 503."""
    body = {
        "service": {"namespace": key.namespace, "name": key.name},
        "localEndpoints": count,
        "serviceProxyHealthy": healthy,
    }
    return web.Response(
        status=200 if count and healthy else 503,
        body=orjson.dumps(body),
        content_type="application/json",
        headers={"X-Content-Type-Options": "nosniff", "X-Load-Balancing-Endpoint-Weight": str(count)},
    )


def proxy_answer(
    healthy: bool, eligible: bool | None, updated: datetime | None, now: datetime, families: Iterable[str] = ()
) -> web.Response:
    """/healthz, and with `eligible` None /livez. Not eligible: the node is leaving, new connections should not come."""
    body: dict[str, object] = {"lastUpdated": _time(now if healthy else updated), "currentTime": _time(now)}
    if eligible is not None:
        body["nodeEligible"] = eligible
    # As kube-proxy from 1.34 on.
    body["healthy"] = healthy
    body["status"] = {family: {"lastUpdated": _time(updated), "healthy": healthy} for family in families}
    return web.Response(
        status=200 if healthy and eligible is not False else 503,
        body=orjson.dumps(body),
        content_type="application/json",
        headers={"X-Content-Type-Options": "nosniff"},
    )


def _time(when: datetime | None) -> str:
    """Never is Go's zero time, so that its readers can."""
    return when.strftime("%Y-%m-%dT%H:%M:%SZ") if when is not None else "0001-01-01T00:00:00Z"


class Listener:
    """An HTTP server of one handler on one address, in the network namespace of the thread that opens it."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._runner: web.ServerRunner | None = None
        self.port = 0

    async def open(self, address: str, port: int) -> None:
        """Raises OSError if the address or port cannot be had. Address "": every one of the machine, both families."""
        listening = _bind(address, port)
        try:
            self.port = listening.getsockname()[1]
            self._runner = web.ServerRunner(web.Server(self._handler, access_log=None), shutdown_timeout=0.5)
            await self._runner.setup()
            await web.SockSite(self._runner, listening).start()
        except BaseException:
            listening.close()
            raise

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


def _bind(address: str, port: int) -> socket.socket:
    if not address and socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as error:
            if isinstance(error, PermissionError) or error.errno == 98:  # EADDRINUSE: IPv4 would fail, too
                raise
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address or "0.0.0.0", port), family=family)


class ServiceHealth:
    """The listeners of the Services' health check node ports. `healthy`: whether the proxy works."""

    def __init__(self, node: str, healthy: Callable[[], bool]) -> None:
        self._node, self._healthy = node, healthy
        self._snapshot = ServiceSnapshot()
        self._ports: dict[int, ServiceKey] = {}
        self._listeners: dict[int, Listener] = {}

    async def sync(self, snapshot: ServiceSnapshot, keys: Iterable[ServiceKey] | None) -> None:
        """Listen where the snapshot says. `keys`: the Services that may differ from before; None: any."""
        before, self._snapshot = self._snapshot, snapshot
        if keys is not None and not any(
            service is not None and service.health_check_node_port
            for key in keys
            for service in (before.services.get(key), snapshot.services.get(key))
        ):
            return
        self._ports = health_ports(snapshot.services.values())
        for port in self._listeners.keys() - self._ports.keys():
            await self._listeners.pop(port).close()
        for port, key in self._ports.items():
            if port in self._listeners:
                continue
            listener = Listener(self._answer_for(port))
            try:
                await listener.open("", port)
            except OSError as error:
                log.error("health check node port %d of Service %s cannot be served: %s", port, key, error.strerror)
                continue
            self._listeners[port] = listener

    def _answer_for(self, port: int) -> Handler:
        async def answer(_: web.BaseRequest) -> web.StreamResponse:
            key = self._ports.get(port)
            service = self._snapshot.services.get(key) if key is not None else None
            if key is None or service is None:
                return web.Response(status=404)
            return service_answer(key, local_endpoints(service, self._node), self._healthy())

        return answer

    async def close(self) -> None:
        """Stop listening."""
        for listener in self._listeners.values():
            await listener.close()
        self._listeners = {}


def healthz(
    healthy: Callable[[], bool],
    eligible: Callable[[], bool],
    updated: Callable[[], datetime | None],
    counted: Callable[[str, int], None],
    families: Iterable[str] = (),
) -> Handler:
    """The handler of /healthz and /livez; `counted` is told of each answer: path and status."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        now = datetime.now(UTC)
        if request.path == "/healthz":
            response = proxy_answer(healthy(), eligible(), updated(), now, families)
        elif request.path == "/livez":
            response = proxy_answer(healthy(), None, updated(), now, families)
        else:
            return web.Response(status=404, text="404 page not found\n")
        counted(request.path[1:], response.status)
        return response

    return answer
