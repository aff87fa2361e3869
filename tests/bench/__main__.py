"""`python -m tests.bench [NAME ...]`: every measurement, one after the other, as tables on stdout.

Peers' programs are found on the PATH or by an environment variable (COREDNS, KUBE_PROXY, KNOTD); what is not there is
left out of the table, and said.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """Run the named benches, or all."""
    found = {file.stem.removeprefix("bench_"): file for file in sorted(HERE.glob("bench_*.py"))}
    wanted = sys.argv[1:] or list(found)
    for name in wanted:
        if name not in found:
            sys.exit(f"bench: there is no {name}; there are: {', '.join(found)}")
        print(f"\n## {name}\n", flush=True)
        sys.argv = [str(found[name])]
        runpy.run_path(str(found[name]), run_name="__main__")


if __name__ == "__main__":
    main()
