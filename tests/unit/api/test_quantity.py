"""Quantities: parsing, canonical text, comparing, adding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.api import quantity


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0", "0"),
        ("-0", "0"),
        ("100m", "100m"),
        ("1000m", "1"),
        ("0.5", "500m"),
        ("1.5", "1500m"),
        (".5", "500m"),
        ("1.", "1"),
        ("1000", "1k"),
        ("1024", "1024"),
        ("1024Ki", "1Mi"),
        ("1536Mi", "1536Mi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Mi", "512Ki"),
        ("1000Ki", "1000Ki"),
        ("1023Ki", "1023Ki"),
        ("12e6", "12e6"),
        ("1500E3", "1500e3"),
        ("1E", "1E"),
        ("0.1n", "1n"),
        ("1.1n", "2n"),
        ("-1.1n", "-2n"),
        ("+3", "3"),
        ("128974848", "128974848"),
        ("129M", "129M"),
        ("9999999999Ei", "9223372036854775807"),
        (2, "2"),
        (0.25, "250m"),
    ],
)
def test_canonical(text, canonical) -> None:
    """Each amount has one text: no fraction, the largest suffix without loss."""
    assert quantity.canonical(text) == canonical


@pytest.mark.parametrize("text", ["", "-", "+", "x", "1x", "1 Gi", "1Gi1", "1..2", "1ki", "Gi", "1e", "0x10", "1eM"])
def test_refused(text) -> None:
    """What upstream cannot parse is refused."""
    with pytest.raises(quantity.QuantityError):
        quantity.parse(text)


def test_a_hostile_exponent_costs_nothing() -> None:
    """A huge exponent is cut off, not computed."""
    assert quantity.parse("1e999999999").nano == 10**1009
    assert quantity.canonical("1e-999999999") == "1e-9"


def test_compare_and_add() -> None:
    """Amounts compare across suffixes; a sum keeps the left side's form."""
    assert quantity.compare("1Gi", "1024Mi") == 0
    assert quantity.compare("1G", "1Gi") == -1
    assert quantity.add("512Mi", "512Mi") == "1Gi"
    assert quantity.add("0", "1Gi") == "1Gi"
    assert quantity.add("100m", "0.9") == "1"
    assert (quantity.parse("1500m").value, quantity.parse("-1500m").value, quantity.parse("1.5").milli) == (2, -2, 1500)


@given(st.integers(-(10**30), 10**30), st.sampled_from(["BinarySI", "DecimalSI", "DecimalExponent"]))
def test_canonical_text_means_the_same_amount(nano, form) -> None:
    """parse(render(q)) == q for every amount a signed 64-bit number of units can hold."""
    amount = quantity.Quantity(nano % (2**63 * 10**9), form)
    assert quantity.parse(quantity.render(amount)) == amount
