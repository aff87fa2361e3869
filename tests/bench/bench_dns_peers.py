"""The DNS against CoreDNS, Knot and unbound, with dnsperf: the same questions, turn by turn, a core each.

Run by hand: `python -m tests.bench.bench_dns_peers [SECONDS] [SERVICES] [ROUNDS]`. Needs dnsperf; COREDNS,
KNOTD, UNBOUND or the PATH name the peers. Everything happens in a network namespace of its own, so that
nobody's connection tracking is paid for; servers have one core and dnsperf the other. Ours and CoreDNS follow
the same API server with the same Corefile; Knot and unbound have the zone as a file, and no changes. The CPU
time of a query is the kernel's account of the answering process.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from fairlead.dns.export import records
from fairlead.dns.names import text_name
from fairlead.dns.presentation import render, type_name
from fairlead.dns.zone import Zone
from tests.bench.bench_dns import questions, world
from tests.ports import free_port

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:{Path(sys.executable).parent}"
_TICK = os.sysconf("SC_CLK_TCK")
PACED = 5000  # queries a second when latency is measured
OUTSIDE = 500  # names
WRITES = 200
PATIENCE = 40.0  # s for all writes of one server
COREFILE = """.:{port} {{
    bind 127.0.0.1
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }}
    forward . 127.0.0.1:{upstream}
    cache 30
    loadbalance
}}
"""


class Bench(NamedTuple):
    """Where everything is."""

    folder: Path
    upstream: int
    seconds: float


class Row(NamedTuple):
    """What dnsperf said of one server, and what its process used."""

    rate: float
    cpu: float


def program(name: str) -> str:
    """A peer's program: by its variable, or on the PATH; empty: there is none."""
    return os.environ.get(name.upper(), "") or shutil.which(name, path=_PATH) or ""


def cpu(pid: int) -> float:
    """Seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def start(command: list[str], log: Path, **environment: str) -> subprocess.Popen[bytes]:
    """A server on the servers' core."""
    with log.open("wb") as file:
        return subprocess.Popen(
            ["taskset", "-c", _server_core(), *command],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def _server_core() -> str:
    return str(_cores()[-1])


def corefile(bench: Bench, port: int) -> str:
    """The one that ours and CoreDNS read."""
    path = bench.folder / f"Corefile-{port}"
    kubeconfig = bench.folder / "api" / "kubeconfig"
    path.write_text(COREFILE.format(port=port, kubeconfig=kubeconfig, upstream=bench.upstream))
    return str(path)


def in_c(bench: Bench, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "fairlead", "dns", "--config", corefile(bench, port)]
    return start(command, bench.folder / f"{port}.log")


def in_python(bench: Bench, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "fairlead", "dns", "--config", corefile(bench, port)]
    return start(command, bench.folder / f"{port}.log", FAIRLEAD_DNS_ACCELERATED="0")


def coredns(bench: Bench, port: int) -> subprocess.Popen[bytes]:
    command = [program("coredns"), "-conf", corefile(bench, port)]
    return start(command, bench.folder / f"{port}.log", GOMAXPROCS="1")


def knot(bench: Bench, port: int) -> subprocess.Popen[bytes]:
    home = bench.folder / f"knot-{port}"
    home.mkdir()
    (home / "knot.conf").write_text(
        f"server:\n    rundir: {home}\n    listen: 127.0.0.1@{port}\n    udp-workers: 1\n    tcp-workers: 1\n"
        f"    background-workers: 1\ndatabase:\n    storage: {home}\n"
        f"template:\n  - id: default\n    storage: {bench.folder}\n    semantic-checks: false\n"
        "zone:\n  - domain: cluster.local\n    file: cluster\n  - domain: example.com\n    file: outside\n"
    )
    return start([program("knotd"), "-c", str(home / "knot.conf")], bench.folder / f"{port}.log")


def unbound(bench: Bench, port: int) -> subprocess.Popen[bytes]:
    home = bench.folder / f"unbound-{port}"
    home.mkdir()
    data = "".join(f"  local-data: '{line}'\n" for line in (bench.folder / "cluster").read_text().splitlines())
    (home / "unbound.conf").write_text(
        f"server:\n  interface: 127.0.0.1\n  port: {port}\n  num-threads: 1\n  do-daemonize: no\n  use-syslog: no\n"
        f'  username: ""\n  chroot: ""\n  directory: {home}\n  pidfile: ""\n  do-not-query-localhost: no\n'
        f"  module-config: iterator\n  local-zone: cluster.local. static\n{data}"
        f"forward-zone:\n  name: .\n  forward-addr: 127.0.0.1@{bench.upstream}\n"
    )
    return start([program("unbound"), "-c", str(home / "unbound.conf")], bench.folder / f"{port}.log")


SERVERS: dict[str, tuple[str, Callable[[Bench, int], subprocess.Popen[bytes]]]] = {
    "fairlead, loop in C": ("", in_c),
    "fairlead, loop in Python": ("", in_python),
    "CoreDNS": ("coredns", coredns),
    "Knot": ("knotd", knot),
    "unbound": ("unbound", unbound),
}
FOLLOWING = ("fairlead, loop in C", "fairlead, loop in Python", "CoreDNS")


def ask(port: int, name: str, kind: int = 1) -> bytes:
    """The answer to one question, without its id; empty: none came in time."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    packet = struct.pack("!HHHHHH", 1, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.2)
        sock.connect(("127.0.0.1", port))
        with contextlib.suppress(OSError):
            sock.send(packet)
            return sock.recv(4096)[2:]
    return b""


def wait(port: int, name: str) -> None:
    """Until the name has addresses there."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        answer = ask(port, name)
        if len(answer) > 8 and answer[4:6] != b"\0\0":
            return
        time.sleep(0.05)
    raise SystemExit(f"{name} is not answered on port {port}")


def dnsperf(port: int, data: Path, seconds: float, *more: str) -> str:
    """What it printed."""
    cores = [str(core) for core in _cores()[:-1]] or [_server_core()]
    command = ["taskset", "-c", ",".join(cores), "dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", str(data)]
    command += ["-l", str(seconds), *more]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def throughput(port: int, pid: int, data: Path, seconds: float) -> Row:
    """As fast as it goes."""
    before = cpu(pid)
    output = dnsperf(port, data, seconds, "-c", "8", "-q", "200")
    rate, done = (re.search(f"Queries {word}:\\s+([\\d.]+)", output) for word in ("per second", "completed"))
    assert rate is not None
    assert done is not None
    return Row(float(rate[1]), (cpu(pid) - before) / float(done[1]) * 1e6)


def latency(port: int, data: Path, seconds: float) -> tuple[float, float]:
    """p50 and p99 in µs at a pace that is far below the most."""
    output = dnsperf(port, data, seconds, "-Q", str(PACED), "-c", "8", "-v")
    found = sorted(float(line.rsplit(maxsplit=1)[1]) for line in output.splitlines() if line.startswith("> "))
    return found[len(found) // 2] * 1e6, found[len(found) * 99 // 100] * 1e6


def memory(pid: int) -> int:
    """MB resident, with its children."""
    total, pending = 0, [pid]
    while pending:
        one = pending.pop()
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{one}/status").read_text())
        total += int(found[1]) if found else 0
        pending += [int(child) for child in Path(f"/proc/{one}/task/{one}/children").read_text().split()]
    return total >> 10


def until_changed(port: int, address: str) -> float:
    """When the new answer is there."""
    packed = socket.inet_aton(address)
    end = time.monotonic() + 60
    while packed not in ask(port, "db.probe.svc.cluster.local"):
        assert time.monotonic() < end, f"{address} never came"
    return time.time()


@contextlib.contextmanager
def api(folder: Path, count: int) -> Iterator[Callable[[str], str]]:
    """The API server; say it what to do."""
    (folder / "api").mkdir()
    command = ["taskset", "-c", str(_cores()[0]), sys.executable, "-m", "tests.bench.dns_world", str(folder / "api")]
    process = subprocess.Popen([*command, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None

    def say(words: str) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(words + "\n")
        process.stdin.flush()
        return process.stdout.readline()

    try:
        assert process.stdout.readline() == "ready\n"
        yield say
    finally:
        process.terminate()
        process.wait()


def files(folder: Path, count: int) -> None:
    """The zones of the servers that follow nothing, and the questions."""
    zone = Zone()
    zone.apply(world(count))
    (folder / "cluster").write_text("\n".join(render(r) for r in [zone.soa(), *records(zone)]) + "\n")
    soa = "example.com. 300 IN SOA ns.example.com. host.example.com. 1 7200 1800 86400 300"
    names = [f"www{number}.example.com. 300 IN A 192.0.2.{number % 250 + 1}" for number in range(OUTSIDE)]
    (folder / "outside").write_text("\n".join([soa, *names]) + "\n")
    lines = [
        f"{text_name(packet[10:-4])} {type_name(int.from_bytes(packet[-4:-2], 'big'))}"
        for packet in questions(count, random.Random(2))
    ]
    (folder / "questions").write_text("\n".join(lines) + "\n")
    outside = [f"www{number}.example.com {kind}" for number in range(OUTSIDE) for kind in ("A", "AAAA")]
    (folder / "questions-outside").write_text("\n".join(outside) + "\n")


def report(title: str, rows: dict[str, str]) -> None:
    """One table."""
    print(f"\n### {title}\n", flush=True)
    for name, row in rows.items():
        print(f"{name:26} {row}", flush=True)


def measure(bench: Bench, running: dict[str, tuple[int, int]], rounds: int, data: str) -> dict[str, str]:
    """Every server, turn by turn; the first round is for warming up."""
    found: dict[str, list[Row]] = {name: [] for name in running}
    for _ in range(rounds + 1):
        for name, (pid, port) in running.items():
            found[name].append(throughput(port, pid, bench.folder / data, bench.seconds))
    paced = {name: latency(port, bench.folder / data, bench.seconds) for name, (_, port) in running.items()}
    rates = {name: statistics.median(row.rate for row in rows[1:]) for name, rows in found.items()}
    base = rates.get("Knot") or max(rates.values())
    lines = {}
    for name, rows in found.items():
        cost = statistics.median(row.cpu for row in rows[1:])
        p50, p99 = paced[name]
        lines[name] = (
            f"{rates[name]:9,.0f} qps  {rates[name] / base:5.2f} of Knot  {cost:6.2f} µs CPU a query"
            f"  p50 {p50:5.0f} p99 {p99:6.0f} µs  {memory(running[name][0]):4} MB"
        )
    return lines


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    if shutil.which("dnsperf") is None:
        print("left out: needs dnsperf (Debian package dnsperf)")
        return
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files(folder, count)
        say = stack.enter_context(api(folder, count))
        bench = Bench(folder, free_port(), seconds)
        running: dict[str, tuple[int, int]] = {}

        def begin(start: Callable[[Bench, int], subprocess.Popen[bytes]], port: int, name: str) -> int:
            process = start(bench, port)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            wait(port, name)
            return process.pid

        if not program("knotd"):
            raise SystemExit("needs knotd (Debian package knot), which is the upstream too")
        begin(knot, bench.upstream, "www1.example.com")
        for name, (needs, starting) in SERVERS.items():
            if needs and not program(needs):
                print(f"left out: {name}: no {needs}")
                continue
            port = free_port()
            running[name] = begin(starting, port, f"service-{count - 1}.ns{(count - 1) // 100}.svc.cluster.local"), port
        report("cluster names, the search path's mix", measure(bench, running, rounds, "questions"))
        report("names of others, cached", measure(bench, running, rounds, "questions-outside"))
        following = {name: where for name, where in running.items() if name in FOLLOWING}
        say("change ON")
        report("cluster names while 100 endpoints a second change", measure(bench, following, rounds, "questions"))
        say("change OFF")
        rows = {}
        for name, (_, port) in following.items():
            times: list[float] = []
            end = time.monotonic() + PATIENCE
            for turn in range(WRITES):
                if time.monotonic() > end:  # who answers from a cache of 30 s takes its time
                    break
                address = f"10.244.{turn // 250 + 1}.{turn % 250 + 1}"
                written = float(say(f"set {address}"))
                times.append((until_changed(port, address) - written) * 1e3)
            times.sort()
            p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
            rows[name] = f"{len(times):3} writes  p50 {p50:8.1f} ms  p99 {p99:8.1f} ms"
        report("from the acknowledged write to the new answer", rows)


if __name__ == "__main__":
    if os.environ.get("FAIRLEAD_BENCH_NETNS") != "1":  # a network of its own: no connection tracking, no strangers
        os.environ["FAIRLEAD_BENCH_NETNS"] = "1"
        inside = 'ip link set lo up && exec "$0" -m tests.bench.bench_dns_peers "$@"'
        os.execvp("unshare", ["unshare", "--net", "sh", "-c", inside, sys.executable, *sys.argv[1:]])
    main()
