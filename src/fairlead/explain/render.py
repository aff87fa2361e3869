"""A report as text, for terminals and pipes, and as a picture in Mermaid's language. Pure.

Invariant: the first line is the verdict; without color there is not one escape sequence.
"""

from __future__ import annotations

import textwrap

from fairlead.explain.report import Hop, Report

_MARKS = {"ok": "✓", "broken": "✗", "partly": "✗", "warning": "!", "unseen": "?", "skipped": "-"}
_COLORS = {"ok": "32", "broken": "31", "partly": "31", "warning": "33", "unseen": "36", "skipped": "2"}
_EDGE = 5  # columns before a row
_MOST, _LAST = 24, 4  # rows of one hop on a terminal, and how many of them are its last
_SEVERITY = {"error": "31", "warning": "33", "note": "36"}


def text(report: Report, *, color: bool = False, width: int = 0) -> str:
    """For people. `width` is a terminal's: rows are broken at it, and of much evidence at one hop only the beginning
    and the end is shown; 0 gives every row whole. The verdict is one line in any case."""
    lines = [_paint(f"{'✓' if report.works else '✗'} {report.verdict}", "1;32" if report.works else "1;31", color)]
    lines.append(_paint(f"  {report.question}", "2", color))
    for number, hop in enumerate(report.hops, 1):
        lines.append(
            f"{number:2} {_paint(_MARKS[hop.state], _COLORS[hop.state], color)} {_paint(hop.name, '1', color)}"
        )
        rows = [part for line in (_fewer(hop.lines) if width else hop.lines) for part in _broken(line, width, 2)]
        for finding in hop.findings:
            first, *rest = _broken(f"{finding.id} {finding.text}", width, 6)
            rows += [_paint(finding.id, _SEVERITY[finding.severity], color) + first[len(finding.id) :], *rest]
            if finding.remedy:
                rows += _broken(f"      → {finding.remedy}", width, 8)
        for position, row in enumerate(rows):
            lines.append(f"   {'└' if position == len(rows) - 1 else '│'} {row}")
    lines += [f" ? not seen: {each}" for each in report.unseen]
    return "\n".join(lines)


def _paint(words: str, code: str, color: bool) -> str:
    return f"\x1b[{code}m{words}\x1b[0m" if color else words


def _broken(line: str, width: int, indent: int) -> list[str]:
    """A row as the terminal has room for it, broken between words."""
    if width <= 0 or len(line) <= width - _EDGE:
        return [line]
    return textwrap.wrap(
        line,
        max(width - _EDGE, 30),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _fewer(lines: list[str]) -> list[str]:
    """No more than a screen has room for."""
    if len(lines) <= _MOST:
        return lines
    left = len(lines) - _MOST + 1
    told = f"… {left} more (all of them in a pipe, or by -o json)"
    return [*lines[: _MOST - 1 - _LAST], told, *lines[-_LAST:]]


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
    said = [f.id + " " + f.title for f in hop.findings if f.severity == "error"] or _telling(hop)
    return _escape(hop.name) + "".join("<br/>" + _escape(line[:70]) for line in said)


def _telling(hop: Hop) -> list[str]:
    """The row that says most: what came out, where that is said, else the first."""
    out = [line for line in hop.lines if line.startswith("→ ")]
    return (out or (hop.lines[-1:] if hop.name == "name" else hop.lines))[:1]


def _escape(words: str) -> str:
    return words.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
