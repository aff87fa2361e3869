"""The REST client: every verb of the Kubernetes API against any API server.

Everything above speaks to the API through this. Objects are plain dicts, each call's result is the caller's own.
Invariant: every failure is a `StatusError`, the server's own words when it sent any; a request is never sent twice
unless the server surely did not act on it.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlencode

import aiohttp
import msgspec
import orjson
from yarl import URL

from fairlead.api.errors import StatusError
from fairlead.api.kinds import Resource
from fairlead.client import config

Object = dict[str, Any]
PatchKind = Literal["merge", "json", "strategic", "apply"]
PropagationPolicy = Literal["Background", "Foreground", "Orphan"]
Objects = list[Object]
Notice = tuple[str, Object]  # a raw watch event: ADDED, MODIFIED, DELETED or BOOKMARK, and the object
Notices = list[Notice]

_PATCH_TYPES: dict[PatchKind, str] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
_JSON = "application/json"
_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    503: "ServiceUnavailable",
}

CONNECTIONS = 12  # kept for requests that are not watches
PAGE = 500  # objects asked for at a time; what kubectl asks for


class Unreachable(StatusError):
    """No answer was had: the server is away, refuses the connection, or TLS failed."""

    def __init__(self, server: str, why: str) -> None:
        super().__init__(503, "ServiceUnavailable", f"cannot reach the API server at {server}: {why}")


class _Request(msgspec.Struct, frozen=True):
    """What is sent. `query` is already encoded."""

    method: str
    path: str
    query: str = ""
    data: bytes | None = None
    content_type: str = _JSON


class Client:
    """A connection to one API server. Use it as `async with`, or `close()` it."""

    def __init__(
        self,
        server: str,
        ssl_context: ssl.SSLContext | None = None,
        token_source: config.TokenSource | None = None,
        *,
        server_hostname: str = "",
        headers: tuple[tuple[str, str], ...] = (),
        namespace: str = "",
        user_agent: str = "fairlead",
        timeout: float = 60.0,
    ) -> None:
        self.server = server.rstrip("/")
        self.namespace = namespace
        self.watch_lists: bool | None = None  # does the server stream initial events? None: not known yet
        self._ssl, self._token, self._server_hostname = ssl_context, token_source, server_hostname or None
        self._headers = [("Accept", _JSON), ("User-Agent", user_agent), *headers]
        self._timeout = timeout
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    @classmethod
    def from_kubeconfig(
        cls, path: str | Path | None = None, context: str | None = None, user_agent: str = "fairlead"
    ) -> Self:
        """As kubectl finds it: the given file, else $KUBECONFIG, else ~/.kube/config. Raises ConfigError."""
        return cls.from_connection(config.from_kubeconfig(path, context), user_agent)

    @classmethod
    def in_cluster(cls, user_agent: str = "fairlead") -> Self:
        """As a pod finds it: environment and mounted service account. Raises ConfigError."""
        return cls.from_connection(config.in_cluster(), user_agent)

    @classmethod
    def from_connection(cls, connection: config.Connection, user_agent: str = "fairlead") -> Self:
        """From settings already read."""
        return cls(
            connection.server,
            connection.ssl_context,
            connection.token_source,
            server_hostname=connection.server_hostname,
            headers=connection.headers,
            namespace=connection.namespace,
            user_agent=user_agent,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Drop all connections; open watches end."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    # -- verbs ---------------------------------------------------------------------------------------------------

    async def get(self, resource: Resource, name: str, namespace: str = "", *, subresource: str = "") -> Object:
        """One object. 404 if it is not there."""
        return await self._call("GET", resource.path(namespace, name, subresource))

    async def list(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
        limit: int = PAGE,
    ) -> Object:
        """The whole list, as the API's list object, read in pages of `limit` (0: in one go).

        An empty namespace lists all. Items carry apiVersion and kind, as watch events do.
        """
        whole: Object | None = None
        async for page in self.pages(
            resource,
            namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            resource_version=resource_version,
            limit=limit,
        ):
            if whole is None:
                whole = page
            else:
                whole["items"] += page["items"]
                whole["metadata"] = page["metadata"]
        assert whole is not None
        return whole

    async def pages(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
        limit: int = PAGE,
    ) -> AsyncGenerator[Object]:
        """A list page by page. All pages are of one resourceVersion. 410 if it expires between two pages."""
        token = ""
        while True:
            query = _query(
                labelSelector=label_selector,
                fieldSelector=field_selector,
                resourceVersion="" if token else resource_version,
                limit=str(limit) if limit else "",
                **{"continue": token},
            )
            page = await self._call("GET", resource.path(namespace), query)
            items = page.get("items") or []
            for item in items:
                item["apiVersion"], item["kind"] = resource.api_version, resource.kind
            page["items"] = items
            token = page["metadata"].get("continue") or ""
            yield page
            if not token:
                return

    async def create(self, resource: Resource, obj: Object, namespace: str = "", *, dry_run: bool = False) -> Object:
        """Create; 409 AlreadyExists if the name is taken. The namespace is the argument's, else the object's."""
        path = resource.path(_namespace(resource, obj, namespace))
        return await self._call("POST", path, _query(dryRun="All" if dry_run else ""), obj)

    async def create_subresource(
        self, resource: Resource, name: str, subresource: str, body: Object, namespace: str = ""
    ) -> Object:
        """POST to a subresource: bindings, evictions, token requests."""
        return await self._call("POST", resource.path(namespace, name, subresource), "", body)

    async def update(self, resource: Resource, obj: Object, namespace: str = "", *, subresource: str = "") -> Object:
        """Replace. With a resourceVersion in the object: 409 Conflict if it moved on."""
        path = resource.path(_namespace(resource, obj, namespace), obj["metadata"]["name"], subresource)
        return await self._call("PUT", path, "", obj)

    async def update_status(self, resource: Resource, obj: Object, namespace: str = "") -> Object:
        """Replace the status only."""
        return await self.update(resource, obj, namespace, subresource="status")

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Object | Objects,
        namespace: str = "",
        kind: PatchKind = "merge",
        *,
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
    ) -> Object:
        """Patch. `apply` (server-side apply) needs a field manager."""
        query = _query(fieldManager=field_manager, force="true" if force else "")
        path = resource.path(namespace, name, subresource)
        return await self._call("PATCH", path, query, patch, _PATCH_TYPES[kind])

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        grace_period_seconds: int | None = None,
        propagation_policy: PropagationPolicy | None = None,
        preconditions: dict[str, str] | None = None,
    ) -> Object:
        """Delete. `preconditions` may hold uid and resourceVersion; 409 if they do not hold."""
        options = _delete_options(grace_period_seconds, propagation_policy, preconditions)
        return await self._call("DELETE", resource.path(namespace, name), "", options)

    async def delete_collection(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        grace_period_seconds: int | None = None,
        propagation_policy: PropagationPolicy | None = None,
    ) -> Object:
        """Delete everything selected."""
        query = _query(labelSelector=label_selector, fieldSelector=field_selector)
        options = _delete_options(grace_period_seconds, propagation_policy, None)
        return await self._call("DELETE", resource.path(namespace), query, options)

    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
        send_initial_events: bool = False,
        timeout_seconds: int = 0,
    ) -> AsyncGenerator[Notices]:
        """One watch, in the batches the network brought. Bookmarks are among the events.

        Ends when the server ends it. An ERROR event is raised as the StatusError it carries. For resuming and
        relisting use `follow`.
        """
        query = _query(
            watch="1",
            allowWatchBookmarks="true",
            labelSelector=label_selector,
            fieldSelector=field_selector,
            resourceVersion=resource_version,
            timeoutSeconds=str(timeout_seconds) if timeout_seconds else "",
            sendInitialEvents="true" if send_initial_events else "",
            resourceVersionMatch="NotOlderThan" if send_initial_events else "",
        )
        async with aclosing(self._stream(resource.path(namespace), query)) as stream:
            async for events in stream:
                batch: Notices = []
                for event in events:
                    if event["type"] == "ERROR":
                        if batch:
                            yield batch
                        raise StatusError.of_status(event["object"])
                    batch.append((event["type"], event["object"]))
                yield batch

    async def get_raw(self, path: str) -> bytes:
        """The body at any path: `/readyz`, `/version`."""
        response = await self._request(_Request("GET", path), self._total())
        async with response:
            return await self._body(response)

    async def post_raw(self, path: str, body: bytes) -> bytes:
        """The answer to JSON posted to any path."""
        response = await self._request(_Request("POST", path, data=body, content_type=_JSON), self._total())
        async with response:
            return await self._body(response)

    # -- transport (the fake replaces these two) ------------------------------------------------------------------

    async def _call(
        self, method: str, path: str, query: str = "", body: Any = None, content_type: str = _JSON
    ) -> Object:
        """One request, one object."""
        data = None if body is None else orjson.dumps(body)
        response = await self._request(_Request(method, path, query, data, content_type), self._total())
        async with response:
            data = await self._body(response)
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise StatusError(
                502, "BadGateway", f"{method} {path}: {self.server} answered with what is not JSON"
            ) from None
        if not isinstance(value, dict):
            raise StatusError(502, "BadGateway", f"{method} {path}: {self.server} answered with no object")
        return value

    async def _stream(self, path: str, query: str) -> AsyncGenerator[Objects]:
        """One watch's raw events, batched as they arrived."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=None)
        response = await self._request(_Request("GET", path, query), timeout)
        try:
            rest = b""
            async for chunk in response.content.iter_any():
                end = chunk.rfind(b"\n")
                if end < 0:
                    rest += chunk
                    continue
                lines = (rest + chunk[:end]).split(b"\n")
                rest = chunk[end + 1 :]
                events = [orjson.loads(line) for line in lines if line]
                if events:
                    yield events
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unreachable(self.server, f"the watch broke off ({_reason(error)})") from None
        except orjson.JSONDecodeError:
            raise Unreachable(self.server, "the watch sent what is not JSON") from None
        finally:
            response.close()

    def _total(self) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=self._timeout, sock_connect=10)

    async def _request(self, request: _Request, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        """Send; the response of a success, its body not yet read. Raises StatusError for anything else."""
        response = await self._send(request, timeout)
        if response.status == 401 and self._token is not None and self._token.refresh():
            response.release()
            response = await self._send(request, timeout)
        if response.status < 300:
            return response
        async with response:
            raise _failure(request, response, await self._body(response))

    async def _send(self, request: _Request, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        headers = list(self._headers)
        if request.data is not None:
            headers.append(("Content-Type", request.content_type))
        if self._token is not None:
            token = self._token.token()
            if token:
                headers.append(("Authorization", f"Bearer {token}"))
        target = f"{request.path}?{request.query}" if request.query else request.path
        try:
            return await self._session(timeout.total is None).request(
                request.method,
                URL(self.server + target, encoded=True),
                data=request.data,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
                server_hostname=self._server_hostname,
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unreachable(self.server, _reason(error)) from None

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        try:
            return await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unreachable(self.server, f"the answer broke off ({_reason(error)})") from None

    def _session(self, streams: bool) -> aiohttp.ClientSession:
        """Watches have a connection each; requests share a few, so that a burst of them does not cost a burst of TLS
        handshakes."""
        session = self._sessions.get(streams)
        if session is None:
            connector = aiohttp.TCPConnector(
                ssl=self._ssl if self._ssl is not None else True,
                limit=0 if streams else CONNECTIONS,
                keepalive_timeout=30,
                socket_factory=_socket,
            )
            session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
            self._sessions[streams] = session
        return session


def _socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket that notices within half a minute that its peer is gone, also while a watch is silent."""
    family, kind, protocol = address[0], address[1], address[2]
    sock = socket.socket(family=family, type=kind, proto=protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30000)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return sock


def _namespace(resource: Resource, obj: Object, namespace: str) -> str:
    if not resource.namespaced:
        return ""
    return namespace or obj["metadata"].get("namespace") or "default"


def _query(**parameters: str) -> str:
    return urlencode({k: v for k, v in parameters.items() if v})


def _delete_options(
    grace_period_seconds: int | None, propagation_policy: str | None, preconditions: dict[str, str] | None
) -> Object | None:
    options: Object = {}
    if grace_period_seconds is not None:
        options["gracePeriodSeconds"] = grace_period_seconds
    if propagation_policy is not None:
        options["propagationPolicy"] = propagation_policy
    if preconditions:
        options["preconditions"] = preconditions
    return {"apiVersion": "v1", "kind": "DeleteOptions", **options} if options else None


def _failure(request: _Request, response: aiohttp.ClientResponse, text: bytes) -> StatusError:
    """The server's Status, or one made of what else it said."""
    try:
        status = orjson.loads(text)
    except orjson.JSONDecodeError:
        status = None
    if isinstance(status, dict) and status.get("kind") == "Status":
        status.setdefault("code", response.status)
        error = StatusError.of_status(status)
    else:
        said = " ".join(text[:300].decode(errors="replace").split()) or response.reason or ""
        reason = _REASONS.get(response.status, "InternalError" if response.status >= 500 else "Unknown")
        error = StatusError(response.status, reason, f"{request.method} {request.path}: {response.status} {said}")
    after = response.headers.get("Retry-After", "")
    if error.retry_after is None and after.isdigit():
        error.retry_after = int(after)
    return error


def _reason(error: BaseException) -> str:
    """What went wrong on the way, without the library's own names where the system has a word for it."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted ({error.certificate_error})"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, OSError) and cause.errno and cause.errno > 0:
        return os.strerror(cause.errno)
    return str(error) or type(error).__name__


def is_conflict(error: StatusError) -> bool:
    """The object moved on since it was read."""
    return error.code == 409 and error.reason == "Conflict"


def is_gone(error: StatusError) -> bool:
    """There is no such object."""
    return error.code == 404
