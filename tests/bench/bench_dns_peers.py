"""The DNS against Knot and unbound, with dnsperf: the same zone and questions, turn by turn, one process each.

Run by hand: `python -m tests.bench.bench_dns_peers [seconds] [services] [rounds]`; needs dnsperf, and knotd or unbound
if they are to be compared (Debian packages dnsperf, knot, unbound). Machines are noisy: the CPU time a query takes is
the figure to trust, taken from the kernel's account of the server process.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fairlead.dns.export import records
from fairlead.dns.names import text_name
from fairlead.dns.presentation import render, type_name
from fairlead.dns.zone import Zone
from tests.bench.bench_dns import questions, serve, world

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
_TICK = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """Seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def ours(count: int, folder: Path) -> tuple[int, int]:
    mine, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        serve(count, theirs)
        os._exit(0)
    (port,) = struct.unpack("!H", mine.recv(2))
    return child, port


def knot(count: int, folder: Path) -> tuple[int, int]:
    port = free_port()
    (folder / "knot.conf").write_text(
        f"server:\n    rundir: {folder}\n    listen: 127.0.0.1@{port}\n    udp-workers: 1\n    tcp-workers: 1\n"
        f"    background-workers: 1\ndatabase:\n    storage: {folder}\n"
        f"zone:\n  - domain: cluster.local\n    storage: {folder}\n    file: cluster\n    semantic-checks: false\n"
    )
    command = [shutil.which("knotd", path=_PATH) or "", "-c", str(folder / "knot.conf")]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid, port


def unbound(count: int, folder: Path) -> tuple[int, int]:
    port = free_port()
    data = "".join(f"  local-data: '{line}'\n" for line in (folder / "cluster").read_text().splitlines())
    (folder / "unbound.conf").write_text(
        f"server:\n  interface: 127.0.0.1\n  port: {port}\n  num-threads: 1\n  do-daemonize: no\n  use-syslog: no\n"
        f'  username: ""\n  chroot: ""\n  directory: {folder}\n  pidfile: ""\n'
        f"  local-zone: cluster.local. static\n{data}"
    )
    command = [shutil.which("unbound", path=_PATH) or "", "-c", str(folder / "unbound.conf")]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid, port


def wait(port: int) -> None:
    """Until something answers there."""
    end = time.monotonic() + 30
    packet = struct.pack("!HHHHHH", 1, 0x100, 1, 0, 0, 0) + b"\7cluster\5local\0\0\6\0\1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.1)
        sock.connect(("127.0.0.1", port))
        while time.monotonic() < end:
            try:
                sock.send(packet)
                sock.recv(512)
                return
            except OSError:
                time.sleep(0.05)
    raise SystemExit(f"nothing answers on port {port}")


def dnsperf(port: int, data: Path, seconds: float) -> tuple[float, float]:
    """Queries a second, and how many were completed."""
    command = [
        "dnsperf",
        "-s",
        "127.0.0.1",
        "-p",
        str(port),
        "-d",
        str(data),
        "-l",
        str(seconds),
        "-c",
        "8",
        "-q",
        "200",
    ]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"Queries per second:\s+([\d.]+)", output)
    done = re.search(r"Queries completed:\s+(\d+)", output)
    assert rate is not None
    assert done is not None
    return float(rate[1]), float(done[1])


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    if shutil.which("dnsperf") is None:
        raise SystemExit("needs dnsperf (Debian package dnsperf)")
    servers = {"fairlead": ours}
    servers |= {
        name: start for name, start in (("knotd", knot), ("unbound", unbound)) if shutil.which(name, path=_PATH)
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        zone = Zone()
        zone.apply(world(count))
        (folder / "cluster").write_text("\n".join(render(r) for r in [zone.soa(), *records(zone)]) + "\n")
        lines = []
        for packet in questions(count, random.Random(2)):
            lines.append(f"{text_name(packet[10:-4])} {type_name(int.from_bytes(packet[-4:-2], 'big'))}")
        (folder / "questions").write_text("\n".join(lines) + "\n")
        running = {}
        try:
            for server, start in servers.items():
                running[server] = start(count, folder)
            for _, port in running.values():
                wait(port)
            results: dict[str, list[tuple[float, float]]] = {server: [] for server in running}
            for _ in range(rounds + 1):
                for server, (pid, port) in running.items():
                    before = cpu(pid)
                    rate, done = dnsperf(port, folder / "questions", seconds)
                    results[server].append((rate, (cpu(pid) - before) / done * 1e9))
            for server, found in results.items():
                rate = statistics.median(r for r, _ in found[1:])
                cost = statistics.median(c for _, c in found[1:])
                status = Path(f"/proc/{running[server][0]}/status").read_text()
                memory = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) >> 10  # type: ignore[index]
                print(f"{server:10} {rate:10,.0f} qps {cost:8,.0f} ns CPU a query {memory:5} MB")
        finally:
            for pid, _ in running.values():
                os.kill(pid, signal.SIGTERM)
                os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
