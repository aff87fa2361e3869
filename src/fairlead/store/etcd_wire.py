"""etcd's messages on the wire: what the store asks, as bytes, and what etcd answers, as values.

Stands below etcd_client.py. Pure. Only the fields that the store uses are written and read; others are skipped, so a
newer etcd is fine. Invariant: a value that was encoded is decoded the same.
Source: field numbers in etcd's `rpc.proto` and `kv.proto` (API v3); encoding as in the Protocol Buffers specification.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

EQUAL_MOD_REVISION = b"\x10\x02"  # Compare{result: EQUAL (0, left out), target: MOD (2)}
EQUAL_VALUE = b"\x10\x03"
GREATER_MOD_REVISION = b"\x08\x01\x10\x02"


class KeyValue(msgspec.Struct, frozen=True):
    """A key as etcd keeps it."""

    key: bytes
    created: int
    modified: int
    value: bytes


class Range(msgspec.Struct, frozen=True):
    """Some keys at one revision. `count` is that of all keys in the range, however many were given."""

    revision: int
    cluster: int
    pairs: list[KeyValue]
    count: int


class Txn(msgspec.Struct, frozen=True):
    """What became of a transaction. `ranges`: what its reads found."""

    revision: int
    succeeded: bool
    ranges: list[list[KeyValue]]


class Change(msgspec.Struct, frozen=True):
    """One event of a watch. `pair.value` is empty for a deletion."""

    deleted: bool
    pair: KeyValue
    previous: KeyValue | None


class Watched(msgspec.Struct, frozen=True):
    """One message of a watch. `compacted` is not 0 when it was ended because what it asked for is gone."""

    revision: int
    created: bool
    canceled: bool
    compacted: int
    reason: str
    changes: list[Change]


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def range_request(
    key: bytes, end: bytes = b"", *, limit: int = 0, revision: int = 0, count_only: bool = False
) -> bytes:
    """RangeRequest: that key, or those from it up to `end` (not included), in key order."""
    message = _bytes(1, key)
    if end:
        message += _bytes(2, end)
    if limit:
        message += _number(3, limit)
    if revision:
        message += _number(4, revision)
    return message + _number(9, 1) if count_only else message


def put_operation(key: bytes, value: bytes) -> bytes:
    """RequestOp with a PutRequest."""
    return _bytes(2, _bytes(1, key) + _bytes(2, value))


def delete_operation(key: bytes) -> bytes:
    """RequestOp with a DeleteRangeRequest of one key."""
    return _bytes(3, _bytes(1, key))


def read_operation(key: bytes) -> bytes:
    """RequestOp with a RangeRequest of one key."""
    return _bytes(1, range_request(key))


def at_revision(key: bytes, modified: int) -> bytes:
    """Compare: the key was last written at that revision; 0: it does not exist."""
    return EQUAL_MOD_REVISION + _bytes(3, key) + _number(6, modified)


def has_value(key: bytes, value: bytes) -> bytes:
    """Compare: the key has that value."""
    return EQUAL_VALUE + _bytes(3, key) + _bytes(7, value)


def exists(key: bytes) -> bytes:
    """Compare: the key is there."""
    return GREATER_MOD_REVISION + _bytes(3, key) + _number(6, 0)


def txn_request(compares: Iterable[bytes], writes: Iterable[bytes], otherwise: Iterable[bytes]) -> bytes:
    """TxnRequest: if all comparisons hold the operations `writes`, in that order; else `otherwise`."""
    message = b"".join(_bytes(1, compare) for compare in compares)
    message += b"".join(_bytes(2, write) for write in writes)
    return message + b"".join(_bytes(3, read) for read in otherwise)


def compaction_request(revision: int) -> bytes:
    """CompactionRequest."""
    return _number(1, revision)


def watch_request(key: bytes, end: bytes, start: int, *, previous: bool) -> bytes:
    """WatchRequest to create a watch of a range from revision `start` on."""
    message = _bytes(1, key) + _bytes(2, end) + _number(3, start)
    return _bytes(1, message + _number(6, 1) if previous else message)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Field number, number (if it is one), bytes (if it is some). ValueError for what is no message."""
    at, end = 0, len(data)
    try:
        while at < end:
            tag, at = _read_varint(data, at)
            kind = tag & 7
            if kind == 0:
                number, at = _read_varint(data, at)
                yield tag >> 3, number, b""
            elif kind == 2:
                size, at = _read_varint(data, at)
                if at + size > end:
                    raise ValueError("a field is cut off")
                yield tag >> 3, 0, data[at : at + size]
                at += size
            elif kind in {1, 5}:
                at += 8 if kind == 1 else 4
            else:
                raise ValueError(f"a field of the unknown wire type {kind}")
    except IndexError:
        raise ValueError("a number is cut off") from None


def _header(data: bytes) -> tuple[int, int]:
    """The revision and the cluster's id of a ResponseHeader."""
    revision = cluster = 0
    for field, number, _ in _fields(data):
        if field == 3:
            revision = number
        elif field == 1:
            cluster = number
    return revision, cluster


def _pair(data: bytes) -> KeyValue:
    key = value = b""
    created = modified = 0
    for field, number, content in _fields(data):
        if field == 1:
            key = content
        elif field == 2:
            created = number
        elif field == 3:
            modified = number
        elif field == 5:
            value = content
    return KeyValue(key, created, modified, value)


def parse_range(data: bytes) -> Range:
    """RangeResponse."""
    revision = cluster = count = 0
    pairs: list[KeyValue] = []
    for field, number, content in _fields(data):
        if field == 1:
            revision, cluster = _header(content)
        elif field == 2:
            pairs.append(_pair(content))
        elif field == 4:
            count = number
    return Range(revision, cluster, pairs, count)


def parse_txn(data: bytes) -> Txn:
    """TxnResponse."""
    revision, succeeded = 0, False
    ranges: list[list[KeyValue]] = []
    for field, number, content in _fields(data):
        if field == 1:
            revision, _ = _header(content)
        elif field == 2:
            succeeded = bool(number)
        elif field == 3:
            ranges += [parse_range(inner).pairs for which, _, inner in _fields(content) if which == 1]
    return Txn(revision, succeeded, ranges)


def parse_watched(data: bytes) -> Watched:
    """WatchResponse."""
    revision = compacted = 0
    created = canceled = False
    reason = ""
    changes: list[Change] = []
    for field, number, content in _fields(data):
        if field == 1:
            revision, _ = _header(content)
        elif field == 3:
            created = bool(number)
        elif field == 4:
            canceled = bool(number)
        elif field == 5:
            compacted = number
        elif field == 6:
            reason = content.decode(errors="replace")
        elif field == 11:
            changes.append(_change(content))
    return Watched(revision, created, canceled, compacted, reason, changes)


def _change(data: bytes) -> Change:
    deleted = False
    pair, previous = KeyValue(b"", 0, 0, b""), None
    for field, number, content in _fields(data):
        if field == 1:
            deleted = bool(number)
        elif field == 2:
            pair = _pair(content)
        elif field == 3:
            previous = _pair(content)
    return Change(deleted, pair, previous)
