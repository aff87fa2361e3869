"""The whole path: a pod reaches a Service on another node, by address, by environment variable and by name."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.cluster.conftest import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-path")]

EXAMPLE = Path(__file__).parents[2] / "examples" / "01-a-service"


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Cluster:
    """The example's manifests, applied and ready."""
    cluster.kubectl("apply", "-f", str(EXAMPLE / "web.yaml"), "-f", str(EXAMPLE / "client.yaml"))
    cluster.kubectl("apply", "-f", str(EXAMPLE / "visitor.yaml"))
    cluster.kubectl("-n", "shop", "rollout", "status", "deployment/web", "--timeout=60s")
    cluster.kubectl("-n", "shop", "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
    cluster.kubectl("wait", "--for=condition=Ready", "pod/visitor", "--timeout=60s")
    return cluster


def ask(cluster: Cluster, url: str, count: int = 1) -> list[str]:
    """Requests from the client pod: the answers, one per line."""
    script = f"for i in $(seq {count}); do curl -sS --max-time 5 {url}; done"
    return cluster.kubectl("-n", "shop", "exec", "client", "--", "sh", "-c", script).splitlines()


def test_by_virtual_ip_spread_over_pods_on_both_nodes(shop: Cluster) -> None:
    """Forty requests to the ClusterIP reach every pod, on both nodes, and each pod sees the client's own address."""
    vip = shop.get("-n", "shop", "svc", "web")["spec"]["clusterIP"]
    client = shop.get("-n", "shop", "pod", "client")["status"]["podIP"]
    answers = ask(shop, f"http://{vip}", 40)
    pods = Counter(line.split()[0] for line in answers)
    assert len(pods) == 4, pods
    assert {line.split()[2].rstrip(",") for line in answers} == {"n1", "n2"}
    assert {line.rsplit(" ", 1)[1] for line in answers} == {client}


@pytest.mark.parametrize("name", ["web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local", "WEB.Shop"])
def test_by_name_within_the_namespace(shop: Cluster, name: str) -> None:
    """Every form of the name works from a pod of the same namespace."""
    assert ask(shop, f"http://{name}")[0].startswith("web-")


def test_by_name_from_another_namespace(shop: Cluster) -> None:
    """From elsewhere the short name does not resolve, and the one with the namespace does."""
    visit = ("exec", "visitor", "--", "curl", "-sS", "--max-time", "5")
    assert shop.kubectl(*visit, "http://web.shop").startswith("web-")
    refused = shop._run(["kubectl", *visit, "http://web"], False, None)
    assert refused.returncode == 6, refused  # curl: could not resolve host
    assert "resolve host" in refused.stderr


def test_resolv_conf_of_a_pod(shop: Cluster) -> None:
    """The DNS Service, the three search domains, ndots:5."""
    text = shop.kubectl("-n", "shop", "exec", "client", "--", "cat", "/etc/resolv.conf")
    assert "nameserver 10.96.0.10" in text
    assert "search shop.svc.cluster.local svc.cluster.local cluster.local" in text
    assert "options ndots:5" in text


def test_environment_variables_depend_on_the_order_of_creation(shop: Cluster) -> None:
    """A pod made after the Service has its seven variables; one made before has none."""
    shop.kubectl("apply", "-f", str(EXAMPLE / "redis-master.yaml"))
    shop.kubectl("apply", "-f", str(EXAMPLE / "late.yaml"))
    shop.kubectl("-n", "shop", "wait", "--for=condition=Ready", "pod/late", "--timeout=60s")
    ip = shop.get("-n", "shop", "svc", "redis-master")["spec"]["clusterIP"]
    late = shop.kubectl("-n", "shop", "exec", "late", "--", "env").splitlines()
    assert sorted(line for line in late if line.startswith("REDIS_MASTER_")) == [
        f"REDIS_MASTER_PORT=tcp://{ip}:6379",
        f"REDIS_MASTER_PORT_6379_TCP=tcp://{ip}:6379",
        f"REDIS_MASTER_PORT_6379_TCP_ADDR={ip}",
        "REDIS_MASTER_PORT_6379_TCP_PORT=6379",
        "REDIS_MASTER_PORT_6379_TCP_PROTO=tcp",
        f"REDIS_MASTER_SERVICE_HOST={ip}",
        "REDIS_MASTER_SERVICE_PORT=6379",
    ]
    early = shop.kubectl("-n", "shop", "exec", "client", "--", "env")
    assert "REDIS_MASTER" not in early
    assert "KUBERNETES_SERVICE_HOST=10.96.0.1" in early


def test_node_port_from_the_machine_on_each_node(shop: Cluster) -> None:
    """The NodePort answers on every node's address, from outside of the cluster."""
    for node in shop.get("nodes")["items"]:
        address = next(a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP")
        done = subprocess.run(
            ["curl", "-sS", "--noproxy", "*", "--max-time", "5", f"http://{address}:30080"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith("web-")


def test_scaled_to_zero_is_refused_at_once_and_back(shop: Cluster) -> None:
    """Without endpoints a connection is refused, not left hanging; with endpoints it works again."""
    shop.kubectl("-n", "shop", "scale", "deployment", "web", "--replicas=0")
    shop.kubectl("-n", "shop", "wait", "--for=delete", "pod", "-l", "app=web", "--timeout=60s")
    script = "curl -sS --max-time 5 -o /dev/null -w '%{time_total}' http://web || echo \" $?\""
    total, code = shop.kubectl("-n", "shop", "exec", "client", "--", "sh", "-c", script).split()
    assert code == "7", "curl's code for a refused connection"
    assert float(total) < 1.0
    shop.kubectl("-n", "shop", "scale", "deployment", "web", "--replicas=4")
    shop.kubectl("-n", "shop", "rollout", "status", "deployment/web", "--timeout=60s")
    assert ask(shop, "http://web")[0].startswith("web-")


def test_a_pod_reaches_itself_through_the_service(shop: Cluster) -> None:
    """Hairpin: with one endpoint left, the pod behind the Service reaches itself by the Service's name."""
    shop.kubectl("-n", "shop", "scale", "deployment", "web", "--replicas=1")

    def the_one() -> object:
        pods = shop.get("-n", "shop", "pods", "-l", "app=web")["items"]
        return pods[0]["metadata"]["name"] if len(pods) == 1 else None

    name = shop.wait_for(the_one, "scaling to one")
    answer = shop.kubectl("-n", "shop", "exec", name, "--", "curl", "-sS", "--max-time", "5", "http://web")
    assert answer.startswith(name)
    shop.kubectl("-n", "shop", "scale", "deployment", "web", "--replicas=4")
    shop.kubectl("-n", "shop", "rollout", "status", "deployment/web", "--timeout=60s")


def test_describe_names_the_endpoints(shop: Cluster) -> None:
    """kubectl describe shows the Service with its endpoints."""
    text = shop.kubectl("-n", "shop", "describe", "svc", "web")
    assert re.search(r"Endpoints:\s+10\.244\.\d+\.\d+:8080", text)
    assert "NodePort:" in text


def test_a_command_that_does_not_exist_is_said(shop: Cluster) -> None:
    """The pod's status names the command; the pod goes into back-off."""
    shop.apply(
        """
apiVersion: v1
kind: Pod
metadata: {name: broken, namespace: shop}
spec:
  containers: [{name: c, image: fairlead/host, command: ["/no/such/program"]}]
"""
    )

    def told() -> bool:
        statuses = shop.get("-n", "shop", "pod", "broken")["status"].get("containerStatuses") or [{}]
        return "/no/such/program" in str(statuses[0])

    shop.wait_for(told, "the error in the pod's status")
    shop.kubectl("-n", "shop", "delete", "pod", "broken", "--grace-period=0", "--force")


def test_an_image_that_can_not_be_had(shop: Cluster) -> None:
    """It fails as ErrImagePull, with an event that says why."""
    shop.kubectl("-n", "shop", "run", "other", "--image=localhost:1/other:1", "--restart=Never")

    def waiting() -> bool:
        statuses = shop.get("-n", "shop", "pod", "other")["status"].get("containerStatuses") or [{}]
        reason = ((statuses[0].get("state") or {}).get("waiting") or {}).get("reason")
        return reason in ("ErrImagePull", "ImagePullBackOff")

    shop.wait_for(waiting, "ErrImagePull")
    shop.wait_for(
        lambda: any("connection refused" in e["message"] for e in shop.get("-n", "shop", "events")["items"]),
        "an event that says why",
    )
    shop.kubectl("-n", "shop", "delete", "pod", "other", "--grace-period=0", "--force")
