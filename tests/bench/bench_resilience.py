"""What users see when things happen to a node's proxy, under traffic that never stops (needs root).

Flows cut, packets misdelivered, and the time until all is well again, in the modes nftables and iptables. The proxy and
its API server are real processes (`tests/kernel/resilience_lab.py`).
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairlead.linux import namespaces
from tests.kernel.resilience_lab import Stand, Traffic, incidents, standing


@contextmanager
def stand() -> Iterator[Stand]:
    """A node of its own, gone afterwards."""
    made: list[str] = []

    def make(label: str) -> str:
        name = f"flb-{secrets.token_hex(3)}-{label}"
        namespaces.create(name)
        made.append(name)
        return name

    with tempfile.TemporaryDirectory() as folder:
        try:
            with standing(make, Path(folder)) as found:
                yield found
        finally:
            for name in made:
                namespaces.delete(name)


def main() -> None:
    """Print the table."""
    print(
        "| mode | what happens | connections | failed | open ones cut | datagrams | lost | misdelivered | mended in |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for mode, other in (("nftables", "iptables"), ("iptables", "nftables")):
        with stand() as node:
            node.start_api()
            node.fill()
            node.start_proxy(mode)
            traffic = Traffic(node.lab)
            traffic.start()
            try:
                for incident in incidents(node, traffic, mode, other):
                    c = incident.counts
                    print(
                        f"| {mode} | {incident.name} | {c.made} | {c.failed} | {c.cut} | {c.datagrams} | {c.lost} "
                        f"| {c.misdelivered} | {incident.healed * 1000:.0f} ms |",
                        flush=True,
                    )
            finally:
                traffic.stop()


if __name__ == "__main__":
    main()
