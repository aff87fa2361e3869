"""fairlead ingress from the shell: what is missing or wrong is one line, and an exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

NOWHERE = {"FAIRLEAD_HAPROXY": "/nowhere/haproxy"}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fairlead", "ingress", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "said"),
    [
        (["--kubeconfig", "x"], NOWHERE, 1, "FAIRLEAD_HAPROXY=/nowhere/haproxy is no program; install it"),
        (["--kubeconfig", "/nowhere/config"], {}, 1, "/nowhere/config"),
        (["--http-port", "80", "--https-port", "80"], {}, 2, "two of the ports are the same"),
        (["--publish-service", "x"], {}, 2, "--publish-service 'x' is not NAMESPACE/NAME"),
        (["--publish-service", "a/b", "--publish-status-address", "x"], {}, 2, "exclude each other"),
    ],
)
def test_what_is_wrong(arguments: list[str], environment: dict[str, str], code: int, said: str, tmp_path: Path) -> None:
    """Never a traceback."""
    done = run(*arguments, "--directory", str(tmp_path), **environment)
    assert done.returncode == code
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("fairlead: ")]
    assert said in line and "Traceback" not in done.stderr


def test_the_definitions_can_be_printed() -> None:
    """As documents for kubectl."""
    found = list(yaml.safe_load_all(run("--print-gateway-definitions").stdout))
    assert [crd["kind"] for crd in found] == ["CustomResourceDefinition"] * 7
