"""CEL's functions and Kubernetes' own: strings, lists, URLs, addresses, quantities, times, sets.

Used by `evaluate`. A function gets its target (if called as a method) and arguments as values. Pure. Invariant: what a
function does not take raises `Fault`; no function here looks at anything but its arguments.
Source: the Kubernetes documentation "Common Expression Language in Kubernetes".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from fairlead.api import quantity, times
from fairlead.api.custom.cel.values import (
    Fault,
    Optional,
    Quantity,
    Type,
    add,
    equal,
    is_number,
    less,
    no_overload,
    type_of,
)
from fairlead.api.custom.patterns import compiled

Function = Callable[..., Any]

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"[-+]?(?:\d+(?:\.\d*)?(?:h|ms|m|s|us|µs|ns))+|[-+]?0")
_PART = re.compile(r"(\d+(?:\.\d*)?)(h|ms|m|s|us|µs|ns)")
_MAX_TEXT = 1_000_000


def parse_duration(text: str) -> timedelta:
    """A Go duration. Raises ValueError."""
    if not _DURATION.fullmatch(text):
        raise ValueError(text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    try:
        return timedelta(seconds=-seconds if text.startswith("-") else seconds)
    except OverflowError as error:
        raise ValueError(text) from error


def _of(kind: Any, value: Any, name: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise no_overload(name, value)
    return value


def _size(value: Any) -> int:
    return len(_of((str, bytes, list, dict), value, "size"))


def _int(value: Any) -> int:
    if is_number(value):
        return int(value)
    if isinstance(value, datetime):
        return int(value.timestamp())
    try:
        return int(_of(str, value, "int"))
    except ValueError:
        raise Fault(f"type conversion error from string to int: {value}") from None


def _double(value: Any) -> float:
    if is_number(value):
        return float(value)
    try:
        return float(_of(str, value, "double"))
    except ValueError:
        raise Fault(f"type conversion error from string to double: {value}") from None


def _string(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, datetime):
        return times.render(value)
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    if isinstance(value, ipaddress.IPv4Address | ipaddress.IPv6Address | ipaddress.IPv4Network | ipaddress.IPv6Network):
        return str(value)
    raise no_overload("string", value)


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "True", "TRUE", "t", "1"):
        return True
    if value in ("false", "False", "FALSE", "f", "0"):
        return False
    raise Fault("type conversion error from string to bool")


def _timestamp(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    try:
        return times.parse(_of(str, value, "timestamp"))
    except ValueError as error:
        raise Fault(f"timestamp: {error}") from None


def _duration(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    try:
        return parse_duration(_of(str, value, "duration"))
    except ValueError:
        raise Fault(f"duration: invalid duration {value}") from None


def _matches(text: Any, pattern: Any) -> bool:
    found = compiled(_of(str, pattern, "matches"))
    if found is None:
        raise Fault(f"matches: invalid pattern {pattern}")
    return found.search(_of(str, text, "matches")) is not None


def _find_all(text: Any, pattern: Any, limit: Any = -1) -> list[str]:
    found = compiled(_of(str, pattern, "findAll"))
    if found is None:
        raise Fault(f"findAll: invalid pattern {pattern}")
    every = [match[0] for match in found.finditer(_of(str, text, "findAll"))]
    return every if limit < 0 else every[:limit]


def _substring(text: Any, start: Any, end: Any = None) -> str:
    end = len(_of(str, text, "substring")) if end is None else end
    if not 0 <= start <= end <= len(text):
        raise Fault(f"index out of range: {start}")
    return str(text[start:end])


def _replace(text: Any, old: Any, new: Any, limit: Any = -1) -> str:
    result = _of(str, text, "replace").replace(_of(str, old, "replace"), _of(str, new, "replace"), limit)
    if len(result) > _MAX_TEXT:
        raise Fault("replace: the result is too long")
    return str(result)


def _split(text: Any, by: Any, limit: Any = -1) -> list[str]:
    _of(str, text, "split")
    if limit == 0:
        return []
    if not by:
        return list(text)
    return list(text.split(by, limit - 1 if limit > 0 else -1))


def _char_at(text: Any, index: Any) -> str:
    if not 0 <= index <= len(_of(str, text, "charAt")):
        raise Fault(f"index out of range: {index}")
    return str(text[index : index + 1])


def _index_of(value: Any, wanted: Any, start: Any = 0) -> int:
    if isinstance(value, str):
        return value.find(_of(str, wanted, "indexOf"), start)
    found = (index for index, each in enumerate(_of(list, value, "indexOf")) if equal(each, wanted))
    return next(found, -1)


def _last_index_of(value: Any, wanted: Any) -> int:
    if isinstance(value, str):
        return value.rfind(_of(str, wanted, "lastIndexOf"))
    found = [index for index, each in enumerate(_of(list, value, "lastIndexOf")) if equal(each, wanted)]
    return found[-1] if found else -1


def _join(value: Any, by: Any = "") -> str:
    return str(by).join(_of(str, each, "join") for each in _of(list, value, "join"))


def _is_sorted(value: Any) -> bool:
    items = _of(list, value, "isSorted")
    return not any(less(b, a) for a, b in pairwise(items))


def _sum(value: Any) -> Any:
    items = _of(list, value, "sum")
    total = items[0] if items else 0
    for each in items[1:]:
        total = add(total, each)
    return total


def _extreme(value: Any, *, highest: bool) -> Any:
    items = _of(list, value, "max" if highest else "min")
    if not items:
        raise Fault("min and max called on empty list")
    best = items[0]
    for each in items[1:]:
        if less(best, each) if highest else less(each, best):
            best = each
    return best


def _distinct(value: Any) -> list[Any]:
    found: list[Any] = []
    for each in _of(list, value, "distinct"):
        if not any(equal(each, other) for other in found):
            found.append(each)
    return found


def _url(value: Any) -> SplitResult:
    try:
        split: SplitResult = urlsplit(_of(str, value, "url"))
        _ = split.port
    except ValueError as error:
        raise Fault(f"URL parse error during conversion from string: {error}") from None
    if not (split.scheme or value.startswith("/")) or " " in value:
        raise Fault("URL parse error during conversion from string: invalid URI for request")
    return split


def _ip(value: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value.network_address
    try:
        return ipaddress.ip_address(_of(str, value, "ip"))
    except ValueError as error:
        raise Fault(f"IP Address parse error during conversion from string: {error}") from None


def _cidr(value: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        if "/" in _of(str, value, "cidr"):
            return ipaddress.ip_network(value, strict=False)
    except ValueError:
        pass
    raise Fault(f"network address parse error during conversion from string: {value}")


def _contains_cidr(network: Any, other: Any) -> bool:
    other = _cidr(other) if isinstance(other, str) else other
    return network.version == other.version and bool(other.subnet_of(network))


def _quantity(value: Any) -> Quantity:
    try:
        return Quantity(quantity.to_decimal(quantity.parse(_of(str, value, "quantity"))))
    except (ValueError, ArithmeticError):
        raise Fault(f"quantity: {value} is none") from None


def _amount(value: Any) -> Decimal:
    return value.amount if isinstance(value, Quantity) else Decimal(_int(value))


def _takes(function: Function) -> Function:
    """Whether a conversion succeeds."""

    def takes(value: Any) -> bool:
        try:
            function(value)
        except Fault:
            return False
        return True

    return takes


def _within(a: Any, b: Any) -> bool:
    return all(any(equal(each, other) for other in a) for each in b)


def _value(held: Any) -> Any:
    if not _of(Optional, held, "value").there:
        raise Fault("optional.none() dereference")
    return held.value


FUNCTIONS: dict[str, Function] = {
    "size": _size, "int": _int, "uint": _int, "double": _double, "string": _string, "bool": _bool,
    "bytes": lambda v: v if isinstance(v, bytes) else _of(str, v, "bytes").encode(),
    "type": lambda v: Type(type_of(v)), "dyn": lambda v: v, "timestamp": _timestamp, "duration": _duration,
    "matches": _matches, "url": _url, "isURL": _takes(_url), "ip": _ip, "isIP": _takes(_ip), "cidr": _cidr,
    "isCIDR": _takes(_cidr), "quantity": _quantity, "isQuantity": _takes(_quantity),
    "optional.of": lambda v: Optional(True, v), "optional.none": Optional,
    "optional.ofNonZeroValue": lambda v: Optional(bool(v), v if v else None),
    "sets.contains": _within, "sets.equivalent": lambda a, b: _within(a, b) and _within(b, a),
    "sets.intersects": lambda a, b: any(equal(x, y) for x in a for y in b),
    "ip.isCanonical": lambda v: str(_ip(v)) == v,
}  # fmt: skip
"""By name, as called without a target."""

METHODS: dict[str, Function] = {
    "size": _size, "matches": _matches, "find": lambda t, p: (_find_all(t, p, 1) or [""])[0], "findAll": _find_all,
    "contains": lambda t, s: _of(str, s, "contains") in _of(str, t, "contains"),
    "startsWith": lambda t, s: _of(str, t, "startsWith").startswith(_of(str, s, "startsWith")),
    "endsWith": lambda t, s: _of(str, t, "endsWith").endswith(_of(str, s, "endsWith")),
    "charAt": _char_at, "indexOf": _index_of, "lastIndexOf": _last_index_of, "join": _join,
    "lowerAscii": lambda t: "".join(c.lower() if c.isascii() else c for c in _of(str, t, "lowerAscii")),
    "upperAscii": lambda t: "".join(c.upper() if c.isascii() else c for c in _of(str, t, "upperAscii")),
    "replace": _replace, "split": _split, "substring": _substring, "trim": lambda t: _of(str, t, "trim").strip(),
    "reverse": lambda v: _of((str, list), v, "reverse")[::-1],
    "isSorted": _is_sorted, "sum": _sum, "min": lambda v: _extreme(v, highest=False),
    "max": lambda v: _extreme(v, highest=True), "distinct": _distinct,
    "slice": lambda v, a, b: _of(list, v, "slice")[a:b],
    "getScheme": lambda u: u.scheme, "getHost": lambda u: u.netloc.rpartition("@")[2],
    "getHostname": lambda u: u.hostname or "", "getPort": lambda u: str(u.port or ""),
    "getEscapedPath": lambda u: u.path, "getQuery": lambda u: parse_qs(u.query, keep_blank_values=True),
    "family": lambda a: a.version, "isUnspecified": lambda a: a.is_unspecified, "isLoopback": lambda a: a.is_loopback,
    "isLinkLocalMulticast": lambda a: a.is_multicast and a.is_link_local,
    "isLinkLocalUnicast": lambda a: a.is_link_local and not a.is_multicast,
    "isGlobalUnicast": lambda a: not (a.is_multicast or a.is_unspecified or a.is_loopback or a.is_link_local),
    "containsIP": lambda n, a: (_ip(a) if isinstance(a, str) else a) in n, "containsCIDR": _contains_cidr,
    "prefixLength": lambda n: n.prefixlen, "masked": lambda n: n, "ip": _ip,
    "isInteger": lambda q: q.amount == int(q.amount), "asInteger": lambda q: int(q.amount),
    "asApproximateFloat": lambda q: float(q.amount), "sign": lambda q: (q.amount > 0) - (q.amount < 0),
    "isGreaterThan": lambda q, o: q.amount > _amount(o), "isLessThan": lambda q, o: q.amount < _amount(o),
    "compareTo": lambda q, o: (q.amount > _amount(o)) - (q.amount < _amount(o)),
    "add": lambda q, o: Quantity(q.amount + _amount(o)), "sub": lambda q, o: Quantity(q.amount - _amount(o)),
    "hasValue": lambda o: _of(Optional, o, "hasValue").there, "value": _value,
    "orValue": lambda o, other: o.value if _of(Optional, o, "orValue").there else other,
    "or": lambda o, other: o if _of(Optional, o, "or").there else other,
    "getFullYear": lambda t: t.year, "getMonth": lambda t: t.month - 1, "getDate": lambda t: t.day,
    "getDayOfMonth": lambda t: t.day - 1, "getDayOfWeek": lambda t: t.isoweekday() % 7,
    "getDayOfYear": lambda t: t.timetuple().tm_yday - 1,
    "getHours": lambda t: t.hour if isinstance(t, datetime) else int(t.total_seconds() // 3600),
    "getMinutes": lambda t: t.minute if isinstance(t, datetime) else int(t.total_seconds() // 60),
    "getSeconds": lambda t: t.second if isinstance(t, datetime) else int(t.total_seconds()),
    "getMilliseconds": lambda t: t.microsecond // 1000 if isinstance(t, datetime) else t.microseconds // 1000,
}  # fmt: skip
"""By name, as called on a target, which comes first."""
NAMESPACES = frozenset(name.partition(".")[0] for name in FUNCTIONS if "." in name)


def call(function: Function, name: str, values: list[Any]) -> Any:
    """Call it; whatever it can't take is a Fault."""
    try:
        return function(*values)
    except (TypeError, AttributeError, OverflowError, ValueError, ArithmeticError, IndexError, KeyError):
        raise no_overload(name, *values) from None
