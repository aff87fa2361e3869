"""Malformed requests against every endpoint: the server refuses them and goes on. `make fuzz` sends many more."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[2]
REQUESTS = 2000


def test_no_request_breaks_the_server() -> None:
    """No 5xx of its own making, no hang, no failure in its log, no stream left open; others are served."""
    words = [sys.executable, "-m", "tests.fuzz", "--requests", str(REQUESTS), "--seed", "7"]
    done = subprocess.run(words, cwd=TOP, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-20_000:]
    said = re.search(r"(\d+) answers .*; (\d+) proper requests", done.stdout)
    assert said is not None, done.stdout
    assert int(said[1]) == REQUESTS
    assert int(said[2]) > 0
