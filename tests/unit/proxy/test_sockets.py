"""The accelerated backend around its rules, with a balancer of the test's own; where the pods' control group is."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable
from pathlib import Path

import pytest
from msgspec.structs import replace

from fairlead.linux.nft.memory import MemoryNftables
from fairlead.proxy.nftables.backend import NftablesBackend
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.sockets import trace
from fairlead.proxy.sockets.backend import AcceleratedBackend
from fairlead.proxy.sockets.balancer import Unavailable, pods_group
from fairlead.proxy.sockets.desired import DATAGRAM_ORIGINS, ORIGIN_SLOTS, Step
from fairlead.proxy.table import NodePlace, Pods, ServiceTable
from tests.unit.proxy.flows import HERE, HERE2, OPTIONS, THERE, VIP, service, table

WEB = service(HERE, THERE)


class Maps:
    """A balancer in memory; `refuse` is the error of the next write."""

    def __init__(self) -> None:
        self.maps = trace.empty()
        self.loads = 0
        self.closed = False
        self.refuse = 0

    def load(self, steps: Iterable[Step], size: int) -> None:
        self.loads += 1
        self.maps = trace.empty()
        trace.take(self.maps, steps)

    def write(self, steps: Iterable[Step]) -> None:
        number, self.refuse = self.refuse, 0
        if number:
            raise OSError(number, "refused by the test")
        trace.take(self.maps, steps)

    def close(self) -> None:
        self.closed = True

    def goes(self, protocol: str = "TCP", port: int = 80, to: str = VIP) -> set[str]:
        return {address for address, _ in trace.outcomes(self.maps, protocol, (to, port))}


@pytest.fixture
def maps() -> Maps:
    return Maps()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def backend(maps: Maps, said: list[str]) -> AcceleratedBackend:
    made = AcceleratedBackend(NftablesBackend(OPTIONS, connect=MemoryNftables), OPTIONS, lambda: maps, said.append)
    made.start()
    return made


def apply(backend: AcceleratedBackend, now: ServiceTable) -> None:
    backend.apply(now, frozenset(now.services) or frozenset([WEB.key]))


def test_follows_the_table(backend: AcceleratedBackend, maps: Maps, said: list[str]) -> None:
    """Sockets go where the table says, from the first application on; a deleted Service is the rules' again."""
    apply(backend, table(WEB))
    assert (maps.goes(), maps.goes("UDP", 53), said, backend.state) == (
        {HERE, THERE},
        {HERE, THERE},
        ["socket"],
        "socket",
    )
    apply(backend, table(service(HERE2)))
    assert maps.goes() == {HERE2}
    apply(backend, table())
    assert maps.goes() == {VIP}
    assert maps.maps == trace.empty()


def test_only_what_is_exact() -> None:
    """Affinity, everybody masqueraded, policies that leave nobody: the rules do these."""
    for chosen, options in (
        (replace(WEB, affinity_seconds=60), OPTIONS),
        (WEB, ProxyOptions("n1", masquerade_all=True)),
        (replace(service(THERE), internal_local=True), OPTIONS),
    ):
        maps = Maps()
        made = AcceleratedBackend(NftablesBackend(options, connect=MemoryNftables), options, lambda maps=maps: maps)
        made.start()
        apply(made, table(chosen, options=options))
        assert maps.goes() == {VIP}


def test_the_short_cut_needs_pods_to_be_told(backend: AcceleratedBackend, maps: Maps) -> None:
    """To an external IP under the policy Local pods go everywhere, where the rules can tell that they are pods; when
    they cannot any more, that holds for every Service at once."""
    local = replace(WEB, external_ips=("203.0.113.9",), external_local=True)
    now = table(local)
    apply(backend, now)
    assert maps.goes(to="203.0.113.9") == {HERE, THERE}
    backend.apply(replace(now, node=NodePlace(now.node.addresses, Pods())), frozenset())
    assert maps.goes(to="203.0.113.9") == {HERE}


@pytest.mark.parametrize("number", [errno.E2BIG, errno.ENOENT, errno.EBUSY])
def test_maps_that_refuse_are_made_anew(backend: AcceleratedBackend, maps: Maps, number: int) -> None:
    """What does not fit, or is refused for now, is loaded into new maps, whole."""
    apply(backend, table(WEB))
    maps.refuse = number
    apply(backend, table(service(HERE2)))
    assert (maps.loads, maps.goes(), backend.state) == (2, {HERE2}, "socket")


def test_a_refusal_ends_it(
    backend: AcceleratedBackend, maps: Maps, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Any other error: detached, so that nothing old is promised; said once; the rules follow every change."""
    apply(backend, table(WEB))
    maps.refuse = errno.EPERM
    with caplog.at_level(logging.WARNING, "fairlead.proxy"):
        apply(backend, table(service(HERE2)))
        apply(backend, table(WEB))
    assert maps.closed
    assert said == ["socket", f"off: [Errno {errno.EPERM}] refused by the test"]
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_sockets_follow_also_while_the_rules_are_refused(maps: Maps) -> None:
    """An endpoint that left is not promised, whatever becomes of the rules."""

    class Refusing(NftablesBackend):
        def apply(self, *_: object) -> None:  # type: ignore[override]
            raise OSError(errno.ENOMEM, "no memory")

    made = AcceleratedBackend(Refusing(OPTIONS, connect=MemoryNftables), OPTIONS, lambda: maps)
    made.start()
    for now, goes in ((table(WEB), {HERE, THERE}), (table(service(HERE2)), {HERE2})):
        with pytest.raises(OSError, match="no memory"):
            apply(made, now)
        assert maps.goes() == goes


def test_the_control_group(tmp_path: Path) -> None:
    """The one given; else the kubelet's; else the whole machine's; never a container's own, taken for all."""
    mounts = f"cgroup2 {tmp_path} cgroup2 rw 0 0\n"
    assert pods_group(mounts=mounts) == tmp_path
    (tmp_path / "cgroup.type").touch()
    with pytest.raises(Unavailable, match="mount the host's /sys/fs/cgroup"):
        pods_group(mounts=mounts)
    (tmp_path / "kubepods.slice").mkdir()
    assert pods_group(mounts=mounts) == tmp_path / "kubepods.slice"
    with pytest.raises(Unavailable, match="is no control group of version 2"):
        pods_group(str(tmp_path / "kubepods.slice"))
    with pytest.raises(Unavailable, match="no cgroup2 is mounted"):
        pods_group(mounts="tmpfs /tmp tmpfs rw 0 0\n")


def test_whom_a_socket_is_told(backend: AcceleratedBackend, maps: Maps) -> None:
    """A connected socket is told the virtual IP; not another that has its place in the map by now; nor itself, once it
    is connected to somebody else, or its place was taken."""
    apply(backend, table(service(HERE)))
    held = maps.maps
    assert trace.connect(held, "TCP", (VIP, 80), cookie=7) == (HERE, 8080)
    assert trace.peer(held, "TCP", (HERE, 8080), cookie=7) == (VIP, 80)
    assert trace.peer(held, "TCP", (HERE, 8080), cookie=7 + ORIGIN_SLOTS) == (HERE, 8080)
    assert trace.peer(held, "TCP", (HERE, 8081), cookie=7) == (HERE, 8081)
    assert trace.peer(held, "TCP", (THERE, 8080), cookie=7) == (THERE, 8080)
    trace.connect(held, "TCP", (VIP, 80), cookie=7 + ORIGIN_SLOTS)
    assert trace.peer(held, "TCP", (HERE, 8080), cookie=7) == (HERE, 8080)


def test_a_datagrams_origin_is_written_once(backend: AcceleratedBackend, maps: Maps) -> None:
    """What is known of socket, endpoint and virtual IP is not written again; the virtual IP asked last counts."""
    apply(backend, table(replace(service(HERE), external_ips=("203.0.113.9",), external_local=True)))
    held = maps.maps
    trace.connect(held, "UDP", (VIP, 53), cookie=7)
    (written,) = held[DATAGRAM_ORIGINS].values()
    trace.connect(held, "UDP", (VIP, 53), cookie=7)
    (again,) = held[DATAGRAM_ORIGINS].values()
    assert written is again
    assert trace.peer(held, "UDP", (HERE, 5353), cookie=7) == (VIP, 53)
    trace.connect(held, "UDP", ("203.0.113.9", 53), cookie=7)
    assert trace.peer(held, "UDP", (HERE, 5353), cookie=7) == ("203.0.113.9", 53)
