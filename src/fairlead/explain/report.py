"""The answer, as values: hops with their evidence, findings, a verdict. Pure.

Made by `path`, `pods` and `names`; shown by `render`. Invariant: the verdict follows from the findings alone.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from fairlead.explain.catalog import CATALOG, Severity

State = Literal["ok", "broken", "partly", "warning", "unseen", "skipped"]


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it should be. `id` is stable and has a page in docs/findings; `about` names what it is
    about; `remedy` is the next thing to do. An error stops packets, a warning may, a note is worth knowing."""

    id: str
    text: str
    remedy: str = ""
    severity: Severity = "error"
    about: str = ""
    evidence: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What findings of this kind have in common."""
        return CATALOG[self.id].title


class Hop(msgspec.Struct):
    """One step of the way, with what was seen there."""

    name: str
    lines: list[str] = []
    findings: list[Finding] = []
    state: State = "ok"

    def say(self, line: str) -> None:
        """Add evidence."""
        self.lines.append(line)

    def find(self, id_: str, text: str, remedy: str = "", **more: Any) -> Finding:
        """Add a finding; the hop is then no better than that."""
        severity: Severity = more.pop("severity", CATALOG[id_].severity)
        finding = Finding(id_, text, remedy, severity, **more)
        if all((f.id, f.text) != (id_, text) for f in self.findings):
            self.findings.append(finding)
        if severity == "error":
            self.state = "broken"
        elif severity == "warning" and self.state == "ok":
            self.state = "warning"
        return finding

    @property
    def broken(self) -> bool:
        """Packets don't get past this hop."""
        return self.state == "broken"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one question. `partly`: it works for some endpoints (or addresses) and not for others."""

    question: str
    hops: tuple[Hop, ...] = ()
    unseen: tuple[str, ...] = ()
    partly: str = ""
    endpoints: tuple[str, ...] = ()  # where a new connection may end, as predicted
    outcome: str = ""  # forward, reject, drop, …: what becomes of the packet, as predicted
    answer: str = ""  # what to say if all is well

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All of them, causes first: errors in the order of the way, then warnings, then notes."""
        rank = {"error": 0, "warning": 1, "note": 2}
        every = [finding for hop in self.hops for finding in hop.findings]
        unique = list({(f.id, f.text): f for f in every}.values())
        return tuple(sorted(unique, key=lambda finding: rank[finding.severity]))

    @property
    def cause(self) -> Finding | None:
        """The first cause of a failure; None if it works."""
        return next((f for f in self.findings if f.severity == "error"), None)

    @property
    def works(self) -> bool:
        """No error was found."""
        return self.cause is None

    @property
    def verdict(self) -> str:
        """One line: works, or broken where and why and what to do."""
        cause = self.cause
        if cause is None:
            warned = next((f for f in self.findings if f.severity == "warning"), None)
            tail = f"; but {warned.text} ({warned.id})" if warned else ""
            if not warned and self.unseen:
                tail = " (as far as could be seen)"
            return f"works: {self.answer or 'nothing is in the way'}{tail}"
        number, hop = next((n, h) for n, h in enumerate(self.hops, 1) if cause in h.findings)
        head = f"works {self.partly}, broken" if self.partly else "broken"
        remedy = f" → {cause.remedy}" if cause.remedy else ""
        return f"{head} at hop {number}, {hop.name}: {cause.text} ({cause.id}){remedy}"

    def document(self) -> dict[str, Any]:
        """For machines."""
        cause = self.cause
        return {
            "question": self.question,
            "works": self.works,
            "verdict": self.verdict,
            "cause": cause.id if cause else None,
            "partly": bool(self.partly),
            "prediction": {"outcome": self.outcome, "endpoints": list(self.endpoints)},
            "hops": [
                {"name": hop.name, "state": hop.state, "evidence": hop.lines, "findings": [f.id for f in hop.findings]}
                for hop in self.hops
            ],
            "findings": [{**msgspec.to_builtins(f), "title": f.title} for f in self.findings],
            "unseen": list(self.unseen),
        }
