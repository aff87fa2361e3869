"""`fairlead explain` where nodes are outside the LAN: as a person asks, with a node's agent held still for faults."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.cluster.outside_nodes import Outside


class Report:
    """What was said. `cause`: the first finding's identifier, "" if it works."""

    def __init__(self, document: Any) -> None:
        self.verdict: str = document["verdict"]
        self.works: bool = document["works"]
        self.cause: str = document["cause"] or ""
        self.found: list[str] = [finding["id"] for finding in document["findings"]]
        self.lines: list[str] = [line for hop in document["hops"] for line in hop["evidence"]]


def explain(outside: Outside, target: str, node: str, *flags: str) -> Report:
    """Asked from the pod on that node."""
    name = outside.pods[node]["metadata"]["name"]
    asked = ("explain", target, "--from", f"pod/{name}", "--name", outside.cluster.name, "-o", "json", *flags)
    return Report(json.loads(outside.cluster.fairlead(*asked, check=False).stdout))


@contextlib.contextmanager
def held(outside: Outside, node: str) -> Iterator[None]:
    """The node's agent stands still, so that it does not put back what is broken."""
    machine = outside.lab.machine(node)
    inside = map(int, outside.cluster._run(["ip", "netns", "pids", machine], True, None).stdout.split())
    agent = next(pid for pid in inside if Path(f"/proc/{pid}/comm").read_text().strip() == f"fl-node-{node}")
    os.kill(agent, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(agent, signal.SIGCONT)
