"""A whole cluster for the tests of a module: real processes, real kernel rules, removed at the end whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

DEADLINE = 60.0


class Cluster:
    """One named cluster with a kubeconfig and a state directory of its own, driven by the command line and kubectl."""

    def __init__(self, directory: Path, nodes: int = 2) -> None:
        self.name = f"t{secrets.token_hex(3)}"
        self.nodes = nodes
        self.state = directory / "state"
        self.environment = {
            **os.environ,
            "FAIRLEAD_STATE": str(self.state),
            "KUBECONFIG": str(directory / "kubeconfig"),
        }

    def fairlead(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command line."""
        return self._run([sys.executable, "-m", "fairlead", *arguments], check, None)

    def up(self, *flags: str) -> None:
        """Start, or start again."""
        self.fairlead("up", "--name", self.name, "--nodes", str(self.nodes), *flags)

    def down(self) -> None:
        """Remove."""
        self.fairlead("down", "--name", self.name, check=False)

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl; its output."""
        return self._run(["kubectl", *arguments], check, stdin).stdout

    @contextlib.contextmanager
    def running(self, *arguments: str) -> Iterator[Path]:
        """A kubectl that goes on until the end of the block; the file with what it says."""
        with tempfile.NamedTemporaryFile() as said:
            process = subprocess.Popen(["kubectl", *arguments], env=self.environment, stdout=said, stderr=said)
            try:
                yield Path(said.name)
            finally:
                process.kill()
                process.wait()

    def get(self, *arguments: str) -> Any:
        """kubectl get, as objects."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def apply(self, manifest: str) -> None:
        """kubectl apply."""
        self.kubectl("apply", "-f", "-", stdin=manifest)

    def status(self) -> Any:
        """fairlead status, as a value."""
        return json.loads(self.fairlead("status", "--name", self.name, "-o", "json", check=False).stdout)[0]

    def wait_for(self, condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
        """Until the condition gives something true, which is returned. Exceptions count as false."""
        end = time.monotonic() + deadline
        last: Exception | None = None
        while time.monotonic() < end:
            try:
                if result := condition():
                    return result
            except Exception as error:
                last = error
            time.sleep(0.05)
        raise AssertionError(f"{what}: not within {deadline} s ({last}); logs:\n{self.logs()}")

    def logs(self) -> str:
        """The ends of the processes' logs."""
        files = sorted((self.state / self.name / "log").glob("*.log"))
        return "\n".join(f"== {f.name}\n{f.read_text(errors='replace')[-3000:]}" for f in files)

    def _run(self, command: list[str], check: bool, stdin: str | None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, env=self.environment, input=stdin or "", capture_output=True, text=True, timeout=120, check=False
        )
        if check and done.returncode:
            said = f"{' '.join(command)} → {done.returncode}\n{done.stdout}{done.stderr}"
            raise AssertionError(f"{said}\n{self.logs()}")
        return done


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of two nodes that runs for the module's tests."""
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture
def unstarted(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that is not there yet."""
    made = Cluster(tmp_path)
    yield made
    made.down()
