"""One real request followed through nftables by the kernel's own packet tracing.

For a thread in the namespace that translates. For the time of the request a table of our own marks its packets
(`meta nftrace set 1`) and `nft monitor trace` says which rules they meet. Invariant: the table is gone afterwards, even
if the request fails; it changes no packet's fate.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from fairlead.explain.evidence import Attempt

TABLE = "fairlead-trace"
_READY_SECONDS = 2.0
_LISTENS = 1 << 8  # NFNLGRP_NFTRACE, the ninth group
_MOST = 40


def traced(address: str, port: int, protocol: str, send: Callable[[], tuple[Attempt, int]]) -> tuple[Attempt, int]:
    """Send, and add what the request's first packets met to the attempt. Without nft, or the right to it, only send."""
    family = "ip6" if ":" in address else "ip"
    monitor = subprocess.Popen(
        ["nft", "monitor", "trace"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    try:
        if not (_listening(monitor) and _nft(_marking(family, address, port, protocol))):
            return send()
        attempt, source_port = send()
        time.sleep(0.05)  # what was traced is on its way to the monitor
    finally:
        _nft(f"add table {family} {TABLE}\ndelete table {family} {TABLE}\n")
        monitor.terminate()
        said, _ = monitor.communicate(timeout=5)
    return attempt._replace(trace=condense(said.decode(errors="replace"), source_port)), source_port


def _marking(family: str, address: str, port: int, protocol: str) -> str:
    rule = f"{family} daddr {address} {protocol.lower()} dport {port} meta nftrace set 1"
    chains = "\n".join(
        f"chain {hook} {{\ntype filter hook {hook} priority -350; policy accept;\n{rule}\n}}"
        for hook in ("prerouting", "output")
    )
    return f"table {family} {TABLE} {{\n{chains}\n}}\n"


def _nft(commands: str) -> bool:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(["nft", "-f", "-"], input=commands.encode(), capture_output=True, timeout=5, check=False)
        return done.returncode == 0
    return False


def _listening(monitor: subprocess.Popen[bytes]) -> bool:
    """Wait until the monitor's socket is one that hears of traces."""
    end = time.monotonic() + _READY_SECONDS
    while time.monotonic() < end and monitor.poll() is None:
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[2]) == monitor.pid and int(fields[3], 16) & _LISTENS:
                    return True
        time.sleep(0.01)
    return False


def condense(text: str, source_port: int) -> tuple[str, ...]:
    """The rules that the packets from that port met, in their order, each once; without the marking table's own."""
    ours: set[str] = set()
    met: dict[str, None] = {}
    for line in text.splitlines():
        found = re.match(r"trace id (\S+) (\S+ \S+) (\S+) (.*)", line)
        if found is None:
            continue
        number, table, chain, what = found.groups()
        if re.search(rf"sport {source_port}\b", what):
            ours.add(number)
        if number in ours and not table.endswith(TABLE) and not what.startswith("packet:"):
            met[f"{table} {chain} {what.strip()}"] = None
    return tuple(met)[:_MOST]
