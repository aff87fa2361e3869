"""Cron schedules: what is read, what is refused and when they come, also where clocks are changed."""

from __future__ import annotations

import datetime

import pytest

from fairlead.api import cron

UTC = datetime.UTC


def at(text: str) -> datetime.datetime:
    """`2026-03-29 00:30` in UTC."""
    return datetime.datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "after", "following"),
    [
        ("* * * * *", "2026-01-01 00:00", "2026-01-01 00:01"),
        ("*/15 * * * *", "2026-01-01 00:46", "2026-01-01 01:00"),
        ("0 3 * * 1", "2026-01-01 00:00", "2026-01-05 03:00"),
        ("0 3 * * mon-fri", "2026-01-02 03:00", "2026-01-05 03:00"),
        ("0 0 13 * 5", "2026-01-01 00:00", "2026-01-02 00:00"),  # the 13th, or a Friday
        ("0 0 13 * *", "2026-01-01 00:00", "2026-01-13 00:00"),
        ("5/20 * * * *", "2026-01-01 00:06", "2026-01-01 00:25"),
        ("0 0 29 2 *", "2026-01-01 00:00", "2028-02-29 00:00"),
        ("0 0 1,15 jan,jul ?", "2026-01-15 00:00", "2026-07-01 00:00"),
        ("@hourly", "2026-01-01 00:30", "2026-01-01 01:00"),
        ("@weekly", "2026-01-01 00:30", "2026-01-04 00:00"),
        ("@every 1h30m", "2026-01-01 00:30", "2026-01-01 02:00"),
        ("0 0 31 12 *", "2026-12-31 00:00", "2027-12-31 00:00"),
    ],
)
def test_the_next_time(schedule: str, after: str, following: str) -> None:
    """The first time later than another."""
    assert cron.parse(schedule).after(at(after), UTC) == at(following)


def test_a_time_that_never_comes() -> None:
    """The 30th of February is not waited for for ever."""
    assert cron.parse("0 0 30 2 *").after(at("2026-01-01 00:00"), UTC) is None
    assert cron.parse("0 0 30 2 *").latest(at("2025-01-01 00:00"), at("2026-01-01 00:00"), UTC) is None


def test_a_zone_is_local_time() -> None:
    """Six in the morning in Berlin is five in UTC in winter and four in summer."""
    berlin = cron.zone_of("Europe/Berlin")
    daily = cron.parse("0 6 * * *")
    assert daily.after(at("2026-01-10 00:00"), berlin) == at("2026-01-10 05:00")
    assert daily.after(at("2026-07-10 00:00"), berlin) == at("2026-07-10 04:00")


def test_daylight_saving() -> None:
    """A time that is skipped is left out; one that comes twice is taken twice."""
    berlin = cron.zone_of("Europe/Berlin")
    daily = cron.parse("30 2 * * *")
    assert daily.after(at("2026-03-28 12:00"), berlin) == at("2026-03-30 00:30")
    first = daily.after(at("2026-10-24 12:00"), berlin)
    assert first == at("2026-10-25 00:30")
    assert daily.after(first, berlin) == at("2026-10-25 01:30")


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("", "empty spec string"),
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("* * * * 7", "end of range (7) above maximum (6): 7"),
        ("30-20 * * * *", "beginning of range (30) beyond end of range (20): 30-20"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("1/2/3 * * * *", "too many slashes: 1/2/3"),
        ("x * * * *", 'failed to parse int from x: strconv.Atoi: parsing "x": invalid syntax'),
        ("@never", "unrecognized descriptor: @never"),
        ("@every soon", 'failed to parse duration @every soon: time: invalid duration "soon"'),
    ],
)
def test_what_is_refused(schedule: str, message: str) -> None:
    """In upstream's words."""
    with pytest.raises(cron.CronError) as caught:
        cron.parse(schedule)
    assert str(caught.value) == message


@pytest.mark.parametrize("zone", ["Mars/Olympus", "America", "/etc/passwd", "../UTC", "x" * 300])
def test_zones_that_are_none(zone: str) -> None:
    """Folders, paths and inventions are refused alike."""
    with pytest.raises(cron.CronError):
        cron.zone_of(zone)
