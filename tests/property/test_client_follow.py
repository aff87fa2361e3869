"""Following under any trouble: applied in order, the events are what the server holds."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.api import errors
from fairlead.api.kinds import CONFIGMAPS
from fairlead.client import Watched, follow
from fairlead.client.fake import FakeAPI, FakeClient

NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}
names = st.sampled_from("abcde")
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), names),
        st.tuples(st.just("delete"), names),
        st.tuples(st.sampled_from(["break", "compact", "fail", "read", "lists"]), st.just("")),
    ),
    max_size=30,
)


async def scenario(happens: list[tuple[str, str]], streams_lists: bool) -> None:
    api = FakeAPI(NAMESPACE, streams_lists=streams_lists)
    failing = 0

    def fail(method: str, path: str) -> None:
        nonlocal failing
        if failing:
            failing -= 1
            raise errors.internal("no")

    api.fail = fail
    stream = follow(FakeClient(api), Watched(CONFIGMAPS), dice=lambda: -0.99)
    held: dict[str, str] = {}

    async def read() -> bool:
        batch = await anext(stream)
        for event in batch.events:
            metadata = event.object["metadata"]
            name, uid = metadata["name"], metadata["uid"]
            assert (event.type == "ADDED") == (name not in held)
            assert event.type == "ADDED" or held[name] == uid
            if event.type == "DELETED":
                del held[name]
            else:
                held[name] = uid
        return batch.synced

    def there() -> dict[str, str]:
        return {o["metadata"]["name"]: o["metadata"]["uid"] for o in api.objects(CONFIGMAPS)}

    serial = 0
    try:
        async with asyncio.timeout(20):
            while not await read():
                pass
            for what, name in happens:
                serial += 1
                path = f"/api/v1/namespaces/default/configmaps/{name}"
                known = api.find(CONFIGMAPS, name, "default")
                if what == "put":
                    obj: dict[str, Any] = {
                        "metadata": {"name": name, "namespace": "default"},
                        "data": {"n": str(serial)},
                    }
                    if known is None:
                        api.handle("POST", path.rpartition("/")[0], {}, obj, "")
                    else:
                        api.handle("PUT", path, {}, obj, "")
                elif what == "delete" and known is not None:
                    api.handle("DELETE", path, {}, None, "")
                elif what == "break":
                    api.break_watches()
                elif what == "compact":
                    api.compact()
                elif what == "fail":
                    failing = 2
                    api.break_watches()
                elif what == "read" and there() != held:
                    await read()
            while there() != held:
                await read()
    finally:
        await stream.aclose()


@settings(max_examples=60, deadline=None)
@given(steps, st.booleans())
def test_the_events_are_what_the_server_holds(happens: list[tuple[str, str]], streams_lists: bool) -> None:
    """ADDED only for what was not there, the others only for the same uid, and in the end both sides agree."""
    asyncio.run(scenario(happens, streams_lists))
