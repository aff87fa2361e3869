"""The netlink codec: attributes survive the round trip, errors carry the kernel's words."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.linux import netlink


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=70)), max_size=12))
def test_attributes_round_trip(pairs: list[tuple[int, bytes]]) -> None:
    """What is encoded is read back, whatever the padding."""
    data = b"".join(netlink.attribute(kind, value) for kind, value in pairs)
    assert len(data) % 4 == 0
    assert list(netlink.attributes(data)) == pairs


def test_a_truncated_attribute_is_an_error() -> None:
    """A length that passes the buffer is refused, not read."""
    with pytest.raises(ValueError, match="attribute of 40 bytes"):
        list(netlink.attributes(struct.pack("=HH", 40, 1) + b"abcd"))


def test_the_kernels_own_words_are_kept() -> None:
    """An extended acknowledgment's message is part of the error."""
    text = netlink.attribute_string(1, "Invalid bridge")
    capped = struct.pack("=i", -22) + bytes(16) + text
    error = netlink.parse_error(netlink.Received(2, 0x300, 1, 0, capped), 3)
    assert error is not None
    assert (error.errno, error.strerror, error.index) == (22, "Invalid argument: Invalid bridge", 3)
    assert netlink.parse_error(netlink.Received(2, 0, 1, 0, bytes(20)), 0) is None
