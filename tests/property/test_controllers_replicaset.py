"""The running ReplicaSet controller against a server that is slow, fails and drops watches: never a pod too many."""

from __future__ import annotations

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.api import errors
from fairlead.api.kinds import PODS, REPLICASETS
from fairlead.client.fake import FakeAPI, FakeClient
from fairlead.controllers.context import Context, ControllerOptions
from fairlead.controllers.replicaset import ReplicaSetController

NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}


class Slow(FakeClient):
    """Answers late, in any order, and sometimes not well."""

    def __init__(self, api: FakeAPI, seed: int) -> None:
        super().__init__(api)
        self.dice = random.Random(seed)
        self.calm = False

    async def _call(self, method, path, query="", body=None, content_type="application/json"):  # type: ignore[no-untyped-def]
        for _ in range(self.dice.randrange(4)):
            await asyncio.sleep(0)
        if not self.calm and method == "POST" and path.endswith("/pods") and self.dice.random() < 0.2:
            raise errors.internal("not now")
        answer = await super()._call(method, path, query, body, content_type)
        for _ in range(self.dice.randrange(4)):
            await asyncio.sleep(0)
        return answer


def replica_set(replicas: int) -> dict[str, object]:
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}},
        },
    }


async def scenario(sizes: list[int], breaks: list[bool], seed: int) -> None:
    api = FakeAPI(NAMESPACE)
    client = Slow(api, seed)
    context = Context(client, ControllerOptions())
    controller = ReplicaSetController(context)
    tasks = [asyncio.create_task(context.informer.run()), asyncio.create_task(controller.run())]
    most = 0
    try:
        async with asyncio.timeout(20):
            await context.informer.synced.wait()
            await client.create(REPLICASETS, replica_set(sizes[0]))
            for index, size in enumerate(sizes):
                await client.patch(REPLICASETS, "web", {"spec": {"replicas": size}}, "default", subresource="scale")
                most = max(most, size)
                for _ in range(client.dice.randrange(60)):
                    await asyncio.sleep(0)
                    assert len(api.objects(PODS)) <= most
                if breaks[index % len(breaks)]:
                    api.break_watches()
            client.calm = True
            stayed = 0  # turns; on its way elsewhere it may pass by the right number
            while stayed < 1000:
                await asyncio.sleep(0 if stayed else 0.001)
                assert len(api.objects(PODS)) <= most
                stayed = stayed + 1 if len(api.objects(PODS)) == sizes[-1] else 0
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=4),
    st.lists(st.booleans(), min_size=1, max_size=4),
    st.integers(0, 10_000),
)
def test_never_more_than_was_asked_for(sizes: list[int], breaks: list[bool], seed: int) -> None:
    """Whatever the order of answers and events, there are never more pods than the most ever asked for."""
    asyncio.run(scenario(sizes, breaks, seed))
