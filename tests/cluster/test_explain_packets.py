"""Prediction and packets: for random Services, connections reach exactly the endpoints that `explain` names."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.cluster.conftest import Cluster
from tests.cluster.explain_lab import Lab, healthy
from tests.cluster.explain_packets import compare, six_pods

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-explain")]

ALL = os.environ.get("FAULTS") == "all"


@pytest.fixture(scope="module")
def lab(cluster: Cluster) -> Iterator[Lab]:
    """The laboratory with six more pods."""
    with healthy(cluster) as made, six_pods(made):
        yield made


@pytest.mark.parametrize("seed", range(30 if ALL else 4))
def test_packets_reach_what_is_predicted(lab: Lab, seed: int) -> None:
    """From pods and a node by cluster IP, from outside by each node's port: the same endpoints, or the same failure."""
    compare(lab, seed)
