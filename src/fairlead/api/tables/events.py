"""The table of Events, in either of the two forms they are served in."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fairlead.api.tables.cells import UNKNOWN, Column, Printer, name, since


def _source(event: dict[str, Any]) -> str:
    source = event.get("source") or event.get("deprecatedSource") or {}
    reporter = event.get("reportingController") or event.get("reportingComponent") or ""
    component = source.get("component") or reporter
    host = source.get("host") or event.get("reportingInstance") or ""
    return f"{component}, {host}" if host else component


def _event(event: dict[str, Any], now: datetime) -> list[Any]:
    first = since(event.get("firstTimestamp") or event.get("deprecatedFirstTimestamp"), now)
    if first == UNKNOWN:
        first = since(event.get("eventTime"), now)
    last = since(event.get("lastTimestamp") or event.get("deprecatedLastTimestamp"), now)
    if last == UNKNOWN:
        last = first
    count = event.get("count") or event.get("deprecatedCount") or 1
    series = event.get("series")
    if series:
        last, count = since(series.get("lastObservedTime"), now), series.get("count") or 0
    about = event.get("involvedObject") or event.get("regarding") or {}
    target = (about.get("kind") or "").lower()
    if about.get("name"):
        target += f"/{about['name']}"
    return [
        last,
        event.get("type") or "",
        event.get("reason") or "",
        target,
        about.get("fieldPath") or "",
        _source(event),
        (event.get("message") or event.get("note") or "").strip(),
        first,
        count,
        name(event),
    ]


EVENTS = Printer(
    (
        Column("Last Seen", "How long ago it happened last."),
        Column("Type", "Normal or Warning."),
        Column("Reason", "Why it happened, in one word."),
        Column("Object", "The object it happened to."),
        Column("Subobject", "The part of the object.", 1),
        Column("Source", "Who says so.", 1),
        Column("Message", "What happened."),
        Column("First Seen", "How long ago it happened first.", 1),
        Column("Count", "How often it happened.", 1),
        Column("Name", "The event's own name.", 1, format="name"),
    ),
    _event,
)
