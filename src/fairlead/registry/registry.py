"""The registry: what the wire calls. Every verb on every kind goes through here.

Stands between `apiserver` and `store`. Invariant: an object leaves here complete (kind, apiVersion, resourceVersion)
and enters the store only prepared, defaulted, validated and with its allocations in the same commit.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from fairlead.api.errors import StatusError, bad_request, method_not_allowed, not_found, unavailable
from fairlead.api.kinds import NAMESPACES, NODES, PODS, Resource
from fairlead.registry import deleting, evictions, pods
from fairlead.registry.definitions import Catalog, Finalizing
from fairlead.registry.fresh import catch_up
from fairlead.registry.housekeeping import Housekeeping
from fairlead.registry.listing import list_objects, parse_revision, too_large
from fairlead.registry.requests import (
    DeleteOptions,
    ListOptions,
    ListResult,
    RegistryOptions,
    RequestContext,
    WatchOptions,
)
from fairlead.registry.scale import apply_scale, scale_of, scaled_part
from fairlead.registry.stored import decode, key_of, without_nulls
from fairlead.registry.strategies import Strategies
from fairlead.registry.strategy import Rules, Surroundings, upstream_rules
from fairlead.registry.watching import RegistryWatch
from fairlead.registry.writing import Writer, read
from fairlead.store.interface import Record, Store, StoreClosed, StoreFailed

Object = dict[str, Any]

P = ParamSpec("P")
T = TypeVar("T")

_DELETIONS_AT_ONCE = 16


def _answering(verb: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """A verb that says 503 once the store is closed: the server is on its way down."""

    @functools.wraps(verb)
    async def answering(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await verb(*args, **kwargs)
        except StoreClosed as error:
            raise unavailable("the API server is shutting down") from error
        except StoreFailed as error:
            raise unavailable(str(error)) from error

    return answering


class Registry:
    """All verbs. Every failure is a `StatusError`. Objects given are left as they are; objects returned belong to the
    caller. `rules` are upstream's unless a test brings others."""

    def __init__(self, store: Store, options: RegistryOptions | None = None, rules: Rules | None = None) -> None:
        self.store = store
        self.options = options or RegistryOptions()
        self.watchers = 0  # how many watches are open
        strategies = Strategies(Surroundings(store, self.options, self._wait_for))
        self._writer = Writer(store, self.options, rules or upstream_rules(), strategies.of)
        self.catalog = Catalog(store)  # the resources there are
        self._writer.committed = self.catalog.notice
        self._finalizing = Finalizing(self.catalog, self._writer)
        self._housekeeping = Housekeeping(store, self.options)

    async def start(self) -> None:
        """Begin housekeeping: Events older than their TTL, compaction; know the custom resources there are."""
        await self.catalog.refresh()
        await self._finalizing.start()
        await self._housekeeping.start()

    async def stop(self) -> None:
        """End housekeeping. The store stays open: whoever opened it closes it."""
        await self._finalizing.stop()
        await self._housekeeping.stop()

    @_answering
    async def create(
        self,
        resource: Resource,
        namespace: str,
        obj: Object,
        ctx: RequestContext,
        *,
        name: str = "",
        subresource: str = "",
    ) -> Object:
        """POST. With `name` and `subresource`: binding, eviction (what they return is the body to send)."""
        if not subresource:
            return await self._writer.create(resource, namespace, obj, ctx)
        if resource != PODS or subresource not in {"binding", "eviction"}:
            raise method_not_allowed()
        body = without_nulls(obj)
        if subresource == "eviction":
            await evictions.evict(self._writer, namespace, name, body, ctx)
        else:
            pods.check_binding(body, name)
            node = await self.store.get(key_of(NODES, "", body["target"]["name"]))
            labels = pods.topology_labels(decode(NODES, node)) if node is not None else {}
            await self._writer.change(
                PODS, namespace, name, lambda pod: pods.bind(pod, body, ctx, labels), ctx, subresource="binding"
            )
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}

    @_answering
    async def get(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        ctx: RequestContext | None = None,
        *,
        subresource: str = "",
        resource_version: str = "",
    ) -> Object:
        """GET one. `subresource` status gives the object, scale a Scale. With resourceVersion 0 what is known here
        will do; with another one it is at least as new."""
        self._check_subresource(resource, name, subresource)
        wanted = parse_revision(resource_version)
        if resource_version != "0" and not 0 < wanted <= self.store.revision:
            await catch_up(self.store)
            if wanted > self.store.revision:
                raise too_large(wanted, self.store.revision)
        _, obj = await read(self.store, resource, namespace, name)
        return scale_of(resource, obj) if subresource == "scale" else obj

    @_answering
    async def list(self, resource: Resource, namespace: str, options: ListOptions) -> ListResult:
        """GET many; an empty namespace means all."""
        self._writer.strategy(resource)
        return await list_objects(self.store, resource, namespace, options)

    @_answering
    async def update(
        self, resource: Resource, namespace: str, name: str, obj: Object, ctx: RequestContext, *, subresource: str = ""
    ) -> Object:
        """PUT. Kinds that may be created so are: see `update_or_create` for whether it was."""
        return (await self.update_or_create(resource, namespace, name, obj, ctx, subresource=subresource))[0]

    @_answering
    async def update_or_create(
        self, resource: Resource, namespace: str, name: str, obj: Object, ctx: RequestContext, *, subresource: str = ""
    ) -> tuple[Object, bool]:
        """PUT; True if the object was created (201)."""
        self._check_subresource(resource, name, subresource)
        if subresource == "scale":
            return await self.patch(resource, namespace, name, lambda _: obj, ctx, subresource="scale"), False
        return await self._writer.put(resource, namespace, name, obj, ctx, subresource=subresource)

    @_answering
    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        patch_fn: Callable[[Object], Object],
        ctx: RequestContext,
        *,
        subresource: str = "",
    ) -> Object:
        """PATCH. `patch_fn` gets a copy of the current object (or Scale) that it may change, returns the wanted one,
        may raise StatusError, and may be called several times (a write in between)."""
        self._check_subresource(resource, name, subresource)
        if subresource != "scale":
            return await self._writer.change(resource, namespace, name, patch_fn, ctx, subresource=subresource)

        def change(obj: Object) -> Object:
            return apply_scale(resource, obj, without_nulls(patch_fn(scale_of(resource, obj))))

        changed = await self._writer.change(resource, namespace, name, change, ctx, subresource="", via="scale")
        return scale_of(resource, changed)

    @_answering
    async def apply(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        config: Object,
        ctx: RequestContext,
        *,
        force: bool = False,
        subresource: str = "",
    ) -> tuple[Object, bool]:
        """Server-side apply; True if it created the object. `ctx.field_manager` is the applier. 409 with a cause for
        each field that another manager has and wants otherwise, unless `force`."""
        self._check_subresource(resource, name, subresource)
        if subresource == "scale":
            config = scaled_part(resource, config)
        applied, created = await self._writer.apply(
            resource, namespace, name, config, ctx, force=force, subresource=subresource
        )
        return scale_of(resource, applied) if subresource == "scale" else applied, created

    @_answering
    async def delete(
        self, resource: Resource, namespace: str, name: str, options: DeleteOptions, ctx: RequestContext
    ) -> Object:
        """DELETE. Gives the object where upstream does (pods, services, service accounts, whatever is not yet gone),
        else a `Status`: send it as it is (200; 202 if it is not a Status and propagation is Foreground)."""
        return await deleting.delete(self._writer, resource, namespace, name, options, ctx=ctx)

    @_answering
    async def delete_collection(
        self,
        resource: Resource,
        namespace: str,
        options: DeleteOptions,
        list_options: ListOptions,
        ctx: RequestContext,
    ) -> ListResult:
        """DELETE many: the objects that were chosen, as a list."""
        if resource == NAMESPACES:
            raise method_not_allowed()
        deleting.check_options(options)
        chosen = await self.list(resource, namespace, list_options)

        async def delete_one(obj: Object) -> None:
            metadata = obj["metadata"]
            try:
                await self.delete(resource, metadata.get("namespace", ""), metadata["name"], options, ctx)
            except StatusError as error:
                if error.code != 404:
                    raise

        for start in range(0, len(chosen.items), _DELETIONS_AT_ONCE):
            await asyncio.gather(*map(delete_one, chosen.items[start : start + _DELETIONS_AT_ONCE]))
        return chosen

    def watch(self, resource: Resource, namespace: str, options: WatchOptions) -> RegistryWatch:
        """Watch; bad selectors raise here (400). A resourceVersion too old is an ERROR event with a 410 Status.
        To watch one object: field selector `metadata.name=…`. Timeouts are the caller's."""
        self._writer.strategy(resource)
        seconds, count = self.options.bookmark_seconds, self._count_watchers
        try:
            return RegistryWatch(self.store, resource, namespace, options, bookmark_seconds=seconds, count=count)
        except StoreClosed as error:
            raise unavailable("the API server is shutting down") from error

    def _count_watchers(self, change: int) -> None:
        self.watchers += change

    def _check_subresource(self, resource: Resource, name: str, subresource: str) -> None:
        self._writer.strategy(resource)
        if not name:
            raise bad_request("the name of an object is missing")
        if subresource and (subresource not in resource.subresources or subresource not in _SERVED):
            raise not_found(f"{resource.plural}/{subresource}", resource.group, name)

    async def _wait_for(self, key: str, seconds: float) -> Record | None:
        """The record at `key`, at the latest after `seconds`."""
        since = self.store.revision
        record = await self.store.get(key)
        if record is not None or not seconds:
            return record
        watch = self.store.watch(key, since)
        try:
            async with asyncio.timeout(seconds):
                async for events in watch:
                    for event in events:
                        if event.record.key == key and event.type == "PUT":
                            return event.record
        except TimeoutError:
            pass
        finally:
            watch.close()
        return None


_SERVED = frozenset({"status", "scale", "finalize", "approval", "ephemeralcontainers"})
