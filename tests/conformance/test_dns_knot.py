"""The DNS against Knot DNS: the zone of a random cluster, rendered and loaded there, and the same questions to both.

COREDNS=… is not needed: what CoreDNS does otherwise is listed in docs/deviations.md.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import struct
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest

from fairlead.dns.answer import Style
from fairlead.dns.export import records, reverse_records
from fairlead.dns.names import text_name
from fairlead.dns.presentation import render
from fairlead.dns.records import Delta, Group, ServiceRecords
from fairlead.dns.server import Server
from fairlead.dns.sockets import bind_tcp, bind_udp
from fairlead.dns.zone import Zone
from tests.unit.dns.test_processes import free_ports
from tests.unit.dns.worlds import lines, router_of

DEADLINE = 10.0
NAMES = ["web", "api", "db", "a", "cache-0"]
SPACES = ["shop", "default", "kube-system"]


def world(dice: random.Random) -> Delta:
    """A cluster with one of everything, in random amounts."""
    services = []
    for space in SPACES:
        for name in dice.sample(NAMES, dice.randrange(1, len(NAMES))):
            ports = tuple(
                (port, proto, number)
                for port, proto, number in (("http", "tcp", 80), ("dns", "udp", 53), ("", "tcp", 9))
                if dice.random() < 0.6
            )
            hosts = dice.sample(["", "h-0", "h-1", ""], dice.randrange(4))
            addresses = [(host, struct.pack("!I", 0x0AF40000 + dice.randrange(200))) for host in hosts]
            groups = (Group(ports, tuple(addresses)),) if addresses else ()
            kind = dice.choice(["ip", "ip", "headless", "external"])
            if kind == "external":
                target = dice.choice([f"web.{dice.choice(SPACES)}.svc.cluster.local", "www.example.com"])
                services.append(ServiceRecords(space, name, external_name=target))
            elif kind == "headless":
                services.append(ServiceRecords(space, name, (), ports, True, "", groups))
            else:
                cluster = (struct.pack("!I", 0x0A600000 + dice.randrange(1, 60000)),)
                if dice.random() < 0.3:
                    cluster += (bytes.fromhex("fd000096") + dice.randbytes(12),)
                services.append(ServiceRecords(space, name, cluster, ports, False, "", groups))
    return Delta(tuple(services), (), tuple(SPACES), (), True, 17)


def questions(zone: Zone, dice: random.Random, count: int) -> list[tuple[str, str]]:
    """Names that are there, names beside and below them, and other types."""
    owners = sorted({text_name(record.name) for record in [*records(zone), *reverse_records(zone)]})
    found = []
    for _ in range(count):
        name = dice.choice(owners)
        if name.endswith(".arpa."):  # what is not ours there goes to the upstreams
            found.append((dice.choice([name, name.upper()]), "PTR"))
            continue
        name = dice.choice([name, name, name, name.upper(), f"x.{name}", "x" + name, name.partition(".")[2] or name])
        found.append((name, dice.choice(["A", "A", "AAAA", "SRV", "PTR", "TXT", "MX", "CNAME", "NS", "SOA", "HTTPS"])))
    return found


def knotd() -> str:
    """Where Knot is; empty if it is not."""
    return shutil.which("knotd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:{Path(sys.executable).parent}") or ""


@asynccontextmanager
async def knot(folder: Path, zone: Zone) -> AsyncIterator[int]:
    """Knot with the zone, and the reverse zone of its IPv4 addresses."""
    (port,) = free_ports(1)
    soa = zone.soa()
    forward = [render(record) for record in [soa, *records(zone)]]
    (folder / "cluster").write_text("\n".join(forward) + "\n")
    for arpa in ("in-addr.arpa.", "ip6.arpa."):
        reverse = [f"{arpa} 5 IN SOA {render(soa).split(' SOA ')[1]}"]
        reverse += [text for text in map(render, reverse_records(zone)) if arpa in text]
        (folder / arpa).write_text("\n".join(reverse) + "\n")
    (folder / "knot.conf").write_text(
        f"""
server:
    rundir: {folder}
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: error
database:
    storage: {folder}
template:
  - id: default
    storage: {folder}
    semantic-checks: false
zone:
  - domain: cluster.local
    file: cluster
  - domain: in-addr.arpa
    file: in-addr.arpa.
  - domain: ip6.arpa
    file: ip6.arpa.
"""
    )
    process = await asyncio.create_subprocess_exec(knotd(), "-c", str(folder / "knot.conf"))
    try:
        end = time.monotonic() + DEADLINE
        while True:
            try:
                query = dns.message.make_query("in-addr.arpa.", "SOA")
                answer = await dns.asyncquery.udp(query, "127.0.0.1", port=port, timeout=0.2)
                if answer.answer:
                    break
            except (OSError, dns.exception.Timeout):
                pass
            assert time.monotonic() < end, "knot does not answer"
            await asyncio.sleep(0.02)
        yield port
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def ours(zone: Zone) -> AsyncIterator[int]:
    server = Server(router_of(zone, style=Style(recursion=False)), book=zone.book)
    tcp = bind_tcp("127.0.0.1", 0)
    port: int = tcp.getsockname()[1]
    await server.start(bind_udp("127.0.0.1", port), tcp)
    try:
        yield port
    finally:
        await server.stop()


Seen = tuple[str, frozenset[str], bool]


async def seen(port: int, name: str, kind: str) -> Seen:
    """rcode, answers, whether the SOA of the denial is there."""
    query = dns.message.make_query(name, kind, use_edns=0, payload=4096)
    message, _ = await dns.asyncquery.udp_with_fallback(query, "127.0.0.1", port=port, timeout=DEADLINE)
    rcode = dns.rcode.to_text(message.rcode())
    return rcode, frozenset(lines(message.answer)), any(" SOA " in line for line in lines(message.authority))


def explained(zone: Zone, name: str, kind: str, we: Seen, they: Seen) -> bool:
    """Differences that are meant.

    - SRV of an ExternalName, and types that its CNAME would lead to, are not chased: CoreDNS says NODATA there.
    - A CNAME within the zone to what does not exist is NODATA, as CoreDNS has it; RFC 2308 has NXDOMAIN.
    - `_tcp.web…` does not exist, though `_http._tcp.web…` does (RFC 8020 has it exist), and so do empty namespaces.
    """
    lower = name.lower()
    if any(" CNAME " in line for line in they[1]) and kind != "CNAME":
        return True
    if lower.startswith("_") and lower.count(".") == 6:
        return we[0] == "NXDOMAIN" and they[0] == "NOERROR" and not they[1]
    return not we[1] and not they[1] and {we[0], they[0]} == {"NOERROR", "NXDOMAIN"} and lower.count(".") <= 4


@pytest.mark.parametrize("seed", range(3))
async def test_the_same_answers_as_knot(tmp_path: Path, seed: int) -> None:
    """Every difference is one that is explained, and few are."""
    if not knotd():
        pytest.skip("needs knotd (Debian package knot)")
    dice = random.Random(seed)
    zone = Zone(own=(bytes((10, 244, 0, 2)),))
    zone.apply(world(dice))
    same = meant = 0
    async with knot(tmp_path, zone) as theirs, ours(zone) as port:
        for name, kind in questions(zone, dice, 700):
            we, they = await seen(port, name, kind), await seen(theirs, name, kind)
            if we == they:
                same += 1
                continue
            assert explained(zone, name, kind, we, they), (name, kind, we, they)
            meant += 1
    assert same > 3 * meant
