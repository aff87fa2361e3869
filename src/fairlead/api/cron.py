"""Cron schedules as CronJobs mean them: read, and asked for the next time. ◆ Pure: time is an argument.

Stands under the validation of CronJobs and their controller, which must agree on every letter. The language and its
error messages are those of the parser upstream uses (robfig/cron v3, five fields): days count from 0 to 6, `?` is `*`,
there are descriptors (`@daily`) and `@every 5m`. Invariant: a time given here matches the schedule in its zone's local
time; a local time that daylight saving skips is skipped, one that it repeats is given twice.
"""

from __future__ import annotations

import datetime
import re
from functools import lru_cache

import msgspec

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_BOUNDS: tuple[tuple[int, int, dict[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    (0, 6, {name: number for number, name in enumerate(_DAYS)}),
)
_DESCRIPTORS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|ms|s|m|h)")
_MINUTE = datetime.timedelta(minutes=1)
_HOUR = datetime.timedelta(hours=1)
_HORIZON_YEARS = 5  # what does not come within them never comes


class CronError(ValueError):
    """A schedule or time zone that means nothing; the text says why, in upstream's words."""


class Schedule(msgspec.Struct, frozen=True):
    """A schedule, read. `every` is set for `@every`; `any_day` if the day of the month or of the week is a star."""

    minutes: frozenset[int] = frozenset()
    hours: frozenset[int] = frozenset()
    days: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()
    any_day: bool = False
    every: datetime.timedelta | None = None

    def _on_day(self, day: datetime.datetime) -> bool:
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (of_month and of_week) if self.any_day else (of_month or of_week)

    def after(self, time: datetime.datetime, zone: datetime.tzinfo) -> datetime.datetime | None:
        """The first time later than `time` (which has a zone), in UTC; None if there is none within five years."""
        now = time.astimezone(datetime.UTC)
        if self.every is not None:
            return (now + self.every).replace(microsecond=0)
        moment = now.replace(second=0, microsecond=0) + _MINUTE
        while True:
            local = moment.astimezone(zone)
            if local.year > now.year + _HORIZON_YEARS:
                return None
            if local.month not in self.months:
                year, month = divmod(local.year * 12 + local.month, 12)
                moment = _later(moment, datetime.datetime(year, month + 1, 1, tzinfo=zone))
            elif not self._on_day(local):
                midnight = datetime.datetime.combine(local.date() + datetime.timedelta(days=1), datetime.time())
                moment = _later(moment, midnight.replace(tzinfo=zone))
            elif local.hour not in self.hours:
                moment += _HOUR - local.minute * _MINUTE
            elif local.minute not in self.minutes:
                moment += _MINUTE
            else:
                return moment

    def latest(
        self, after: datetime.datetime, until: datetime.datetime, zone: datetime.tzinfo
    ) -> datetime.datetime | None:
        """The last time later than `after` and not later than `until`, in UTC, or None."""
        if self.every is not None:
            times = (until - after) // self.every
            return (after.astimezone(datetime.UTC) + times * self.every).replace(microsecond=0) if times > 0 else None
        for days in (1 / 24, 1, 40, 400, 366 * (_HORIZON_YEARS + 1)):
            since = max(after, until - datetime.timedelta(days=days))
            found, step = None, self.after(since, zone)
            while step is not None and step <= until:
                found, step = step, self.after(step, zone)
            if found is not None or since == after:
                return found
        return None


def _later(moment: datetime.datetime, wanted: datetime.datetime) -> datetime.datetime:
    """`wanted` in UTC, but always at least a minute on: a midnight that daylight saving moves must not stall us."""
    return max(wanted.astimezone(datetime.UTC), moment + _MINUTE)


@lru_cache(maxsize=256)
def parse(text: str) -> Schedule:
    """Read a schedule. Errors: CronError."""
    text = text.strip()
    if not text:
        raise CronError("empty spec string")
    if text.startswith("@"):
        return _descriptor(text)
    fields = text.split()
    if len(fields) != 5:
        raise CronError(f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]")
    sets = [_field(field, *bounds) for field, bounds in zip(fields, _BOUNDS, strict=True)]
    (minutes, _), (hours, _), (days, any_day), (months, _), (weekdays, any_weekday) = sets
    return Schedule(minutes, hours, days, months, weekdays, any_day or any_weekday)


def _descriptor(text: str) -> Schedule:
    if text in _DESCRIPTORS:
        return parse(_DESCRIPTORS[text])
    if text.startswith("@every "):
        given = text.removeprefix("@every ")
        parts = _DURATION.findall(given)
        if not parts or "".join(parts) != given:
            raise CronError(f'failed to parse duration {text}: time: invalid duration "{given}"')
        seconds = sum(float(re.split(r"[a-zµ]", p)[0]) * _UNITS[re.sub(r"[\d.]", "", p)] for p in parts)
        return Schedule(every=datetime.timedelta(seconds=max(1, int(seconds))))
    raise CronError(f"unrecognized descriptor: {text}")


def _field(text: str, least: int, most: int, names: dict[str, int]) -> tuple[frozenset[int], bool]:
    """The numbers of one field, and whether it is a star."""
    found: set[int] = set()
    star = False
    for part in text.split(","):
        if part:
            numbers, is_star = _range(part, least, most, names)
            found.update(numbers)
            star = star or is_star
    return frozenset(found), star


def _range(text: str, least: int, most: int, names: dict[str, int]) -> tuple[range, bool]:
    span, *steps = text.split("/")
    ends = span.split("-")
    star = ends[0] in {"*", "?"}
    if star:
        start, end = least, most
    else:
        start = _number(ends[0], names)
        if len(ends) > 2:
            raise CronError(f"too many hyphens: {text}")
        end = _number(ends[1], names) if len(ends) == 2 else start
    if len(steps) > 1:
        raise CronError(f"too many slashes: {text}")
    step = _number(steps[0], {}) if steps else 1
    if steps:
        end = most if len(ends) == 1 else end
        star = star and step <= 1
    if start < least:
        raise CronError(f"beginning of range ({start}) below minimum ({least}): {text}")
    if end > most:
        raise CronError(f"end of range ({end}) above maximum ({most}): {text}")
    if start > end:
        raise CronError(f"beginning of range ({start}) beyond end of range ({end}): {text}")
    if step == 0:
        raise CronError(f"step of range should be a positive number: {text}")
    return range(start, end + 1, step), star


def _number(text: str, names: dict[str, int]) -> int:
    named = names.get(text.lower())
    if named is not None:
        return named
    if re.fullmatch(r"-[0-9]+", text):
        raise CronError(f"negative number ({text}) not allowed: {text}")
    if not re.fullmatch(r"\+?[0-9]{1,9}", text):
        raise CronError(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)


def zone_of(name: str | None) -> datetime.tzinfo:
    """The time zone of that name in the IANA database; UTC for none. Errors: CronError."""
    if name is None:
        return datetime.UTC
    import zoneinfo  # only clusters with such CronJobs pay for it

    try:
        return zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise CronError(f"unknown time zone {name}") from None
