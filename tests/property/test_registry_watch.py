"""Whoever lists and then watches knows what the registry knows."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.api import kinds
from fairlead.api.errors import StatusError
from fairlead.registry import DeleteOptions, ListOptions, Registry, RequestContext, WatchOptions
from fairlead.store.memory import MemoryStore

CM = kinds.CONFIGMAPS

writes = st.lists(
    st.tuples(st.sampled_from(["create", "label", "data", "delete"]), st.integers(0, 3), st.sampled_from("xyz")),
    max_size=30,
)
selectors = st.sampled_from(
    [("", ""), ("l=x", ""), ("l!=x", ""), ("l in (x,y)", ""), ("", "metadata.name=c1"), ("l=y", "metadata.name!=c0")]
)
Known = dict[str, dict[str, Any]]


async def write(registry: Registry, action: tuple[str, int, str]) -> None:
    """One request; being refused is fine."""
    what, which, value = action
    name, ctx = f"c{which}", RequestContext()

    def change(obj: dict[str, Any]) -> dict[str, Any]:
        if what == "label":
            obj["metadata"]["labels"] = {"l": value}
        else:
            obj["data"] = {"d": value}
        return obj

    try:
        if what == "create":
            await registry.create(CM, "default", {"metadata": {"name": name, "labels": {"l": value}}}, ctx)
        elif what == "delete":
            await registry.delete(CM, "default", name, DeleteOptions(), ctx)
        else:
            await registry.patch(CM, "default", name, change, ctx)
    except StatusError as error:
        assert error.code in {404, 409}


@given(before=writes, after=writes, selector=selectors, pages=st.integers(0, 2), direct=st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_list_and_its_watch_are_the_next_list(
    before: list[Any], after: list[Any], selector: tuple[str, str], pages: int, direct: bool
) -> None:
    """Folding a selector's events over what was listed (or watched from nothing) gives what a new list gives; ADDED is
    only said of what was unknown, MODIFIED and DELETED only of what was known, and versions grow."""

    async def run() -> None:
        store = MemoryStore()
        registry = Registry(store)
        await registry.create(kinds.NAMESPACES, "", {"metadata": {"name": "default"}}, RequestContext())
        for action in before:
            await write(registry, action)
        labels, fields = selector
        known: Known = {}
        version = ""
        if not direct:
            token = ""
            while True:
                options = ListOptions(labels, fields, limit=pages, continue_token=token)
                page = await registry.list(CM, "default", options)
                known |= {o["metadata"]["name"]: o for o in page.items}
                token, version = page.continue_token, str(page.revision)
                if not token:
                    break
        watch = registry.watch(CM, "default", WatchOptions(labels, fields, version))
        for action in after[: len(after) // 2]:
            await write(registry, action)
        reading = asyncio.create_task(fold(watch, known))
        await asyncio.sleep(0)
        for action in after[len(after) // 2 :]:
            await write(registry, action)
            await asyncio.sleep(0)
        final = await registry.list(CM, "default", ListOptions(labels, fields))
        await store.close()
        await reading
        assert known == {o["metadata"]["name"]: o for o in final.items}

    asyncio.run(run())


async def fold(watch: Any, known: Known) -> None:
    """Until the watch ends."""
    last = 0
    async for batch in watch:
        for event in batch:
            name, version = event.object["metadata"]["name"], int(event.object["metadata"]["resourceVersion"])
            assert (event.type == "ADDED") == (name not in known)
            if event.type == "DELETED":
                del known[name]
            else:
                known[name] = event.object
            if name in known and event.type == "MODIFIED":
                assert version > last
            last = max(last, version)
