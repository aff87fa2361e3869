"""The Node that a kubelet keeps: what is its own to say, and what others say in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fairlead.api.kinds import NODES
from fairlead.client.fake import FakeAPI, FakeClient
from fairlead.kubelet.node import NodeReporter, extended
from fairlead.kubelet.options import KubeletOptions


def test_extended_resources_are_those_with_a_domain() -> None:
    """The kubelet counts the others itself."""
    assert extended({"cpu": "2", "hugepages-2Mi": "0", "example.com/dongle": "4"}) == {"example.com/dongle": "4"}


async def test_what_is_advertised_in_the_capacity_is_offered_to_pods(tmp_path: Path) -> None:
    """As upstream: who patches the Node's capacity finds the same in allocatable, and it goes when it is taken away."""
    api = FakeAPI()
    client = FakeClient(api)
    options = KubeletOptions(
        node_name="n1", node_ip="10.0.0.1", root_dir=tmp_path, runtime_dir=tmp_path, status_look_seconds=0.02
    )
    running = asyncio.create_task(NodeReporter(client, options).run())

    async def until(holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(15):
            while True:
                node = api.find(NODES, "n1") or {}
                if holds(node.get("status") or {}):
                    return node["status"]  # type: ignore[no-any-return]
                await asyncio.sleep(0.02)

    try:
        await until(lambda seen: bool(seen.get("allocatable")))
        dongles = {"status": {"capacity": {"example.com/dongle": "4"}}}
        await client.patch(NODES, "n1", dongles, kind="merge", subresource="status")
        seen = await until(lambda seen: seen["allocatable"].get("example.com/dongle") == "4")
        assert seen["allocatable"]["cpu"]
        gone = {"status": {"capacity": {"example.com/dongle": None}}}
        await client.patch(NODES, "n1", gone, kind="merge", subresource="status")
        await until(lambda seen: "example.com/dongle" not in seen["allocatable"])
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
