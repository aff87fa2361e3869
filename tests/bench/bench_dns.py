"""How many queries a second one answering loop takes, and what its parts cost.

Run by hand: `python tests/bench/bench_dns.py [seconds] [services]`. The server is a process of its own on loopback; the
load comes from this one, 64 packets a system call, a fixed number under way. The mix is what the search path makes of
cluster names: about half of the questions do not exist.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import socket
import struct
import sys
import time
from pathlib import Path

from fairlead.dns.answer import PLAIN, finish, read
from fairlead.dns.hot import accelerated
from fairlead.dns.metrics import Metrics
from fairlead.dns.names import wire_name
from fairlead.dns.plugins.base import Site, end_of_chain
from fairlead.dns.plugins.kubernetes import ClusterNames
from fairlead.dns.records import Delta, Group, ServiceRecords
from fairlead.dns.reply import Reply, Request
from fairlead.dns.router import Router, plain_router
from fairlead.dns.server import Server
from fairlead.dns.sockets import SLOT_SIZE, SLOTS, Batch, bind_tcp, bind_udp
from fairlead.dns.table import Table
from fairlead.dns.zone import Zone
from fairlead.dns.zones import Zones

WINDOW = 4 * SLOTS


def world(count: int) -> Delta:
    """`count` Services in a hundredth as many namespaces; every tenth headless with five endpoints."""
    services = []
    for i in range(count):
        namespace, name, ports = f"ns{i // 100}", f"service-{i}", (("http", "tcp", 80),)
        if i % 10:
            services.append(ServiceRecords(namespace, name, (struct.pack("!I", 0x0A600000 + i),), ports))
        else:
            endpoints = tuple(("", struct.pack("!I", 0x0AF40000 + 5 * i + k)) for k in range(5))
            services.append(ServiceRecords(namespace, name, (), ports, True, "", (Group(ports, endpoints),)))
    return Delta(tuple(services), (), tuple(f"ns{i}" for i in range(count // 100 + 1)), (), True, 1)


def questions(count: int, dice: random.Random) -> list[bytes]:
    """Packets without their ids: a pod asks for `service.namespace`, A and AAAA, along its search path."""
    found = []
    for _ in range(5000):
        i = dice.randrange(count)
        name, namespace = f"service-{i}.ns{i // 100}", f"ns{dice.randrange(count // 100)}"
        for suffix in (f"{namespace}.svc.cluster.local", "svc.cluster.local"):
            for kind in (1, 28):
                question = wire_name(f"{name}.{suffix}") + struct.pack("!HH", kind, 1)
                found.append(struct.pack("!HHHHH", 0x0100, 1, 0, 0, 0) + question)
    return found


def router_of(zone: Zone) -> Router:
    """The zone as the server without a Corefile has it."""
    reverse = Zones.of(["in-addr.arpa", "ip6.arpa"])
    site = Site(zone.book, (), Metrics())
    return plain_router(ClusterNames((zone,), reverse, reverse, end_of_chain, site).handle)


def serve(count: int, port: socket.socket) -> None:
    """The server process: says its port, then answers until it is ended."""

    async def run() -> None:
        zone = Zone()
        server = Server(router_of(zone), Table(100_000), zone.book)
        zone.apply(world(count))
        tcp = bind_tcp("127.0.0.1", 0)
        number = tcp.getsockname()[1]
        await server.start(bind_udp("127.0.0.1", number), tcp)
        port.send(struct.pack("!H", number))
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        loop.add_signal_handler(signal.SIGTERM, ended.set_result, None)
        await ended
        usage = resource.getrusage(resource.RUSAGE_SELF)
        port.send(struct.pack("!dI", usage.ru_utime + usage.ru_stime, usage.ru_maxrss))

    asyncio.run(run())


def load(port: int, packets: list[bytes], seconds: float) -> tuple[int, int]:
    """Ask for that long; returns questions and answers."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.connect(("127.0.0.1", port))
    batch = Batch(sock)
    for slot in range(SLOTS):
        batch._out_headers[slot].hdr.name = None
        batch._out_headers[slot].hdr.namelen = 0
    asked = answered = lost = at = 0
    quiet = time.perf_counter()
    end = quiet + seconds
    while (now := time.perf_counter()) < end:
        if now - quiet > 0.05:  # what is lost is lost
            lost, quiet = asked - answered, now
        if asked - answered - lost < WINDOW:
            for slot in range(SLOTS):
                batch.put(slot, packets[at])
                at = (at + 1) % len(packets)
            batch.send(0, SLOTS)
            asked += SLOTS
        while count := batch.receive():
            answered += count
            quiet = time.perf_counter()
    return asked, answered


def cpu_of(pid: int) -> float:
    """Seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def slow_path(count: int) -> None:
    """The cost of an answer that is not remembered, and of a change."""
    zone = Zone()
    step = world(count)
    start = time.perf_counter()
    zone.apply(step)
    print(f"zone of {count} services built in {(time.perf_counter() - start) * 1e3:.0f} ms")
    packets = [b"\0\0" + packet for packet in questions(count, random.Random(1))]
    start = time.perf_counter()
    chain = router_of(zone).route(())
    assert chain is not None
    for packet in packets:
        query = read(packet)
        assert query is not None and not isinstance(query, bytes)
        reply = chain.handler(Request(query, b"\x7f\0\0\1", 4000, "udp", packet))
        assert isinstance(reply, Reply)
        finish(query, reply, PLAIN, tcp=False)
    print(f"answer from the zone: {(time.perf_counter() - start) / len(packets) * 1e6:.1f} µs")
    server = Server(router_of(zone), Table(), zone.book)
    changed = [Delta(changed=(service,)) for service in step.changed[:2000]]
    start = time.perf_counter()
    for change in changed:
        server.forget(zone.apply(change))
    print(f"change of one service: {(time.perf_counter() - start) / len(changed) * 1e6:.1f} µs")


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    assert SLOT_SIZE >= 512
    slow_path(count)
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        serve(count, theirs)
        os._exit(0)
    (port,) = struct.unpack("!H", ours.recv(2))
    packets = questions(count, random.Random(2))
    load(port, packets, 1.0)
    before = cpu_of(child)
    asked, answered = load(port, packets, seconds)
    used = cpu_of(child) - before
    os.kill(child, signal.SIGTERM)
    _, memory = struct.unpack("!dI", ours.recv(64))
    os.waitpid(child, 0)
    rate = f"{answered / seconds:,.0f} answers/s of {asked / seconds:,.0f} asked"
    loop = "in C" if accelerated else "in Python"
    print(f"{rate}; inner loop {loop}: {used / answered * 1e9:,.0f} ns CPU an answer, {memory >> 10} MB")


if __name__ == "__main__":
    main()
