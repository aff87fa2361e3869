"""@kubernetes/client-node from npm: objects, patches, watches, informers, logs, exec and port-forward."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.test_port_forward import answering  # noqa: F401  (a fixture)

SCRIPT = Path(__file__).with_name("client_node.mjs")
MODULES = Path(sys.prefix) / "node" / "node_modules"
PARTS = ("objects", "patches", "anyObject", "watching", "informer", "logs", "exec", "portForward")


@pytest.fixture
def pod(cluster) -> tuple[str, str]:
    """A namespace with a pod in it that is on the fake kubelet's node."""
    namespace = "node-js"
    cluster.make_namespace(namespace)
    cluster.make_pod(namespace, "web-0")
    return namespace, "web-0"


def test_the_node_client_does_it_all(cluster, pod, answering) -> None:  # noqa: F811
    """Each part of the client ends as its documentation says; the script stops at the first that does not."""
    node = shutil.which("node") or shutil.which("nodejs")
    assert node is not None, "node is missing: apt install nodejs npm"
    assert MODULES.exists(), f"@kubernetes/client-node is missing in {MODULES}: make setup"
    words = [node, str(SCRIPT), str(MODULES), *pod, "main", str(answering.port)]
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert tuple(seen) == PARTS
    assert seen["logs"] == "three\nfour\n"
