"""Real resolvers ask: glibc's (getent), musl's, dig, kdig and host, in a network namespace of the test's own.

The namespaces are unshared, not named: they end with the process, whatever happens.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from fairlead.discovery.model import Endpoint
from fairlead.dns.answer import Style
from fairlead.dns.server import Server
from fairlead.dns.sockets import bind_tcp, bind_udp
from tests.unit.dns.worlds import router_of, service, slice_of, zone

pytestmark = pytest.mark.kernel

MUSL_LOOKUP = Path(sys.executable).parent / "musl-lookup"
RESOLV_CONF = """search shop.svc.cluster.local svc.cluster.local cluster.local
nameserver 127.0.0.1
options ndots:5 timeout:1
"""

# command → its output in sorted words, or None if it must fail
COMMANDS: dict[str, list[str] | None] = {
    "getent ahostsv4 web": ["10.96.0.20"],
    "getent ahostsv4 web.shop": ["10.96.0.20"],
    "getent ahostsv4 web.shop.svc": ["10.96.0.20"],
    "getent ahostsv4 web.shop.svc.cluster.local": ["10.96.0.20"],
    "getent ahostsv4 kubernetes.default": ["10.96.0.1"],
    "getent ahostsv4 db": ["10.244.0.8", "10.244.1.8", "10.244.1.9"],
    "getent ahostsv4 db-0.db": ["10.244.0.8"],
    "getent ahostsv6 six": ["fd00:96::6"],
    "getent ahostsv4 alias": ["10.96.0.20"],
    "getent ahostsv4 none": None,
    "getent ahostsv4 web.default": None,
    "getent ahostsv4 many": [f"10.244.2.{i}" for i in range(1, 101)],  # over TCP
    "getent hosts 10.96.0.20": ["10.96.0.20", "web.shop.svc.cluster.local"],
    "dig +short web.shop.svc.cluster.local": ["10.96.0.20"],
    "dig +short +search web": ["10.96.0.20"],
    "dig +short -x 10.244.0.8": ["db-0.db.shop.svc.cluster.local."],
    "dig +short SRV _http._tcp.web.shop.svc.cluster.local": ["0", "100", "80", "web.shop.svc.cluster.local."],
    "dig +short many.shop.svc.cluster.local": [f"10.244.2.{i}" for i in range(1, 101)],
    "dig +short +tcp +noedns db-1.db.shop.svc.cluster.local": ["10.244.1.8"],
    "dig +short TXT dns-version.cluster.local": ['"1.1.0"'],
    "dig +short example.com": [],  # refused: there is no upstream
    "kdig +short web.shop.svc.cluster.local": ["10.96.0.20"],
    "kdig +short +tcp many.shop.svc.cluster.local": [f"10.244.2.{i}" for i in range(1, 101)],
    "kdig +short SRV _http._tcp.web.shop.svc.cluster.local": ["0", "100", "80", "web.shop.svc.cluster.local."],
    "kdig +short +cookie +bufsize=512 db-0.db.shop.svc.cluster.local": ["10.244.0.8"],
    "host -t A web": ["web.shop.svc.cluster.local", "has", "address", "10.96.0.20"],
    "host -t PTR 10.96.0.20": ["20.0.96.10.in-addr.arpa", "domain", "name", "pointer", "web.shop.svc.cluster.local."],
    "host -t A none": None,
}
# musl finds what glibc finds; but before 1.2.4 (Debian 12 has 1.2.3) it never asks again over TCP.
COMMANDS |= {
    command.replace("getent", "musl-lookup"): words
    for command, words in COMMANDS.items()
    if command.startswith("getent") and not command.endswith("many")
}


def test_real_resolvers(tmp_path: Path) -> None:
    """glibc, musl and the tools of three DNS servers find every sort of name, and find no more than there is."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for a network namespace")
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("needs unshare and ip (Debian packages util-linux, iproute2)")
    for program, package in (("dig", "bind9-dnsutils"), ("kdig", "knot-dnsutils"), ("host", "bind9-host")):
        assert shutil.which(program), f"needs {program} (Debian package {package}); make setup installs it"
    assert MUSL_LOOKUP.exists(), "needs musl-lookup; make setup builds it"
    path = tmp_path / "resolv.conf"
    path.write_text(RESOLV_CONF)
    # glibc asks only for addresses of families that the machine has beyond loopback's own
    script = f"""
        set -e
        ip link set lo up
        ip address add 10.244.9.9/32 dev lo
        ip address add fd00:244::9/128 dev lo
        mount --bind "{path}" /etc/resolv.conf
        exec "$0" -m tests.kernel.test_dns_resolvers
    """
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", script, sys.executable],
        capture_output=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr.decode()
    assert orjson.loads(done.stdout) == {
        command: None if words is None else sorted(words) for command, words in COMMANDS.items()
    }


async def inside() -> dict[str, list[str] | None]:
    """What runs in the namespaces: the server, and the commands one by one."""
    many = service(
        "shop", "many", headless=True, slices=(slice_of(*(Endpoint(f"10.244.2.{i}") for i in range(1, 101))),)
    )
    server = Server(router_of(zone(many), style=Style(recursion=False)))
    await server.start(bind_udp("127.0.0.1", 53), bind_tcp("127.0.0.1", 53))
    found: dict[str, list[str] | None] = {}
    for command in COMMANDS:
        program, *rest = command.split()
        path = MUSL_LOOKUP if program == "musl-lookup" else program
        process = await asyncio.create_subprocess_exec(path, *rest, stdout=asyncio.subprocess.PIPE)
        output, _ = await asyncio.wait_for(process.communicate(), 20)
        words = output.decode().replace("STREAM", "").replace("DGRAM", "").replace("RAW", "").split()
        addresses = "ahosts" in command
        canonical = {word for word in words if not addresses or word[0].isdigit() or ":" in word}
        found[command] = sorted(canonical) if process.returncode == 0 else None
    await server.stop()
    return found


if __name__ == "__main__":
    sys.stdout.buffer.write(orjson.dumps(asyncio.run(inside())))
