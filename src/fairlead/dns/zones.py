"""Which names a server block or a plugin is for. Pure.

Stands under the plugins. Invariant: of several zones the longest that holds the name decides.
"""

from __future__ import annotations

import ipaddress

from fairlead.dns.names import split_name, wire_name

Labels = tuple[bytes, ...]


def parse_zone(text: str) -> tuple[Labels, ...]:
    """`example.org`, `.`, or a network like `10.0.0.0/22`, which stands for its reverse zones → labels in lower case.
    Raises ValueError."""
    if "/" in text:
        return reverse_zones(text)
    return (split_name(wire_name(text.lower())),)


def reverse_zones(network: str) -> tuple[Labels, ...]:
    """The zones under in-addr.arpa or ip6.arpa that hold a network; several where it does not end at a label."""
    parsed = ipaddress.ip_network(network, strict=False)
    step = 8 if parsed.version == 4 else 4
    whole = -(-parsed.prefixlen // step) * step
    found = []
    for part in parsed.subnets(new_prefix=whole):
        text = part.network_address.packed.hex()
        if parsed.version == 4:
            digits = [str(byte) for byte in part.network_address.packed[: whole // 8]]
            found.append((*(digit.encode() for digit in reversed(digits)), b"in-addr", b"arpa"))
        else:
            found.append((*(digit.encode() for digit in reversed(text[: whole // 4])), b"ip6", b"arpa"))
    return tuple(found)


class Zones:
    """A set of zones."""

    __slots__ = ("_known", "_sizes", "everything", "names")

    def __init__(self, names: tuple[Labels, ...]) -> None:
        self.names = names
        self.everything = () in names
        self._known = frozenset(names)
        self._sizes = tuple(sorted({len(name) for name in names}, reverse=True))

    @classmethod
    def of(cls, texts: list[str] | tuple[str, ...]) -> Zones:
        """From their text. Raises ValueError."""
        return cls(tuple(dict.fromkeys(labels for text in texts for labels in parse_zone(text))))

    def match(self, labels: Labels) -> Labels | None:
        """The longest zone that holds a name; None if none does."""
        for size in self._sizes:
            if size <= len(labels) and labels[len(labels) - size :] in self._known:
                return labels[len(labels) - size :]
        return None

    def __contains__(self, labels: Labels) -> bool:
        return self.everything or self.match(labels) is not None

    def __bool__(self) -> bool:
        return bool(self.names)


def zone_text(labels: Labels) -> str:
    """As metrics and logs have it: absolute."""
    return "".join(label.decode("latin-1") + "." for label in labels) or "."
