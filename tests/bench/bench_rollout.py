"""Requests lost in rolling restarts, with the pod's withdrawal before its end and without.

Twenty restarts of four replicas that exit at once on SIGTERM, under 1,000 requests/s, each on a new connection. Needs
root. `python -m tests.bench rollout`; RESTARTS and RATE in the environment make it shorter.
"""

from __future__ import annotations

import os
import subprocess
import time
from typing import Any

from tests.bench import rollout_lab as lab
from tests.bench.bench_cluster import Lab

RESTARTS = int(os.environ.get("RESTARTS", "20"))
RATE = float(os.environ.get("RATE", "1000"))


def measure(cluster: Lab, annotations: dict[str, str]) -> tuple[dict[str, Any], float]:
    """One run on a fresh cluster: what the client counted, and the seconds of the restarts."""

    def kubectl(*arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            ["kubectl", *arguments], env=cluster.environment, input=stdin, capture_output=True, text=True, check=True
        )
        return done.stdout

    text = lab.manifests(RATE, annotations=annotations)
    kubectl("apply", "-f", "-", stdin=text)
    kubectl("-n", lab.NAMESPACE, "rollout", "status", "deployment/web", "--timeout=60s")
    kubectl("-n", lab.NAMESPACE, "delete", "pod", "load", "--now")
    kubectl("apply", "-f", "-", stdin=text)
    kubectl("-n", lab.NAMESPACE, "wait", "--for=condition=Ready", "pod/load", "--timeout=60s")
    time.sleep(1)
    seconds = lab.restart(kubectl, RESTARTS)
    time.sleep(2)
    return lab.outcome(kubectl), seconds


def main() -> None:
    """Print the table."""
    print(f"{RESTARTS} rolling restarts of 4 replicas at {RATE:g} requests/s, a server that exits at once on SIGTERM\n")
    print("| Withdrawal | Requests | Failed | Slowest | Time per restart |")
    print("|---|---|---|---|---|")
    for name, marks in (("first (default)", {}), ("off", {"fairlead.dev/withdraw-seconds": "0"})):
        with Lab() as cluster:
            found, seconds = measure(cluster, marks)
        failed = ", ".join(f"{count} {why}" for why, count in found["failed"].items()) or "0"
        print(
            f"| {name} | {found['sent']:,} | {failed} | {found['slowest'] * 1000:.0f} ms "
            f"| {seconds / RESTARTS:.2f} s |",
            flush=True,
        )


if __name__ == "__main__":
    main()
