"""The registry: what the wire calls. Every verb on every kind goes through here.

Stands between `apiserver` and `store`. Invariant: an object leaves here complete (kind, apiVersion, resourceVersion)
and enters the store only prepared, defaulted, validated and with its allocations in the same commit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from fairlead.api.kinds import Resource
from fairlead.registry.requests import (
    DeleteOptions,
    ListOptions,
    ListResult,
    RegistryEvent,
    RegistryOptions,
    RequestContext,
    WatchOptions,
)
from fairlead.store.interface import Store

Object = dict[str, Any]


class RegistryWatch(AsyncIterator[list[RegistryEvent]]):
    """An open watch: iterate for batches; `close()` (or `aclose()`) when the client is gone."""

    async def __anext__(self) -> list[RegistryEvent]:
        raise NotImplementedError

    def close(self) -> None:
        """Give up; the iteration ends."""

    async def aclose(self) -> None:
        """As `close`."""
        self.close()


class Registry:
    """All verbs. Every failure is a `StatusError`. Objects given are taken over (may be changed); objects returned
    belong to the caller."""

    def __init__(self, store: Store, options: RegistryOptions | None = None) -> None:
        self.store = store
        self.options = options or RegistryOptions()

    async def start(self) -> None:
        """Begin housekeeping: Events older than their TTL, compaction."""
        raise NotImplementedError

    async def stop(self) -> None:
        """End housekeeping. The store stays open: whoever opened it closes it."""
        raise NotImplementedError

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
        raise NotImplementedError

    async def get(
        self, resource: Resource, namespace: str, name: str, ctx: RequestContext | None = None, *, subresource: str = ""
    ) -> Object:
        """GET one. `subresource` status gives the object, scale a Scale."""
        raise NotImplementedError

    async def list(self, resource: Resource, namespace: str, options: ListOptions) -> ListResult:
        """GET many; an empty namespace means all."""
        raise NotImplementedError

    async def update(
        self, resource: Resource, namespace: str, name: str, obj: Object, ctx: RequestContext, *, subresource: str = ""
    ) -> Object:
        """PUT. Kinds that may be created so are: see `update_or_create` for whether it was."""
        raise NotImplementedError

    async def update_or_create(
        self, resource: Resource, namespace: str, name: str, obj: Object, ctx: RequestContext, *, subresource: str = ""
    ) -> tuple[Object, bool]:
        """PUT; True if the object was created (201)."""
        raise NotImplementedError

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
        raise NotImplementedError

    async def delete(
        self, resource: Resource, namespace: str, name: str, options: DeleteOptions, ctx: RequestContext
    ) -> Object:
        """DELETE. Gives the object where upstream does (pods, services, service accounts, whatever is not yet gone),
        else a `Status`: send it as it is (200; 202 if it is not a Status and propagation is Foreground)."""
        raise NotImplementedError

    async def delete_collection(
        self,
        resource: Resource,
        namespace: str,
        options: DeleteOptions,
        list_options: ListOptions,
        ctx: RequestContext,
    ) -> ListResult:
        """DELETE many: the objects that were chosen, as a list."""
        raise NotImplementedError

    def watch(self, resource: Resource, namespace: str, options: WatchOptions) -> RegistryWatch:
        """Watch; bad selectors raise here (400). A resourceVersion too old is an ERROR event with a 410 Status.
        To watch one object: field selector `metadata.name=…`. Timeouts are the caller's."""
        raise NotImplementedError
