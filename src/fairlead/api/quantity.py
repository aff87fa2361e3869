"""Quantities: `100m`, `1.5Gi`, `12e6`.

Stands under resource requests, limits and node capacity. A quantity is an exact whole number of billionths (what
is finer is rounded away from zero, so that a wish for something is never nothing) and the form it is written in.
Invariant: `parse(canonical(q)) == q`, and `canonical` is the shortest form without loss.
Source: k8s.io/apimachinery `pkg/api/resource`.
"""

from __future__ import annotations

import re
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Any, Literal

import msgspec

Form = Literal["BinarySI", "DecimalSI", "DecimalExponent"]

_NANO = 10**9
_MAX = 2**63 - 1
_PATTERN = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
_SHAPE = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([eEinumkKMGTP]*[-+]?[0-9]*)", re.ASCII).fullmatch
_EXPONENT = re.compile(r"[eE]([-+]?[0-9]+)", re.ASCII).fullmatch
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL_NAMES = {exponent: name for name, exponent in _DECIMAL.items()}
_BINARY_NAMES = {exponent: name for name, exponent in _BINARY.items()}
_EXPONENT_LIMIT = 1000  # far beyond any quantity; keeps a hostile `1e999999999` from costing anything


class QuantityError(ValueError):
    """Not a quantity; the text says why, in upstream's words."""


class Quantity(msgspec.Struct, frozen=True, eq=False):
    """An exact amount in billionths. Compares and adds by amount; `form` only decides how it is written."""

    nano: int
    form: Form = "DecimalSI"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.nano == other.nano

    def __hash__(self) -> int:
        return hash(self.nano)

    def __lt__(self, other: Quantity) -> bool:
        return self.nano < other.nano

    def __le__(self, other: Quantity) -> bool:
        return self.nano <= other.nano

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.nano + other.nano, self.form if self.nano else other.form)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.nano - other.nano, self.form if self.nano else other.form)

    def __str__(self) -> str:
        return render(self)

    @property
    def value(self) -> int:
        """In whole units, rounded away from zero: bytes, cores."""
        return _divide_away(self.nano, _NANO)

    @property
    def milli(self) -> int:
        """In thousandths, rounded away from zero."""
        return _divide_away(self.nano, 10**6)


ZERO = Quantity(0)


def _divide_away(number: int, by: int) -> int:
    return -(-number // by) if number >= 0 else number // by


def parse(value: str | float) -> Quantity:
    """The quantity a text (or a bare JSON number) means. QuantityError when it means none."""
    return _parse(value.strip() if isinstance(value, str) else _number_text(value))


def _number_text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise QuantityError(f"quantities must match the regular expression '{_PATTERN}'")
    return repr(value)


@lru_cache(maxsize=1024)
def _parse(text: str) -> Quantity:
    found = _SHAPE(text)
    if found is None or not (found[2] or found[3]):
        raise QuantityError(f"quantities must match the regular expression '{_PATTERN}'")
    sign, whole, fraction, suffix = found.groups()
    fraction = fraction or ""
    form: Form = "DecimalSI"
    digits, scale = int((whole + fraction) or "0"), -len(fraction)
    if suffix in _DECIMAL:
        numerator, exponent = digits, scale + _DECIMAL[suffix]
    elif suffix in _BINARY:
        form, numerator, exponent = "BinarySI", digits << _BINARY[suffix], scale
    elif power := _EXPONENT(suffix):
        wanted = max(-_EXPONENT_LIMIT, min(_EXPONENT_LIMIT, int(power[1][:12])))
        form, numerator, exponent = "DecimalExponent", digits, scale + wanted
    else:
        raise QuantityError("unable to parse quantity's suffix")
    exponent += 9
    nano = numerator * 10**exponent if exponent >= 0 else _divide_away(numerator, 10**-exponent)
    if form == "BinarySI":
        nano = min(nano, _MAX * _NANO)
        if 0 < nano < _NANO:
            form = "DecimalSI"
    return Quantity(-nano if sign == "-" else nano, form)


def render(quantity: Quantity) -> str:
    """The canonical text: no fraction, the largest suffix that loses nothing, sign only if negative."""
    nano = quantity.nano
    if nano == 0:
        return "0"
    if quantity.form == "BinarySI" and abs(nano) >= 1024 * _NANO and nano % _NANO == 0:
        number, exponent = nano // _NANO, 0
        while number % 1024 == 0 and exponent < 60:
            number, exponent = number // 1024, exponent + 10
        return f"{number}{_BINARY_NAMES.get(exponent, '')}"
    number, exponent = nano, -9
    while number % 1000 == 0 and (exponent < 18 or quantity.form == "DecimalExponent"):
        number, exponent = number // 1000, exponent + 3
    if quantity.form == "DecimalExponent":
        return f"{number}e{exponent}" if exponent else str(number)
    return f"{number}{_DECIMAL_NAMES[exponent]}"


def canonical(value: str | float) -> str:
    """The canonical text of a quantity's text."""
    return render(parse(value))


def compare(left: str | float, right: str | float) -> int:
    """-1, 0 or 1 as `left` is less than, equal to or more than `right`."""
    a, b = parse(left).nano, parse(right).nano
    return (a > b) - (a < b)


def add(left: str | float, right: str | float) -> str:
    """The canonical text of the sum, in the form of `left` unless that is zero."""
    return render(parse(left) + parse(right))


def to_decimal(quantity: Quantity) -> Decimal:
    """The amount in whole units, exact."""
    with localcontext() as context:
        context.prec = 64
        return Decimal(quantity.nano).scaleb(-9)
