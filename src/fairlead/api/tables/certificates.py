"""The table of CertificateSigningRequests."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from fairlead.api import times
from fairlead.api.tables.cells import AGE, NAME, NONE, Column, Printer, age, name


def _signing_request(request: dict[str, Any], now: datetime) -> list[Any]:
    spec, status = request.get("spec") or {}, request.get("status") or {}
    seconds = spec.get("expirationSeconds")
    duration = NONE if seconds is None else times.human_duration(timedelta(seconds=seconds))
    return [
        name(request),
        age(request, now),
        spec.get("signerName") or NONE,
        spec.get("username") or "",
        duration,
        _condition(status),
    ]


def _condition(status: dict[str, Any]) -> str:
    kinds = {c.get("type") for c in status.get("conditions") or ()}
    said = [kind for kind in ("Approved", "Denied") if kind in kinds] or ["Pending"]
    if "Failed" in kinds:
        said.append("Failed")
    if status.get("certificate"):
        said.append("Issued")
    return ",".join(said)


SIGNING_REQUESTS = Printer(
    (
        NAME,
        AGE,
        Column("SignerName", "Who is asked to sign."),
        Column("Requestor", "Who asks."),
        Column("RequestedDuration", "For how long the certificate shall be good."),
        Column("Condition", "What became of it."),
    ),
    _signing_request,
)
