"""The socket balancer in the kernel: real sockets of real pods, with and beside the rules."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import secrets
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from immutables import Map

from fairlead.discovery.model import Service, ServiceKey
from fairlead.linux import cgroups, namespaces
from fairlead.linux.conntrack import ConntrackSocket
from fairlead.linux.links import Links
from fairlead.proxy import sysctls
from fairlead.proxy.compile import compile_table
from fairlead.proxy.nftables.backend import NftablesBackend
from fairlead.proxy.options import ProxyOptions
from fairlead.proxy.sockets import trace
from fairlead.proxy.sockets.backend import ON, AcceleratedBackend, accelerated
from fairlead.proxy.sockets.balancer import SocketBalancer, pods_group
from fairlead.proxy.sockets.desired import Ledger
from fairlead.proxy.table import Forwarding, ServiceTable, Target
from tests.kernel.proxy_lab import NODE, POD_A, POD_B, Lab, accepted, ask, service, snapshot

pytestmark = pytest.mark.kernel

VIP, VIP6 = "10.96.0.5", "fd00:10:96::5"
OPTIONS = ProxyOptions(NODE)


@pytest.fixture
def lab(make_namespace: Callable[[str], str]) -> Iterator[Lab]:
    made = Lab(make_namespace)
    yield made
    made.close()


@pytest.fixture
def make_group() -> Iterator[Callable[[], Path]]:
    """A function that makes a control group for the pods of a node."""
    top, made = cgroups.root(), []
    assert top is not None, "no cgroup2 is mounted for writing"

    def make() -> Path:
        group = top / f"flt-{secrets.token_hex(4)}"
        group.mkdir()
        made.append(group)
        return group

    yield make
    for group in made:
        group.rmdir()


@contextlib.contextmanager
def inside(group: Path) -> Iterator[None]:
    """This process is in the group: the sockets it makes stay of it."""
    home = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (group.parent / home[3:].lstrip("/") / "cgroup.procs").write_text(str(os.getpid()))


def opened(lab: Lab, group: Path, place: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """A socket of a pod."""
    with inside(group):
        return lab.open(place, kind)


def translated(lab: Lab, protocol: int) -> int:
    """How many flows to the virtual IP the node has seen: those that the rules had to translate."""
    with lab.at("node"), ConntrackSocket() as kernel:
        return len(kernel.flows(socket.AF_INET, protocol, VIP))


class Node:
    """Rules and balancer of one node of the lab."""

    def __init__(self, lab: Lab, group: Path) -> None:
        self.lab = lab
        self.said: list[str] = []
        self.backend: AcceleratedBackend = accelerated(
            NftablesBackend(OPTIONS), OPTIONS, ("IPv4",), lambda: pods_group(str(group)), self.said.append
        )
        self._table = ServiceTable()
        with lab.at("node"):
            assert sysctls.ensure(("IPv4",)) == []
            self.backend.start()

    def apply(self, *services: Service) -> None:
        self._table, changed = compile_table(snapshot(*services), OPTIONS, self._table)
        with self.lab.at("node"):
            self.backend.apply(self._table, changed)


@pytest.fixture
def group(make_group: Callable[[], Path]) -> Path:
    return make_group()


@pytest.fixture
def node(lab: Lab, group: Path) -> Iterator[Node]:
    made = Node(lab, group)
    yield made
    made.backend.stop()


def test_tcp_goes_by_itself(lab: Lab, group: Path, node: Node) -> None:
    """A pod's connections spread over the endpoints with the pod's own address, the rules never see one, and the pod
    still sees the virtual IP as its peer. Those of the node, and of pods of other groups, go by the rules."""
    servers = {pod: lab.listen(pod) for pod in (POD_A, POD_B)}
    node.apply(service("web", VIP, (POD_A, POD_B)))
    assert node.said == [ON]
    reached = set()
    for _ in range(24):
        client = opened(lab, group, POD_A)
        client.connect((VIP, 80))
        name, peer, connection = accepted(servers)
        connection.close()
        reached.add(name)
        assert (peer, client.getpeername()) == (POD_A, (VIP, 80))
    assert reached == {POD_A, POD_B}
    assert translated(lab, socket.IPPROTO_TCP) == 0
    for client in (opened(lab, group, "node"), lab.open(POD_A, socket.SOCK_STREAM)):
        client.connect((VIP, 80))
        accepted(servers)
    assert translated(lab, socket.IPPROTO_TCP) == 2


def test_udp_keeps_its_endpoint_until_that_leaves(lab: Lab, group: Path, node: Node) -> None:
    """Datagrams of a socket that is not connected go to one endpoint, answers come from the virtual IP; when the
    endpoint leaves, the next datagram goes to another. A connected socket is the rules'."""
    servers = {pod: lab.listen(pod, 5353, socket.SOCK_DGRAM) for pod in (POD_A, POD_B)}

    def dns(*endpoints: str) -> Service:
        return service("dns", VIP, endpoints, protocol="UDP", port=53, target=5353)

    node.apply(dns(POD_A, POD_B))
    client = opened(lab, group, POD_A, socket.SOCK_DGRAM)
    first = ask(client, VIP, 53, servers)
    assert {ask(client, VIP, 53, servers) for _ in range(8)} == {first}
    other = POD_B if first == POD_A else POD_A
    node.apply(dns(other))
    assert ask(client, VIP, 53, servers) == other
    node.apply(dns(first, other))
    assert ask(client, VIP, 53, servers) == other
    assert translated(lab, socket.IPPROTO_UDP) == 0
    connected = opened(lab, group, POD_A, socket.SOCK_DGRAM)
    connected.connect((VIP, 53))
    connected.send(b"question")
    assert translated(lab, socket.IPPROTO_UDP) == 1


def test_what_sockets_cannot_do_is_left_to_the_rules(lab: Lab, group: Path, node: Node) -> None:
    """Session affinity and refusals are as without: the rules do them."""
    servers = {pod: lab.listen(pod) for pod in (POD_A, POD_B)}
    node.apply(service("web", VIP, (POD_A, POD_B), affinity_seconds=60), service("none", "10.96.0.6"))
    reached = set()
    for _ in range(8):
        client = opened(lab, group, POD_A)
        client.connect((VIP, 80))
        name, _, _ = accepted(servers)
        reached.add(name)
    assert len(reached) == 1
    with pytest.raises(ConnectionRefusedError):
        opened(lab, group, POD_A).connect(("10.96.0.6", 80))


def test_sockets_of_ipv6_that_speak_ipv4(lab: Lab, group: Path, node: Node) -> None:
    """As Java's and many servers': AF_INET6 with ::ffff:10.96.0.5."""
    servers = {pod: lab.listen(pod) for pod in (POD_A, POD_B)}
    node.apply(service("web", VIP, (POD_A, POD_B)))
    with inside(group), lab.at(POD_A):
        client = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    with client:
        client.settimeout(5)
        client.connect((f"::ffff:{VIP}", 80))
        accepted(servers)
        assert client.getpeername()[:2] == (f"::ffff:{VIP}", 80)
    assert translated(lab, socket.IPPROTO_TCP) == 0


class Place:
    """A pod's namespace in which every address answers: who accepts says where a connection really went."""

    def __init__(self, name: str) -> None:
        self._path = namespaces.path(name)
        with Links(self._path) as links:
            links.set_up(links.index("lo"))
        with namespaces.entered(self._path):
            for family in ("-4 route add local 10.0.0.0/8", "-6 route add local fd00::/8"):
                subprocess.run(["ip", *family.split(), "dev", "lo"], check=True)
            self._servers = [
                socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) for port in (80, 8080)
            ]

    def connects_to(self, group: Path, address: str, port: int) -> tuple[str, int]:
        """Whom a TCP socket of the group is connected to."""
        with inside(group), namespaces.entered(self._path):
            client = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        with client:
            client.settimeout(5)
            client.connect((address, port))
            ready, _, _ = select.select(self._servers, [], [], 5)
            connection, _ = ready[0].accept()
            with connection:
                assert client.getpeername()[:2] == (address, port)
                to = connection.getsockname()
        return str(to[0]).removeprefix("::ffff:"), int(to[1])

    def close(self) -> None:
        """Close the servers."""
        for server in self._servers:
            server.close()


@pytest.fixture
def pod(make_namespace: Callable[[str], str]) -> Iterator[Place]:
    made = Place(make_namespace("pod"))
    yield made
    made.close()


def table_of(*entries: tuple[str, tuple[Target, ...]]) -> ServiceTable:
    """Services at port 80 of these addresses."""
    return ServiceTable(
        Map(
            {
                ServiceKey("shop", f"s{number}"): (
                    Forwarding("IPv6" if ":" in at else "IPv4", at, "TCP", 80, "http", "forward", targets),
                )
                for number, (at, targets) in enumerate(entries)
            }
        )
    )


def loaded(group: Path, table: ServiceTable) -> tuple[SocketBalancer, Ledger]:
    """A balancer with this table on the group."""
    ledger = Ledger(OPTIONS)
    ledger.replace(ServiceTable(), table, table.services)
    balancer = SocketBalancer(group, (4, 6))
    balancer.load(ledger.steps(), ledger.size)
    return balancer, ledger


def test_nodes_on_one_machine_have_each_their_own(pod: Place, make_group: Callable[[], Path]) -> None:
    """Two balancers on two groups: a socket follows its own node's table, and none when that node's is gone."""
    groups = [make_group(), make_group()]
    balancers = [
        loaded(group, table_of((VIP, (Target(f"10.244.{number}.7", 8080),))))[0] for number, group in enumerate(groups)
    ]
    try:
        for number, group in enumerate(groups):
            assert pod.connects_to(group, VIP, 80) == (f"10.244.{number}.7", 8080)
        balancers[0].close()
        assert pod.connects_to(groups[0], VIP, 80) == (VIP, 80)
        assert pod.connects_to(groups[1], VIP, 80) == ("10.244.1.7", 8080)
    finally:
        for balancer in balancers:
            balancer.close()


def test_the_kernel_does_what_the_interpreter_says(pod: Place, group: Path) -> None:
    """Random Services of both families, changed a few times: each socket goes where the programs, run by the
    interpreter over the same maps, may send it; what was not taken over stays as it was."""
    dice, maps = random.Random(7), trace.empty()
    before, places = ServiceTable(), [VIP, "10.96.0.6", "10.96.0.7", VIP6]
    balancer, ledger = loaded(group, before)
    try:
        for _ in range(6):
            after = table_of(*((at, _targets(dice, at)) for at in places if dice.random() < 0.8))
            steps = ledger.replace(before, after, {*before.services, *after.services})
            balancer.write(steps)
            trace.take(maps, steps)
            for at in places:
                possible = trace.outcomes(maps, "TCP", (at, 80))
                assert {pod.connects_to(group, at, 80) for _ in range(4)} <= possible
            before = after
    finally:
        balancer.close()


def _targets(dice: random.Random, at: str) -> tuple[Target, ...]:
    prefix = "fd00:10:244::" if ":" in at else "10.244.1."
    return tuple(Target(f"{prefix}{number}", 8080) for number in dice.sample(range(1, 9), dice.randint(0, 4)))


def test_more_than_fits_is_made_room_for(lab: Lab, group: Path, node: Node) -> None:
    """Thousands of endpoints come at once to a node that had few: maps are made anew, and an open connection lives."""
    servers = {POD_B: lab.listen(POD_B)}
    web = service("web", VIP, (POD_B,))
    node.apply(web)
    client = opened(lab, group, POD_A)
    client.connect((VIP, 80))
    _, _, connection = accepted(servers)
    many = tuple(f"10.244.{number >> 8 & 255}.{number & 255}" for number in range(2000, 7000))
    node.apply(web, service("many", "10.96.0.6", many))
    assert node.said == [ON]
    connection.send(b"still there")
    assert client.recv(100) == b"still there"
    assert client.getpeername() == (VIP, 80)
    again = opened(lab, group, POD_A)
    again.connect((VIP, 80))
    accepted(servers)
    assert translated(lab, socket.IPPROTO_TCP) == 0


def test_where_it_cannot_be_the_rules_serve(lab: Lab, group: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No control group: one line says why, the state says so, and the Service works."""
    servers = {pod: lab.listen(pod) for pod in (POD_A, POD_B)}
    lame = Node(lab, group / "nobody")
    try:
        with caplog.at_level(logging.WARNING, "fairlead.proxy"):
            lame.apply(service("web", VIP, (POD_A, POD_B)))
            lame.apply(service("web", VIP, (POD_B,)))
        assert [f"off: {group}/nobody is no control group of version 2"] == lame.said
        assert len([r for r in caplog.records if "the rules serve them" in r.message]) == 1
        client = opened(lab, group, POD_A)
        client.connect((VIP, 80))
        assert accepted(servers)[0] == POD_B
    finally:
        lame.backend.stop()


def test_without_the_capability_it_is_named(group: Path) -> None:
    """A process that may change rules but not load programs is told which capability it lacks."""
    script = (
        "from pathlib import Path; from fairlead.proxy.sockets.balancer import SocketBalancer\n"
        f"try: SocketBalancer(Path({str(group)!r}), (4,)).load((), 1)\n"
        "except OSError as error: print(error)"
    )
    command = ["setpriv", "--bounding-set", "-bpf,-sys_admin", "--inh-caps", "-all", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "it needs CAP_BPF (or CAP_SYS_ADMIN): run the proxy as root" in done.stdout, done.stderr


def test_nothing_is_left(lab: Lab, group: Path, node: Node) -> None:
    """Stopped, nothing of the process is left in the kernel; the rules are, and serve the same connection attempts."""
    servers = {pod: lab.listen(pod) for pod in (POD_A, POD_B)}
    node.apply(service("web", VIP, (POD_A, POD_B)))
    assert _bpf_descriptors()
    node.backend.stop()
    assert not _bpf_descriptors()
    client = opened(lab, group, POD_A)
    client.connect((VIP, 80))
    accepted(servers)
    assert translated(lab, socket.IPPROTO_TCP) == 1


def _bpf_descriptors() -> list[str]:
    """What this process holds of BPF: maps, programs, and attachments. Nothing is pinned, so there is no more."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(entry.readlink()))
    return [name for name in found if "bpf" in name]
