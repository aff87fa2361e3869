"""Who is found to belong to a cluster where there are no control groups."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fairlead.cluster.lifecycle import _holders

NAMED = "open('/proc/self/comm', 'w').write({name!r}); print(flush=True); input()"


@pytest.mark.parametrize(("name", "found"), [("fl-pod", True), ("bash", False)])
def test_a_pods_first_process_is_known_by_where_it_works(tmp_path: Path, name: str, found: bool) -> None:
    """It may hold no file of the cluster yet; a person's shell in that directory is nobody's pod."""
    command = [sys.executable, "-c", NAMED.format(name=name)]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            assert (process.pid in _holders((f"{tmp_path.parent}/",))) is found
        finally:
            process.kill()
