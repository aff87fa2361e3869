"""What nft(8) expects to find beside a set so that it can print it: literal facts, seen in what nft itself writes."""

from __future__ import annotations

import sys

import pytest

from fairlead.linux.netlink import attribute_map
from fairlead.linux.nft import datatypes as types
from fairlead.linux.nft import transaction
from fairlead.linux.nft.expressions import register, word_of
from fairlead.linux.nft.objects import Set, TableName

ENDPOINTS = (types.IP_DADDR, types.META_L4PROTO, types.TH_DPORT, types.NUMGEN_RANDOM)


def test_a_concatenation_is_typed_by_six_bits_a_field() -> None:
    """ipv4_addr . inet_proto . inet_service is 0x730d, padded to 12 bytes."""
    key = (types.IPV4_ADDR, types.INET_PROTO, types.INET_SERVICE)
    assert (types.key_type(key), types.key_length(key)) == (0x730D, 12)
    assert types.key_type(ENDPOINTS) == 0x1CC344


def test_typeof_is_recorded_as_nft_records_it() -> None:
    """`typeof ip daddr . meta l4proto . th dport . numgen random mod 2`, byte for byte."""
    assert types.typeof_of(ENDPOINTS).hex() == (
        "00040d000000"
        "0158"
        "0014000407000000010c00040c00000001040c000000"
        "010e0004090000000106000410000000"
        "0214000407000000010c00040b000000010402000000"
        "031a0004170000000112000401000000010402000000020400000000"
    )
    assert types.typeof_of((types.IPV4_ADDR, types.INET_PROTO)) == b""


def test_fields_lie_in_words() -> None:
    """Addresses and ports in network order, the index in the machine's, each field from a word's start."""
    rendered = types.render_fields(ENDPOINTS, ("10.96.0.1", "TCP", 443, 3))
    assert rendered[:12].hex() == "0a6000010600000001bb0000"
    assert int.from_bytes(rendered[12:], sys.byteorder) == 3


@pytest.mark.parametrize(("word", "number"), [(0, 1), (1, 9), (3, 11), (4, 2), (5, 13), (8, 3)])
def test_registers_are_numbered_as_the_kernel_dumps_them(word: int, number: int) -> None:
    """A register at a 16-byte boundary has its old number."""
    assert (register(word), word_of(number)) == (number, word)


def test_comments_are_cut_at_a_whole_character() -> None:
    """127 bytes are kept, never half a character."""
    assert transaction.cut_comment("é" * 100) == "é" * 63


def test_a_dynamic_set_times_out() -> None:
    """Flags dynamic and timeout, the timeout in milliseconds, room for its size."""
    entry = Set("clients", (types.IPV4_ADDR,), timeout_seconds=3, size=65536)
    values = attribute_map(transaction.render_set(TableName("ip", "fairlead"), entry)[4:])
    assert int.from_bytes(values[3], "big") == 0x30
    assert int.from_bytes(values[11], "big") == 3000
