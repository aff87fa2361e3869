"""A registry in memory with a clock that is moved by hand, and dice that fall the same every time."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fairlead.api import kinds
from fairlead.api.errors import StatusError
from fairlead.registry import Registry, RegistryOptions, RequestContext
from fairlead.store.memory import MemoryStore

Object = dict[str, Any]


class Cluster:
    """What a test needs: the registry, the time, and short words for long objects."""

    def __init__(self, registry: Registry) -> None:
        self.registry, self.store = registry, registry.store
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def ctx(self, **more: Any) -> RequestContext:
        """A request at this moment."""
        return RequestContext(now=self.now, **more)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    async def create(self, resource: kinds.Resource, obj: Object, namespace: str = "default", **more: Any) -> Object:
        """Create an object, in `default` if it has a namespace."""
        return await self.registry.create(resource, namespace if resource.namespaced else "", obj, self.ctx(**more))

    async def get(self, resource: kinds.Resource, name: str, namespace: str = "default") -> Object:
        """Read it."""
        return await self.registry.get(resource, namespace if resource.namespaced else "", name)

    async def patch(
        self, resource: kinds.Resource, name: str, change: Callable[[Object], Any], subresource: str = "", **more: Any
    ) -> Object:
        """Change it in place by a function."""

        def changed(obj: Object) -> Object:
            change(obj)
            return obj

        namespace = "default" if resource.namespaced else ""
        return await self.registry.patch(resource, namespace, name, changed, self.ctx(**more), subresource=subresource)

    async def keys(self, prefix: str) -> list[str]:
        """What the store has below a prefix, without it."""
        return [record.key.removeprefix(prefix) for record in (await self.store.list(prefix)).records]


async def make_cluster(**options: Any) -> Cluster:
    """A registry with the namespace `default` and its service account."""
    settings = RegistryOptions(dice=random.Random(7), **options)
    cluster = Cluster(Registry(MemoryStore(), settings))
    await cluster.create(kinds.NAMESPACES, {"metadata": {"name": "default"}})
    await cluster.create(kinds.SERVICEACCOUNTS, {"metadata": {"name": "default"}})
    return cluster


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """A cluster as by default."""
    made = await make_cluster()
    yield made
    await made.store.close()


@pytest.fixture
def new_cluster() -> Callable[..., Any]:
    """To make clusters with other options."""
    return make_cluster


@pytest.fixture
def refused() -> Callable[..., Any]:
    """To see how a request is refused: (code, reason, message)."""

    async def ask(request: Any) -> tuple[int, str, str]:
        with pytest.raises(StatusError) as caught:
            await request
        return caught.value.code, caught.value.reason, caught.value.message

    return ask


def pod(name: str = "web", **spec: Any) -> Object:
    """A small pod."""
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "fairlead/host"}], **spec}}


@pytest.fixture
def pod_of() -> Callable[..., Object]:
    """To make small pods."""
    return pod
