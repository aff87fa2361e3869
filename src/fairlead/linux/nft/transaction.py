"""Changes to a table as values, and the netlink messages they become.

Stands between diff and the socket. A transaction is a tuple of changes for one table, in an order the kernel accepts
(what is referred to is there first); the kernel applies all or nothing. Invariant: rendering needs no state: the same
changes always give the same messages.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import msgspec

from fairlead.linux.netlink import (
    NLA_F_NESTED,
    NLM_F_APPEND,
    NLM_F_CREATE,
    Message,
    attribute,
    attribute_string,
    nested,
)
from fairlead.linux.nft import datatypes
from fairlead.linux.nft.datatypes import Fields, renderer_of
from fairlead.linux.nft.expressions import Verdict, render_expressions, render_verdict
from fairlead.linux.nft.objects import FAMILIES, Chain, Element, Rule, Set, TableName

SUBSYSTEM = 10
NEWTABLE, GETTABLE, DELTABLE = 0, 1, 2
NEWCHAIN, GETCHAIN, DELCHAIN = 3, 4, 5
NEWRULE, GETRULE, DELRULE = 6, 7, 8
NEWSET, GETSET, DELSET = 9, 10, 11
NEWSETELEM, GETSETELEM, DELSETELEM = 12, 13, 14
NEWGEN, GETGEN = 15, 16
BATCH_BEGIN, BATCH_END = 0x10, 0x11

HOOK_POINTS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
SET_MAP, SET_TIMEOUT, SET_EVAL = 0x8, 0x10, 0x20
DATA_VERDICT = 0xFFFFFF00
UDATA_KEY_ORDER, UDATA_DATA_ORDER, UDATA_KEY_TYPEOF, UDATA_DATA_TYPEOF, UDATA_SET_COMMENT = 0, 1, 3, 4, 7
COMMENT_LIMIT = 127  # bytes; libnftnl's NFTNL_UDATA_COMMENT_MAXLEN less the zero

_ELEMENTS_LIMIT = 60_000  # bytes of elements in a message: an attribute's length is 16 bits


class PutTable(msgspec.Struct, frozen=True):
    """The table exists. Fine if it does."""

    comment: str = ""


class DropTable(msgspec.Struct, frozen=True):
    """The table and all in it is gone. It must exist."""


class PutSet(msgspec.Struct, frozen=True):
    """The set exists, empty if new."""

    set: Set


class DropSet(msgspec.Struct, frozen=True):
    """The set is gone; no rule may refer to it any more."""

    name: str


class PutChain(msgspec.Struct, frozen=True):
    """The chain exists, with no rules if new."""

    chain: Chain


class DropChain(msgspec.Struct, frozen=True):
    """The chain and its rules are gone; nothing may refer to it any more."""

    name: str


class SetRules(msgspec.Struct, frozen=True):
    """The chain holds exactly these rules. `fresh`: it was just made, so there is nothing to take out first."""

    chain: str
    rules: tuple[Rule, ...]
    fresh: bool = False


class AddElements(msgspec.Struct, frozen=True):
    """New elements; none of the keys may be there with other data."""

    set: Set
    elements: tuple[Element, ...]


class DropElements(msgspec.Struct, frozen=True):
    """The elements with these keys go; each must be there."""

    set: Set
    keys: tuple[Fields, ...]


Change = PutTable | DropTable | PutSet | DropSet | PutChain | DropChain | SetRules | AddElements | DropElements
Transaction = tuple[Change, ...]


def header(family: int, resource: int = 0) -> bytes:
    """nfgenmsg: family, version 0, resource number."""
    return struct.pack("!BBH", family, 0, resource)


def batch_begin() -> Message:
    """Everything until `batch_end` is one transaction."""
    return Message(BATCH_BEGIN, 0, header(0, SUBSYSTEM))


def batch_end() -> Message:
    """Commit."""
    return Message(BATCH_END, 0, header(0, SUBSYSTEM))


def _u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value & 0xFFFFFFFF))


def _comment(kind: int, text: str) -> bytes:
    """A comment as nft stores it in user data: kind, length, text with a zero; cut at a whole character."""
    data = text.encode()[:COMMENT_LIMIT].decode(errors="ignore").encode() + b"\0"
    return bytes((kind, len(data))) + data


def cut_comment(text: str) -> str:
    """The comment as it will come back from the kernel."""
    return text.encode()[:COMMENT_LIMIT].decode(errors="ignore")


def _message(kind: int, flags: int, payload: bytes) -> Message:
    return Message(SUBSYSTEM << 8 | kind, flags, payload)


def render_chain(table: TableName, chain: Chain) -> bytes:
    """The payload of NEWCHAIN: the chain without its rules."""
    payload = header(FAMILIES[table.family]) + attribute_string(1, table.name) + attribute_string(3, chain.name)
    if chain.hook is not None:
        hook = _u32(1, HOOK_POINTS[chain.hook.point]) + _u32(2, chain.hook.priority)
        payload += nested(4, hook) + _u32(5, 1) + attribute_string(7, chain.hook.kind)
    return payload


def render_rule(table: TableName, chain: str, rule: Rule) -> bytes:
    """The payload of NEWRULE."""
    payload = header(FAMILIES[table.family]) + attribute_string(1, table.name) + attribute_string(2, chain)
    payload += render_expressions(4, rule.expressions)
    if rule.comment:
        payload += attribute(7, _comment(0, rule.comment))
    return payload


def render_set(table: TableName, entry: Set, number: int = 1) -> bytes:
    """The payload of NEWSET, with the user data that let nft list it in words. `number` is unique in its batch."""
    flags = (SET_MAP if entry.data or entry.verdicts else 0) | (SET_TIMEOUT | SET_EVAL if entry.timeout_seconds else 0)
    user = _order(UDATA_KEY_ORDER, datatypes.byte_order(entry.key))
    payload = header(FAMILIES[table.family]) + attribute_string(1, table.name) + attribute_string(2, entry.name)
    payload += _u32(3, flags) + _u32(4, datatypes.key_type(entry.key)) + _u32(5, datatypes.key_length(entry.key))
    if entry.verdicts:
        payload += _u32(6, DATA_VERDICT) + _u32(7, 16)
        user += _order(UDATA_DATA_ORDER, 0)
    elif entry.data:
        payload += _u32(6, datatypes.key_type(entry.data)) + _u32(7, datatypes.key_length(entry.data))
        user += _order(UDATA_DATA_ORDER, datatypes.byte_order(entry.data))
    for kind, types in ((UDATA_KEY_TYPEOF, entry.key), (UDATA_DATA_TYPEOF, entry.data)):
        record = datatypes.typeof_of(types)
        if record:
            user += bytes((kind, len(record))) + record
    if entry.comment:
        user += _comment(UDATA_SET_COMMENT, entry.comment)
    payload += _u32(10, number)
    if entry.timeout_seconds:
        payload += attribute(11, struct.pack("!Q", entry.timeout_seconds * 1000))
    if entry.size:
        payload += nested(9, _u32(1, entry.size))
    return payload + attribute(13, user)


def _order(kind: int, order: int) -> bytes:
    return bytes((kind, 4)) + struct.pack("=I", order)


_ATTR = struct.Struct("=HH")
_ATTR2 = struct.Struct("=HHHH")


def _field_attribute(kind: int, data: bytes) -> bytes:
    """attribute(kind, nested(NFTA_DATA_VALUE, data)) in one step: elements are many."""
    length = len(data)
    return _ATTR2.pack(length + 8, kind | NLA_F_NESTED, length + 4, 1) + data + b"\0" * (-length % 4)


def render_elements(entry: Set, elements: Iterable[Element]) -> list[bytes]:
    """Each an NFTA_LIST_ELEM of NEWSETELEM."""
    render_key = renderer_of(entry.key)
    render_data = renderer_of(entry.data) if entry.data else None
    rendered = []
    for key, data, comment in elements:
        body = _field_attribute(1, render_key(key))
        if isinstance(data, Verdict):
            body += render_verdict(2, data)
        elif data is not None and render_data is not None:
            body += _field_attribute(2, render_data(data))
        if comment:
            body += attribute(6, _comment(0, comment))
        rendered.append(_ATTR.pack(len(body) + 4, 1 | NLA_F_NESTED) + body)
    return rendered


def _element_messages(table: TableName, kind: int, flags: int, entry: Set, items: list[bytes]) -> Iterator[Message]:
    start = header(FAMILIES[table.family]) + attribute_string(1, table.name) + attribute_string(2, entry.name)
    first, size = 0, 0
    for position, item in enumerate(items):
        if size + len(item) > _ELEMENTS_LIMIT:
            yield _message(kind, flags, start + attribute(3 | NLA_F_NESTED, b"".join(items[first:position])))
            first, size = position, 0
        size += len(item)
    if items:
        yield _message(kind, flags, start + attribute(3 | NLA_F_NESTED, b"".join(items[first:])))


def render_change(table: TableName, change: Change, number: int = 1) -> Iterator[Message]:
    """The messages of one change. `number` tells new sets of one batch apart."""
    family = header(FAMILIES[table.family])
    name = attribute_string(1, table.name)
    match change:
        case PutTable():
            comment = attribute(6, _comment(0, change.comment)) if change.comment else b""
            yield _message(NEWTABLE, NLM_F_CREATE, family + name + _u32(2, 0) + comment)
        case DropTable():
            yield _message(DELTABLE, 0, family + name)
        case PutSet():
            yield _message(NEWSET, NLM_F_CREATE, render_set(table, change.set, number))
        case DropSet():
            yield _message(DELSET, 0, family + name + attribute_string(2, change.name))
        case PutChain():
            yield _message(NEWCHAIN, NLM_F_CREATE, render_chain(table, change.chain))
        case DropChain():
            yield _message(DELCHAIN, 0, family + name + attribute_string(3, change.name))
        case SetRules():
            if not change.fresh:
                yield _message(DELRULE, 0, family + name + attribute_string(2, change.chain))
            for rule in change.rules:
                yield _message(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, render_rule(table, change.chain, rule))
        case AddElements():
            items = render_elements(change.set, change.elements)
            yield from _element_messages(table, NEWSETELEM, NLM_F_CREATE, change.set, items)
        case DropElements():
            items = render_elements(change.set, (Element(key) for key in change.keys))
            yield from _element_messages(table, DELSETELEM, 0, change.set, items)


def render_transaction(table: TableName, changes: Iterable[Change]) -> list[Message]:
    """The messages of a transaction, without begin and end."""
    return [m for number, change in enumerate(changes, 1) for m in render_change(table, change, number)]
