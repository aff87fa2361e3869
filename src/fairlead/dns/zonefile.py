"""A zone from a file: reading it, and finding answers in it. Pure.

Used by the `file` plugin. Sources: RFC 1035 §5 (the file), RFC 1034 §4.3.2 (finding), RFC 4592 (wildcards), RFC 6672
(DNAME). Invariant: what it answers is in the zone, a delegation, or a denial with the zone's SOA.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fairlead.dns.message import AAAA, ANY, CNAME, NOERROR, NS, NXDOMAIN, SOA, SRV, A, Record
from fairlead.dns.names import MAX_NAME, ROOT, split_name
from fairlead.dns.presentation import TextError, from_words, name, ttl, words
from fairlead.dns.zones import Labels

MAX_INCLUDES = 10
_DNAME = 39
_MX = 15
_MAX_CHAIN = 8


class Found(NamedTuple):
    """What a zone says. `leads_to` is a name outside of it that a CNAME ends with."""

    rcode: int
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    authoritative: bool = True
    leads_to: bytes = b""


def parse_zone_file(
    text: str, file: str, origin: bytes, include: Callable[[str], str] | None = None, depth: int = 0
) -> list[Record]:
    """The records of a zone file, with $ORIGIN, $TTL and $INCLUDE. Raises TextError with file and line."""
    records: list[Record] = []
    owner, default = origin, None
    last = 3600
    for line, at in _logical_lines(text, file):
        where = f"{file}:{at}"
        try:
            parts = words(line)
            if not parts:
                continue
            first = parts[0][0]
            if first.upper() == "$ORIGIN":
                origin = name(parts[1][0], origin)
                continue
            if first.upper() == "$TTL":
                default = ttl(parts[1][0])
                continue
            if first.upper() == "$INCLUDE":
                if include is None or depth >= MAX_INCLUDES:
                    raise TextError("too many files include each other")
                inner = name(parts[2][0], origin) if len(parts) > 2 else origin
                records += parse_zone_file(include(parts[1][0]), parts[1][0], inner, include, depth + 1)
                continue
            if first.startswith("$"):
                raise TextError(f"{first} is not supported")
            if not line[0].isspace():
                owner = name(first, origin)
                parts = parts[1:]
            found = from_words(owner, parts, origin, default if default is not None else last)
            last = found.ttl
            records.append(found)
        except (TextError, IndexError, OSError) as error:
            text = str(error) if not isinstance(error, IndexError) else "the line is not complete"
            raise TextError(text if depth and text.startswith(file) else f"{where}: {text}") from None
    return records


def _logical_lines(text: str, file: str) -> list[tuple[str, int]]:
    """Lines with what parentheses join put together, and where each begins."""
    found: list[tuple[str, int]] = []
    out: list[str] = []
    depth, start, at, quoted = 0, 1, 1, False
    position = 0
    while position <= len(text):
        char = text[position] if position < len(text) else "\n"
        if quoted:
            if char == "\\":
                out.append(text[position : position + 2])
                position += 2
                continue
            quoted = char != '"'
            at += char == "\n"
            out.append(char)
        elif char == "\\":
            out.append(text[position : position + 2])
            position += 2
            continue
        elif char == '"':
            quoted = True
            out.append(char)
        elif char == ";":
            end = text.find("\n", position)
            position = len(text) if end < 0 else end
            continue
        elif char in "()":
            depth += 1 if char == "(" else -1
            if depth < 0:
                raise TextError(f"{file}:{at}: a parenthesis that nothing opened")
            out.append(" ")
        elif char == "\n":
            if depth:
                out.append(" ")
            else:
                line = "".join(out)
                if line.strip():
                    found.append((line, start))
                out, start = [], at + 1
            at += 1
        else:
            out.append(char)
        position += 1
    if depth or quoted:
        raise TextError(f"{file}:{start}: a {'quote' if quoted else 'parenthesis'} is not closed")
    return found


class FileZone:
    """The records of one zone. Raises TextError if they are none."""

    def __init__(self, origin: Labels, records: list[Record]) -> None:
        self.origin = origin
        self._sets: dict[Labels, dict[int, list[Record]]] = {}
        self._nodes: set[Labels] = set()
        for record in records:
            labels = split_name(record.name.lower())
            if labels[len(labels) - len(origin) :] != origin:
                continue  # out of the zone: not ours to say
            rrset = self._sets.setdefault(labels, {}).setdefault(record.type, [])
            if record not in rrset:
                rrset.append(record)
            while len(labels) >= len(origin):  # empty non-terminals exist too (RFC 4592 §2.2.2)
                self._nodes.add(labels)
                labels = labels[1:]
                if not labels:
                    break
        top = self._sets.get(origin, {})
        if len(top.get(SOA, ())) != 1:
            raise TextError("the zone has no SOA of its own, or more than one")
        self.soa = top[SOA][0]

    @property
    def serial(self) -> int:
        """The SOA's."""
        return int.from_bytes(self.soa.data[-20:-16], "big")

    def everything(self) -> list[Record]:
        """All records but the SOA."""
        return [r for sets in self._sets.values() for kind, found in sets.items() if kind != SOA for r in found]

    def find(self, asked: bytes, labels: Labels, kind: int, depth: int = 0) -> Found:
        """The answer for a name in the zone, `asked` as the client wrote it."""
        origin = self.origin
        for size in range(len(origin), len(labels) + 1):  # from the top: the first cut is the one
            node = labels[len(labels) - size :]
            sets = self._sets.get(node, {})
            if NS in sets and node != origin and not (node == labels and kind == 43):
                return Found(NOERROR, (), tuple(sets[NS]), self._glue(sets[NS]), authoritative=False)
            if _DNAME in sets and node != labels:
                return self._dname(asked, labels, node, sets[_DNAME][0], kind=kind, depth=depth)
        if labels in self._nodes:
            return self._at(asked, self._sets.get(labels, {}), kind, depth)
        closest = labels
        while closest not in self._nodes:
            closest = closest[1:]
        sets = self._sets.get((b"*", *closest), {})
        if sets:
            return self._at(asked, sets, kind, depth)
        return Found(NXDOMAIN, authority=(self._negative(),))

    def _at(self, asked: bytes, sets: dict[int, list[Record]], kind: int, depth: int) -> Found:
        if kind == ANY and sets:
            everything = tuple(r._replace(name=asked) for found in sets.values() for r in found)
            return Found(NOERROR, everything)
        if CNAME in sets and kind != CNAME:
            link = sets[CNAME][0]._replace(name=asked)
            return self._followed(link, link.data, kind, depth)
        found = tuple(record._replace(name=asked) for record in sets.get(kind, ()))
        if not found:
            return Found(NOERROR, authority=(self._negative(),))
        return Found(NOERROR, found, (), self._glue(list(found)))

    def _followed(self, link: Record, target: bytes, kind: int, depth: int) -> Found:
        labels = split_name(target.lower())
        if labels[len(labels) - len(self.origin) :] != self.origin:
            return Found(NOERROR, (link,), leads_to=target)
        if depth >= _MAX_CHAIN:
            return Found(NOERROR, (link,))
        rest = self.find(target, labels, kind, depth + 1)
        return rest._replace(rcode=rest.rcode, answers=(link, *rest.answers))

    def _dname(self, asked: bytes, labels: Labels, node: Labels, dname: Record, *, kind: int, depth: int) -> Found:
        prefix = asked[: sum(len(label) + 1 for label in labels[: len(labels) - len(node)])]
        target = prefix + dname.data
        if len(target) > MAX_NAME:
            return Found(6, (dname,))  # YXDOMAIN, RFC 6672 §2.2
        link = Record(asked, CNAME, dname.ttl, target)
        rest = self._followed(link, target, kind, depth)
        return rest._replace(answers=(dname, *rest.answers))

    def _negative(self) -> Record:
        """The SOA as it goes with a denial (RFC 2308 §3)."""
        return self.soa._replace(ttl=min(self.soa.ttl, int.from_bytes(self.soa.data[-4:], "big")))

    def _glue(self, records: list[Record]) -> tuple[Record, ...]:
        found: list[Record] = []
        for record in records:
            at = {NS: 0, _MX: 2, SRV: 6}.get(record.type)
            if at is None or record.data[at:] == ROOT:
                continue
            sets = self._sets.get(split_name(record.data[at:].lower()), {})
            found += sets.get(A, []) + sets.get(AAAA, [])
        return tuple(dict.fromkeys(found))
