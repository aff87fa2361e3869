"""`python -m tests.fuzz [--requests N] [--seed N]`: exit code 1 and every finding when something is wrong.

Runs in a network namespace of its own that has nothing but loopback: no request can lead the server elsewhere.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.fuzz.run import Run

_INSIDE = "FAIRLEAD_FUZZ_INSIDE"


def main() -> int:
    """Run, and say what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if not os.environ.get(_INSIDE):
        words = [sys.executable, "-m", "tests.fuzz", *sys.argv[1:]]
        inside = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *words]
        os.execvpe(shutil.which("unshare") or "unshare", inside, {**os.environ, _INSIDE: "1"})
    with tempfile.TemporaryDirectory(prefix="fairlead-fuzz-") as folder:
        run = Run(Path(folder), given.seed)
        run.all(given.requests)
    seen: dict[str, int] = {}
    for finding in run.findings:
        seen[finding] = seen.get(finding, 0) + 1
    for finding, times in seen.items():
        print(f"--- {times}×\n{finding}\n")
    codes = ", ".join(f"{code}: {count}" for code, count in sorted(run.codes.items()))
    print(f"{sum(run.codes.values())} answers ({codes}); {run.polite} proper requests beside them; seed {given.seed}")
    print(f"{len(run.findings)} findings")
    return 1 if run.findings else 0


if __name__ == "__main__":
    sys.exit(main())
