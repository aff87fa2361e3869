"""The loop in C gives what the table holds, whatever was put, changed and forgotten, and counts how often it did."""

from __future__ import annotations

import select
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.dns.answer import Rotating, Value
from fairlead.dns.hot import HotLoop
from fairlead.dns.sockets import bind_udp
from fairlead.dns.table import ByClient, Entry, Table

DEADLINE = 20.0
KEYS = [b"%c" % number * size for number, size in enumerate((1, 7, 8, 9, 63, 64, 200, 320), 97)]


def plain(number: int, size: int) -> bytes:
    """An answer."""
    return b"%d " % number + b"." * size


class Put(NamedTuple):
    """An operation: an answer of a sort, under one of two Services."""

    key: bytes
    service: str
    sort: str
    size: int


class Forget(NamedTuple):
    """An operation: a Service changed; none: everything."""

    service: str


OPERATIONS = st.lists(
    st.one_of(
        st.builds(
            Put,
            st.sampled_from(KEYS),
            st.sampled_from(["web", "api"]),
            st.sampled_from(["plain", "turning", "client", "long"]),
            st.integers(0, 900),
        ),
        st.builds(Forget, st.sampled_from(["web", "api", ""])),
    ),
    max_size=40,
)


def entry(number: int, operation: Put) -> Entry:
    """What is put."""
    if operation.sort == "plain":
        return plain(number, operation.size)
    if operation.sort == "long":
        return plain(number, 4096)  # more than a slot of the loop has
    if operation.sort == "client":
        return ByClient("shop")
    records = b"".join(b"%02d" % (number + at) for at in range(operation.size % 9 + 2))
    return Rotating(b"%d " % number, records, 2, min(3, len(records) // 2), b" end")


@contextmanager
def loop_of(table: Table, counts: Counter[Value]) -> Iterator[tuple[HotLoop, socket.socket]]:
    """A running loop, and a client's socket."""
    with bind_udp("127.0.0.1", 0) as udp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(DEADLINE)
        client.connect(udp.getsockname())
        hot = HotLoop(udp, table, lambda value, times: counts.update({value: times}))
        try:
            yield hot, client
        finally:
            hot.stop()


def ask(hot: HotLoop, client: socket.socket, key: bytes) -> bytes | None:
    """The answer without its id; None: the loop handed the packet on."""
    client.send(b"id" + key)
    readable, _, _ = select.select([client, hot.fileno()], [], [], DEADLINE)
    if client in readable:
        answer = client.recv(65536)
        assert answer[:2] == b"id"
        return answer[2:]
    ((packet, address),) = hot.take()
    assert (packet, address) == (b"id" + key, client.getsockname())
    return None


@given(OPERATIONS, st.integers(2, 9))
@settings(max_examples=60, deadline=None)
def test_the_loop_knows_what_the_table_knows(operations: list[Put | Forget], size: int) -> None:
    """After every operation each packet has the answer that the table has, or comes back."""
    table, counts, asked = Table(size), Counter[Value](), Counter[Value]()
    with loop_of(table, counts) as (hot, client):
        for number, operation in enumerate(operations):
            if isinstance(operation, Put):
                table.put(operation.key, entry(number, operation), (("shop", operation.service),))
            elif operation.service:
                table.forget_service("shop", operation.service)
            else:
                table.clear()
            for key in KEYS:
                known = table.young.get(key)
                answer = ask(hot, client, key)
                if isinstance(known, bytes) and len(known) <= 4094:
                    assert answer == known
                elif isinstance(known, Rotating):
                    prefix, doubled, unit, shown, suffix = known.parts
                    turns = [doubled[at : at + shown] for at in range(0, len(doubled) // 2, unit)]
                    assert answer in [prefix + turn + suffix for turn in turns]
                else:
                    assert answer is None
                if answer is not None:
                    assert known is not None
                    assert not isinstance(known, ByClient)
                    asked[known] += 1
    assert counts == asked


def test_records_take_turns() -> None:
    """Every record is first equally often, in a window that moves through all of them."""
    table = Table()
    table.put(b"key", Rotating(b"<", b"aabbcc", 2, 2, b">"))
    with loop_of(table, Counter()) as (hot, client):
        found = [ask(hot, client, b"key") for _ in range(6)]
    assert found == [b"<aabb>", b"<bbcc>", b"<ccaa>"] * 2


def test_what_waits_when_the_loop_ends_is_answered() -> None:
    """Known packets by the loop, the others are there to be taken."""
    table = Table()
    table.put(b"known", b"answer")
    with loop_of(table, Counter()) as (hot, client):
        for _ in range(100):
            client.send(b"idknown")
            client.send(b"idother")
        hot.stop()
        assert [client.recv(100) for _ in range(100)] == [b"idanswer"] * 100
        assert [packet for packet, _ in hot.take()] == [b"idother"] * 100
