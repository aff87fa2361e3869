"""The verbs on resources: from a request that may be made to the registry, and back to an answer.

Between dispatch and the registry. Invariant: nothing is decided about an object here; this only reads what was asked
and writes what came of it.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from fairlead.api import errors
from fairlead.api.kinds import CERTIFICATESIGNINGREQUESTS, MEASURED, Resource
from fairlead.apiserver import bodies, execs, logs, measuring, patches, portforward, respond, signers, watch
from fairlead.apiserver.authentication import Authenticator
from fairlead.apiserver.authorization import Authorizer
from fairlead.apiserver.call import Call, delete_options
from fairlead.apiserver.config import ServerConfig
from fairlead.apiserver.discovery import SUBRESOURCES, verbs_of
from fairlead.apiserver.kubelets import Kubelets
from fairlead.apiserver.noderights import check_body
from fairlead.apiserver.proxying import Proxying
from fairlead.apiserver.rbac.index import PolicyIndex
from fairlead.apiserver.request import is_true
from fairlead.apiserver.reviews import Reviewer
from fairlead.apiserver.streams import Streams
from fairlead.apiserver.tokens import TokenIssuer
from fairlead.registry import RequestContext

Object = dict[str, Any]

_STREAMED = ("log", "exec", "attach", "portforward")
_POSTED = ("binding", "eviction")


class Verbs:
    """Serves resource requests."""

    def __init__(
        self,
        config: ServerConfig,
        kubelets: Kubelets,
        streams: Streams,
        issuer: TokenIssuer | None,
        *,
        authenticator: Authenticator,
        authorizer: Authorizer,
        guard: PolicyIndex | None,
    ) -> None:
        self._config, self._registry = config, config.registry
        self._authorizer, self._reviewer = authorizer, Reviewer(authorizer, authenticator)
        self._guard = guard
        self._kubelets, self._streams, self._issuer = kubelets, streams, issuer
        self._proxying = Proxying(config, kubelets, streams)

    async def close(self) -> None:
        """Close the connections to others."""
        await self._proxying.close()

    async def serve(self, call: Call) -> web.StreamResponse:
        """Answer the call. Raises StatusError."""
        info, resource = call.info, call.info.resource
        assert resource is not None
        if info.subresource == "proxy":
            return await self._proxying.serve(call)
        allowed = verbs_of(resource, info.subresource)
        if info.verb not in allowed or (info.verb in ("update", "patch") and not info.name):
            raise errors.method_not_allowed()
        if resource in MEASURED:
            return await measuring.serve(call, self._config, self._kubelets)
        if call.request.method == "HEAD" and (info.verb == "watch" or info.subresource in _STREAMED):
            raise errors.method_not_allowed()  # its answer would have no end, and nobody to take it
        if resource == CERTIFICATESIGNINGREQUESTS and info.verb in ("update", "patch"):
            await signers.check(self._registry, self._authorizer, call)
        if info.subresource == "log":
            return await logs.serve(call, self._kubelets, self._streams)
        if info.subresource in ("exec", "attach"):
            return await execs.serve(call, self._kubelets, self._streams)
        if info.subresource == "portforward":
            return await portforward.serve(call, self._kubelets, self._streams)
        match info.verb:
            case "get":
                return await self._get(call, resource)
            case "list":
                return await self._list(call, resource)
            case "watch":
                return await watch.serve(call, self._config, self._streams)
            case "create":
                return await self._create(call, resource)
            case "update":
                return await self._update(call, resource)
            case "patch":
                return await self._patch(call, resource)
            case "delete":
                return await self._delete(call, resource)
            case "deletecollection":
                return await self._delete_collection(call, resource)
        raise errors.method_not_allowed()

    def _context(self, call: Call) -> RequestContext:
        """What goes with a write: the query's, and whether the user may grant what he writes."""
        ctx, guard = call.context(), self._guard
        if guard is not None:
            ctx.may_grant = lambda resource, new, old: guard.check_grant(resource, new, old, ctx.user)
        return ctx

    async def _body(self, call: Call) -> bytes:
        return await bodies.read_body(call.request, self._config.body_limit)

    async def _get(self, call: Call, resource: Resource) -> web.StreamResponse:
        form = call.form()
        obj = await self._registry.get(
            resource,
            call.namespace,
            call.info.name,
            call.context(),
            subresource=call.info.subresource,
            resource_version=call.query.get("resourceVersion", ""),
        )
        return respond.of_kind(respond.one(call.request, form, resource, obj, call.now), resource)

    async def _list(self, call: Call, resource: Resource) -> web.StreamResponse:
        form = call.form()
        result = await self._registry.list(resource, call.namespace, call.list_options())
        return respond.of_kind(respond.many(call.request, form, resource, result, call.now), resource)

    async def _create(self, call: Call, resource: Resource) -> web.StreamResponse:
        info, form, ctx = call.info, call.form(), self._context(call)
        if info.name and not info.subresource:
            raise errors.method_not_allowed()
        if resource.namespaced and not info.namespace:
            raise errors.method_not_allowed()
        kind, version = _body_type(info.subresource)
        older = SUBRESOURCES[info.subresource].older if info.subresource else ()
        obj = bodies.checked_object(
            await self._body(call), call.content_type, resource, ctx, kind=kind, api_version=version, older=older
        )
        if self._guard is not None:
            await check_body(self._registry, call.user, info, obj)
        if info.subresource == "token":
            if self._issuer is None:
                raise errors.not_found("serviceaccounts/token", "", info.name)
            made = await self._issuer.request(info.namespace, info.name, obj, ctx)
        elif not resource.stored:
            made = await self._reviewer.review(resource, call.namespace, obj, ctx)
        elif info.subresource in _POSTED:
            made = await self._registry.create(
                resource, call.namespace, obj, ctx, name=info.name, subresource=info.subresource
            )
        else:
            _check_namespace(obj, call.namespace)
            made = await self._registry.create(resource, call.namespace, obj, ctx)
        return respond.one(call.request, form, resource, made, call.now, status=201, warnings=ctx.warnings)

    async def _update(self, call: Call, resource: Resource) -> web.StreamResponse:
        info, form, ctx = call.info, call.form(), self._context(call)
        kind, version = _body_type(info.subresource)
        obj = bodies.checked_object(
            await self._body(call), call.content_type, resource, ctx, kind=kind, api_version=version
        )
        given = (obj.get("metadata") or {}).get("name") or ""
        if given != info.name:
            if not given:
                raise errors.bad_request("name must be provided")
            raise errors.bad_request(
                f"the name of the object ({given}) does not match the name on the URL ({info.name})"
            )
        _check_namespace(obj, call.namespace)
        updated, created = await self._registry.update_or_create(
            resource, call.namespace, info.name, obj, ctx, subresource=info.subresource
        )
        status = 201 if created else 200
        return respond.one(call.request, form, resource, updated, call.now, status=status, warnings=ctx.warnings)

    async def _patch(self, call: Call, resource: Resource) -> web.StreamResponse:
        info, form, ctx = call.info, call.form(), self._context(call)
        kind, version = _body_type(info.subresource)
        applying = patches.is_apply(call.content_type)
        force = is_true(call.query, "force") if "force" in call.query else None
        patches.check_options(applying, call.query.get("fieldManager", ""), force)
        if applying:
            config = patches.applied_object(await self._body(call), resource, ctx, kind=kind, api_version=version)
            _check_namespace(config, call.namespace)
            config["metadata"].setdefault("name", info.name)
            applied, created = await self._registry.apply(
                resource, call.namespace, info.name, config, ctx, force=bool(force), subresource=info.subresource
            )
            status = 201 if created else 200
            return respond.one(call.request, form, resource, applied, call.now, status=status, warnings=ctx.warnings)
        change = patches.patch_function(
            await self._body(call), call.content_type, resource, ctx, kind=kind, api_version=version
        )
        patched = await self._registry.patch(
            resource, call.namespace, info.name, change, ctx, subresource=info.subresource
        )
        return respond.one(call.request, form, resource, patched, call.now, warnings=ctx.warnings)

    async def _delete(self, call: Call, resource: Resource) -> web.StreamResponse:
        form, ctx = call.form(), self._context(call)
        body, dry_run = await self._delete_body(call)
        ctx.dry_run = ctx.dry_run or dry_run
        options = delete_options(call.query, body)
        gone = await self._registry.delete(resource, call.namespace, call.info.name, options, ctx)
        waiting = gone.get("kind") != "Status" and options.propagation_policy == "Foreground"
        status = 202 if waiting else 200
        answer = respond.one(call.request, form, resource, gone, call.now, status=status, warnings=ctx.warnings)
        return respond.of_kind(answer, resource)

    async def _delete_collection(self, call: Call, resource: Resource) -> web.StreamResponse:
        form, ctx = call.form(), self._context(call)
        if resource.namespaced and not call.namespace:
            raise errors.method_not_allowed()
        body, dry_run = await self._delete_body(call)
        ctx.dry_run = ctx.dry_run or dry_run
        options = delete_options(call.query, body)
        gone = await self._registry.delete_collection(resource, call.namespace, options, call.list_options(), ctx)
        return respond.of_kind(respond.many(call.request, form, resource, gone, call.now), resource)

    async def _delete_body(self, call: Call) -> tuple[Object, bool]:
        """The DeleteOptions in the body ({} without one), and whether it says dryRun."""
        text = await self._body(call)
        if not text.strip():
            return {}, False
        body, _ = bodies.decode_body(text, call.content_type)
        kind = body.get("kind")
        if kind not in (None, "", "DeleteOptions"):
            raise errors.bad_request(f"the body of a DELETE is a DeleteOptions, not a {kind}")
        dry_run = body.get("dryRun")
        return body, isinstance(dry_run, list) and "All" in dry_run


def _body_type(subresource: str) -> tuple[str, str]:
    """(kind, apiVersion) of the body a subresource takes; empty: the resource's own."""
    sub = SUBRESOURCES.get(subresource)
    if sub is None or not sub.kind:
        return "", ""
    return sub.kind, f"{sub.group}/{sub.version}" if sub.group else sub.version


def _check_namespace(obj: Object, namespace: str) -> None:
    given = (obj.get("metadata") or {}).get("namespace") or ""
    if given and given != namespace:
        raise errors.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
