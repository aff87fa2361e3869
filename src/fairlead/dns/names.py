"""Domain names and addresses, between their text and their wire form. Pure.

Stands under the codec and the zone. Invariant: a wire name is uncompressed, ends with the root label, has labels of
1–63 bytes and at most 255 bytes in all (RFC 1035 §2.3.4). Lower-casing a wire name is safe: a length byte is below "A".
"""

from __future__ import annotations

import socket

MAX_NAME = 255
MAX_LABEL = 63
ROOT = b"\0"

_IN_ADDR = (b"in-addr", b"arpa")
_IP6 = (b"ip6", b"arpa")
_NIBBLES = frozenset(b"0123456789abcdef")


def wire_name(text: str) -> bytes:
    """`web.shop` or `web.shop.` → wire form. Plain labels only, no escapes. Raises ValueError if it is no such name."""
    if text in ("", "."):
        return ROOT
    out = bytearray()
    for label in text.removesuffix(".").split("."):
        raw = label.encode("ascii", "strict")
        if not 0 < len(raw) <= MAX_LABEL:
            raise ValueError(f"not a domain name: {text!r}")
        out.append(len(raw))
        out += raw
    out.append(0)
    if len(out) > MAX_NAME:
        raise ValueError(f"domain name is longer than {MAX_NAME} bytes: {text!r}")
    return bytes(out)


def text_name(wire: bytes) -> str:
    """Wire form → absolute presentation form, with escapes (RFC 4343 §2.1)."""
    if wire == ROOT:
        return "."
    return "".join("".join(_escape(byte) for byte in label) + "." for label in split_name(wire))


def _escape(byte: int) -> str:
    if byte in b'.\\"();@$':
        return "\\" + chr(byte)
    return chr(byte) if 0x20 < byte < 0x7F else f"\\{byte:03d}"


def split_name(wire: bytes) -> tuple[bytes, ...]:
    """The labels of a wire name, leftmost first, without the root."""
    labels = []
    position = 0
    while length := wire[position]:
        labels.append(wire[position + 1 : position + 1 + length])
        position += length + 1
    return tuple(labels)


def wire_label(label: str) -> bytes:
    """One label with its length byte; empty if it cannot be one."""
    raw = label.encode("ascii", "ignore")
    return bytes((len(raw),)) + raw if 0 < len(raw) <= MAX_LABEL and len(raw) == len(label) else b""


def packed_address(text: str) -> bytes | None:
    """4 or 16 bytes; None if the text is no IP address. Strict: no leading zeros."""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):
        return None


def text_address(packed: bytes) -> str:
    """The canonical text of 4 or 16 bytes (RFC 5952 for IPv6)."""
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def dashed(packed: bytes) -> str:
    """The label of an endpoint without a hostname: `10-1-0-7`, `fd00--7`; a trailing dash gets a 0, as a label must not
    end with one."""
    label = text_address(packed).replace(".", "-").replace(":", "-")
    return label + "0" if label.endswith("-") else label


def undashed(label: bytes) -> bytes | None:
    """The address that a pod's label spells; None if it spells none."""
    try:
        text = label.decode("ascii")
    except UnicodeDecodeError:
        return None
    if text.count("-") == 3 and "--" not in text:
        return packed_address(text.replace("-", "."))
    return packed_address(text.replace("-", ":"))


def is_reverse(labels: tuple[bytes, ...]) -> bool:
    """Whether the name is below in-addr.arpa or ip6.arpa."""
    return labels[-2:] in (_IN_ADDR, _IP6)


def reverse_address(labels: tuple[bytes, ...]) -> bytes | None:
    """The address that a complete reverse name spells (RFC 1035 §3.5, RFC 3596 §2.5); None if it spells none."""
    if labels[-2:] == _IN_ADDR and len(labels) == 6:
        return packed_address(".".join(label.decode("latin-1") for label in labels[3::-1]))
    if labels[-2:] == _IP6 and len(labels) == 34:
        digits = b"".join(labels[31::-1])
        if len(digits) == 32 and _NIBBLES.issuperset(digits):
            return bytes.fromhex(digits.decode())
    return None


def reverse_name(packed: bytes) -> str:
    """The reverse name of an address, absolute."""
    if len(packed) == 4:
        return ".".join(str(byte) for byte in reversed(packed)) + ".in-addr.arpa."
    return ".".join(reversed(packed.hex())) + ".ip6.arpa."
