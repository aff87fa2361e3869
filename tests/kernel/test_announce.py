"""Announcing with real packets: nodes and a client on a LAN, who answers, and what the client's cache says after."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.announce.announcer import INTERVAL, Announcer
from fairlead.announce.election import Address
from fairlead.linux import namespaces
from fairlead.linux.links import Links
from fairlead.linux.packets import PacketSocket

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("announce")]

DEADLINE = 30.0
KEY = b"k" * 32
VIP, VIP6 = ipaddress.ip_address("192.0.2.200"), ipaddress.ip_address("2001:db8::c8")
AFAR = ipaddress.ip_address("198.51.100.7")
RANKING = ("n1", "n2", "n3")
ALL: dict[Address, tuple[str, ...]] = {VIP: RANKING, VIP6: RANKING}


class Lab:
    """A LAN with a client and nodes, each in a namespace of its own; nodes announce."""

    def __init__(self, make: Callable[[str], str]) -> None:
        self.spaces = {name: make(name) for name in ("lan", "client", *RANKING)}
        self.macs: dict[str, str] = {}
        self.announcers: dict[str, Announcer] = {}
        self.told: dict[str, set[Address]] = {name: set() for name in RANKING}
        with Links(namespaces.path(self.spaces["lan"])) as lan:
            bridge = lan.ensure_bridge("lan0")
            for number, name in enumerate(("client", *RANKING), start=10):
                target = namespaces.path(self.spaces[name])
                fd = os.open(target, os.O_RDONLY)
                lan.create_veth(name, "eth0", peer_namespace=fd, master=bridge.index)
                os.close(fd)
                with Links(target) as node:
                    node.set_up(node.index("lo"))
                    index = node.index("eth0")
                    node.set_up(index)
                    node.ensure_address(index, ipaddress.ip_interface(f"192.0.2.{number}/24"))
                    node.ensure_address(index, ipaddress.ip_interface(f"2001:db8::{number}/64"))
                    # What the nodes' rules do in a cluster: whoever gets a packet for the address takes it.
                    for address in (VIP, VIP6, AFAR):
                        if name != "client":
                            node.ensure_address(node.index("lo"), ipaddress.ip_interface(address))
                    link = node.get("eth0")
                    assert link is not None
                    self.macs[link.mac] = name
                if name != "client":
                    with self.inside(name):  # the kernel itself must not answer for what is on lo
                        Path("/proc/sys/net/ipv4/conf/all/arp_ignore").write_text("1")

    @contextlib.contextmanager
    def inside(self, name: str) -> Iterator[None]:
        with namespaces.entered(namespaces.path(self.spaces[name])):
            yield

    def start(self, name: str, rankings: dict[Address, tuple[str, ...]] | None = None, **more: Any) -> Announcer:
        """Announce on a node."""

        def told(gained: frozenset[Address], lost: frozenset[Address]) -> None:
            self.told[name] = (self.told[name] | gained) - lost

        with self.inside(name):
            made = Announcer(name, more.pop("key", KEY), told=told, **more)
            made.start()
        made.want(ALL if rankings is None else rankings)
        self.announcers[name] = made
        return made

    def link(self, name: str, state: str) -> None:
        """Cut a node from the LAN, or connect it again: at the switch."""
        subprocess.run(["ip", "-n", self.spaces["lan"], "link", "set", name, state], check=True)

    def owner(self, address: Address = VIP) -> str:
        """The node whose MAC the client's cache has for the address; empty if none."""
        out = self.run("client", "ip", "neigh", "show", str(address)).split()
        return self.macs.get(out[out.index("lladdr") + 1], "?") if "lladdr" in out else ""

    def reached(self, address: Address = VIP) -> bool:
        """The client reaches the address, where nothing listens: it is refused. It asks who has the address if its
        cache does not know."""
        with self.inside("client"):
            one = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6)
        with one:
            one.settimeout(1)
            try:
                one.connect((str(address), 9))
            except ConnectionRefusedError:
                return True
            except OSError:
                return False
        raise AssertionError("something listens")

    def run(self, name: str, *command: str) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", self.spaces[name], *command], capture_output=True, text=True, check=True
        )
        return done.stdout

    def stop(self) -> None:
        for announcer in self.announcers.values():
            announcer.stop()


@pytest.fixture
def lab(make_namespace: Callable[[str], str]) -> Iterator[Lab]:
    made = Lab(make_namespace)
    try:
        yield made
    finally:
        made.stop()


def eventually(condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {DEADLINE} s"
        time.sleep(0.02)


@pytest.mark.parametrize("address", [VIP, VIP6], ids=["ARP", "NDP"])
def test_the_first_answers(lab: Lab, address: Address) -> None:
    """Of three that announce, one answers, and packets go to it."""
    for name in RANKING:
        lab.start(name)
    eventually(lambda: lab.told["n1"] == {VIP, VIP6} and not lab.told["n2"] | lab.told["n3"], "n1 alone has them")
    assert not lab.owner(address)
    eventually(lambda: lab.reached(address), "and is reached")
    assert lab.owner(address) == "n1"


@pytest.mark.parametrize("address", [VIP, VIP6], ids=["ARP", "NDP"])
def test_another_takes_over_and_the_cache_follows(lab: Lab, address: Address, caplog: Any) -> None:
    """A node that is cut off loses the address to the next; the client's cache has the new MAC without asking. When it
    is back, it has the address again, and the cache follows again."""
    for name in RANKING:
        lab.start(name)
    eventually(lambda: lab.reached(address) and lab.owner(address) == "n1", "n1 answers")
    lab.link("n1", "down")
    eventually(lambda: lab.owner(address) == "n2", "n2 takes over")
    assert lab.reached(address)
    assert lab.owner(address) == "n2"
    lab.link("n1", "up")
    eventually(lambda: lab.owner(address) == "n1" and not lab.told["n2"], "n1 has it again, n2 no more")
    eventually(lambda: lab.reached(address), "and it is reached")
    assert lab.owner(address) == "n1"
    assert "is used by" not in caplog.text


def test_who_stops_hands_over(lab: Lab) -> None:
    """A node that ends says so: the next one answers."""
    first = lab.start("n1")
    lab.start("n2")
    eventually(lambda: lab.reached() and lab.owner() == "n1", "n1 answers")
    del lab.announcers["n1"]
    first.stop()
    eventually(lambda: lab.owner() == "n2", "n2 has it")
    assert lab.reached()


def test_two_nodes_gone_at_once(lab: Lab) -> None:
    """The third gives each its time, and has the address then."""
    for name in RANKING:
        lab.start(name)
    eventually(lambda: lab.reached() and lab.owner() == "n1", "n1 answers")
    lab.link("n1", "down")
    lab.link("n2", "down")
    eventually(lambda: lab.owner() == "n3", "n3 has it")


def test_an_address_that_is_no_more_is_not_answered_for(lab: Lab) -> None:
    """Withdrawn, nobody answers; wanted again, it is answered for again."""
    one = lab.start("n1")
    eventually(lab.reached, "n1 answers")
    one.want({VIP6: RANKING})
    eventually(lambda: lab.told["n1"] == {VIP6}, "withdrawn")
    lab.run("client", "ip", "neigh", "flush", "all")
    assert not lab.reached()
    one.want(ALL)
    eventually(lab.reached, "n1 answers again")


def test_who_may_not_does_not(lab: Lab) -> None:
    """A node that is not in the ranking stays quiet, even if nobody else answers."""
    lab.start("n1", {VIP: ("n2",), VIP6: ()})
    lab.start("n3", {VIP: ("n2", "n3")})
    eventually(lambda: lab.told["n3"] == {VIP}, "n3 has it, after n2 that is not there")
    assert not lab.told["n1"]


def test_another_clusters_beats_are_not_heeded(lab: Lab) -> None:
    """Two clusters on one LAN have other keys: the beats of one say nothing to the other."""
    lab.start("n1", {VIP6: RANKING}, key=b"x" * 32)
    lab.start("n2", {VIP6: RANKING})
    eventually(lambda: lab.told == {"n1": {VIP6}, "n2": {VIP6}, "n3": set()}, "each takes the other for gone")


def test_a_claim_of_somebody_else_is_contradicted(lab: Lab, caplog: Any) -> None:
    """When another machine says that it has the address, the owner tells everybody again, and the cache is right; if it
    insists, the log names it."""
    lab.start("n1", {VIP: ("n1",)})
    eventually(lambda: lab.reached() and lab.owner() == "n1", "n1 answers")
    mac = next(mac for mac, name in lab.macs.items() if name == "n3")
    raw = bytes.fromhex(mac.replace(":", ""))
    arp = bytes.fromhex("0001080006040001") + raw + VIP.packed + bytes(6) + VIP.packed
    with lab.inside("n3"):
        stranger = PacketSocket("eth0", 0x0806)

    def warned() -> bool:
        stranger.send(b"\xff" * 6 + raw + bytes.fromhex("0806") + arp)
        return f"{VIP} is used by {mac}, too" in caplog.text

    warned()
    eventually(lambda: lab.owner() == "n1", "the cache says n1 again")
    eventually(warned, "the log names who else has it")
    stranger.close()
    eventually(lambda: lab.owner() == "n1", "the cache says n1 again")


@pytest.mark.parametrize("address", [VIP, VIP6], ids=["ARP", "NDP"])
def test_the_owner_has_the_last_word(lab: Lab, address: Address) -> None:
    """A node that claims the address again right after it was contradicted, and lets go of it, does not leave its MAC
    in the cache: so it is when a node comes back whose address another has taken over."""
    lab.start("n1", {address: ("n1",)})
    eventually(lambda: lab.reached(address) and lab.owner(address) == "n1", "n1 answers")
    other = lab.start("n3", {address: ("n3",)})
    eventually(lambda: lab.told["n3"], "n3 takes it, too")
    time.sleep(1.2 * INTERVAL)  # it claims a second time: sooner than it is contradicted a second time
    other.want({})
    eventually(lambda: not lab.told["n3"], "n3 lets go")
    eventually(lambda: lab.owner(address) == "n1", "the cache says n1 again")


def test_an_address_of_no_network(lab: Lab) -> None:
    """One that is on no LAN is answered for where the node's own address is, for those who have a route to it."""
    lab.run("client", "ip", "route", "add", str(AFAR), "dev", "eth0")
    lab.start("n1", {})
    lab.announcers["n1"].want({AFAR: ("n1",)}, [ipaddress.ip_address("192.0.2.11")])
    eventually(lambda: lab.reached(AFAR) and lab.owner(AFAR) == "n1", "n1 answers")


def test_only_the_named_links(lab: Lab) -> None:
    """With --interface, at other links nothing is answered; the next node has the address."""
    lab.start("n1", interfaces=("eth1",))
    lab.start("n2", interfaces=("eth0",))
    eventually(lambda: lab.reached() and lab.owner() == "n2", "n2 answers")
    assert not lab.told["n1"]


def test_only_who_has_an_address_beats(lab: Lab) -> None:
    """The others listen: a LAN is as quiet as it can be."""
    lab.start("n1")
    eventually(lambda: lab.told["n1"], "n1 has them")
    lab.start("n2")
    with lab.inside("client"):
        ear = PacketSocket("eth0", 0x88B5)
    heard: list[bytes] = []
    eventually(lambda: heard.extend(ear.receive()) or len(heard) >= 8, "n1 beats")
    ear.close()
    assert {lab.macs[frame[6:12].hex(":")] for frame in heard} == {"n1"}
