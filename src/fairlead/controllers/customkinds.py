"""Which custom kinds there are, and what becomes of their objects: for those controllers that care for every kind.

Beside `Context`, whose kinds are known from the start. Definitions are followed; for each that is established its
objects are, too (their metadata). Invariant: a kind that is gone takes its objects with it in the eyes of all handlers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from fairlead.api import custom, kinds
from fairlead.api.kinds import Resource
from fairlead.client.informer import Informer
from fairlead.client.reflector import Watched
from fairlead.client.rest import Client

Object = dict[str, Any]
Handler = Callable[[Resource, Object | None, Object | None], None]  # (kind, before, after)

_SYNC_SECONDS = 10.0  # how long everything else waits for the objects of custom kinds to be known


def served_by(crd: Object) -> tuple[Resource, ...]:
    """The resources of a definition, the preferred version first; none before it is established."""
    if not custom.is_true(crd, "Established"):
        return ()
    spec, names = crd["spec"], crd["status"].get("acceptedNames") or crd["spec"]["names"]
    versions = sorted((v["name"] for v in spec["versions"] if v.get("served")), key=custom.precedence)
    namespaced = spec["scope"] == "Namespaced"
    return tuple(Resource(spec["group"], v, names["kind"], names["plural"], namespaced) for v in versions)


class CustomKinds:
    """Follows definitions and their objects while `run` runs."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._handlers: list[Handler] = []
        self._served: dict[str, tuple[Resource, ...]] = {}  # by the definition's name
        self._following: dict[str, tuple[Resource, Informer, asyncio.Task[None]]] = {}
        self._changed = asyncio.Event()

    def on(self, handler: Handler) -> None:
        """Call `handler` after each change of a custom object. It must be quick and must not raise."""
        self._handlers.append(handler)

    def by_kind(self, api_version: str, kind: str) -> Resource | None:
        """The resource of objects of that type, built-in or custom; None if it is not served."""
        found = kinds.by_kind(api_version, kind)
        if found is not None:
            return found
        customs = (r for served in self._served.values() for r in served)
        return next((r for r in customs if r.api_version == api_version and r.kind == kind), None)

    @property
    def resources(self) -> list[Resource]:
        """Each custom kind once, in its preferred version."""
        return [served[0] for served in self._served.values() if served]

    def on_definition(self, before: Object | None, after: Object | None) -> None:
        """A definition came, changed or went."""
        if after is None:
            if before is not None:
                self._served.pop(before["metadata"]["name"], None)
        else:
            self._served[after["metadata"]["name"]] = served_by(after)
        self._changed.set()

    async def synced(self) -> None:
        """Wait until the objects of every kind there is now are known, but not for ever."""
        self._match()
        waiting = [informer.synced.wait() for _, informer, _ in self._following.values()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SYNC_SECONDS):
                await asyncio.gather(*waiting)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self._changed.clear()
                self._match()
                await self._changed.wait()
        finally:
            for name in list(self._following):
                self._leave(name)

    def _match(self) -> None:
        """Follow what is served, and nothing else."""
        for name, (resource, _, task) in list(self._following.items()):
            served = self._served.get(name, ())
            if task.done() or not served or served[0] != resource:
                gone = self._leave(name)
                if not served:
                    for obj in gone:
                        self._tell(resource, obj, None)
        for name, served in self._served.items():
            if served and name not in self._following:
                self._follow(name, served[0])

    def _follow(self, name: str, resource: Resource) -> None:
        informer = Informer(self._client, Watched(resource), transforms={resource: _metadata_only})
        informer.on(resource, lambda before, after: self._tell(resource, before, after))
        task = asyncio.create_task(informer.run(), name=f"follow-{resource.group_plural}")
        self._following[name] = (resource, informer, task)

    def _leave(self, name: str) -> list[Object]:
        resource, informer, task = self._following.pop(name)
        task.cancel()
        return informer.cache(resource).list()

    def _tell(self, resource: Resource, before: Object | None, after: Object | None) -> None:
        for handler in self._handlers:
            handler(resource, before, after)


def _metadata_only(obj: Object) -> Object:
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": obj["metadata"]}
