"""The API server: listens, says who may come in, hands requests on, and turns every failure into a Status.

The outermost layer. Invariant: nothing but health and version is answered to the unknown; every request gets an answer
with the right code whatever breaks inside; stopping ends watches cleanly and leaves nothing open.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
import traceback

import msgspec
from aiohttp import web

from fairlead.api import errors
from fairlead.api.kinds import MEASURED, Resource
from fairlead.apiserver import certificates, metrics, respond
from fairlead.apiserver.authentication import ANONYMOUS, Authenticator
from fairlead.apiserver.authorization import Attributes, Authorizer, forbidden
from fairlead.apiserver.call import Call
from fairlead.apiserver.config import ServerConfig
from fairlead.apiserver.documents import Documents
from fairlead.apiserver.impersonation import impersonated
from fairlead.apiserver.kubelets import Kubelets
from fairlead.apiserver.metrics import Metrics
from fairlead.apiserver.rbac.upkeep import Policy
from fairlead.apiserver.request import RequestInfo, parse
from fairlead.apiserver.streams import Listener, NothingToSend, Streams
from fairlead.apiserver.tokens import TokenIssuer
from fairlead.apiserver.verbs import Verbs
from fairlead.registry import User
from fairlead.registry.requests import utc_now

log = logging.getLogger("fairlead.apiserver")

_OPEN = frozenset({"livez", "readyz", "healthz", "version"})
# What a machine that would join reads before it knows anybody: no secret, and RBAC decides about it.
_CLUSTER_INFO = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
_WHOM = ("fairlead", "address")  # answered with the address that the client's connection comes from
_RUNNING = frozenset({"exec", "attach", "portforward"})
_IDLE_SECONDS = 120.0  # how long a connection may wait for its next request
_HEADER_LIMIT = 64 * 1024
_LINGER_SECONDS = 2.0  # how long the rest of a refused body is read, so that the client sees the refusal


class APIServer:
    """One server. `start`, then `port` and `url` are known; `stop` ends it. The registry is its caller's."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        issuer = None
        if config.service_account_key:
            issuer = TokenIssuer(config.registry, config.service_account_key, config.service_account_issuer)
        self._authenticator = Authenticator(config.tokens, issuer, config.registry)
        # Another authorizer, if one is given, stands in the place of all of RBAC, escalation checks included.
        self._policy: Policy | None
        self._authorizer: Authorizer
        if config.authorizer is not None:
            self._policy, self._authorizer = None, config.authorizer
        else:
            self._policy = Policy(config.registry)
            self._authorizer = self._policy.authorizer
        self._streams = Streams()
        self._kubelets = Kubelets(config)
        guard = self._policy.index if self._policy is not None else None
        self._verbs = Verbs(
            config,
            self._kubelets,
            self._streams,
            issuer,
            authenticator=self._authenticator,
            authorizer=self._authorizer,
            guard=guard,
        )
        self._documents = Documents(issuer, lambda: config.registry.catalog.resources)
        self._metrics = Metrics(self._gauges)
        self._certificates: asyncio.Task[None] | None = None
        self._runner: web.ServerRunner | None = None
        self._ready = False
        self.host, self.port = "", 0

    @property
    def url(self) -> str:
        """`https://host:port`, of the first socket."""
        return f"https://[{self.host}]:{self.port}" if ":" in self.host else f"https://{self.host}:{self.port}"

    @property
    def open_streams(self) -> int:
        """How many watches, logs and execs are open."""
        return len(self._streams)

    async def start(self) -> None:
        """Listen. Raises OSError when the address can't be had, ssl.SSLError or OSError for bad certificate files."""
        config = self.config
        if self._policy is not None:
            await self._policy.load()
        context = tls_context(config)
        listener = Listener(
            self._handle,
            self._streams,
            first_request_seconds=config.first_request_seconds,
            access_log=None,
            auto_decompress=False,  # as upstream, which takes no compressed bodies; what is proxied stays as it is
            lingering_time=_LINGER_SECONDS,
            max_field_size=_HEADER_LIMIT,
            max_line_size=_HEADER_LIMIT,
            tcp_keepalive=True,
            keepalive_timeout=_IDLE_SECONDS,
        )
        runner = web.ServerRunner(listener, shutdown_timeout=config.shutdown_seconds)
        self._runner = runner
        await runner.setup()
        try:
            if isinstance(config.listen, tuple):
                host, port = config.listen
                await web.TCPSite(runner, host, port, ssl_context=context, backlog=512).start()
            else:
                for listening in config.listen:
                    await web.SockSite(runner, listening, ssl_context=context).start()
        except BaseException:
            await runner.cleanup()
            raise
        address = runner.addresses[0]
        self.host, self.port = address[0], address[1]
        self._documents.server_address = (
            f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        )
        self._certificates = asyncio.create_task(certificates.keep_loaded(context, config), name="certificates")
        self._ready = True
        log.info("listening on %s", self.url)

    async def stop(self) -> None:
        """Take no new connections, end streams, let running requests finish, close everything."""
        self._ready = False
        runner, self._runner = self._runner, None
        if runner is None:
            return
        if self._certificates is not None:
            self._certificates.cancel()
        for site in list(runner.sites):
            await site.stop()
        self._streams.stop()
        await runner.cleanup()
        if self._policy is not None:
            await self._policy.stop()
        await self._verbs.close()
        await self._kubelets.close()

    def _find(self, group: str, version: str, plural: str) -> Resource | None:
        """What is served at that path."""
        found = self.config.registry.catalog.find(group, version, plural)
        return found or next((r for r in MEASURED if (r.group, r.version, r.plural) == (group, version, plural)), None)

    # ---- one request
    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        begun, kind = time.perf_counter(), self._metrics.begun(request.method)
        seen: list[RequestInfo] = []
        code = 499  # what stays when the client is gone before an answer
        try:
            answer = await self._respond(request, seen)
            code = answer.status
            return answer
        finally:
            self._metrics.ended(kind, seen[0] if seen else None, code, time.perf_counter() - begun)

    def _gauges(self) -> dict[str, tuple[str, float]]:
        return {
            "apiserver_longrunning_requests": ("Open watches, logs, execs and forwarded ports.", len(self._streams)),
            "apiserver_registered_watchers": ("Open watches of the registry.", self.config.registry.watchers),
            "fairlead_store_revision": ("The newest revision of the store.", self.config.registry.store.revision),
        }

    async def _respond(self, request: web.BaseRequest, seen: list[RequestInfo]) -> web.StreamResponse:
        try:
            return await self._answer(request, seen)
        except errors.StatusError as failure:
            return respond.error(request, failure)
        except asyncio.CancelledError:
            raise
        except ConnectionError:
            return NothingToSend()  # the client left; nobody is there to be told
        except Exception as failure:
            _log_failure(request, failure)
            return respond.error(request, errors.internal("Internal error occurred: see the API server's log"))

    async def _answer(self, request: web.BaseRequest, seen: list[RequestInfo]) -> web.StreamResponse:
        transport = request.transport
        if transport is None:
            return NothingToSend()
        # Now, at the start: once the connection is upgraded or lost, its certificate can't be asked for any more.
        certificate = transport.get_extra_info("peercert")
        info = parse(request.method, request.rel_url.raw_path, request.query, self._find)
        seen.append(info)
        user = await self._authenticator.authenticate(certificate, request.headers.get("Authorization", ""))
        if info.segments and info.segments[0] in _OPEN:
            if info.segments[0] != "version":
                return self._health(request, info)
        elif user is ANONYMOUS and not (info.path == _CLUSTER_INFO and info.verb == "get"):
            raise errors.unauthorized()
        else:
            user = await impersonated(user, request.headers, self._authorizer)
            await self._authorize(user, info, request.query.get("fieldSelector", ""))
        if not info.is_resource:
            if info.segments == ("metrics",):
                return self._show_metrics(request)
            if info.segments == _WHOM:
                return respond.value(request, {"address": (transport.get_extra_info("peername") or ("",))[0]})
            return self._documents.serve(request, info)
        if info.resource is None:
            raise errors.not_found(info.plural, info.group, "")
        return await self._verbs.serve(Call(request, info, user, utc_now()))

    async def _authorize(self, user: User, info: RequestInfo, field_selector: str) -> None:
        attributes = Attributes.of(user, info, field_selector)
        decision = await self._authorizer.authorize(attributes)
        if decision.allowed and info.verb == "get" and info.subresource in _RUNNING:
            # However a client connects, these do something: upstream asks for `create` since 1.35.
            attributes = msgspec.structs.replace(attributes, verb="create")
            decision = await self._authorizer.authorize(attributes)
        if not decision.allowed:
            refusal = forbidden(attributes, decision.reason)
            if user.name.startswith("system:"):
                log.info("%s", refusal)  # a part of the cluster lacks a right, or oversteps
            raise refusal

    def _show_metrics(self, request: web.BaseRequest) -> web.Response:
        if request.method not in ("GET", "HEAD"):
            raise errors.method_not_allowed()
        return respond.raw(request, self._metrics.render(), content_type=metrics.CONTENT_TYPE)

    def _health(self, request: web.BaseRequest, info: RequestInfo) -> web.Response:
        kind = info.segments[0]
        checks = {"ping": True}
        if kind == "readyz":
            checks["shutdown"] = self._ready
        left_out = set(request.query.getall("exclude", []))
        if len(info.segments) > 1:
            name = info.segments[1]
            if name not in checks:
                raise errors.not_found("", "", "")
            checks = {name: checks[name]}
        good = all(fine for name, fine in checks.items() if name not in left_out)
        lines = [
            f"[+]{name} excluded: ok"
            if name in left_out
            else f"[{'+' if fine else '-'}]{name} {'ok' if fine else 'failed'}"
            for name, fine in checks.items()
        ]
        if good and "verbose" not in request.query:
            text = "ok"
        else:
            text = "\n".join([*lines, f"{kind} check {'passed' if good else 'failed'}", ""])
        headers = {**respond.BASE_HEADERS, "Content-Type": "text/plain; charset=utf-8"}
        return web.Response(text=text, status=200 if good else 500, headers=headers)


def tls_context(config: ServerConfig) -> ssl.SSLContext:
    """TLS as the server speaks it: 1.2 or later, client certificates welcome and verified when given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(config.cert_file, config.key_file)
    context.load_verify_locations(config.client_ca_file)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context


def listening_socket(host: str, port: int) -> socket.socket:
    """A listening socket for `ServerConfig.listen`. Raises OSError (in use, not ours, not allowed)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=512, reuse_port=False)


def _log_failure(request: web.BaseRequest, failure: BaseException) -> None:
    """Where it broke, but never with what values: those may be secrets."""
    places = [
        f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(failure.__traceback__)
    ]
    log.error(
        "%s %s failed: %s at %s",
        request.method,
        request.path,
        type(failure).__name__,
        " < ".join(reversed(places[-8:])),
    )
