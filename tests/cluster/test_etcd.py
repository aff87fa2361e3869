"""A whole cluster on an etcd server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.conftest import Cluster
from tests.contract.etcd_server import EtcdServer

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-etcd")]


def test_a_cluster_on_etcd(unstarted: Cluster, tmp_path: Path) -> None:
    """It starts on an etcd on this machine's loopback, bears its restart, and no other cluster may use its keys."""
    server = EtcdServer(tmp_path)
    server.start()
    second = Cluster(tmp_path / "second", nodes=1)
    try:
        unstarted.nodes = 1
        unstarted.up("--store", server.url, "--wait", "0")
        unstarted.kubectl("create", "configmap", "first")
        server.kill()
        server.start()
        unstarted.wait_for(
            lambda: unstarted.kubectl("create", "configmap", "second"), "writing after etcd's restart", 30
        )
        names = {item["metadata"]["name"] for item in unstarted.get("configmaps")["items"]}
        assert {"first", "second"} <= names
        refused = second.fairlead("up", "--name", second.name, "--nodes", "1", "--store", server.url, check=False)
        assert refused.returncode
        assert "another cluster's objects below /fairlead" in " ".join(refused.stderr.split())
    finally:
        second.down()
        server.kill()
