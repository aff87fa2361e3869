"""Timestamps and durations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from fairlead.api import times


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05.123456789Z", datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)),
        ("2026-01-02T03:04:05.5+02:00", datetime(2026, 1, 2, 1, 4, 5, 500000, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_parse(text, value) -> None:
    """RFC 3339 in any zone, with any fraction, is read as UTC."""
    assert times.parse(text) == value


@pytest.mark.parametrize("text", ["", "2026-01-02", "2026-13-01T00:00:00Z", "2026-01-02T03:04:05", "yesterday"])
def test_parse_refuses(text) -> None:
    """Anything else is refused, naming the text."""
    with pytest.raises(ValueError, match="parsing time"):
        times.parse(text)


def test_render() -> None:
    """Time has seconds, MicroTime always has six digits."""
    value = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert times.render(value) == "2026-01-02T03:04:05Z"
    assert times.render_micro(value) == "2026-01-02T03:04:05.000006Z"
    assert times.render(datetime(7, 1, 1, tzinfo=UTC)) == "0007-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1.5, "0s"),
        (-0.5, "0s"),
        (0, "0s"),
        (45, "45s"),
        (119, "119s"),
        (120, "2m"),
        (200, "3m20s"),
        (599, "9m59s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 120, "3h2m"),
        (8 * 3600 + 120, "8h"),
        (47 * 3600, "47h"),
        (48 * 3600, "2d"),
        (52 * 3600, "2d4h"),
        (8 * 86400 + 3600, "8d"),
        (400 * 86400, "400d"),
        (730 * 86400, "2y"),
        (800 * 86400, "2y70d"),
        (3650 * 86400, "10y"),
    ],
)
def test_human_duration(seconds, text) -> None:
    """Ages read as in kubectl's AGE column."""
    assert times.human_duration(timedelta(seconds=seconds)) == text
