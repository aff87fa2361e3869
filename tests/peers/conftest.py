"""Tests beside another project's program, named by an environment variable; without it they are not collected.

`COREDNS=/path/to/coredns KUBE_PROXY=/path/to/kube-proxy make peers`
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.conformance.conftest import Cluster

collect_ignore = [
    test
    for test, variable in (("test_coredns.py", "COREDNS"), ("test_kube_proxy.py", "KUBE_PROXY"))
    if not os.environ.get(variable)
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An API server that both follow."""
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    made.start()
    yield made
    made.stop()
