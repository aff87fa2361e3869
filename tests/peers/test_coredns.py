"""The DNS beside CoreDNS: one Corefile, one API server, the same questions to both.

Every difference must be one that `explained` names, each of which has its line in docs/deviations.md. Both follow the
API for themselves; what changes while they run must become the same again.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import random
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.reversename
import pytest

from fairlead.api.kinds import ENDPOINTSLICES, PODS, SERVICES
from fairlead.registry import DeleteOptions, RequestContext
from tests.conformance.conftest import Cluster
from tests.unit.dns.test_processes import free_ports

DEADLINE = 30.0
SPACES = ["shop", "stock", "bare"]
NAMES = ["web", "api", "db", "a-b", "cache-0", "x1"]
HOSTS = ["", "h-0", "h-1", ""]
COREFILES = {
    "kubeadm": """
        kubernetes cluster.local in-addr.arpa ip6.arpa {
            kubeconfig KUBECONFIG
            pods insecure
            fallthrough in-addr.arpa ip6.arpa
            ttl 30
        }
        forward . 127.0.0.1:UPSTREAM
        cache 30 {
            disable success cluster.local
            disable denial cluster.local
        }
        loadbalance
    """,
    "bare": """
        kubernetes cluster.local in-addr.arpa ip6.arpa {
            kubeconfig KUBECONFIG
        }
    """,
    "verified": """
        kubernetes cluster.local 10.244.0.0/16 {
            kubeconfig KUBECONFIG
            pods verified
            endpoint_pod_names
            namespaces shop bare
            ttl 7
        }
    """,
    "rewritten": """
        rewrite name suffix .prod.example.org .shop.svc.cluster.local answer auto
        rewrite stop name exact first.example.org web.shop.svc.cluster.local
        template IN A ip.example.org {
            match "^a(?P<d>[0-9]+)[.]ip[.]example[.]org[.]$"
            answer "{{ .Name }} 60 IN A 192.0.2.{{ .Group.d }}"
            fallthrough
        }
        hosts {
            192.0.2.1 host.example.org
            2001:db8::1 host.example.org
            fallthrough
        }
        kubernetes cluster.local {
            kubeconfig KUBECONFIG
            noendpoints
        }
        forward . 127.0.0.1:UPSTREAM
    """,
}
OUTSIDE = ["www.example.com", "none.example.com", "host.example.org", "a7.ip.example.org", "b.ip.example.org"]
OUTSIDE += ["web.prod.example.org", "nothing.prod.example.org", "first.example.org"]


class World:
    """Random objects, written to the API."""

    def __init__(self, cluster: Cluster, dice: random.Random) -> None:
        self.cluster, self.dice = cluster, dice
        self.addresses: set[str] = set()

    def write(self, verb: str, *arguments: Any) -> dict[str, Any]:
        """One verb of the registry."""
        return self.cluster.run(getattr(self.cluster.registry, verb)(*arguments, RequestContext()))

    def fill(self) -> None:
        """Namespaces, Services of all sorts, slices, pods."""
        for space in SPACES:
            self.cluster.make_namespace(space)
        for space in SPACES[:2]:
            for name in NAMES:
                self.service(space, name)
            for number in range(3):
                self.pod(space, f"p{number}")

    def service(self, space: str, name: str) -> None:
        """One, with its slices."""
        dice = self.dice
        ports = [
            {"name": port, "protocol": protocol, "port": number}
            for port, protocol, number in (("http", "TCP", 80), ("dns", "UDP", 53), ("dns-tcp", "TCP", 53))
            if dice.random() < 0.6
        ]
        kind = dice.choice(["ip", "ip", "ip", "headless", "headless", "external"])
        spec: dict[str, Any] = {"ports": ports or [{"port": 9}]}
        if kind == "external":
            target = dice.choice(["www.example.com", f"web.{space}.svc.cluster.local", "none.example.com"])
            spec = {"type": "ExternalName", "externalName": target}
        elif kind == "headless":
            spec["clusterIP"] = "None"
            spec["publishNotReadyAddresses"] = dice.random() < 0.2
        metadata = {"name": name, "namespace": space}
        made = self.write(
            "create", SERVICES, space, {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
        )
        self.addresses.update(set(made["spec"].get("clusterIPs") or []) - {"None"})
        if kind != "external":
            for number in range(dice.randrange(3)):
                self.slice(space, name, number, ports)

    def slice(self, space: str, name: str, number: int, ports: list[dict[str, Any]]) -> None:
        """Some endpoints, ready or not, with hostnames or without."""
        dice = self.dice
        endpoints = []
        for host in dice.sample(HOSTS, dice.randrange(len(HOSTS) + 1)):
            address = f"10.244.{dice.randrange(3)}.{dice.randrange(2, 250)}"
            self.addresses.add(address)
            endpoint: dict[str, Any] = {"addresses": [address], "conditions": {"ready": dice.random() < 0.8}}
            if host:
                endpoint["hostname"] = host
            if dice.random() < 0.5:
                endpoint["targetRef"] = {"kind": "Pod", "name": f"pod-{dice.randrange(9)}", "namespace": space}
            endpoints.append(endpoint)
        self.endpoints(space, name, number, [port | {"port": 8000 + port["port"]} for port in ports], endpoints)

    def endpoints(
        self, space: str, name: str, number: int, ports: list[dict[str, Any]], endpoints: list[dict[str, Any]]
    ) -> None:
        """A slice of a Service."""
        labels = {"kubernetes.io/service-name": name}
        self.write(
            "create",
            ENDPOINTSLICES,
            space,
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": f"{name}-{number}", "namespace": space, "labels": labels},
                "addressType": "IPv4",
                "ports": ports,
                "endpoints": endpoints,
            },
        )

    def pod(self, space: str, name: str) -> None:
        """With an address."""
        address = f"10.244.5.{self.dice.randrange(2, 250)}"
        self.addresses.add(address)
        spec = {"containers": [{"name": "c", "image": "i"}]}
        metadata = {"name": name, "namespace": space}
        self.write("create", PODS, space, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        self.cluster.patch_status("pods", space, name, status)

    def questions(self, dice: random.Random, count: int) -> Iterator[tuple[str, str]]:
        """Names that are there, names beside and below them, other types."""
        types = ["A", "A", "A", "AAAA", "SRV", "SRV", "PTR", "TXT", "MX", "CNAME", "NS", "SOA", "HTTPS", "ANY"]
        addresses = sorted(self.addresses)
        fixed = [
            "cluster.local",
            "svc.cluster.local",
            "pod.cluster.local",
            "dns-version.cluster.local",
            "ns.dns.cluster.local",
        ]
        for _ in range(count):
            space, name = dice.choice([*SPACES, "no"]), dice.choice([*NAMES, "no", "kubernetes"])
            owner = f"{name}.{space}.svc.cluster.local"
            address = dice.choice(addresses)
            below = dice.choice(
                [
                    *HOSTS,
                    "h-9",
                    address.replace(".", "-"),
                    "_http._tcp",
                    "_dns._udp",
                    "_dns._tcp",
                    "_tcp",
                    "_x._tcp",
                    "pod-3",
                ]
            )
            drawn = dice.choice(
                [
                    owner, owner, owner,
                    f"{below}.{owner}" if below else owner,
                    f"{below}.{owner}" if below else owner,
                    f"a.b.c.{owner}", f"{space}.svc.cluster.local",
                    f"{address.replace('.', '-')}.{space}.pod.cluster.local",
                    f"{space}.pod.cluster.local", dice.choice(fixed), dice.choice(OUTSIDE), "x." + dice.choice(fixed),
                    "reverse",
                ]
            )  # fmt: skip
            if drawn == "reverse":
                at = dice.choice([address, "10.96.0.1", "10.244.9.9", "192.0.2.9", "2001:db8::1"])
                yield dns.reversename.from_address(at).to_text(), dice.choice(["PTR", "PTR", "A", "SOA"])
                continue
            yield (drawn.upper() if dice.random() < 0.1 else drawn) + ".", dice.choice(types)


class Seen(NamedTuple):
    """What matters of an answer."""

    rcode: str
    flags: str
    answers: frozenset[str]
    authority: frozenset[str]
    additional: frozenset[str]


def _records(section: Any) -> frozenset[str]:
    """Names in lower case, a SOA without its serial."""
    found = set()
    for rrset in section:
        for item in rrset:
            data = item.to_text().split()
            if rrset.rdtype == dns.rdatatype.SOA:
                data[2] = "SERIAL"
            kind = dns.rdatatype.to_text(rrset.rdtype)
            found.add(f"{rrset.name.to_text().lower()} {rrset.ttl} {kind} {' '.join(data).lower()}")
    return frozenset(found)


def _timeless(seen: Seen) -> tuple[frozenset[str], ...]:
    """The records without their TTLs."""
    return tuple(
        frozenset(re.sub(r"^(\S+) \d+ ", r"\1 ", record) for record in section)
        for section in (seen.answers, seen.authority, seen.additional)
    )


async def seen(port: int, name: str, kind: str, timeout: float = DEADLINE) -> Seen:
    """Ask; a truncated answer is asked for over TCP."""
    query = dns.message.make_query(name, kind, use_edns=0, payload=4096)
    query.id = 7
    message, _ = await dns.asyncquery.udp_with_fallback(query, "127.0.0.1", port=port, timeout=timeout)
    flags = " ".join(sorted(set(dns.flags.to_text(message.flags).split()) - {"QR", "RD"}))
    return Seen(
        dns.rcode.to_text(message.rcode()),
        flags,
        _records(message.answer),
        _records(message.authority),
        _records(message.additional),
    )


@contextlib.asynccontextmanager
async def upstream() -> AsyncIterator[int]:
    """Knows www.example.com, and denies the rest with a SOA."""

    class Protocol(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, address: Any) -> None:
            query = dns.message.from_wire(data)
            reply = dns.message.make_response(query, recursion_available=True)
            question = query.question[0]
            if question.name.to_text().lower() == "www.example.com.":
                if question.rdtype == dns.rdatatype.A:
                    reply.answer.append(dns.rrset.from_text(question.name, 99, "IN", "A", "192.0.2.80"))
            else:
                reply.set_rcode(dns.rcode.NXDOMAIN)
            if not reply.answer:
                soa = "ns.example.com. host.example.com. 1 2 3 4 60"
                reply.authority.append(dns.rrset.from_text("com.", 60, "IN", "SOA", soa))
            self.transport.sendto(reply.to_wire(), address)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Protocol, ("127.0.0.1", 0))
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


@contextlib.asynccontextmanager
async def running(command: list[str], port: int, log: Path) -> AsyncIterator[None]:
    """A server, once it knows the cluster."""
    process = await asyncio.create_subprocess_exec(*command, stdout=log.open("wb"), stderr=asyncio.subprocess.STDOUT)
    try:

        async def knows() -> bool:
            assert process.returncode is None, f"the server ended; {log} says why"
            answer = await seen(port, "web.shop.svc.cluster.local.", "TXT", 0.5)
            return answer.rcode in {"NOERROR", "NXDOMAIN"}

        await until(knows, log.read_text)
        yield
    finally:
        process.terminate()
        await process.wait()


async def until(condition: Callable[[], Awaitable[bool]], why: Callable[[], str]) -> None:
    """Wait; a server that does not answer yet is no failure."""
    end = time.monotonic() + DEADLINE
    while True:
        with contextlib.suppress(OSError, dns.exception.Timeout):
            if await condition():
                return
        assert time.monotonic() < end, why()
        await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def both(folder: Path, cluster: Cluster, text: str) -> AsyncIterator[tuple[int, int]]:
    """Ours and CoreDNS with one Corefile but for the port."""
    async with upstream() as asked:
        ports = free_ports(2)
        for number, port in enumerate(ports):
            filled = text.replace("KUBECONFIG", str(cluster.kubeconfig)).replace("UPSTREAM", str(asked))
            (folder / f"Corefile{number}").write_text(f".:{port} {{\n bind 127.0.0.1\n{filled}}}\n")
        fairlead = [sys.executable, "-m", "fairlead", "dns", "--config", str(folder / "Corefile0")]
        coredns = [os.environ["COREDNS"], "-conf", str(folder / "Corefile1")]
        async with (
            running(fairlead, ports[0], folder / "fairlead.log"),
            running(coredns, ports[1], folder / "coredns.log"),
        ):
            yield ports[0], ports[1]


def explained(name: str, kind: str, we: Seen, they: Seen) -> str:
    """The line of docs/deviations.md that a difference is, or nothing."""
    lower = name.lower()
    denied = not we.answers and not they.answers
    if kind == "SOA" and denied and (we.rcode, they.rcode) == ("NXDOMAIN", "NOERROR"):
        return "SOA of a name that does not exist is NXDOMAIN"
    if kind == "SRV" and ".pod." in lower and not we.answers and they.answers:
        return "SRV of a pod's name is NODATA"
    if (lower == "ns.dns.cluster.local." or kind == "NS") and we.answers and not they.answers:
        return "the zone's own server has its addresses wherever it runs"
    if (we.rcode, they.rcode) == ("REFUSED", "SERVFAIL"):
        return "without upstreams the outside is REFUSED"
    fixed = r"(|svc\.|pod\.|[a-z]+\.(svc|pod)\.|ns\.dns\.|dns-version\.)cluster\.local\."
    if denied and (we.rcode, they.rcode) == ("NOERROR", "NXDOMAIN") and re.fullmatch(fixed, lower):
        return "a name that exists has NODATA for every type it lacks"
    if they.flags == we.flags.removesuffix(" RA") and _timeless(we) == _timeless(they):
        return "remembered answers of others have the TTLs of their upstreams, counted one by one"
    if we == they._replace(flags=we.flags) and set(we.flags.split()) - set(they.flags.split()) == {"RA"}:
        return "the RA flag is set when there are upstreams"
    return ""


@pytest.fixture(scope="module")
def world(cluster: Cluster) -> World:
    """One for all Corefiles."""
    made = World(cluster, random.Random(os.environ.get("SEED", "1")))
    made.fill()
    return made


@pytest.mark.parametrize("corefile", sorted(COREFILES))
async def test_the_same_answers(tmp_path: Path, world: World, corefile: str) -> None:
    """Every difference is one that is explained."""
    different: dict[str, list[str]] = collections.defaultdict(list)
    count = int(os.environ.get("QUESTIONS", "1500"))
    async with both(tmp_path, world.cluster, COREFILES[corefile]) as (ours, theirs):
        for name, kind in world.questions(random.Random(corefile + os.environ.get("SEED", "1")), count):
            we, they = await seen(ours, name, kind), await seen(theirs, name, kind)
            if we != they:
                reason = explained(name, kind, we, they)
                different[reason].append(f"{name} {kind}\n   ours {tuple(we)}\n  theirs {tuple(they)}")
    unexplained = different.pop("", [])
    for reason, cases in different.items():
        print(f"{len(cases)} of {count}: {reason}")
    assert not unexplained, f"{len(unexplained)} of {count}\n" + "\n".join(sorted(set(unexplained))[:60])


async def test_the_same_after_a_change(tmp_path: Path, world: World) -> None:
    """A Service comes, gets an endpoint, and goes: both follow."""
    name = "late.bare.svc.cluster.local."
    async with both(tmp_path, world.cluster, COREFILES["bare"]) as ports:

        async def are(rcode: str, *addresses: str) -> None:
            wanted = (rcode, frozenset(f"{name} 5 A {address}" for address in addresses))

            async def both_are() -> bool:
                return all([(await seen(port, name, "A"))[0:3:2] == wanted for port in ports])

            await until(both_are, lambda: f"{name} is not {wanted}")

        await are("NXDOMAIN")
        headless = {"clusterIP": "None", "ports": [{"port": 80}]}
        metadata = {"name": "late", "namespace": "bare"}
        world.write(
            "create", SERVICES, "bare", {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": headless}
        )
        world.endpoints("bare", "late", 0, [{"port": 80}], [{"addresses": ["10.244.7.7"]}])
        await are("NOERROR", "10.244.7.7")
        world.write("delete", ENDPOINTSLICES, "bare", "late-0", DeleteOptions())
        await are("NXDOMAIN")
