"""The custom resources there are: served as soon as their definitions are written, and emptied before those go.

Between the store, where definitions are objects as any others, and everyone who asks what is served. Definitions that
another API server wrote are followed. Invariant: a definition goes only after its last object.
Source: apiextensions-apiserver (finalizing controller).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import Any

import orjson

from fairlead.api import custom
from fairlead.api.errors import StatusError
from fairlead.api.kinds import CUSTOMRESOURCEDEFINITIONS as CRDS
from fairlead.api.kinds import RESOURCES, Resource
from fairlead.registry import deleting
from fairlead.registry.customs import FINALIZER, PREFIX, clash_of, names_taken
from fairlead.registry.requests import DeleteOptions, RequestContext, User
from fairlead.registry.stored import decode, key_of, prefix_of
from fairlead.registry.writing import Writer
from fairlead.store.interface import Compacted, Record, Store, StoreClosed, StoreFailed, WatcherTooSlow

Object = dict[str, Any]
log = logging.getLogger("fairlead.registry")

_SELF = User("system:apiserver", ("system:masters",))
_LOOK_AGAIN = 0.2  # s, while objects of a terminating definition are held back by finalizers; doubles up to
_LOOK_AGAIN_AT_MOST = 5.0


class Catalog:
    """What is served now: the built-in resources and those of accepted definitions."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[int, Object, tuple[Resource, ...]]] = {}
        self._by_plural = {(r.group, r.version, r.plural): r for r in RESOURCES}
        self.resources: tuple[Resource, ...] = RESOURCES

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """The resource served at that path, or None."""
        return self._by_plural.get((group, version, plural))

    @property
    def definitions(self) -> list[Object]:
        """The definitions there are; not to be changed."""
        return [crd for _, crd, _ in self._known.values()]

    def resources_of(self, crd: str) -> tuple[Resource, ...]:
        """The resources of one definition."""
        known = self._known.get(key_of(CRDS, "", crd))
        return known[2] if known is not None else ()

    async def notice(self, key: str) -> None:
        """Something was written at `key`: if that is a definition, know it before the write is answered."""
        if key.startswith(PREFIX):
            await self.refresh()

    async def refresh(self) -> None:
        """Bring it up to the store's state: compiles what is new, forgets what is gone."""
        records = (await self._store.list(PREFIX)).records
        if [(r.key, r.modified) for r in records] == [(key, known[0]) for key, known in self._known.items()]:
            return
        fresh: dict[str, tuple[int, Object, tuple[Resource, ...]]] = {}
        for record in records:
            known = self._known.get(record.key)
            fresh[record.key] = known if known is not None and known[0] == record.modified else _compile(record)
        self._known = fresh
        customs = tuple(r for _, _, resources in fresh.values() for r in resources)
        self.resources = (*RESOURCES, *customs)
        self._by_plural = {(r.group, r.version, r.plural): r for r in self.resources}


def _compile(record: Record) -> tuple[int, Object, tuple[Resource, ...]]:
    crd = decode(CRDS, record)
    try:
        resources = custom.compiled(crd)
    except (KeyError, TypeError, ValueError, StopIteration) as error:  # nothing the validation lets through
        log.error("customresourcedefinitions %s is not served: %s", crd["metadata"]["name"], type(error).__name__)
        resources = ()
    for resource in resources:
        resource.definition.revision = record.modified
    return record.modified, crd, resources


class Finalizing:
    """Follows definitions: those of other API servers are served, those that are deleted are emptied first."""

    def __init__(self, catalog: Catalog, writer: Writer) -> None:
        self._catalog, self._writer, self._store = catalog, writer, writer.store
        self._cleaning: dict[str, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="custom-resource-definitions")

    async def stop(self) -> None:
        """End, and wait for it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while True:
                with contextlib.suppress(Compacted, WatcherTooSlow, StoreFailed):
                    await self._follow()
                await asyncio.sleep(_LOOK_AGAIN)
        except StoreClosed:
            pass
        finally:
            for task in self._cleaning.values():
                task.cancel()
            await asyncio.gather(*self._cleaning.values(), return_exceptions=True)

    async def _follow(self) -> None:
        watch = self._store.watch(PREFIX, self._store.revision)
        try:
            await self._look()
            async for _ in watch:
                await self._look()
        finally:
            watch.close()

    async def _look(self) -> None:
        await self._catalog.refresh()
        for crd in self._catalog.definitions:
            name = crd["metadata"]["name"]
            terminating = crd["metadata"].get("deletionTimestamp")
            if terminating and name not in self._cleaning and FINALIZER in (crd["metadata"].get("finalizers") or ()):
                task = self._cleaning[name] = asyncio.create_task(self._clean(name), name=f"cleanup-{name}")
                task.add_done_callback(partial(self._cleaned, name))
            elif not terminating and not custom.is_true(crd, "NamesAccepted") and self._may_be_accepted(crd):
                with contextlib.suppress(StatusError):
                    await self._writer.change(CRDS, "", name, lambda same: same, RequestContext(_SELF), subresource="")

    def _cleaned(self, name: str, _: asyncio.Task[None]) -> None:
        self._cleaning.pop(name, None)

    def _may_be_accepted(self, crd: Object) -> bool:
        others = [each for each in self._catalog.definitions if each is not crd]
        return clash_of(crd["spec"]["names"], names_taken(crd["spec"]["group"], others)) is None

    async def _clean(self, name: str) -> None:
        """Delete all objects of a definition, wait until they are gone, and let the definition go."""
        wait = _LOOK_AGAIN
        while True:
            try:
                resources = self._catalog.resources_of(name)
                if not resources or not await self._delete_objects(resources[0]):
                    await self._writer.change(CRDS, "", name, _without_finalizer, RequestContext(_SELF), subresource="")
                    return
            except StatusError as error:
                if error.code == 404:
                    return
                log.warning("customresourcedefinitions %s: its objects can't be deleted yet: %s", name, error.message)
            except StoreClosed:
                return
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LOOK_AGAIN_AT_MOST)

    async def _delete_objects(self, resource: Resource) -> bool:
        """Ask for the deletion of every object; whether some are still there."""
        for record in (await self._store.list(prefix_of(resource))).records:
            metadata = orjson.loads(record.value)["metadata"]
            if metadata.get("deletionTimestamp"):
                continue
            with contextlib.suppress(StatusError):
                await deleting.delete(
                    self._writer,
                    resource,
                    metadata.get("namespace", ""),
                    metadata["name"],
                    DeleteOptions(),
                    ctx=RequestContext(_SELF),
                )
        return bool((await self._store.list(prefix_of(resource), limit=1)).records)


def _without_finalizer(crd: Object) -> Object:
    crd["metadata"]["finalizers"] = [each for each in crd["metadata"].get("finalizers") or () if each != FINALIZER]
    return crd
