"""The way to a pod's kubelet: finding it, and the connection that presents the API server's own certificate.

Under logs, exec, attach and port-forward. Invariant: a request goes to the kubelet of the node the pod is bound to, at
the address and port that node reports, over TLS verified against the kubelets' authority. A node that joined
is asked for by its name, which its certificate must bear: what address leads there is found for each connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextvars import ContextVar
from typing import Any

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver, ResolveResult

from fairlead.api import errors, nodenetworks
from fairlead.api.kinds import NODES, PODS
from fairlead.apiserver.channels import MAX_MESSAGE
from fairlead.apiserver.config import ServerConfig
from fairlead.registry import Registry

Object = dict[str, Any]

DEFAULT_PORT = 10250
CONNECT_SECONDS = 5.0
_REFUSAL_LIMIT = 64 * 1024
_ADDRESS_ORDER = ("InternalIP", "ExternalIP", "Hostname")


class Kubelets:
    """All kubelets, through one pooled client session, made when first needed."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._session: aiohttp.ClientSession | None = None

    async def session(self) -> aiohttp.ClientSession:
        """The client session. Raises 503 when the server was started without a certificate for kubelets."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=self.tls(), limit=0, use_dns_cache=False, resolver=_NodeNames(self._config.registry)
                ),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                auto_decompress=False,
                trace_configs=[_keeping_refusals()],
            )
        return self._session

    def tls(self) -> ssl.SSLContext:
        """How kubelets are spoken to. Raises 503, as `session`."""
        config = self._config
        if not (config.kubelet_cert_file and config.kubelet_ca_file):
            raise errors.unavailable("this API server was started without a client certificate for kubelets", 30)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_cert_chain(config.kubelet_cert_file, config.kubelet_key_file)
        context.load_verify_locations(config.kubelet_ca_file)
        return context

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def base_url(self, node_name: str) -> str:
        """`https://address:port` of a node's kubelet, or `https://name:port` of one that joined. Raises 404 (no
        such node) or 503 (it reports no address)."""
        node = await self._config.registry.get(NODES, "", node_name)
        status = node.get("status") or {}
        addresses = {a.get("type"): a.get("address") for a in reversed(status.get("addresses") or [])}  # the first wins
        host = next((addresses[kind] for kind in _ADDRESS_ORDER if addresses.get(kind)), None)
        if not host:
            raise errors.unavailable(f"node {node_name} reports no address to reach its kubelet at")
        endpoint = (status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}
        port = endpoint.get("Port") or DEFAULT_PORT
        if nodenetworks.is_known_by_name(node):
            host = node_name
        return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"

    async def pod(self, namespace: str, name: str) -> Object:
        """The pod. Raises 404."""
        return await self._config.registry.get(PODS, namespace, name)


class _NodeNames(AbstractResolver):
    """Names of nodes → where their kubelets are reached from here; other names as the machine resolves them."""

    def __init__(self, registry: Registry) -> None:
        self._registry, self._others = registry, aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        try:
            node = await self._registry.get(NODES, "", host)
        except errors.StatusError:
            return await self._others.resolve(host, port, family)
        address = nodenetworks.kubelet_address(node)
        if not address:
            raise OSError(None, f"node {host} reports no address to reach its kubelet at")
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        numeric = socket.AI_NUMERICHOST
        return [ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=numeric)]

    async def close(self) -> None:
        await self._others.close()


def choose_container(pod: Object, wanted: str) -> str:
    """The container meant: the named one, or the only one. Raises 400 in upstream's words."""
    spec, name = pod.get("spec") or {}, pod["metadata"]["name"]
    plain = [c["name"] for c in spec.get("containers") or []]
    init = [c["name"] for c in spec.get("initContainers") or []]
    ephemeral = [c["name"] for c in spec.get("ephemeralContainers") or []]
    if wanted:
        if wanted not in (*plain, *init, *ephemeral):
            raise errors.bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    if len(plain) == 1:
        return str(plain[0])
    text = f"a container name must be specified for pod {name}, choose one of: [{' '.join(plain)}]"
    if init:
        text += f" or one of the init containers: [{' '.join(init)}]"
    raise errors.bad_request(text)


def unreachable(method: str, url: str, error: BaseException) -> errors.StatusError:
    """The failure of a request to a kubelet: 500 with upstream's words for it."""
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        why = "net/http: request canceled while waiting for connection"
    elif isinstance(error, aiohttp.ClientConnectorError):
        why = f"dial tcp: connect: {(error.strerror or str(error)).lower()}"
    else:
        why = str(error) or type(error).__name__
    return errors.internal(f'{method} "{url}": {why}')


async def refusal(response: aiohttp.ClientResponse) -> errors.StatusError:
    """A kubelet's own refusal, as the Status it sent or as one made of its text."""
    return refusal_of(response.status, await response.content.read(_REFUSAL_LIMIT))


def refusal_of(code: int, body: bytes) -> errors.StatusError:
    """As `refusal`, of what was received."""
    try:
        status = orjson.loads(body)
        if isinstance(status, dict) and status.get("kind") == "Status":
            return errors.StatusError.of_status(status)
    except orjson.JSONDecodeError:
        pass
    text = body.decode("utf-8", "replace").strip() or f"the kubelet answered {code}"
    reasons = {400: "BadRequest", 404: "NotFound", 403: "Forbidden", 503: "ServiceUnavailable"}
    code = code if code in reasons else 500
    return errors.StatusError(code, reasons.get(code, "InternalError"), text)


# What a kubelet said when it refused an upgrade: aiohttp's ws_connect raises without the body, so it is kept aside.
refused_body: ContextVar[list[bytes] | None] = ContextVar("refused_body", default=None)


def _keeping_refusals() -> aiohttp.TraceConfig:
    async def keep(_session: aiohttp.ClientSession, _context: Any, params: aiohttp.TraceRequestEndParams) -> None:
        keeper = refused_body.get()
        if keeper is not None and params.response.status != 101:
            async with asyncio.timeout(CONNECT_SECONDS):
                keeper.append(await params.response.content.read(_REFUSAL_LIMIT))

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(keep)
    return trace


async def dial(
    nodes: Kubelets, url: str, query: list[tuple[str, str]], protocol: str
) -> aiohttp.ClientWebSocketResponse:
    """The kubelet's WebSocket. Raises the kubelet's refusal, or 500 when it can't be reached."""
    session = await nodes.session()
    said: list[bytes] = []
    keeping = refused_body.set(said)
    try:
        return await session.ws_connect(
            url, params=query, protocols=(protocol,), max_msg_size=MAX_MESSAGE, heartbeat=None
        )
    except aiohttp.WSServerHandshakeError as error:
        raise refusal_of(error.status, b"".join(said)) from None
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise unreachable("Get", url, error) from None
    finally:
        refused_body.reset(keeping)
