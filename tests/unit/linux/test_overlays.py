"""What the kernel is told to make a WireGuard link, held to its headers: no kernel that tests run on has WireGuard
(neither this machine's nor Debian's user-mode Linux), so the message is read here as the kernel reads it."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

import pytest

from fairlead.linux import netlink
from fairlead.linux.netlink import Message, NetlinkError
from fairlead.linux.overlays import Overlays

# linux/rtnetlink.h, linux/netlink.h, linux/if_link.h
RTM_NEWLINK = 16
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_INFO_KIND = 3, 4, 18, 1
NLA_F_NESTED = 1 << 15
IFINFOMSG = struct.Struct("=BBHiII")  # family, padding, type, index, flags, change


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each, as nla_parse finds them: each begins at a multiple of four."""
    while data:
        length, kind = struct.unpack_from("=HH", data)
        assert 4 <= length <= len(data)
        yield kind, data[4:length]
        data = data[(length + 3) & ~3 :]


class Kernel:
    """Takes the place of the socket."""

    def __init__(self, number: int = 0) -> None:
        self.told: list[Message] = []
        self._number = number

    def request(self, message: Message) -> None:
        self.told.append(message)
        if self._number:
            raise NetlinkError(self._number)


def told(monkeypatch: pytest.MonkeyPatch, kernel: Kernel) -> Overlays:
    """What makes links, speaking to that kernel."""
    monkeypatch.setattr(netlink, "NetlinkSocket", lambda _: kernel)
    return Overlays()


def test_a_wireguard_link_is_asked_for_as_the_headers_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """RTM_NEWLINK, new or not at all: the name and the kind as C strings, the MTU in host order, nothing else; the kind
    needs no data (drivers/net/wireguard/device.c has no policy)."""
    kernel = Kernel()
    assert told(monkeypatch, kernel).create_wireguard("fl-wg0", 1420)
    (message,) = kernel.told
    assert (message.type, message.flags) == (RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL)
    assert IFINFOMSG.unpack_from(message.payload) == (socket.AF_UNSPEC, 0, 0, 0, 0, 0)
    found = dict(attributes(message.payload[IFINFOMSG.size :]))
    assert found.keys() == {IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO | NLA_F_NESTED}
    assert (found[IFLA_IFNAME], found[IFLA_MTU]) == (b"fl-wg0\0", struct.pack("=I", 1420))
    assert list(attributes(found[IFLA_LINKINFO | NLA_F_NESTED])) == [(IFLA_INFO_KIND, b"wireguard\0")]


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENODEV, errno.EPROTONOSUPPORT])
def test_a_kernel_without_it_is_told_from_one_that_refuses(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """No such kind means the other program is to be taken; a link of that name, or no right, is an error."""
    assert not told(monkeypatch, Kernel(number)).create_wireguard("fl-wg0", 1420)
    for refused in (errno.EEXIST, errno.EPERM):
        with pytest.raises(NetlinkError) as caught:
            told(monkeypatch, Kernel(refused)).create_wireguard("fl-wg0", 1420)
        assert caught.value.errno == refused
