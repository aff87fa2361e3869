"""Times as the API writes them, and durations as people read them.

Stands under everything that reads or writes a timestamp. Invariant: `parse(render(t)) == t` to the second, and
`parse(render_micro(t)) == t` to the microsecond; every `datetime` handed out is aware and in UTC. Nothing here asks
a clock: `now` is always an argument.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

_LAYOUT = "2006-01-02T15:04:05Z07:00"
_RFC3339 = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt](\d{2}):(\d{2}):(\d{2})(?:[.,](\d+))?(?:([Zz])|([+-])(\d{2}):(\d{2}))", re.ASCII
).fullmatch


def parse(text: str) -> datetime:
    """The instant an RFC 3339 text names (a `Time` or `MicroTime`), in UTC; digits past the microsecond are dropped.

    ValueError in upstream's words when it is not one.
    """
    found = _RFC3339(text)
    if found is None:
        raise ValueError(f'parsing time "{text}" as "{_LAYOUT}": cannot parse "{text}" as "{_LAYOUT}"')
    year, month, day, hour, minute, second, fraction, _, sign, zone_hours, zone_minutes = found.groups()
    microsecond = int(fraction[:6].ljust(6, "0")) if fraction else 0
    zone: timezone = UTC
    if sign:
        offset = timedelta(hours=int(zone_hours), minutes=int(zone_minutes))
        zone = timezone(-offset if sign == "-" else offset) if offset else UTC
    try:
        value = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), microsecond, tzinfo=zone)
        return value if zone is UTC else value.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f'parsing time "{text}": {error}') from error


def render(value: datetime) -> str:
    """`2026-01-02T03:04:05Z`: a `Time`. The fraction of a second is dropped."""
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def render_micro(value: datetime) -> str:
    """`2026-01-02T03:04:05.000006Z`: a `MicroTime`."""
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def human_duration(duration: timedelta) -> str:
    """An age as `kubectl get` shows it, two or three significant figures: `45s`, `3m20s`, `5h`, `2d4h`, `400d`."""
    total = duration / timedelta(seconds=1)
    seconds = int(total)
    if seconds < -1:
        return "<invalid>"
    if seconds < 0:
        return "0s"
    if seconds < 120:
        return f"{seconds}s"
    minutes = seconds // 60
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours = minutes // 60
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if hours < 24 * 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 365 * 2:
        return f"{days}d"
    if days < 365 * 8:
        return f"{days // 365}y{days % 365}d" if days % 365 else f"{days // 365}y"
    return f"{days // 365}y"
