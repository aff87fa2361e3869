"""Generic netlink: a family's number by its name, and requests to it.

Stands on the netlink socket, under `ipvs`. Invariant: a family that the kernel does not have is a
FileNotFoundError that names it.
"""

from __future__ import annotations

import errno
import struct

from fairlead.linux.netlink import NLM_F_DUMP, Message, NetlinkSocket, attribute_map, attribute_string, is_absent

NETLINK_GENERIC = 16
_CONTROL, _GET_FAMILY = 0x10, 3
_FAMILY_ID, _FAMILY_NAME = 1, 2


class GenericSocket:
    """A socket for one family, in the network namespace of the thread that makes it."""

    def __init__(self, family: str, version: int = 1) -> None:
        self._netlink = NetlinkSocket(NETLINK_GENERIC)
        self._version = version
        try:
            request = struct.pack("=BBH", _GET_FAMILY, 1, 0) + attribute_string(_FAMILY_NAME, family)
            answer = next(iter(self._netlink.query(Message(_CONTROL, 0, request))))
        except OSError as error:
            self._netlink.close()
            if is_absent(error):
                raise FileNotFoundError(errno.ENOENT, "the kernel has no such netlink family", family) from error
            raise
        self._id = struct.unpack("=H", attribute_map(answer.payload[4:])[_FAMILY_ID])[0]

    def close(self) -> None:
        """Release the socket."""
        self._netlink.close()

    def dump(self, command: int) -> list[bytes]:
        """The attributes of every answer."""
        header = struct.pack("=BBH", command, self._version, 0)
        return [answer.payload[4:] for answer in self._netlink.query(Message(self._id, NLM_F_DUMP, header))]

    def request(self, *commands: tuple[int, bytes]) -> None:
        """Commands with their attributes, in one datagram, each acknowledged. Raises NetlinkError for the first that is
        refused; the others are carried out."""
        self._netlink.request(
            *(Message(self._id, 0, struct.pack("=BBH", command, self._version, 0) + data) for command, data in commands)
        )
