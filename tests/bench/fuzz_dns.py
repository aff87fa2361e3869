"""Random and mutated packets through everything that reads them: no crash, no hang, no growth.

Run by hand: `python -m tests.bench.fuzz_dns [packets] [seed]`. The packets go the server's own way (look-up, codec, a
chain of every plugin that answers by itself, memo), without sockets, and through the reader of upstreams' answers.
"""

from __future__ import annotations

import random
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

from fairlead.dns.message import FormatError, parse_message, render_message
from fairlead.dns.server import Server
from fairlead.dns.table import ByClient, Table
from tests.bench.bench_dns import questions
from tests.unit.dns.corefiles import Site

COREFILE = """
. {
    any
    chaos
    local
    nsid fuzz
    minimal
    loadbalance
    rewrite name suffix .example.org .svc.cluster.local answer auto
    rewrite ttl regex .* 1-60
    acl {
        block net 192.0.2.0/24
    }
    autopath @kubernetes
    template IN TXT example.com {
        match "^(.*)[.]example[.]com[.]$"
        answer "{{ .Name }} 5 IN TXT {{ index .Match 1 }}"
    }
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods verified
        fallthrough in-addr.arpa ip6.arpa
    }
    whoami
}
"""
_OPT = bytes.fromhex("0000291000000080000004000a0000")
_WORDS = (
    b"web shop svc cluster local db _http _tcp in-addr arpa 10 example org com pod 10-244-0-7 localhost bind".split()
)
_WORDS += [b"\xc0\x0c", b"", b"x" * 63]


def packets(dice: random.Random, count: int) -> Iterator[bytes]:
    """Nonsense, sense, and sense with a few bytes changed."""
    seeds = [packet + extra for packet in questions(1000, dice)[:200] for extra in (b"", _OPT)]
    for _ in range(count):
        sort = dice.randrange(10)
        if sort == 0:
            yield dice.randbytes(dice.randrange(80))
            continue
        if sort < 5:
            labels = b"".join(bytes((len(word),)) + word for word in dice.choices(_WORDS, k=dice.randrange(8)))
            tail = labels + b"\0" + bytes((0, dice.choice((1, 28, 33, 12, 16, 255, 252, 6)), 0, dice.choice((1, 1, 3))))
            data = bytearray(b"\1\0\0\1\0\0\0\0\0" + bytes((dice.randrange(2),)) + tail)
            if data[9]:
                data += _OPT
        else:
            data = bytearray(dice.choice(seeds))
        for _ in range(dice.randrange(4)):
            at = dice.randrange(len(data) + 1)
            if dice.random() < 0.5 and at < len(data):
                data[at] = dice.randrange(256)
            else:
                del data[at : at + dice.randrange(4)]
        yield dice.randbytes(2) + bytes(data)


class _Socket:
    """Where late answers would go."""

    def sendto(self, packet: bytes, address: Any) -> None:
        assert len(packet) >= 12


def run(count: int, seed: int = 1) -> dict[str, int]:
    """What came of them."""
    site = Site(COREFILE)
    server = Server(site.router, Table(5000), site.book)
    server._spawn = lambda work: work.close()  # type: ignore[method-assign]
    server._fault = _raise  # type: ignore[method-assign, assignment]
    dice = random.Random(seed)
    seen = {"answers": 0, "silence": 0, "messages": 0}
    udp: Any = _Socket()
    slowest = 0.0
    for packet in packets(dice, count):
        start = time.perf_counter()
        entry = server.table.young.get(packet[2:])
        known = entry if not isinstance(entry, ByClient) else None
        value = known or server._miss(packet, udp, ("10.244.9.9", 4000))
        slowest = max(slowest, time.perf_counter() - start)
        if value is None:
            seen["silence"] += 1
            continue
        answer = packet[:2] + (value if isinstance(value, bytes) else value.turn())
        assert len(answer) <= 1232
        assert answer[2] & 0x80
        seen["answers"] += 1
        if seen["answers"] % 50 == 0:
            render_message(parse_message(answer))
        mangled = bytearray(answer)
        mangled[dice.randrange(len(mangled))] ^= dice.randrange(1, 256)
        try:
            parse_message(bytes(mangled))
            seen["messages"] += 1
        except FormatError:
            pass
    seen["slowest_us"] = int(slowest * 1e6)
    return seen


def _raise(query: Any, error: Exception) -> None:
    raise error


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    run(count // 20, seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    seen = run(count, seed + 1)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{count:,} packets in {time.perf_counter() - start:.0f} s: {seen}; memory grew by {grown} kB")


if __name__ == "__main__":
    main()
