"""Rolling restarts lose no request: a pod hears of its end only when no node sends it new connections any more."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.bench import rollout_lab as lab
from tests.cluster.conftest import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-rollout")]
RATE = 300.0


@pytest.fixture(scope="module")
def loaded(cluster: Cluster) -> Iterator[Cluster]:
    """Four replicas under load."""
    cluster.apply(lab.manifests(RATE))
    cluster.kubectl("-n", lab.NAMESPACE, "rollout", "status", "deployment/web", "--timeout=60s")
    cluster.kubectl("-n", lab.NAMESPACE, "delete", "pod", "load", "--now")  # what failed before they were up is no loss
    cluster.apply(lab.manifests(RATE))
    cluster.wait_for(lambda: lab.outcome(cluster.kubectl)["ok"] > 100, "load")
    yield cluster


def test_rolling_restarts_fail_no_request(loaded: Cluster) -> None:
    """Three restarts of a server that exits at once on SIGTERM: every request is answered."""
    before = lab.outcome(loaded.kubectl)["sent"]
    lab.restart(loaded.kubectl, 3)
    found = loaded.wait_for(
        lambda: (now := lab.outcome(loaded.kubectl))["sent"] > before + 2 * RATE and now, "the load to go on"
    )
    assert found["failed"] == {}, found


def test_pods_of_a_service_say_that_they_are_reached(loaded: Cluster) -> None:
    """The condition is there for pods that a Service selects, and true once they are ready; others have none."""
    pods = loaded.get("-n", lab.NAMESPACE, "pods")["items"]
    for pod in pods:
        if pod["metadata"].get("deletionTimestamp"):
            continue
        found = {c["type"]: c["status"] for c in pod["status"]["conditions"]}
        expected = None if pod["metadata"]["name"] == "load" else "True"
        assert found.get("fairlead.dev/Reachable") == expected, pod["metadata"]["name"]


def test_each_node_confirms_in_a_lease(loaded: Cluster) -> None:
    """One Lease a node, owned by its Node, says up to where its kernel has the EndpointSlices."""
    leases = loaded.get("-n", "kube-node-lease", "leases", "-l", "fairlead.dev/confirms=endpointslices")["items"]
    assert {lease["spec"]["holderIdentity"] for lease in leases} == {"n1", "n2"}
    for lease in leases:
        assert int(lease["metadata"]["annotations"]["fairlead.dev/applied-endpointslices"]) > 0
        assert lease["metadata"]["ownerReferences"][0]["kind"] == "Node"


def test_a_node_that_does_not_answer_is_not_waited_for_long(loaded: Cluster) -> None:
    """One that is stopped and still counts as ready confirms nothing: the pod goes nevertheless, and an event of it
    names that node."""
    pods = loaded.get("-n", lab.NAMESPACE, "pods", "-l", "app=web")["items"]
    name = next(p["metadata"]["name"] for p in pods if p["spec"]["nodeName"] == "n1")
    agent = loaded.status()["processes"]["node-n2"]
    os.kill(agent, signal.SIGSTOP)
    try:
        loaded.kubectl("-n", lab.NAMESPACE, "delete", "pod", name, "--timeout=30s")
    finally:
        os.kill(agent, signal.SIGCONT)
    events = ("-n", lab.NAMESPACE, "get", "events", "--field-selector", "reason=NotWithdrawn")
    said = loaded.wait_for(lambda: (s := loaded.kubectl(*events)) and name in s and s, "the event")
    assert "Stopping after 2 s, though new connections may still come" in said
    assert "n2" in said
