"""A report as text, for terminals and pipes, and as a picture in Mermaid's language. Pure.

Invariant: the first line is the verdict; without color there is not one escape sequence.
"""

from __future__ import annotations

from fairlead.explain.report import Hop, Report

_MARKS = {"ok": "✓", "broken": "✗", "partly": "✗", "warning": "!", "unseen": "?", "skipped": "-"}
_COLORS = {"ok": "32", "broken": "31", "partly": "31", "warning": "33", "unseen": "36", "skipped": "2"}
_SEVERITY = {"error": "31", "warning": "33", "note": "36"}


def text(report: Report, *, color: bool = False, width: int = 0) -> str:
    """For people. `width` cuts the lines of evidence (0: never); verdict and findings are always whole."""
    lines = [_paint(f"{'✓' if report.works else '✗'} {report.verdict}", "1;32" if report.works else "1;31", color)]
    lines.append(_paint(f"  {report.question}", "2", color))
    for number, hop in enumerate(report.hops, 1):
        lines.append(
            f"{number:2} {_paint(_MARKS[hop.state], _COLORS[hop.state], color)} {_paint(hop.name, '1', color)}"
        )
        rows = [*(_cut(line, width) for line in hop.lines)]
        for finding in hop.findings:
            rows.append(f"{_paint(finding.id, _SEVERITY[finding.severity], color)} {finding.text}")
            if finding.remedy:
                rows.append(f"      → {finding.remedy}")
        for position, row in enumerate(rows):
            lines.append(f"   {'└' if position == len(rows) - 1 else '│'} {row}")
    lines += [f" ? not seen: {each}" for each in report.unseen]
    return "\n".join(lines)


def _paint(words: str, code: str, color: bool) -> str:
    return f"\x1b[{code}m{words}\x1b[0m" if color else words


def _cut(line: str, width: int) -> str:
    room = width - 5
    return line if width <= 0 or len(line) <= room else line[: max(room - 1, 20)] + "…"


def mermaid(report: Report) -> str:
    """A flowchart: a box per hop, the broken ones marked."""
    lines = ["flowchart LR"]
    for number, hop in enumerate(report.hops, 1):
        lines.append(f'  h{number}["{_box(hop)}"]:::{hop.state}')
    for number in range(1, len(report.hops)):
        arrow = "-. broken .->" if report.hops[number - 1].broken else "-->"
        lines.append(f"  h{number} {arrow} h{number + 1}")
    for number, endpoint in enumerate(report.endpoints, 1):
        lines.append(f'  h{len(report.hops)} --> e{number}(["{_escape(endpoint)}"])')
    lines += [
        "  classDef ok stroke:#2da44e",
        "  classDef broken stroke:#cf222e,stroke-width:3px",
        "  classDef partly stroke:#cf222e",
        "  classDef warning stroke:#bf8700",
        "  classDef unseen stroke-dasharray:4",
        "  classDef skipped stroke-dasharray:4",
    ]
    return "\n".join(lines)


def _box(hop: Hop) -> str:
    said = [f.id + " " + f.title for f in hop.findings if f.severity == "error"] or hop.lines[:1]
    return _escape(hop.name) + "".join("<br/>" + _escape(line[:70]) for line in said)


def _escape(words: str) -> str:
    return words.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
