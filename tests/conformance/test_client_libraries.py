"""The official Python client and lightkube: create, read, change, watch, delete."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import lightkube
import pytest
from kubernetes import client, config, stream, watch
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.exceptions import ApiError
from lightkube.models.core_v1 import ServicePort, ServiceSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap, Namespace, Service
from lightkube.types import PatchType

_counter = iter(range(1_000_000))


@pytest.fixture
def official(cluster):
    """The official client, and a namespace for it."""
    api = client.CoreV1Api(config.new_client_from_config(str(cluster.kubeconfig)))
    name = f"py{next(_counter)}"
    cluster.make_namespace(name)
    return api, name


def test_the_official_client_does_it_all(official):
    """Typed objects through create, read, list, patch, replace and delete; 404 and 409 as exceptions."""
    api, namespace = official
    made = api.create_namespaced_service(
        namespace,
        client.V1Service(
            metadata=client.V1ObjectMeta(name="web"),
            spec=client.V1ServiceSpec(selector={"app": "web"}, ports=[client.V1ServicePort(port=80)]),
        ),
    )
    assert made.spec.cluster_ip.startswith("10.96.")
    assert made.spec.ports[0].target_port == 80
    assert [s.metadata.name for s in api.list_namespaced_service(namespace).items] == ["web"]
    api.patch_namespaced_service("web", namespace, {"metadata": {"labels": {"a": "b"}}})
    again = api.read_namespaced_service("web", namespace)
    assert again.metadata.labels == {"a": "b"}
    again.spec.ports[0].target_port = "http"
    assert api.replace_namespaced_service("web", namespace, again).spec.ports[0].target_port == "http"
    with pytest.raises(client.ApiException) as caught:
        api.replace_namespaced_service("web", namespace, again)
    assert caught.value.status == 409
    api.delete_namespaced_service("web", namespace)
    with pytest.raises(client.ApiException) as caught:
        api.read_namespaced_service("web", namespace)
    assert caught.value.status == 404


def test_the_official_client_watches(official):
    """Events as they come; the stream ends with its timeout."""
    api, namespace = official

    def change() -> None:
        body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="a"), data={"k": "1"})
        api.create_namespaced_config_map(namespace, body)
        api.patch_namespaced_config_map("a", namespace, {"data": {"k": "2"}})
        api.delete_namespaced_config_map("a", namespace)

    version = api.list_namespaced_config_map(namespace).metadata.resource_version
    thread = threading.Thread(target=change)
    thread.start()
    seen = []
    for event in watch.Watch().stream(
        api.list_namespaced_config_map, namespace, resource_version=version, timeout_seconds=5
    ):
        seen.append((event["type"], (event["object"].data or {}).get("k")))
        if event["type"] == "DELETED":
            break
    thread.join()
    assert seen == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")]


def test_the_official_client_executes_in_pods(official, cluster):
    """Logs, and exec over its WebSocket (v4.channel.k8s.io) with stdin, both outputs and the exit code."""
    api, namespace = official
    node = f"n-{namespace}"
    api.create_node(client.V1Node(metadata=client.V1ObjectMeta(name=node)))
    address = {"type": "InternalIP", "address": "127.0.0.1"}
    endpoint = {"kubeletEndpoint": {"Port": cluster.kubelet.port}}
    cluster.patch_status("nodes", "", node, {"addresses": [address], "daemonEndpoints": endpoint})
    container = client.V1Container(name="main", image="fairlead/host")
    spec = client.V1PodSpec(containers=[container], node_name=node)
    api.create_namespaced_pod(namespace, client.V1Pod(metadata=client.V1ObjectMeta(name="p"), spec=spec))
    assert api.read_namespaced_pod_log("p", namespace) == "one\ntwo\nthree\nfour\n"
    options = {"stdin": True, "stdout": True, "stderr": True, "tty": False, "_preload_content": False}
    command = ["sh", "-c", "read line; echo got $line; echo bad >&2; exit 3"]
    socket = stream.stream(api.connect_get_namespaced_pod_exec, "p", namespace, command=command, **options)
    socket.write_stdin("hello\n")
    socket.run_forever(timeout=10)
    assert (socket.read_stdout(), socket.read_stderr(), socket.returncode) == ("got hello\n", "bad\n", 3)


def test_lightkube_does_it_all(cluster):
    """Typed resources, patches, watch and delete."""
    kube = lightkube.Client(config=KubeConfig.from_file(str(cluster.kubeconfig)), trust_env=False)
    name = f"lk{next(_counter)}"
    kube.create(Namespace(metadata=ObjectMeta(name=name)))
    made = kube.create(
        Service(
            metadata=ObjectMeta(name="web", namespace=name),
            spec=ServiceSpec(selector={"app": "web"}, ports=[ServicePort(port=80, targetPort=8080)]),
        )
    )
    assert made.spec.clusterIP
    kube.patch(Service, "web", {"metadata": {"labels": {"a": "b"}}}, namespace=name, patch_type=PatchType.MERGE)
    assert [s.metadata.labels for s in kube.list(Service, namespace=name, labels={"a": "b"})] == [{"a": "b"}]
    kube.create(ConfigMap(metadata=ObjectMeta(name="cm", namespace=name), data={"k": "v"}))
    for kind, obj in kube.watch(ConfigMap, namespace=name, server_timeout=5):
        if obj.metadata.name == "cm":
            assert (kind, obj.data) == ("ADDED", {"k": "v"})
            break
    kube.delete(Service, "web", namespace=name)
    with pytest.raises(ApiError) as caught:
        kube.get(Service, "web", namespace=name)
    assert caught.value.status.code == 404


OPERATOR = """
import kopf


@kopf.on.create("configmaps", labels={"kind": "order"})
def made(name, patch, **_):
    patch.metadata.annotations["seen-by"] = "operator"
    return None


@kopf.on.delete("configmaps", labels={"kind": "order"})
def gone(name, **_):
    return None
"""


def test_a_kopf_operator_follows_and_patches(cluster, tmp_path):
    """An operator discovers, lists, watches, holds a finalizer, patches, and lets go on deletion."""
    namespace = f"kopf{next(_counter)}"
    cluster.make_namespace(namespace)
    api = client.CoreV1Api(config.new_client_from_config(str(cluster.kubeconfig)))
    (tmp_path / "operator.py").write_text(OPERATOR)
    command = [sys.executable, "-m", "kopf", "run", "--standalone", "-n", namespace, str(tmp_path / "operator.py")]
    env = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig), "HOME": str(tmp_path)}
    log = (tmp_path / "log").open("w+")
    running = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        metadata = client.V1ObjectMeta(name="one", labels={"kind": "order"})
        api.create_namespaced_config_map(namespace, client.V1ConfigMap(metadata=metadata))
        deadline = time.monotonic() + 20

        def now():
            return api.read_namespaced_config_map("one", namespace).metadata

        while (now().annotations or {}).get("seen-by") != "operator" and time.monotonic() < deadline:
            time.sleep(0.05)
        log.seek(0)
        assert now().annotations.get("seen-by") == "operator", log.read()
        assert now().finalizers
        api.delete_namespaced_config_map("one", namespace)
        while api.list_namespaced_config_map(namespace).items and time.monotonic() < deadline:
            time.sleep(0.05)
        log.seek(0)
        assert not api.list_namespaced_config_map(namespace).items, log.read()
    finally:
        running.terminate()
        running.wait(20)
        log.close()
