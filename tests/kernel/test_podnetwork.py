"""The pod network with real packets: two nodes on a LAN, pods on both."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fairlead.linux import namespaces
from fairlead.linux.links import Links
from fairlead.linux.nft.kernel import NftSocket
from fairlead.podnetwork.network import PodNetwork
from fairlead.podnetwork.plan import BRIDGE, link_name
from tests.kernel.podnetwork_lab import NODES, Lab, exchange, in_node

pytestmark = pytest.mark.kernel


async def test_pods_reach_each_other_on_one_node_and_across(
    make_namespace: Callable[[str], str], tmp_path: Path
) -> None:
    """Pod to pod on one node, pod to pod across nodes, node to pod: each sees the other's own address."""
    lab = Lab(make_namespace, tmp_path)
    pods = {name: namespaces.path(make_namespace(f"pod-{name}")) for name in ("a", "b", "c")}
    nets = {}
    ips = {}
    for node, names in (("n1", ("a", "b")), ("n2", ("c",))):
        nets[node] = lab.network(node)

        async def attach(net: PodNetwork = nets[node], names: tuple[str, ...] = names) -> dict[str, str]:
            await net.sync(NODES)
            return {name: (await net.attach(f"uid-{name}", pods[name])).ips[0] for name in names}

        ips |= await in_node(lab, node, attach)
    assert ipaddress.ip_address(ips["c"]) in ipaddress.ip_network("10.244.1.0/24")
    assert exchange(pods["b"], ips["b"], pods["a"]) == (ips["a"], b"hello")
    assert exchange(pods["c"], ips["c"], pods["a"]) == (ips["a"], b"hello")
    n1 = namespaces.path(lab.spaces["n1"])
    assert exchange(pods["a"], ips["a"], n1) == ("10.244.0.1", b"hello")
    # Out of the cluster the pod has the node's address.
    assert exchange(namespaces.path(lab.lan), "172.29.0.1", pods["a"]) == ("172.29.0.11", b"hello")
    for net in nets.values():
        net.close()


async def test_attach_and_sync_repeat_without_effect_and_detach_leaves_nothing(
    make_namespace: Callable[[str], str], tmp_path: Path
) -> None:
    """A restarted agent finds the same address and link; after detach, link and address are free."""
    lab = Lab(make_namespace, tmp_path)
    pod = namespaces.path(make_namespace("pod"))

    async def once() -> str:
        net = lab.network("n1")
        await net.sync(NODES)
        address = await net.attach("uid", pod)
        await net.sync(dict(NODES))
        assert net.attached() == {"uid"}
        net.close()
        return address.ips[0]

    first = await in_node(lab, "n1", once)
    with lab.node("n1"), NftSocket() as nft:
        generation = nft.generation()
        assert await in_node(lab, "n1", once) == first
        assert nft.generation() == generation, "a second start changed rules that were right"

    async def leave() -> None:
        net = lab.network("n1")
        await net.sync(NODES)
        await net.detach("uid")
        await net.detach("uid")
        assert net.attached() == set()
        net.close()

    await in_node(lab, "n1", leave)
    with Links(namespaces.path(lab.spaces["n1"])) as links:
        assert links.get(link_name("uid")) is None


async def test_what_a_cut_short_attach_left_is_made_good(make_namespace: Callable[[str], str], tmp_path: Path) -> None:
    """A link to a namespace that is gone is replaced; one without addresses and hairpin gets them."""
    lab = Lab(make_namespace, tmp_path)
    pod, other = namespaces.path(make_namespace("pod")), namespaces.path(make_namespace("other"))
    name = link_name("uid")

    def half(space: Path, master: str = "") -> None:
        with Links() as links, space.open() as file:
            bridge = links.index(master) if master else 0
            links.create_veth(name, "eth0", peer_namespace=file.fileno(), master=bridge)

    async def attach() -> str:
        net = lab.network("n1")
        await net.sync(NODES)
        address = await net.attach("uid", pod)
        net.close()
        return address.ips[0]

    def as_it_should_be(address: str) -> None:
        with Links(namespaces.path(lab.spaces["n1"])) as links, Links(pod) as inside:
            port, eth0 = links.get(name), inside.get("eth0")
            assert port is not None
            assert eth0 is not None
            assert ipaddress.ip_interface(f"{address}/24") in inside.addresses(eth0.index)
            assert eth0.up
            shown = subprocess.run(
                ["ip", "netns", "exec", lab.spaces["n1"], "ip", "-json", "-details", "link", "show", name],
                capture_output=True,
                check=True,
            )
            assert json.loads(shown.stdout)[0]["linkinfo"]["info_slave_data"]["hairpin"] is True

    with lab.node("n1"):
        half(other)
    address = await in_node(lab, "n1", attach)
    with Links(other) as gone:
        assert gone.get("eth0") is None
    as_it_should_be(address)
    with Links(pod) as inside:
        inside.delete("eth0")
    with lab.node("n1"):
        half(pod, BRIDGE)
    assert await in_node(lab, "n1", attach) == address
    as_it_should_be(address)


async def test_routes_follow_the_nodes(make_namespace: Callable[[str], str], tmp_path: Path) -> None:
    """A peer that leaves takes its route along; another's route that is not ours stays."""
    lab = Lab(make_namespace, tmp_path)

    async def follow() -> list[set[str]]:
        net = lab.network("n1")
        seen = []
        for nodes in (NODES, {"n1": NODES["n1"]}):
            await net.sync(nodes)
            with Links() as links:
                seen.append({str(r.destination) for r in links.routes() if r.ours})
        net.close()
        return seen

    assert await in_node(lab, "n1", follow) == [{"10.244.1.0/24"}, set()]


async def test_a_flushed_nat_table_is_back_within_a_second(
    make_namespace: Callable[[str], str], tmp_path: Path
) -> None:
    """Whoever removes our NAT rules, by table or by rule set: they are restored, each time."""
    lab = Lab(make_namespace, tmp_path)

    def present() -> bool:
        done = subprocess.run(["nft", "list", "table", "ip", "fairlead-pods"], capture_output=True, check=False)
        return b"masquerade" in done.stdout

    async def damage() -> None:
        net = lab.network("n1")
        await net.sync(NODES)
        for command in ("flush ruleset", "delete table ip fairlead-pods", "flush table ip fairlead-pods"):
            assert present()
            subprocess.run(["nft", *command.split()], check=True)  # noqa: ASYNC221  (milliseconds)
            deadline = asyncio.get_running_loop().time() + 3
            while not present():
                assert asyncio.get_running_loop().time() < deadline, command
                await asyncio.sleep(0.01)
        listing = subprocess.run(["nft", "list", "table", "ip", "fairlead-pods"], capture_output=True, check=True)  # noqa: ASYNC221
        assert b"ip saddr 10.244.0.0/24 ip daddr != 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade" in listing.stdout
        net.close()

    await in_node(lab, "n1", damage)
