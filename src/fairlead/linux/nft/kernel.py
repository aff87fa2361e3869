"""The kernel's nftables, of the network namespace the calling thread is in when the socket is made.

Stands on the netlink socket and the codec. Invariant: `commit` is all or nothing, unless it is very large (some 90,000
elements) or the socket's send buffer is too small for it (without privileges: some thousand): then it is cut between
messages, in order, which the kernel accepts because a transaction never refers to what comes later in it.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple, Protocol

from fairlead.linux import netlink
from fairlead.linux.netlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    Message,
    NetlinkError,
    NetlinkSocket,
    attribute_map,
    attribute_string,
)
from fairlead.linux.nft import dump, transaction
from fairlead.linux.nft.datatypes import Fields
from fairlead.linux.nft.objects import FAMILIES, Chain, Element, Rule, TableName, TableState
from fairlead.linux.nft.transaction import Change, header, render_transaction

NFNLGRP_NFTABLES = 7
_SO_ATTACH_FILTER = 26
_HEADROOM = 4096
_LARGEST = (
    4 << 20
)  # bytes; beyond, a transaction's time grows with its square (6.18: 250,000 elements 4.1 s, cut 0.7 s)

_DUMPS = 10  # of one set, at most: a stranger's may have counters, and so is different each time


class Nftables(Protocol):
    """What can be asked of nftables: by the real one here, and by the one in `memory`."""

    def read(self, table: TableName) -> TableState | None:
        """What the table holds, consistently; None if there is no such table."""

    def commit(self, table: TableName, changes: Iterable[Change]) -> None:
        """Apply the changes. Raises NetlinkError, and then nothing was changed."""

    def close(self) -> None:
        """Let go of it. What is in the kernel stays."""


def supported() -> bool:
    """Whether this kernel has nftables. Raises OSError for any other trouble."""
    try:
        with NftSocket() as nft:
            nft.generation()
    except OSError as error:
        # No nfnetlink at all; or it has nobody for this subsystem.
        if error.errno in (errno.EPROTONOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP):
            return False
        raise
    return True


class NftSocket:
    """nftables through one netlink socket, kept for as long as the proxy lives."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(netlink.NETLINK_NETFILTER)
        self.port = self._netlink.port

    def close(self) -> None:
        """Release the socket."""
        self._netlink.close()

    def __enter__(self) -> NftSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def generation(self) -> int:
        """The number of the rule set of this namespace: it grows with every transaction, whoever makes it."""
        answers = list(self._query(transaction.GETGEN, 0, header(0)))
        return _generation(answers[0].payload)

    def chain_names(self, table: str) -> set[str]:
        """The chains of every table of that name, whoever's it is."""
        found = set()
        for family in FAMILIES.values():
            for received in self._query(transaction.GETCHAIN, NLM_F_DUMP, header(family)):
                values = attribute_map(received.payload[4:])
                if values[1].rstrip(b"\0").decode() == table:
                    found.add(values[3].rstrip(b"\0").decode(errors="replace"))
        return found

    def commit(self, table: TableName, changes: Iterable[Change]) -> None:
        """Apply the changes in one transaction (several if the size demands it)."""
        limit = min(_LARGEST, self._netlink.send_buffer - _HEADROOM)
        batch: list[Message] = []
        size = 0
        for message in render_transaction(table, changes):
            length = 16 + len(message.payload) + 3
            if batch and size + length > limit:
                self._send(batch)
                batch, size = [], 0
            batch.append(message)
            size += length
        if batch:
            self._send(batch)

    def _send(self, messages: list[Message]) -> None:
        last = messages[-1]
        messages[-1] = Message(last.type, last.flags | NLM_F_ACK, last.payload)
        data, first, end = self._netlink.encode([transaction.batch_begin(), *messages, transaction.batch_end()])
        self._netlink.send(data)
        # Errors come for the messages they belong to; one for the batch as a whole is the answer to its first message.
        failure: NetlinkError | None = None
        while True:
            for answer in self._netlink.receive():
                if answer.type != netlink.NLMSG_ERROR or not first <= answer.sequence <= end:
                    continue
                failure = failure or netlink.parse_error(answer, answer.sequence - first - 1)
                if answer.sequence in (first, end - 1):
                    if failure is not None:
                        raise failure
                    return

    def read(self, table: TableName, tape: Tape | None = None) -> TableState | None:
        """What the table holds now. Reads again if the rule set changes meanwhile. `tape` gets what the kernel said,
        for `replay`."""
        while True:
            before = self.generation()
            if tape is not None:
                tape.clear()
            try:
                state = _read(table, self._query if tape is None else partial(self._recorded, tape))
            except NetlinkError as error:
                if error.errno not in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                    raise
                state = None
                if error.errno == errno.ENOENT and self.generation() == before:
                    return None
                continue
            if self.generation() == before:
                return state

    def _recorded(self, tape: Tape, kind: int, flags: int, payload: bytes) -> list[netlink.Received]:
        answers = list(self._query(kind, flags, payload))
        tape.append(Said(kind, payload, tuple(answer.payload for answer in answers)))
        return answers

    def _query(self, kind: int, flags: int, payload: bytes) -> Iterable[netlink.Received]:
        ask = partial(self._netlink.query, Message(transaction.SUBSYSTEM << 8 | kind, flags, payload))
        return settled(ask) if kind == transaction.GETSETELEM else ask()


def settled(dump: Callable[[], Iterable[netlink.Received]]) -> list[netlink.Received]:
    """All parts of a set's elements. Between two parts of one dump the kernel counts off what it said already: while it
    makes the set's hash table larger or smaller, which no generation tells, that misses some elements and says others
    twice. So a set of several parts is dumped until a dump has nothing new, and what all of them had counts."""
    parts: dict[bytes, netlink.Received] = {}
    for _ in range(_DUMPS):
        known = len(parts)
        answers = list(dump())
        parts.update((answer.payload, answer) for answer in answers)
        if len(answers) <= 1 or len(parts) == known:
            break
    return list(parts.values())


class Said(NamedTuple):
    """What the kernel answered to one request."""

    kind: int
    request: bytes
    answers: tuple[bytes, ...]


Tape = list[Said]


def replay(table: TableName, tape: Tape) -> TableState | None:
    """What a table held when the tape was made. Raises ValueError for a tape that was made of something else."""
    said = {(entry.kind, entry.request): entry.answers for entry in tape}

    def query(kind: int, _flags: int, payload: bytes) -> list[netlink.Received]:
        if (kind, payload) not in said:
            raise ValueError("the tape lacks an answer")
        return [netlink.Received(kind, 0, 0, 0, answer) for answer in said[kind, payload]]

    if not tape:
        return None
    try:
        return _read(table, query)
    except (KeyError, IndexError, StopIteration, struct.error) as error:
        raise ValueError(f"the tape can't be read: {error!r}") from error


def _read(table: TableName, query: Callable[[int, int, bytes], Iterable[netlink.Received]]) -> TableState | None:
    family, name = FAMILIES[table.family], attribute_string(1, table.name)
    try:
        answer = next(iter(query(transaction.GETTABLE, 0, header(family) + name)))
    except NetlinkError as error:
        if netlink.is_absent(error):
            return None
        raise
    state = TableState({}, {}, {}, dump.parse_table_comment(answer.payload))
    # Flags of a table: dormant, owned by another process. Neither is how this project leaves it.
    if any(attribute_map(answer.payload[4:]).get(2, b"")):
        state.whole = False
    rules: dict[str, list[Rule]] = {}
    for received in query(transaction.GETRULE, NLM_F_DUMP, header(family) + name):
        owner, chain_name, rule = dump.parse_rule(received.payload)
        if owner == table.name:
            rules.setdefault(chain_name, []).append(rule)
    for received in query(transaction.GETCHAIN, NLM_F_DUMP, header(family)):
        owner, chain = dump.parse_chain(received.payload)
        if owner != table.name:
            continue
        if chain is None:
            state.whole = False
        else:
            state.chains[chain.name] = Chain(chain.name, tuple(rules.get(chain.name, ())), chain.hook)
    for received in list(query(transaction.GETSET, NLM_F_DUMP, header(family) + name)):
        owner, set_name, entry = dump.parse_set(received.payload)
        if owner != table.name:
            continue
        if entry is None:
            state.whole = False
            continue
        state.sets[set_name] = entry
        if entry.timeout_seconds:
            continue
        found: dict[Fields, Element] = {}
        request = header(family) + name + attribute_string(2, set_name)
        for part in query(transaction.GETSETELEM, NLM_F_DUMP, request):
            for element in dump.parse_elements(entry, part.payload):
                found[element.key] = element
        state.elements[set_name] = found
    return state


class Notice(NamedTuple):
    """What the monitor saw. `tables`: those that others touched, once for each transaction. `lost`: there was more than
    the socket could hold."""

    tables: tuple[TableName, ...]
    lost: bool


class Monitor:
    """Notice of changes to nftables in this namespace, but for those made through one socket: `ignore_port` (0: none).

    A filter in the kernel keeps those away, so that a large commit of our own neither wakes us nor overruns the socket.
    """

    def __init__(self, ignore_port: int = 0) -> None:
        self._netlink = NetlinkSocket(netlink.NETLINK_NETFILTER)
        try:
            raw = socket.socket(fileno=self._netlink.fileno())
            try:
                if ignore_port:
                    _attach_port_filter(raw, ignore_port)
                raw.setsockopt(270, 1, NFNLGRP_NFTABLES)  # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP
            finally:
                raw.detach()
            self._netlink.setblocking(False)
        except BaseException:
            self._netlink.close()
            raise

    def fileno(self) -> int:
        """For the event loop."""
        return self._netlink.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._netlink.close()

    def drain(self) -> Notice:
        """Everything that waits to be read."""
        transactions: list[TableName] = []
        touched: set[TableName] = set()
        lost = False
        names = {number: name for name, number in FAMILIES.items()}
        while True:
            try:
                messages = self._netlink.receive()
            except BlockingIOError:
                return Notice((*transactions, *touched), lost)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True
                continue
            for message in messages:
                if message.type >> 8 != transaction.SUBSYSTEM:
                    continue
                if message.type & 0xFF == transaction.NEWGEN:  # the end of a transaction
                    transactions += touched
                    touched = set()
                    continue
                family, name = dump.table_of(message.payload)
                if family in names:
                    touched.add(TableName(names[family], name))


def _generation(payload: bytes) -> int:
    return int.from_bytes(attribute_map(payload[4:])[1], "big")


def _attach_port_filter(raw: socket.socket, port: int) -> None:
    """A classic BPF program on the socket: nothing whose first message was caused by `port` (nlmsg_pid, offset 12)."""
    swapped = int.from_bytes(struct.pack("=I", port), "big")
    program = (
        (0x20, 0, 0, 12),  # A = the word at offset 12, read in network order
        (0x15, 0, 1, swapped),  # if A == port …
        (0x06, 0, 0, 0),  # … keep nothing
        (0x06, 0, 0, 0xFFFFFFFF),  # else all
    )
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code)
    raw.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(buffer)))
