"""The DNS as pods see it: a search path in one round trip, and names that are there when what they name is."""

from __future__ import annotations

import pytest

from tests.cluster.conftest import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-dns")]

CLIENT = """
apiVersion: v1
kind: Namespace
metadata: {name: quiz}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: quiz}
spec:
  containers:
    - name: client
      image: fairlead/host
      command: [sleep, infinity]
"""

HEADLESS = """
apiVersion: v1
kind: Service
metadata: {name: db, namespace: quiz}
spec:
  clusterIP: None
  selector: {app: db}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, namespace: quiz, labels: {app: db}}
spec:
  hostname: db-0
  subdomain: db
  containers:
    - name: db
      image: fairlead/host
      command: [sleep, infinity]
"""


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Cluster:
    """A pod that asks."""
    cluster.apply(CLIENT)
    cluster.kubectl("-n", "quiz", "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
    return cluster


def dig(cluster: Cluster, *words: str) -> list[str]:
    return cluster.kubectl("-n", "quiz", "exec", "client", "--", "dig", "+noall", "+answer", *words).splitlines()


def test_a_search_path_in_one_round_trip(client: Cluster) -> None:
    """The first name that the resolver makes brings the answer, with a CNAME to where it is."""

    def found() -> list[str]:
        return dig(client, "kubernetes.default.quiz.svc.cluster.local")

    lines = client.wait_for(found, "the DNS knows the pod")
    assert [line.split()[3] for line in lines] == ["CNAME", "A"]
    assert lines[0].split()[4] == "kubernetes.default.svc.cluster.local."


def test_a_headless_name_is_there_with_its_first_endpoint(client: Cluster) -> None:
    """Though it was asked for just before: no denial is kept."""
    assert dig(client, "db.quiz.svc.cluster.local") == []
    client.apply(HEADLESS)
    client.kubectl("-n", "quiz", "wait", "--for=condition=Ready", "pod/db-0", "--timeout=60s")
    address = client.get("-n", "quiz", "pod", "db-0")["status"]["podIP"]

    def found() -> bool:
        return [line.split()[-1] for line in dig(client, "db-0.db.quiz.svc.cluster.local")] == [address]

    client.wait_for(found, "the endpoint's name")
    assert [line.split()[-1] for line in dig(client, "db.quiz.svc.cluster.local")] == [address]


def test_a_pods_name_is_verified(client: Cluster) -> None:
    """It exists as long as such a pod does."""
    address = client.get("-n", "quiz", "pod", "client")["status"]["podIP"]
    dashed = address.replace(".", "-")
    assert [line.split()[-1] for line in dig(client, f"{dashed}.quiz.pod.cluster.local")] == [address]
    assert dig(client, f"{dashed}.default.pod.cluster.local") == []
    assert dig(client, "10-99-99-99.quiz.pod.cluster.local") == []


def test_a_real_resolver_takes_it(client: Cluster) -> None:
    """glibc's, along the pod's own search path: a name of another namespace, by its short form."""
    found = client.kubectl("-n", "quiz", "exec", "client", "--", "getent", "ahostsv4", "kubernetes.default")
    assert {line.split()[0] for line in found.splitlines()} == {"10.96.0.1"}
