"""A little of tests/bench/fuzz_dns.py in every run: packets through a chain of every plugin that answers by itself."""

from __future__ import annotations

import asyncio

from tests.bench.fuzz_dns import run


async def test_no_packet_breaks_a_chain_of_plugins() -> None:
    """Every packet gets an answer that fits, or silence; none takes long."""
    seen = await asyncio.to_thread(_run)
    assert seen["answers"] > 8000
    assert seen["slowest_us"] < 500_000


def _run() -> dict[str, int]:
    async def inside() -> dict[str, int]:
        return run(10_000)

    return asyncio.run(inside())
