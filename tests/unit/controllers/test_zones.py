"""How fast silent nodes are given up."""

from __future__ import annotations

import pytest

from fairlead.controllers.zones import Pace, rates, state

A, B = ("", "a"), ("", "b")


@pytest.mark.parametrize(
    ("ready", "silent", "expected"),
    [
        (1, 0, "normal"),
        (0, 1, "full"),
        (0, 5, "full"),
        (1, 1, "normal"),
        (1, 2, "normal"),
        (1, 3, "partial"),
        (3, 3, "normal"),
        (0, 0, "normal"),
    ],
)
def test_the_state_of_a_zone(ready: int, silent: int, expected: str) -> None:
    """All, or more than two and most of them."""
    assert state([True] * ready + [False] * silent) == expected


def test_rates() -> None:
    """A small zone in trouble stops, a large one slows down, one that is gone goes on; where all are, none does."""
    some = [True] + [False] * 3
    assert rates({A: some, B: [True]}) == {A: 0.0, B: 0.1}
    assert rates({A: some * 13, B: [True]}) == {A: 0.01, B: 0.1}
    assert rates({A: [False], B: [True]}) == {A: 0.1, B: 0.1}
    assert rates({A: [False], B: [False, False]}) is None


def test_turns() -> None:
    """One at once, the next after its time, in each zone by itself; none at rate 0."""
    pace = Pace()
    assert pace.wait(A, 0.1, 100.0) == 0.0
    assert pace.wait(A, 0.1, 104.0) == pytest.approx(6.0)
    assert pace.wait(B, 0.1, 104.0) == 0.0
    assert pace.wait(A, 0.0, 104.0) is None
    assert pace.wait(A, 0.1, 110.0) == 0.0
