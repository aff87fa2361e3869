"""Schedules against a slow reading of the same words: every minute is asked."""

from __future__ import annotations

import datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.api import cron

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Havana")


def field(least: int, most: int) -> st.SearchStrategy[str]:
    number = st.integers(least, most)
    pair = st.tuples(number, number).map(sorted).map(lambda p: f"{p[0]}-{p[1]}")
    stepped = st.tuples(st.one_of(st.just("*"), pair, number.map(str)), st.integers(1, 30)).map(
        lambda p: f"{p[0]}/{p[1]}"
    )
    return st.one_of(st.just("*"), st.just("*"), number.map(str), pair, stepped)


SCHEDULES = st.tuples(field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 6)).map(" ".join)
MOMENTS = st.one_of(
    st.datetimes(datetime.datetime(2025, 1, 1), datetime.datetime(2028, 1, 1)),
    st.sampled_from([datetime.datetime(2026, 3, 28, 20), datetime.datetime(2026, 10, 24, 20)]),
    st.sampled_from(
        [datetime.datetime(2026, 3, 8, 3), datetime.datetime(2026, 11, 1, 3), datetime.datetime(2026, 4, 4, 12)]
    ),
)


def numbers(text: str, least: int, most: int) -> set[int]:
    span, _, step = text.partition("/")
    first, _, last = span.partition("-")
    low, high = (least, most) if first == "*" else (int(first), int(last or (most if step else first)))
    return set(range(low, high + 1, int(step or 1)))


def fits(schedule: str, local: datetime.datetime) -> bool:
    minute, hour, day, month, weekday = schedule.split()
    of_month, of_week = local.day in numbers(day, 1, 31), local.isoweekday() % 7 in numbers(weekday, 0, 6)
    either = not {"*", "*/1"} & {day, weekday}
    return (
        local.minute in numbers(minute, 0, 59)
        and local.hour in numbers(hour, 0, 23)
        and local.month in numbers(month, 1, 12)
        and ((of_month or of_week) if either else (of_month and of_week))
    )


@settings(max_examples=120, deadline=None)
@given(SCHEDULES, MOMENTS, st.sampled_from(ZONES))
def test_every_minute_agrees(schedule: str, moment: datetime.datetime, zone_name: str) -> None:
    """The next time is the first minute that fits; what is asked backwards finds the last one."""
    zone, read = cron.zone_of(zone_name), cron.parse(schedule)
    start = moment.replace(tzinfo=datetime.UTC)
    minute = start.replace(second=0, microsecond=0)
    window = [minute + datetime.timedelta(minutes=n) for n in range(1, 2000)]
    matching = [m for m in window if fits(schedule, m.astimezone(zone))]
    found = read.after(start, zone)
    if matching:
        assert found == matching[0]
        assert read.latest(start, window[-1], zone) == matching[-1]
    else:
        assert found is None or found > window[-1]
        assert read.latest(start, window[-1], zone) is None
