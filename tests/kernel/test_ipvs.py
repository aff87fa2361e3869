"""The tests of ipvs mode, in a kernel that has it: tests/uml inside user-mode Linux, as one test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("uml")]

TOP = Path(__file__).parents[2]


def test_ipvs_in_user_mode_linux() -> None:
    """Real packets through virtual servers: spreading, masquerade, refusals, policies, graceful removal, repair."""
    command = [str(TOP / "tools" / "uml"), str(Path(sys.executable).parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=320, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
