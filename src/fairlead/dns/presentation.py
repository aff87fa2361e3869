"""Records as zone-file text, both ways. Pure.

Stands beside the codec; used by `file`, `template`, `hosts`, tools and tests, never on the way of a query that is
remembered. Sources: RFC 1035 §5, RFC 2782, RFC 3403, RFC 3597 (types without a form of their own), RFC 8659 (CAA).
Invariant: `record(render(r)) == r` for records of every type in `TYPES`.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterator

from fairlead.dns.message import Record
from fairlead.dns.names import MAX_LABEL, MAX_NAME, ROOT, packed_address, text_address, text_name

TYPES = {
    "A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "HINFO": 13, "MX": 15, "TXT": 16, "RP": 17, "AAAA": 28, "LOC": 29,
    "SRV": 33, "NAPTR": 35, "CERT": 37, "DNAME": 39, "OPT": 41, "DS": 43, "SSHFP": 44, "RRSIG": 46, "NSEC": 47,
    "DNSKEY": 48, "NSEC3": 50, "NSEC3PARAM": 51, "TLSA": 52, "CDS": 59, "CDNSKEY": 60, "SVCB": 64, "HTTPS": 65,
    "SPF": 99, "IXFR": 251, "AXFR": 252, "ANY": 255, "URI": 256, "CAA": 257,
}  # fmt: skip
TYPE_NAMES = {number: name for name, number in TYPES.items()}
CLASSES = {"IN": 1, "CH": 3, "HS": 4, "ANY": 255}
CLASS_NAMES = {number: name for name, number in CLASSES.items()}
RCODES = {
    "NOERROR": 0, "FORMERR": 1, "SERVFAIL": 2, "NXDOMAIN": 3, "NOTIMP": 4, "NOTIMPL": 4, "REFUSED": 5, "YXDOMAIN": 6,
    "YXRRSET": 7, "NXRRSET": 8, "NOTAUTH": 9, "NOTZONE": 10, "BADVERS": 16, "BADSIG": 16, "BADKEY": 17, "BADTIME": 18,
    "BADMODE": 19, "BADNAME": 20, "BADALG": 21, "BADTRUNC": 22, "BADCOOKIE": 23,
}  # fmt: skip
RCODE_NAMES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 6: "YXDOMAIN",
               7: "YXRRSET", 8: "NXRRSET", 9: "NOTAUTH", 10: "NOTZONE", 16: "BADVERS"}  # fmt: skip

_NAME_ONLY = {2, 5, 12, 39}  # NS, CNAME, PTR, DNAME
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class TextError(ValueError):
    """The text is no record."""


def type_name(number: int) -> str:
    """`A`, or `TYPE4711` (RFC 3597 §5)."""
    return TYPE_NAMES.get(number) or f"TYPE{number}"


def name(text: str, origin: bytes = ROOT) -> bytes:
    """A name with escapes → wire form; one that does not end with a dot is below `origin`. Raises TextError."""
    if text == "@":
        return origin
    if text == ".":
        return ROOT
    out, label, position = bytearray(), bytearray(), 0
    while position < len(text):
        char = text[position]
        if char == "\\":
            digits = text[position + 1 : position + 4]
            if len(digits) == 3 and digits.isdigit():
                if int(digits) > 255:
                    raise TextError(f"not a domain name: {text!r}")
                label.append(int(digits))
                position += 4
            elif position + 1 < len(text):
                label += text[position + 1].encode()
                position += 2
            else:
                raise TextError(f"not a domain name: {text!r}")
            continue
        position += 1
        if char != ".":
            label += char.encode()
            continue
        if not 0 < len(label) <= MAX_LABEL:
            raise TextError(f"not a domain name: {text!r}")
        out += bytes((len(label),)) + label
        label.clear()
    if label:
        if len(label) > MAX_LABEL:
            raise TextError(f"not a domain name: {text!r}")
        out += bytes((len(label),)) + label + origin
    elif not text:
        raise TextError("an empty name")
    else:
        out += ROOT
    if len(out) > MAX_NAME:
        raise TextError(f"domain name is longer than {MAX_NAME} bytes: {text!r}")
    return bytes(out)


def ttl(text: str) -> int | None:
    """`300`, `1h30m` → seconds; None if it is none."""
    if text.isdigit():
        return int(text)
    if re.fullmatch(r"(\d+[smhdwSMHDW])+", text):
        return sum(int(count) * _UNITS[unit.lower()] for count, unit in re.findall(r"(\d+)([a-zA-Z])", text))
    return None


def words(text: str) -> list[tuple[str, bool]]:
    """The words of a line and whether each was quoted; quotes keep spaces, `;` begins a comment. Parentheses are the
    reader's of whole files. Escapes stay."""
    found: list[tuple[str, bool]] = []
    position, end = 0, len(text)
    while position < end:
        char = text[position]
        if char in " \t\r\n":
            position += 1
        elif char == ";":
            break
        elif char == '"':
            begin = position = position + 1
            while position < end and text[position] != '"':
                position += 2 if text[position] == "\\" else 1
            if position >= end:
                raise TextError("a quote does not end")
            found.append((text[begin:position], True))
            position += 1
        else:
            begin = position
            while position < end and text[position] not in ' \t\r\n;"':
                position += 2 if text[position] == "\\" else 1
            found.append((text[begin:position], False))
    return found


def record(text: str, origin: bytes = ROOT, default_ttl: int = 3600) -> Record:
    """`NAME [TTL] [CLASS] TYPE DATA…` in any order of TTL and class. Raises TextError."""
    parts = words(text)
    if not parts:
        raise TextError("an empty record")
    return from_words(name(parts[0][0], origin), parts[1:], origin, default_ttl)


def from_words(owner: bytes, parts: list[tuple[str, bool]], origin: bytes, default_ttl: int) -> Record:
    """What stands after the owner's name. Raises TextError."""
    seconds, klass, at = default_ttl, 1, 0
    while at < len(parts):
        word = parts[at][0].upper()
        if word in CLASSES and word != "ANY":
            klass = CLASSES[word]
        elif (found := ttl(parts[at][0])) is not None:
            seconds = found
        else:
            break
        at += 1
    if at >= len(parts):
        raise TextError("a record without a type")
    word = parts[at][0].upper()
    kind = TYPES.get(word) or (int(word[4:]) if re.fullmatch(r"TYPE\d{1,5}", word) else 0)
    if not 0 < kind < 65536 or kind in {41, 251, 252, 255}:
        raise TextError(f"{parts[at][0]!r} is not a record type")
    data = parts[at + 1 :]
    try:
        return Record(owner, kind, seconds, _data(kind, data, origin), klass)
    except (IndexError, ValueError, struct.error, KeyError) as error:
        why = str(error) if isinstance(error, TextError) else f"{' '.join(part for part, _ in data)!r} does not fit it"
        raise TextError(f"{word}: {why}") from None


def _data(kind: int, data: list[tuple[str, bool]], origin: bytes) -> bytes:
    plain = [part for part, _ in data]
    if plain[0] == "\\#" and not data[0][1]:
        raw = bytes.fromhex("".join(plain[2:]))
        if len(raw) != int(plain[1]):
            raise TextError("the length and the data differ")
        return raw
    fixed = _FIXED.get(kind)
    if fixed is not None and len(plain) < fixed:
        raise TextError(f"needs {fixed} values")
    if fixed is not None and len(plain) > fixed and kind not in _OPEN:
        raise TextError(f"takes {fixed} values")
    if kind in {1, 28}:
        packed = packed_address(plain[0])
        if packed is None or len(packed) != (4 if kind == 1 else 16):
            raise TextError(f"{plain[0]!r} is not an address")
        return packed
    if kind in _NAME_ONLY:
        return name(plain[0], origin)
    if kind == 6:
        numbers = [ttl(part) for part in plain[2:7]]
        if None in numbers:
            raise TextError("a SOA needs five numbers")
        return name(plain[0], origin) + name(plain[1], origin) + struct.pack("!5I", *numbers)
    if kind == 15:
        return struct.pack("!H", int(plain[0])) + name(plain[1], origin)
    if kind == 33:
        return struct.pack("!3H", *map(int, plain[:3])) + name(plain[3], origin)
    if kind in {13, 16, 99}:
        return b"".join(map(_string, plain))
    if kind == 17:
        return name(plain[0], origin) + name(plain[1], origin)
    if kind == 35:
        return struct.pack("!2H", *map(int, plain[:2])) + b"".join(map(_string, plain[2:5])) + name(plain[5], origin)
    if kind == 257:
        tag = plain[1].encode()
        return bytes((int(plain[0]), len(tag))) + tag + _raw(plain[2])
    if kind == 256:
        return struct.pack("!2H", *map(int, plain[:2])) + _raw(plain[2])
    if kind in {43, 59}:
        return struct.pack("!HBB", *map(int, plain[:3])) + bytes.fromhex("".join(plain[3:]))
    if kind in {48, 60}:
        return struct.pack("!HBB", *map(int, plain[:3])) + base64.b64decode("".join(plain[3:]), validate=True)
    if kind == 44:
        return bytes(map(int, plain[:2])) + bytes.fromhex("".join(plain[2:]))
    if kind == 52:
        return bytes(map(int, plain[:3])) + bytes.fromhex("".join(plain[3:]))
    raise TextError("has no text form here; write it as \\# LENGTH HEX (RFC 3597)")


_FIXED = {1: 1, 2: 1, 5: 1, 6: 7, 12: 1, 13: 2, 15: 2, 16: 1, 17: 2, 28: 1, 33: 4, 35: 6, 39: 1, 43: 4, 44: 3, 48: 4,
          52: 4, 59: 4, 60: 4, 99: 1, 256: 3, 257: 3}  # fmt: skip
_OPEN = {16, 99, 43, 44, 48, 52, 59, 60}  # more words than that are one value, or more of them


def _raw(text: str) -> bytes:
    out, position = bytearray(), 0
    while position < len(text):
        if text[position] == "\\":
            digits = text[position + 1 : position + 4]
            if len(digits) == 3 and digits.isdigit():
                out.append(int(digits))
                position += 4
                continue
            position += 1
        out += text[position].encode()
        position += 1
    return bytes(out)


def _string(text: str) -> bytes:
    raw = _raw(text)
    if len(raw) > 255:
        raise TextError("a string is longer than 255 bytes")
    return bytes((len(raw),)) + raw


# -- rendering -------------------------------------------------------------------------------------------------


def render(found: Record) -> str:
    """A record as a line of a zone file, with absolute names."""
    klass = CLASS_NAMES.get(found.klass) or f"CLASS{found.klass}"
    return f"{text_name(found.name)} {found.ttl} {klass} {type_name(found.type)} {data_text(found)}"


def data_text(found: Record) -> str:
    """A record's data in presentation form; as RFC 3597 has it if the type has none here."""
    kind, data = found.type, found.data
    try:
        if kind in {1, 28}:
            return text_address(data)
        if kind in _NAME_ONLY:
            return text_name(data)
        if kind == 6:
            (first, second), rest = _names(data, 2)
            return " ".join((text_name(first), text_name(second), *map(str, struct.unpack("!5I", rest))))
        if kind == 15:
            return f"{int.from_bytes(data[:2], 'big')} {text_name(data[2:])}"
        if kind == 33:
            return " ".join((*map(str, struct.unpack_from("!3H", data)), text_name(data[6:])))
        if kind in {13, 16, 99}:
            return " ".join(map(_quoted, strings(data)))
    except (IndexError, struct.error, ValueError):
        pass
    return f"\\# {len(data)} {data.hex()}".rstrip()


def _names(data: bytes, count: int) -> tuple[list[bytes], bytes]:
    found, position = [], 0
    for _ in range(count):
        start = position
        while length := data[position]:
            position += length + 1
        position += 1
        found.append(data[start:position])
    return found, data[position:]


def strings(data: bytes) -> Iterator[bytes]:
    """The character-strings of a TXT record's data."""
    position = 0
    while position < len(data):
        yield data[position + 1 : position + 1 + data[position]]
        position += data[position] + 1


def _quoted(raw: bytes) -> str:
    return (
        '"'
        + "".join(
            "\\" + chr(byte) if byte in b'"\\' else chr(byte) if 0x20 <= byte < 0x7F else f"\\{byte:03d}"
            for byte in raw
        )
        + '"'
    )
