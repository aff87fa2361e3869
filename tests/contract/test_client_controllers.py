"""All controllers at once, on the fake and on the real API server, with a stand-in for the kubelets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fairlead.api import times
from fairlead.api.errors import StatusError
from fairlead.api.kinds import (
    CONFIGMAPS,
    DEPLOYMENTS,
    ENDPOINTS,
    ENDPOINTSLICES,
    EVENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    REPLICASETS,
    SERVICEACCOUNTS,
    SERVICES,
    Resource,
)
from fairlead.client import Client, Watched, follow
from fairlead.client.events import utc_now
from fairlead.client.fake import FakeClient
from fairlead.client.informer import Informer
from fairlead.controllers import ControllerOptions, run_controllers
from fairlead.controllers.context import FOLLOWED
from fairlead.store.memory import MemoryStore
from tests.contract.client_over_http import real_client, real_server

Object = dict[str, Any]
DEADLINE = 10.0
OPTIONS = ControllerOptions(
    advertise_address="10.0.0.1",
    ca_pem="PEM",
    node_grace=0.3,
    node_startup_grace=30.0,
    eviction_seconds=0.2,
    orphan_quarantine=0.1,
)


async def wait_for(condition: Callable[[], Any]) -> None:
    """Until the condition holds."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 (the fake has no event for what a test waits for)
            await asyncio.sleep(0.002)


def node(name: str, ready: str = "True", **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": f"zone-{name}"}},
        "spec": spec,
        "status": {
            "allocatable": {"cpu": "4", "memory": "4Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


def deployment(name: str, replicas: int, image: str = "v1", **spec: Any) -> Object:
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template,
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 10,
            **spec,
        },
    }


def service(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "clusterIP": "10.96.0.9",
            "ipFamilies": ["IPv4"],
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        },
    }


class Live:
    """What the server holds, as a reader of its own sees it."""

    def __init__(self, client: Client) -> None:
        self.informer = Informer(client, *(Watched(r) for r in (*FOLLOWED, EVENTS)))

    def objects(self, resource: Resource, namespace: str = "") -> list[Object]:
        found = self.informer.cache(resource).list(namespace)
        return sorted(found, key=lambda o: (o["metadata"].get("namespace", ""), o["metadata"]["name"]))

    def find(self, resource: Resource, name: str, namespace: str = "") -> Object | None:
        return self.informer.cache(resource).get(name, namespace)


class Cluster:
    """The API, its controllers, and a kubelet that makes every bound pod ready and ends every deleted one."""

    def __init__(self, client: Client, options: ControllerOptions) -> None:
        self.client = client
        self.api = Live(client)
        self.options = options
        self.dead: set[str] = set()
        self._addresses = 0

    async def kubelet(self) -> None:
        async for batch in follow(self.client, Watched(PODS)):
            for event in batch.events:
                pod = event.object
                if event.type == "DELETED" or not pod["spec"].get("nodeName"):
                    continue
                if pod["spec"]["nodeName"] in self.dead:
                    continue
                with contextlib.suppress(StatusError):
                    await self._tend(pod)

    async def _tend(self, pod: Object) -> None:
        metadata = pod["metadata"]
        if metadata.get("deletionTimestamp"):
            await self.client.delete(PODS, metadata["name"], metadata["namespace"], grace_period_seconds=0)
        elif not pod["status"].get("podIP"):
            self._addresses += 1
            ip = f"10.244.{self._addresses // 250}.{self._addresses % 250 + 1}"
            ready = {"type": "Ready", "status": "True", "lastTransitionTime": times.render(utc_now())}
            status = {**pod["status"], "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [ready]}
            await self.client.update_status(PODS, {**pod, "status": status})

    def pods(self) -> list[Object]:
        return self.api.objects(PODS)

    def ready(self, name: str) -> int:
        found = self.api.find(DEPLOYMENTS, name, "default")
        return int(found["status"].get("readyReplicas", 0)) if found and found.get("status") else 0

    def endpoints(self, name: str) -> list[Object]:
        label = "kubernetes.io/service-name"
        slices = [s for s in self.api.objects(ENDPOINTSLICES) if s["metadata"].get("labels", {}).get(label) == name]
        return [e for s in slices for e in s["endpoints"]]


@pytest.fixture(params=["fake", "real"])
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    """Two nodes and everything that runs."""
    if request.param == "fake":
        async with running(FakeClient()) as made:
            yield made
    else:
        async with real_server(tmp_path) as server, real_client(server) as client, running(client) as made:
            yield made


@contextlib.asynccontextmanager
async def running(client: Client) -> AsyncIterator[Cluster]:
    made = Cluster(client, OPTIONS)
    tasks = [
        asyncio.create_task(run_controllers(made.client, made.options)),
        asyncio.create_task(made.api.informer.run()),
        asyncio.create_task(made.kubelet()),
    ]
    try:
        await wait_for(lambda: made.api.find(SERVICEACCOUNTS, "default", "default"))
        for name in ("n1", "n2"):
            await made.client.create(NODES, node(name))
        yield made
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_cluster_has_its_own_objects(cluster: Cluster) -> None:
    """Namespaces, the kubernetes Service with its endpoints, accounts and certificates come by themselves."""
    await wait_for(lambda: cluster.api.find(ENDPOINTSLICES, "kubernetes", "default"))
    await wait_for(lambda: cluster.api.find(CONFIGMAPS, "kube-root-ca.crt", "kube-system"))
    assert {n["metadata"]["name"] for n in cluster.api.objects(NAMESPACES)} == {
        "default",
        "kube-system",
        "kube-public",
        "kube-node-lease",
    }
    kubernetes = cluster.api.find(SERVICES, "kubernetes", "default")
    assert kubernetes is not None and kubernetes["spec"]["clusterIP"] == "10.96.0.1"
    found = cluster.api.find(ENDPOINTS, "kubernetes", "default")
    assert found is not None and found["subsets"][0]["addresses"] == [{"ip": "10.0.0.1"}]
    await cluster.client.delete(ENDPOINTSLICES, "kubernetes", "default")
    await wait_for(lambda: cluster.api.find(ENDPOINTSLICES, "kubernetes", "default"))


async def test_nodes_get_ranges(cluster: Cluster) -> None:
    """Each node has a /24 of its own."""
    await wait_for(lambda: all(n["spec"].get("podCIDR") for n in cluster.api.objects(NODES)))
    assert [n["spec"]["podCIDR"] for n in cluster.api.objects(NODES)] == ["10.244.0.0/24", "10.244.1.0/24"]


async def test_a_deployment_becomes_ready_endpoints(cluster: Cluster) -> None:
    """From a Deployment to pods spread over both nodes and ready endpoints, and away again."""
    await cluster.client.create(SERVICES, service("web"))
    await cluster.client.create(DEPLOYMENTS, deployment("web", 4))
    await wait_for(lambda: cluster.ready("web") == 4)
    assert sorted(p["spec"]["nodeName"] for p in cluster.pods()) == ["n1", "n1", "n2", "n2"]
    await wait_for(lambda: len(cluster.endpoints("web")) == 4)
    assert all(e["conditions"]["ready"] for e in cluster.endpoints("web"))
    assert {e["zone"] for e in cluster.endpoints("web")} == {"zone-n1", "zone-n2"}
    await wait_for(lambda: cluster.api.find(ENDPOINTS, "web", "default"))
    final = cluster.api.find(DEPLOYMENTS, "web", "default")
    assert final is not None
    types = {c["type"]: (c["status"], c["reason"]) for c in final["status"]["conditions"]}
    await wait_for(lambda: final["status"]["observedGeneration"] == 1)
    assert types["Available"] == ("True", "MinimumReplicasAvailable")
    await cluster.client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 0}}, "default")
    await wait_for(lambda: not cluster.pods())
    await wait_for(lambda: not cluster.endpoints("web"))
    assert len([s for s in cluster.api.objects(ENDPOINTSLICES) if s["metadata"]["name"] != "kubernetes"]) == 1


async def test_a_rolling_update_replaces_all_pods(cluster: Cluster) -> None:
    """A new template makes a second ReplicaSet and a second revision; the first one is kept, empty."""
    await cluster.client.create(DEPLOYMENTS, deployment("web", 3))
    await wait_for(lambda: cluster.ready("web") == 3)
    await cluster.client.update(DEPLOYMENTS, deployment("web", 3, "v2"))

    def done() -> bool:
        images = [p["spec"]["containers"][0]["image"] for p in cluster.pods()]
        found = cluster.api.find(DEPLOYMENTS, "web", "default")
        assert found is not None
        progress = [c["reason"] for c in found["status"]["conditions"] if c["type"] == "Progressing"]
        return images == ["v2"] * 3 and progress == ["NewReplicaSetAvailable"]

    await wait_for(done)
    sets = {
        s["metadata"]["annotations"]["deployment.kubernetes.io/revision"]: s["spec"]["replicas"]
        for s in cluster.api.objects(REPLICASETS)
    }
    assert sets == {"1": 0, "2": 3}
    await wait_for(
        lambda: (
            (cluster.api.find(DEPLOYMENTS, "web", "default") or {})["metadata"]["annotations"]
            == {"deployment.kubernetes.io/revision": "2"}
        )
    )


async def test_recreate_waits_for_the_old_ones(cluster: Cluster) -> None:
    """With the strategy Recreate no pod of the new template runs beside an old one."""
    recreate = {"strategy": {"type": "Recreate"}}
    await cluster.client.create(DEPLOYMENTS, deployment("web", 2, **recreate))
    await wait_for(lambda: cluster.ready("web") == 2)
    await cluster.client.update(DEPLOYMENTS, deployment("web", 2, "v2", **recreate))

    def images() -> list[str]:
        found = [p["spec"]["containers"][0]["image"] for p in cluster.pods()]
        assert len(set(found)) <= 1
        return found

    await wait_for(lambda: images() == ["v2", "v2"])


async def test_a_silent_node_loses_its_endpoints_and_then_its_pods(cluster: Cluster) -> None:
    """No renewal: Unknown, tainted, pods not ready, evicted and replaced elsewhere."""

    def lease(name: str) -> Object:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": "kube-node-lease"},
            "spec": {"renewTime": times.render_micro(utc_now())},
        }

    for name in ("n1", "n2"):
        await cluster.client.create(LEASES, lease(name))

    async def renew() -> None:
        while True:
            await cluster.client.patch(LEASES, "n2", {"spec": lease("n2")["spec"]}, "kube-node-lease")
            await asyncio.sleep(0.05)

    renewing = asyncio.create_task(renew())
    try:
        await cluster.client.create(SERVICES, service("web"))
        web = deployment("web", 2)
        soon = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}
        web["spec"]["template"]["spec"]["tolerations"] = [
            {"key": f"node.kubernetes.io/{key}", **soon} for key in ("not-ready", "unreachable")
        ]
        await cluster.client.create(DEPLOYMENTS, web)
        await wait_for(lambda: len(cluster.endpoints("web")) == 2)
        cluster.dead.add("n1")
        await wait_for(lambda: (cluster.api.find(NODES, "n1") or {})["status"]["conditions"][0]["status"] == "Unknown")
        await wait_for(
            lambda: not any(e["conditions"]["ready"] for e in cluster.endpoints("web") if e["nodeName"] == "n1")
        )
        await wait_for(
            lambda: sum(e["conditions"]["ready"] for e in cluster.endpoints("web") if e["nodeName"] == "n2") == 2
        )
        taints = {(t["key"], t["effect"]) for t in (cluster.api.find(NODES, "n1") or {})["spec"]["taints"]}
        unreachable = "node.kubernetes.io/unreachable"
        assert taints == {(unreachable, "NoSchedule"), (unreachable, "NoExecute")}
        await cluster.client.delete(NODES, "n1")
        await wait_for(lambda: {p["spec"]["nodeName"] for p in cluster.pods()} == {"n2"})
    finally:
        renewing.cancel()


async def test_what_fits_nowhere_waits_for_a_change(cluster: Cluster) -> None:
    """An unschedulable pod says why, and is bound as soon as a node can hold it."""
    big = deployment("big", 1)
    big["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "6"}}
    await cluster.client.create(DEPLOYMENTS, big)

    def why() -> str:
        for pod in cluster.pods():
            for condition in pod["status"].get("conditions", []):
                if condition["type"] == "PodScheduled" and condition["status"] == "False":
                    return str(condition["message"])
        return ""

    await wait_for(lambda: why() == "0/2 nodes are available: 2 Insufficient cpu.")
    await wait_for(lambda: [e for e in cluster.api.objects(EVENTS) if e["reason"] == "FailedScheduling"])
    large = node("n3")
    large["status"]["allocatable"]["cpu"] = "8"
    await cluster.client.create(NODES, large)
    await wait_for(lambda: [p["spec"].get("nodeName") for p in cluster.pods()] == ["n3"])


async def test_a_namespace_takes_its_contents_along(cluster: Cluster) -> None:
    """A deleted namespace is emptied and goes."""
    await cluster.client.create(NAMESPACES, {"metadata": {"name": "shop"}})
    await wait_for(lambda: cluster.api.find(CONFIGMAPS, "kube-root-ca.crt", "shop"))
    moved = deployment("web", 2)
    moved["metadata"]["namespace"] = "shop"
    await cluster.client.create(DEPLOYMENTS, moved, "shop")
    await wait_for(lambda: len([p for p in cluster.pods() if p["status"]["phase"] == "Running"]) == 2)
    await cluster.client.delete(NAMESPACES, "shop")
    await wait_for(lambda: cluster.api.find(NAMESPACES, "shop") is None)
    for resource in (PODS, REPLICASETS, DEPLOYMENTS, SERVICEACCOUNTS, CONFIGMAPS, EVENTS):
        assert not cluster.api.objects(resource, "shop")


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
async def test_deleting_a_deployment_takes_its_pods(cluster: Cluster, policy: Any) -> None:
    """Background and foreground deletion both end with nothing left."""
    await cluster.client.create(DEPLOYMENTS, deployment("web", 2))
    await wait_for(lambda: cluster.ready("web") == 2)
    await cluster.client.delete(DEPLOYMENTS, "web", "default", propagation_policy=policy)
    await wait_for(lambda: not cluster.pods() and not cluster.api.objects(REPLICASETS))
    await wait_for(lambda: not cluster.api.objects(DEPLOYMENTS))


async def test_orphans_stay(cluster: Cluster) -> None:
    """Orphaning deletion leaves the dependents without that owner."""
    await cluster.client.create(DEPLOYMENTS, deployment("web", 1))
    await wait_for(lambda: cluster.ready("web") == 1)
    await cluster.client.delete(DEPLOYMENTS, "web", "default", propagation_policy="Orphan")
    await wait_for(lambda: not cluster.api.objects(DEPLOYMENTS))
    (replica_set,) = cluster.api.objects(REPLICASETS)
    assert not replica_set["metadata"].get("ownerReferences") and len(cluster.pods()) == 1


async def test_controllers_outlive_the_server(tmp_path: Path) -> None:
    """The server goes away in the middle of a rollout and comes back: the work is finished."""
    store = MemoryStore()
    async with contextlib.AsyncExitStack() as stack:
        first = contextlib.AsyncExitStack()
        server = await first.enter_async_context(real_server(tmp_path, store))
        client = await stack.enter_async_context(real_client(server))
        made = await stack.enter_async_context(running(client))
        await client.create(SERVICES, service("web"))
        await client.create(DEPLOYMENTS, deployment("web", 6))
        await wait_for(made.pods)
        await first.aclose()
        await stack.enter_async_context(real_server(tmp_path, store, server.port))
        await wait_for(lambda: made.ready("web") == 6 and len(made.pods()) == 6)
        await wait_for(lambda: sum(e["conditions"]["ready"] for e in made.endpoints("web")) == 6)
