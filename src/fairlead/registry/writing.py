"""POST, PUT and PATCH: prepare, default, validate, allocate, commit; and again if the world moved on meanwhile.

Stands between `Registry` and the store. Invariant: what is committed was decided on exactly the state it is committed
to: the object's own revision, its namespace's (for a new object) and its allocations are all conditions of the commit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fairlead.api.errors import (
    StatusError,
    already_exists,
    bad_request,
    conflict,
    internal,
    invalid,
    method_not_allowed,
    not_found,
    unavailable,
    unprocessable,
)
from fairlead.api.kinds import NAMESPACES, Resource
from fairlead.api.warnings import warnings_for
from fairlead.registry.fresh import catch_up, find
from fairlead.registry.listing import parse_revision
from fairlead.registry.metadata import fill_for_create, generated_name, is_finished, keep_for_update
from fairlead.registry.namespaces import Namespaces, open_namespace
from fairlead.registry.ownership import Application, Track, claim_changed, claim_new
from fairlead.registry.pods import Pods
from fairlead.registry.quotas import Quotas, counted_meanwhile
from fairlead.registry.requests import RegistryOptions, RequestContext
from fairlead.registry.signing import SigningRequests
from fairlead.registry.stored import copy, decode, encode, key_of, without_nulls
from fairlead.registry.strategy import Rules, Strategy
from fairlead.store.interface import (
    CompareFailed,
    Delete,
    Operation,
    Put,
    Record,
    Require,
    Store,
    StoreFailed,
)

Object = dict[str, Any]
Change = Callable[[Object], Object]

MAX_ATTEMPTS = 100
"""How often a write is decided anew because others were quicker, before the client is told to try later."""

_NAME_ATTEMPTS = 8


class Writer:
    """Everything that changes objects goes through `commit` here."""

    def __init__(
        self, store: Store, options: RegistryOptions, rules: Rules, strategy_of: Callable[[Resource], Strategy | None]
    ) -> None:
        self.store, self.options, self.rules, self._strategy_of = store, options, rules, strategy_of
        self._quotas = Quotas(store)
        self.committed: Callable[[str], Awaitable[None]] | None = None  # told the first key of each commit

    def strategy(self, resource: Resource) -> Strategy:
        """The kind's strategy; 405 for kinds that are not kept."""
        strategy = self._strategy_of(resource)
        if strategy is None:
            raise method_not_allowed()
        return strategy

    async def commit(self, *operations: Operation) -> int:
        """As the store's, with its failed writes as StatusErrors. CompareFailed passes through."""
        try:
            revision = await self.store.commit(*operations)
        except StoreFailed as error:
            raise internal(f"Internal error occurred: {error}") from error
        if self.committed is not None:
            await self.committed(operations[0].key)
        return revision

    async def create(
        self, resource: Resource, namespace: str, obj: Object, ctx: RequestContext, track: Track | None = None
    ) -> Object:
        """As `Registry.create` without a subresource. `track` gives other managedFields than an ordinary write has."""
        strategy = self.strategy(resource)
        given = without_nulls(obj)
        metadata = _place(resource, namespace, given)
        if resource.namespaced and not namespace:
            raise bad_request("an empty namespace may not be set during creation")
        if metadata.pop("resourceVersion", ""):
            raise bad_request("resourceVersion should not be set on objects to be created")
        generate = "" if metadata.get("name") else metadata.get("generateName", "")
        collisions = 0
        for _ in range(MAX_ATTEMPTS):
            new = copy(given)
            metadata = new["metadata"]
            if generate:
                metadata["name"] = generated_name(generate, self.options.dice)
            name = metadata.get("name", "")
            conditions: list[Operation] = []
            if resource.namespaced:
                home = await open_namespace(self.store, resource, namespace, name)
                conditions.append(Require(home.key, home.modified))
            await self._prepare_new(strategy, new, ctx, track)
            conditions += await strategy.allocate(new, None)
            key = key_of(resource, namespace, name)
            try:
                async with self._quotas.charged(resource, new, None, ctx) as charges:
                    if ctx.dry_run:
                        if await find(self.store, key) is not None:
                            raise already_exists(resource.plural, resource.group, name)
                        return new
                    revision = await self.commit(Put(key, encode(resource, new), expected=0), *conditions, *charges)
            except CompareFailed as failed:
                if failed.key == key:
                    collisions += 1
                    if not generate or collisions >= _NAME_ATTEMPTS:
                        raise already_exists(resource.plural, resource.group, name) from None
                elif failed.key != key_of(NAMESPACES, "", namespace) and not _is_worth_another_try(strategy, failed):
                    raise
                continue
            metadata["resourceVersion"] = str(revision)
            return new
        raise unavailable(f"{resource.group_plural}: too many writes at once, try again")

    async def _prepare_new(self, strategy: Strategy, new: Object, ctx: RequestContext, track: Track | None) -> None:
        resource, metadata = strategy.resource, new["metadata"]
        fill_for_create(metadata, ctx.now, self.options.dice)
        new["kind"], new["apiVersion"] = resource.kind, resource.api_version
        self.rules.default(resource, new)
        if track is not None:
            metadata["managedFields"] = track({}, new)
        else:
            claim_new(resource, new, ctx)
        await strategy.admit_create(new, ctx)
        strategy.prepare_for_create(new, ctx)
        errors = self.rules.check_create(resource, new)
        if errors:
            name = metadata.get("name") or metadata.get("generateName", "")
            raise unprocessable(resource.kind, resource.group, name, errors)
        for text in warnings_for(resource, new):
            ctx.warn(text)

    async def put(
        self, resource: Resource, namespace: str, name: str, obj: Object, ctx: RequestContext, *, subresource: str
    ) -> tuple[Object, bool]:
        """As `Registry.update_or_create`."""
        strategy = self.strategy(resource)
        given = without_nulls(obj)
        _place(resource, namespace, given)
        exists = await find(self.store, key_of(resource, namespace, name)) is not None
        if exists or subresource or not strategy.create_on_update:
            changed = await self.change(resource, namespace, name, lambda _: copy(given), ctx, subresource=subresource)
            return changed, False
        if given["metadata"].get("uid"):
            why = f"Precondition failed: UID in precondition: {given['metadata']['uid']}, UID in object meta: "
            raise conflict(resource.plural, resource.group, name, why)
        given["metadata"].pop("resourceVersion", None)
        given["metadata"].setdefault("name", name)
        return await self.create(resource, namespace, given, ctx), True

    async def apply(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        config: Object,
        ctx: RequestContext,
        *,
        force: bool,
        subresource: str,
    ) -> tuple[Object, bool]:
        """As `Registry.apply`."""
        given = without_nulls(config)
        application = Application(resource, given, ctx, subresource, force)
        held = "" if subresource == "scale" else subresource
        for _ in range(MAX_ATTEMPTS):
            try:
                changed = await self.change(
                    resource, namespace, name, application.change, ctx, subresource=held, track=application.track
                )
                return changed, False
            except StatusError as error:
                if error.code != 404 or subresource or await self.store.get(key_of(resource, namespace, name)):
                    raise
            uid = given["metadata"].get("uid")
            if uid:
                why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                raise conflict(resource.plural, resource.group, name, why)
            new, track = application.create()
            try:
                return await self.create(resource, namespace, new, ctx, track), True
            except StatusError as error:
                if error.status["reason"] != "AlreadyExists":
                    raise
        raise conflict(resource.plural, resource.group, name)

    async def change(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        change: Change,
        ctx: RequestContext,
        *,
        subresource: str,
        track: Track | None = None,
        via: str = "",
    ) -> Object:
        """Replace the object by what `change` makes of it. A write in between: once more with the newer object, which
        is a conflict if the result names the resourceVersion of the older one. `via`: the subresource that owns the
        change, if it is not the one whose rules hold (scale); `track` gives other managedFields than a write has."""
        strategy = self.strategy(resource)
        key = key_of(resource, namespace, name)
        for _ in range(MAX_ATTEMPTS):
            record = await find(self.store, key)
            if record is None:
                raise not_found(resource.plural, resource.group, name)
            old = decode(resource, record)
            new: Object = without_nulls(change(decode(resource, record)))
            if _names_newer(new, record.modified):
                await catch_up(self.store)
                record = await find(self.store, key)
                if record is None:
                    raise not_found(resource.plural, resource.group, name)
                old = decode(resource, record)
            self._check_conditions(strategy, namespace, name, new, old)
            self._prepare_changed(strategy, new, old, ctx, subresource)
            if track is not None:
                new["metadata"]["managedFields"] = track(old, new)
            else:
                claim_changed(resource, old, new, ctx, via or subresource)
            operations = [] if subresource else await strategy.allocate(new, old)
            gone = self._gone(strategy, new)
            if new == old and not gone:
                return old
            if gone:
                operations = [Delete(key, expected=record.modified), *await strategy.release(old)]
            else:
                operations = [Put(key, encode(resource, new), expected=record.modified), *operations]
            try:
                async with self._quotas.charged(resource, new, old, ctx, subresource=subresource) as charges:
                    if ctx.dry_run:
                        return new
                    revision = await self.commit(*operations, *([] if gone else charges))
            except CompareFailed as failed:
                if failed.key != key and not _is_worth_another_try(strategy, failed):
                    raise
                continue
            new["metadata"]["resourceVersion"] = str(revision)
            return new
        raise conflict(resource.plural, resource.group, name)

    def _check_conditions(self, strategy: Strategy, namespace: str, name: str, new: Object, old: Object) -> None:
        """Refuse what is meant for another object, or for another state of it."""
        resource = strategy.resource
        metadata, before = _place(resource, namespace, new), old["metadata"]
        if metadata.setdefault("name", name) != name:
            raise bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
            )
        if metadata.get("uid") and metadata["uid"] != before["uid"]:
            why = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {before['uid']}"
            raise conflict(resource.plural, resource.group, name, why)
        version = parse_revision(metadata.get("resourceVersion") or "")
        if not version and not strategy.unconditional_update:
            error = invalid("metadata.resourceVersion", 0, "must be specified for an update")
            raise unprocessable(resource.kind, resource.group, name, [error])
        if version and str(version) != before["resourceVersion"]:
            raise conflict(resource.plural, resource.group, name)

    def _prepare_changed(
        self, strategy: Strategy, new: Object, old: Object, ctx: RequestContext, subresource: str
    ) -> None:
        resource, metadata = strategy.resource, new["metadata"]
        new["kind"], new["apiVersion"] = resource.kind, resource.api_version
        metadata["resourceVersion"] = old["metadata"]["resourceVersion"]
        self.rules.default(resource, new)
        keep_for_update(metadata, old["metadata"])
        if subresource == "status":
            strategy.prepare_for_status_update(new, old, ctx)
            errors = self.rules.check_status_update(resource, new, old)
        elif subresource == "finalize" and isinstance(strategy, Namespaces):
            strategy.prepare_for_finalize(new, old)
            errors = []
        elif subresource == "approval" and isinstance(strategy, SigningRequests):
            strategy.prepare_for_approval(new, old, ctx)
            errors = self.rules.check_status_update(resource, new, old)
        elif subresource == "ephemeralcontainers" and isinstance(strategy, Pods):
            errors = strategy.prepare_for_ephemeral_containers(new, old)
        elif subresource == "binding":
            errors = []  # `pods.bind` changes what no update may
        else:
            strategy.prepare_for_update(new, old, ctx)
            errors = self.rules.check_update(resource, new, old)
        if errors:
            raise unprocessable(resource.kind, resource.group, metadata["name"], errors)
        for text in [] if subresource else warnings_for(resource, new):
            ctx.warn(text)

    def _gone(self, strategy: Strategy, new: Object) -> bool:
        """Whether the last thing that held back a deletion is gone with this update."""
        return is_finished(new["metadata"]) and strategy.is_finished(new)


def _is_worth_another_try(strategy: Strategy, failed: CompareFailed) -> bool:
    """Whether what others were quicker with can be decided anew."""
    return counted_meanwhile(failed) or strategy.retry_allocation(failed)


def _place(resource: Resource, namespace: str, obj: Object) -> Object:
    """The metadata, with the namespace the request is for. 400 if the object says another."""
    metadata = obj.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        raise bad_request("metadata must be an object")
    if not resource.namespaced:
        metadata.pop("namespace", None)
    elif metadata.setdefault("namespace", namespace) != namespace and metadata["namespace"]:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    else:
        metadata["namespace"] = namespace
    return metadata


def _names_newer(new: Object, modified: int) -> bool:
    """Whether the client has seen a later state than the one that is known here."""
    version = (new.get("metadata") or {}).get("resourceVersion")
    if not (isinstance(version, str) and version.isascii() and version.isdigit()):
        return False
    return len(version) <= 20 and int(version) > modified


async def read(store: Store, resource: Resource, namespace: str, name: str) -> tuple[Record, Object]:
    """The record and the object it holds, or 404."""
    record = await find(store, key_of(resource, namespace, name))
    if record is None:
        raise not_found(resource.plural, resource.group, name)
    return record, decode(resource, record)
