"""A cache of what the API server holds, kept by `follow`.

Stands between the reflectors and the controllers. Invariant: the cache is changed first and the handlers told after,
in the order of the stream; cached objects are shared and must not be changed by anyone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import aclosing

from fairlead.api.events import WatchEvent
from fairlead.api.kinds import Resource
from fairlead.client.reflector import Watched, follow
from fairlead.client.rest import Client, Object

Handler = Callable[[Object | None, Object | None], None]  # (before, after): None where there is none
Objects = list[Object]
Index = Callable[[Object], Iterable[str]]


class Cache:
    """The objects of one resource, by namespace and name, and by what `add_index` adds."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], Object] = {}
        self._indexes: dict[str, tuple[Index, dict[str, dict[tuple[str, str], Object]]]] = {}
        self.add_index("namespace", lambda obj: [obj["metadata"].get("namespace", "")])

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[Object]:
        return iter(list(self._objects.values()))

    def add_index(self, name: str, values: Index) -> None:
        """Find objects by what `values` says of them. Call it before the cache is filled."""
        if name in self._indexes:
            return
        self._indexes[name] = (values, {})
        for key, obj in self._objects.items():
            self._enter(name, key, obj)

    def get(self, name: str, namespace: str = "") -> Object | None:
        """The object, or None."""
        return self._objects.get((namespace, name))

    def list(self, namespace: str = "") -> Objects:
        """All objects, or a namespace's."""
        return self.by_index("namespace", namespace) if namespace else list(self._objects.values())

    def by_index(self, name: str, value: str) -> Objects:
        """The objects of which the index says `value`."""
        return list(self._indexes[name][1].get(value, {}).values())

    def apply(self, event: WatchEvent) -> tuple[Object | None, Object | None]:
        """Take an event in. Returns the object before and after."""
        metadata = event.object["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        before = self._objects.pop(key, None)
        if before is not None:
            for values, index in self._indexes.values():
                for value in values(before):
                    entries = index.get(value)
                    if entries is not None:
                        entries.pop(key, None)
                        if not entries:
                            del index[value]
        if event.type == "DELETED":
            return before if before is not None else event.object, None
        self._objects[key] = event.object
        for name in self._indexes:
            self._enter(name, key, event.object)
        return before, event.object

    def _enter(self, name: str, key: tuple[str, str], obj: Object) -> None:
        values, index = self._indexes[name]
        for value in values(obj):
            index.setdefault(value, {})[key] = obj


class Informer:
    """Caches of several resources over one stream. `run` it as a task; `synced` is set once all are listed."""

    def __init__(
        self,
        client: Client,
        *watched: Watched,
        transforms: Mapping[Resource, Callable[[Object], Object]] | None = None,
    ) -> None:
        """`transforms` say what to keep of an object, to save memory."""
        self._client, self._watched = client, watched
        self._transforms = dict(transforms or {})
        self.synced = asyncio.Event()
        self._caches: dict[Resource, Cache] = {w.resource: Cache() for w in watched}
        self._handlers: dict[Resource, list[Handler]] = {w.resource: [] for w in watched}

    def cache(self, resource: Resource) -> Cache:
        """The cache of a resource that was named when the informer was made."""
        return self._caches[resource]

    def on(self, resource: Resource, handler: Handler) -> None:
        """Call `handler` after each change. It must be quick and must not raise."""
        self._handlers[resource].append(handler)

    async def run(self) -> None:
        """Follow until cancelled."""
        async with aclosing(follow(self._client, *self._watched)) as batches:
            async for batch in batches:
                for event in batch.events:
                    transform = self._transforms.get(event.resource)
                    if transform is not None:
                        event = WatchEvent(event.type, event.resource, transform(event.object))
                    before, after = self._caches[event.resource].apply(event)
                    for handler in self._handlers[event.resource]:
                        handler(before, after)
                if batch.synced:
                    self.synced.set()
