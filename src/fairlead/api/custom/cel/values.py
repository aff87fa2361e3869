"""CEL's values and what can be said of them: equality, order, arithmetic, types.

Between `syntax` and `evaluate`. JSON values are themselves; a timestamp is a datetime, a duration a timedelta.
Pure. Invariant: an operation that CEL does not define for its operands raises `Fault`, whatever Python would do.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from math import isnan
from typing import Any
from urllib.parse import SplitResult

import msgspec

_MIN, _MAX = -(2**63), 2**64 - 1


class Fault(Exception):
    """Evaluation came to no value."""


class Optional(msgspec.Struct, frozen=True):
    """`optional.of(x)`, or nothing."""

    there: bool = False
    value: Any = None


class Quantity(msgspec.Struct, frozen=True):
    """`quantity('1Gi')`."""

    amount: Decimal


class Type(msgspec.Struct, frozen=True):
    """What `type(x)` gives."""

    name: str


_NAMES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "bool"),
    (int, "int"),
    (float, "double"),
    (str, "string"),
    (bytes, "bytes"),
    (list, "list"),
    (dict, "map"),
    (datetime, "google.protobuf.Timestamp"),
    (timedelta, "google.protobuf.Duration"),
    (Quantity, "kubernetes.Quantity"),
    (Optional, "optional_type"),
    (Type, "type"),
    ((IPv4Address, IPv6Address), "net.IP"),
    ((IPv4Network, IPv6Network), "net.CIDR"),
    (SplitResult, "kubernetes.URL"),
)
TYPES = {
    name: Type(name)
    for name in ("bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type")
}


def type_of(value: Any) -> str:
    """The name of a value's type."""
    if value is None:
        return "null_type"
    return next((name for kind, name in _NAMES if isinstance(value, kind)), "dyn")


def equal(a: Any, b: Any) -> bool:
    """CEL's `==`: numbers by value, everything else only with its own type."""
    if isinstance(a, bool) or isinstance(b, bool):
        return isinstance(a, bool) and isinstance(b, bool) and a == b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(value, b[key]) for key, value in a.items())
    return bool(a == b)


_ORDERED: tuple[type | tuple[type, ...], ...] = (str, bytes, datetime, timedelta)


def less(a: Any, b: Any) -> bool:
    """CEL's `<`."""
    if is_number(a) and is_number(b):
        return bool(a < b)
    if isinstance(a, bool) and isinstance(b, bool):
        return a < b
    if any(isinstance(a, kind) and isinstance(b, kind) for kind in _ORDERED):
        return bool(a < b)
    raise no_overload("_<_", a, b)


def is_number(value: Any) -> bool:
    """Whether it is an int or a double."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_int(value: Any) -> bool:
    """Whether it is an int."""
    return isinstance(value, int) and not isinstance(value, bool)


def no_overload(function: str, *values: Any) -> Fault:
    """An operation that is not defined for such values."""
    return Fault(f"no such overload: {function}({', '.join(type_of(value) for value in values)})")


def bounded(value: int) -> int:
    """The int, if it fits."""
    if not _MIN <= value <= _MAX:
        raise Fault("integer overflow")
    return value


_ADDED: tuple[type, ...] = (float, str, bytes, list)
_TIMES: tuple[type, ...] = (datetime, timedelta)


def add(a: Any, b: Any) -> Any:
    """CEL's `+`."""
    if is_int(a) and is_int(b):
        return bounded(a + b)
    if any(isinstance(a, kind) and isinstance(b, kind) for kind in _ADDED):
        return a + b
    if isinstance(a, _TIMES) and isinstance(b, _TIMES):
        return _timed(operator.add, "+", a, b)
    raise no_overload("_+_", a, b)


def subtract(a: Any, b: Any) -> Any:
    """CEL's `-`."""
    if is_int(a) and is_int(b):
        return bounded(a - b)
    if isinstance(a, float) and isinstance(b, float):
        return a - b
    if isinstance(a, _TIMES) and isinstance(b, _TIMES):
        return _timed(operator.sub, "-", a, b)
    raise no_overload("_-_", a, b)


def _timed(operation: Callable[[Any, Any], Any], sign: str, a: Any, b: Any) -> Any:
    try:
        return operation(a, b)
    except (TypeError, OverflowError):
        raise no_overload(f"_{sign}_", a, b) from None


def multiply(a: Any, b: Any) -> Any:
    """CEL's `*`."""
    if is_int(a) and is_int(b):
        return bounded(a * b)
    if isinstance(a, float) and isinstance(b, float):
        return a * b
    raise no_overload("_*_", a, b)


def divide(a: Any, b: Any) -> Any:
    """CEL's `/`: ints are cut towards zero."""
    if is_int(a) and is_int(b):
        if b == 0:
            raise Fault("division by zero")
        quotient = abs(a) // abs(b)
        return quotient if (a < 0) == (b < 0) else -quotient
    if isinstance(a, float) and isinstance(b, float):
        if b == 0:
            return float("nan") if a == 0 or isnan(a) else float("inf") if a > 0 else float("-inf")
        return a / b
    raise no_overload("_/_", a, b)


def modulo(a: Any, b: Any) -> Any:
    """CEL's `%`: the sign is the dividend's."""
    if is_int(a) and is_int(b):
        if b == 0:
            raise Fault("modulus by zero")
        rest = abs(a) % abs(b)
        return -rest if a < 0 else rest
    raise no_overload("_%_", a, b)


def negate(a: Any) -> Any:
    """CEL's unary `-`."""
    if is_number(a):
        return -a
    raise no_overload("-_", a)


def contains(a: Any, b: Any) -> bool:
    """CEL's `in`."""
    if isinstance(b, dict):
        return isinstance(a, str) and a in b
    if isinstance(b, list):
        return any(equal(a, each) for each in b)
    raise no_overload("@in", a, b)


def truth(value: Any) -> bool:
    """The bool, or a fault."""
    if isinstance(value, bool):
        return value
    raise no_overload("bool", value)
