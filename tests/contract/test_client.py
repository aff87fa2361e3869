"""One contract for every pair of client and API server: the fake, and the real client over a wire."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.api.errors import StatusError
from fairlead.api.kinds import CONFIGMAPS, DEPLOYMENTS, NAMESPACES, PODS, SERVICEACCOUNTS, Resource
from fairlead.client import Client, Unreachable, Watched, follow, is_conflict, is_gone
from fairlead.client.fake import FakeAPI, FakeClient
from fairlead.store.memory import MemoryStore
from tests.contract.client_over_http import real_client, real_server, served

DEADLINE = 10


@pytest.fixture(params=["fake", "http", "lists", "real"])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Client]:
    """A client of an API server that holds the namespace default."""
    if request.param == "real":
        async with real_server(tmp_path) as server, real_client(server) as made:
            await _default_namespace(made)
            yield made
        return
    api = FakeAPI(streams_lists=request.param != "lists")
    if request.param == "fake":
        made = FakeClient(api)
        await _default_namespace(made)
        yield made
    else:
        async with served(api) as address, Client(address) as made:
            await _default_namespace(made)
            yield made


async def _default_namespace(client: Client) -> None:
    for resource in (NAMESPACES, SERVICEACCOUNTS):
        try:
            await client.create(resource, {"metadata": {"name": "default"}})
        except StatusError as error:
            assert error.reason == "AlreadyExists"


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default"}, "data": data}


def pod(name: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "fairlead/host"}
    return {
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}},
        "spec": {"containers": [container], **spec},
    }


def deployment(name: str, replicas: int) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
    }


async def test_what_is_created_can_be_read(client: Client) -> None:
    """Create gives identity and a version; get returns the same."""
    made = await client.create(CONFIGMAPS, config_map("a", k="v"))
    assert made["metadata"]["uid"] and made["metadata"]["resourceVersion"] and made["metadata"]["creationTimestamp"]
    assert await client.get(CONFIGMAPS, "a", "default") == made


async def test_names_are_taken_once(client: Client) -> None:
    """A second create of a name is 409 AlreadyExists."""
    await client.create(CONFIGMAPS, config_map("a"))
    with pytest.raises(StatusError) as caught:
        await client.create(CONFIGMAPS, config_map("a"))
    assert (caught.value.code, caught.value.reason) == (409, "AlreadyExists")
    assert caught.value.message == 'configmaps "a" already exists'


async def test_a_generated_name_begins_as_asked(client: Client) -> None:
    """generateName is completed with five characters."""
    made = await client.create(CONFIGMAPS, {"metadata": {"generateName": "x-", "namespace": "default"}})
    assert made["metadata"]["name"].startswith("x-") and len(made["metadata"]["name"]) == 7


async def test_what_is_not_there_is_404(client: Client) -> None:
    """Get, delete and update of a missing object say NotFound."""
    for attempt in (
        client.get(CONFIGMAPS, "a", "default"),
        client.delete(CONFIGMAPS, "a", "default"),
        client.patch(CONFIGMAPS, "a", {"data": {"a": "b"}}, "default"),
    ):
        with pytest.raises(StatusError) as caught:
            await attempt
        assert is_gone(caught.value) and caught.value.message == 'configmaps "a" not found'


async def test_stale_updates_conflict(client: Client) -> None:
    """An update with an old resourceVersion is refused; without one it wins."""
    made = await client.create(CONFIGMAPS, config_map("a", k="1"))
    await client.update(CONFIGMAPS, {**made, "data": {"k": "2"}})
    with pytest.raises(StatusError) as caught:
        await client.update(CONFIGMAPS, {**made, "data": {"k": "3"}})
    assert is_conflict(caught.value)
    await client.update(CONFIGMAPS, config_map("a", k="4"))
    assert (await client.get(CONFIGMAPS, "a", "default"))["data"] == {"k": "4"}


async def test_an_update_that_changes_nothing_keeps_the_version(client: Client) -> None:
    """A no-op write is no write."""
    made = await client.create(CONFIGMAPS, config_map("a", k="1"))
    again = await client.update(CONFIGMAPS, made)
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_status_is_apart(client: Client) -> None:
    """Status is ignored by update and is all that update_status changes; spec changes raise the generation."""
    made = await client.create(DEPLOYMENTS, {**deployment("web", 2), "status": {"replicas": 9}})
    assert made.get("status", {}).get("replicas", 0) == 0
    assert made["metadata"]["generation"] == 1
    made["status"] = {"observedGeneration": 1, "replicas": 2}
    made["spec"]["replicas"] = 7
    after = await client.update_status(DEPLOYMENTS, made)
    assert after["status"]["replicas"] == 2 and after["spec"]["replicas"] == 2
    assert after["metadata"]["generation"] == 1
    after["spec"]["replicas"] = 5
    after["status"] = {}
    final = await client.update(DEPLOYMENTS, after)
    assert final["status"]["replicas"] == 2 and final["metadata"]["generation"] == 2


async def test_patches_of_three_kinds(client: Client) -> None:
    """merge, json and strategic patches arrive as what they are."""
    await client.create(CONFIGMAPS, config_map("a", k="1", l="2"))
    after = await client.patch(CONFIGMAPS, "a", {"data": {"k": None, "m": "3"}}, "default")
    assert after["data"] == {"l": "2", "m": "3"}
    operations = [{"op": "replace", "path": "/data/l", "value": "9"}]
    after = await client.patch(CONFIGMAPS, "a", operations, "default", "json")
    assert after["data"] == {"l": "9", "m": "3"}
    await client.create(PODS, pod("p"))
    patch = {"metadata": {"finalizers": ["example.com/a"]}}
    await client.patch(PODS, "p", patch, "default", "strategic")
    patch = {"metadata": {"finalizers": ["example.com/b"]}}
    after = await client.patch(PODS, "p", patch, "default", "strategic")
    assert sorted(after["metadata"]["finalizers"]) == ["example.com/a", "example.com/b"]


async def test_lists_select_and_page(client: Client) -> None:
    """Pages of two make up the whole; selectors narrow it."""
    for i in range(5):
        await client.create(CONFIGMAPS, config_map(f"m{i}"))
    labelled = config_map("l")
    labelled["metadata"]["labels"] = {"app": "web"}
    await client.create(CONFIGMAPS, labelled)
    whole = await client.list(CONFIGMAPS, "default", limit=2)
    assert [i["metadata"]["name"] for i in whole["items"]] == ["l", "m0", "m1", "m2", "m3", "m4"]
    assert whole["items"][0]["kind"] == "ConfigMap" and "continue" not in whole["metadata"]
    selected = await client.list(CONFIGMAPS, label_selector="app in (web)")
    assert [i["metadata"]["name"] for i in selected["items"]] == ["l"]
    selected = await client.list(CONFIGMAPS, field_selector="metadata.name=m3")
    assert [i["metadata"]["name"] for i in selected["items"]] == ["m3"]


async def test_finalizers_hold_a_deleted_object(client: Client) -> None:
    """A deleted object with finalizers stays, marked, until the last is removed."""
    held = config_map("a")
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await client.create(CONFIGMAPS, held)
    await client.delete(CONFIGMAPS, "a", "default")
    marked = await client.get(CONFIGMAPS, "a", "default")
    assert marked["metadata"]["deletionTimestamp"]
    marked["metadata"]["finalizers"] = []
    await client.update(CONFIGMAPS, marked)
    with pytest.raises(StatusError):
        await client.get(CONFIGMAPS, "a", "default")


async def test_propagation_policies_become_finalizers(client: Client) -> None:
    """Foreground and Orphan deletion wait for the garbage collector; Background does not."""
    for policy, finalizer in (("Foreground", "foregroundDeletion"), ("Orphan", "orphan")):
        await client.create(DEPLOYMENTS, deployment(policy.lower(), 1))
        await client.delete(DEPLOYMENTS, policy.lower(), "default", propagation_policy=policy)  # type: ignore[arg-type]
        marked = await client.get(DEPLOYMENTS, policy.lower(), "default")
        assert marked["metadata"]["finalizers"] == [finalizer] and marked["metadata"]["deletionTimestamp"]
    await client.create(DEPLOYMENTS, deployment("background", 1))
    await client.delete(DEPLOYMENTS, "background", "default", propagation_policy="Background")
    with pytest.raises(StatusError):
        await client.get(DEPLOYMENTS, "background", "default")


async def test_preconditions_must_hold(client: Client) -> None:
    """A delete for another uid is a conflict."""
    await client.create(CONFIGMAPS, config_map("a"))
    with pytest.raises(StatusError) as caught:
        await client.delete(CONFIGMAPS, "a", "default", preconditions={"uid": "other"})
    assert is_conflict(caught.value)


async def test_bound_pods_end_gracefully(client: Client) -> None:
    """A pod on a node is marked with its grace period; grace 0, or no node, removes it at once."""
    await client.create(PODS, pod("free"))
    await client.delete(PODS, "free", "default")
    with pytest.raises(StatusError):
        await client.get(PODS, "free", "default")
    await client.create(PODS, pod("bound", terminationGracePeriodSeconds=7))
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "bound"},
        "target": {"kind": "Node", "name": "n1"},
    }
    await client.create_subresource(PODS, "bound", "binding", binding, "default")
    bound = await client.get(PODS, "bound", "default")
    assert bound["spec"]["nodeName"] == "n1"
    assert any(c["type"] == "PodScheduled" and c["status"] == "True" for c in bound["status"]["conditions"])
    with pytest.raises(StatusError) as caught:
        await client.create_subresource(PODS, "bound", "binding", binding, "default")
    assert is_conflict(caught.value)
    marked = await client.delete(PODS, "bound", "default")
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 7
    await client.delete(PODS, "bound", "default", grace_period_seconds=0)
    with pytest.raises(StatusError):
        await client.get(PODS, "bound", "default")


async def test_namespaces_end_by_finalize(client: Client) -> None:
    """A deleted namespace is Terminating, refuses new content, and goes when finalized."""
    await client.create(NAMESPACES, {"metadata": {"name": "shop"}})
    await client.delete(NAMESPACES, "shop")
    shop = await client.get(NAMESPACES, "shop")
    assert shop["status"]["phase"] == "Terminating" and shop["spec"]["finalizers"] == ["kubernetes"]
    with pytest.raises(StatusError) as caught:
        await client.create(CONFIGMAPS, {"metadata": {"name": "a", "namespace": "shop"}})
    assert caught.value.code == 403
    shop["spec"]["finalizers"] = []
    await client.update(NAMESPACES, shop, subresource="finalize")
    with pytest.raises(StatusError):
        await client.get(NAMESPACES, "shop")


async def test_content_needs_its_namespace(client: Client) -> None:
    """Creating in a namespace that is not there is 404."""
    with pytest.raises(StatusError) as caught:
        await client.create(CONFIGMAPS, {"metadata": {"name": "a", "namespace": "nowhere"}})
    assert caught.value.message == 'namespaces "nowhere" not found'


async def test_scale_is_a_view(client: Client) -> None:
    """The scale subresource reads and writes the replicas."""
    await client.create(DEPLOYMENTS, deployment("web", 2))
    scale = await client.get(DEPLOYMENTS, "web", "default", subresource="scale")
    assert (scale["kind"], scale["spec"]["replicas"]) == ("Scale", 2)
    await client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 5}}, "default", subresource="scale")
    assert (await client.get(DEPLOYMENTS, "web", "default"))["spec"]["replicas"] == 5


async def test_delete_collection_selects(client: Client) -> None:
    """Only what is selected goes."""
    for name in ("a", "b"):
        obj = config_map(name)
        obj["metadata"]["labels"] = {"n": name}
        await client.create(CONFIGMAPS, obj)
    await client.delete_collection(CONFIGMAPS, "default", label_selector="n=a")
    left = await client.list(CONFIGMAPS, "default", label_selector="n")
    assert [i["metadata"]["name"] for i in left["items"]] == ["b"]


class Mirror:
    """What a reader of `follow` believes is there."""

    def __init__(self, client: Client, *watched: Watched) -> None:
        self.objects: dict[tuple[Resource, str], dict[str, Any]] = {}
        self.types: list[str] = []
        self.synced = False
        self._stream = follow(client, *watched)

    async def until(self, condition: Any) -> None:
        """Read on until the condition holds."""
        async with asyncio.timeout(DEADLINE):
            while not condition():
                batch = await anext(self._stream)
                self.synced = batch.synced
                for event in batch.events:
                    self.types.append(event.type)
                    key = (event.resource, event.object["metadata"]["name"])
                    if event.type == "DELETED":
                        del self.objects[key]
                    else:
                        assert (key in self.objects) == (event.type == "MODIFIED")
                        self.objects[key] = event.object

    async def close(self) -> None:
        await self._stream.aclose()


async def test_follow_tells_all_and_then_what_changes(client: Client) -> None:
    """Objects there before and after the start are told; synced comes when all kinds are listed."""
    await client.create(CONFIGMAPS, config_map("a", k="1"))
    mirror = Mirror(client, Watched(CONFIGMAPS, "default"), Watched(NAMESPACES))
    try:
        await mirror.until(lambda: mirror.synced)
        assert (CONFIGMAPS, "a") in mirror.objects and (NAMESPACES, "default") in mirror.objects
        assert mirror.objects[CONFIGMAPS, "a"]["kind"] == "ConfigMap"
        await client.create(CONFIGMAPS, config_map("b"))
        await mirror.until(lambda: (CONFIGMAPS, "b") in mirror.objects)
        await client.update(CONFIGMAPS, config_map("a", k="2"))
        await mirror.until(lambda: mirror.objects[CONFIGMAPS, "a"]["data"] == {"k": "2"})
        await client.delete(CONFIGMAPS, "a", "default")
        await mirror.until(lambda: (CONFIGMAPS, "a") not in mirror.objects)
    finally:
        await mirror.close()


async def test_follow_keeps_to_its_selection(client: Client) -> None:
    """An object that leaves the selection is DELETED, one that enters it ADDED."""
    mirror = Mirror(client, Watched(CONFIGMAPS, "default", label_selector="on=yes"))
    try:
        await mirror.until(lambda: mirror.synced)
        await client.create(CONFIGMAPS, config_map("a"))
        await client.patch(CONFIGMAPS, "a", {"metadata": {"labels": {"on": "yes"}}}, "default")
        await mirror.until(lambda: (CONFIGMAPS, "a") in mirror.objects)
        await client.patch(CONFIGMAPS, "a", {"metadata": {"labels": {"on": "no"}}}, "default")
        await mirror.until(lambda: not mirror.objects)
    finally:
        await mirror.close()


async def test_a_server_that_comes_back_is_followed_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Through a restart of the real server, what happened meanwhile is told, nothing twice, and the outage once."""
    caplog.set_level(logging.INFO, "fairlead.client")
    store = MemoryStore()
    async with real_server(tmp_path, store) as server:
        port, client = server.port, real_client(server)
        await _default_namespace(client)
        await client.create(CONFIGMAPS, config_map("a"))
        await client.create(CONFIGMAPS, config_map("b"))
        mirror = Mirror(client, Watched(CONFIGMAPS, "default"))
        await mirror.until(lambda: mirror.synced)
        told = len(mirror.types)
    with pytest.raises(Unreachable):
        await client.get(CONFIGMAPS, "a", "default")
    async with real_server(tmp_path, store, port) as server, real_client(server) as other:
        await other.delete(CONFIGMAPS, "a", "default")
        await other.create(CONFIGMAPS, config_map("c"))
        await mirror.until(lambda: {n for _, n in mirror.objects} == {"b", "c"})
        assert sorted(mirror.types[told:]) == ["ADDED", "DELETED"]
        await mirror.close()
        await client.close()
    assert len([r for r in caplog.records if r.levelname == "WARNING" and r.name == "fairlead.client"]) <= 1
