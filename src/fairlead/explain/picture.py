"""A report as a picture: SVG drawn here, with nothing but text, lines and circles. Pure.

Colors follow the reader's light or dark setting. Invariant: what decides (verdict, hops, findings) is never cut; only
evidence is, and then says how much more there is.
"""

from __future__ import annotations

import itertools
import textwrap
from html import escape

from fairlead.explain.report import Finding, Hop, Report

_WIDTH, _MARGIN, _RAIL, _TEXT = 960, 32, 50, 84
_LINE, _SMALL = 19, 17
_CHARACTER = 8.0  # px of a character of the text at 13.5 px, in the widest of the usual fonts
_CODE = 7.3  # px of a monospaced character at 12 px
_MOST = 5
_MARKS = {"ok": "✓", "broken": "✗", "partly": "✗", "warning": "!", "unseen": "?", "skipped": "–"}
_WORDS = {
    "ok": "as it should be",
    "broken": "broken here",
    "partly": "broken for some",
    "warning": "with a warning",
    "unseen": "not seen",
    "skipped": "left out",
}
_STYLE = """
  svg { --back: #ffffff; --card: #f6f8fa; --line: #d0d7de; --text: #1f2328; --soft: #59636e;
        --ok: #1a7f37; --bad: #cf222e; --warn: #9a6700; --note: #0969da; }
  @media (prefers-color-scheme: dark) {
    svg { --back: #0d1117; --card: #161b22; --line: #30363d; --text: #e6edf3; --soft: #9198a1;
          --ok: #3fb950; --bad: #f85149; --warn: #d29922; --note: #58a6ff; }
  }
  text { font: 13.5px system-ui, sans-serif; fill: var(--text); }
  .code { font: 12px ui-monospace, monospace; fill: var(--soft); white-space: pre; }
  .soft { fill: var(--soft); }
  .title { font-weight: 600; font-size: 14.5px; }
  .verdict { font-weight: 600; font-size: 17px; }
  .mark { font-weight: 700; fill: var(--back); text-anchor: middle; }
  .ok { --own: var(--ok); } .broken, .partly, .error { --own: var(--bad); } .warning { --own: var(--warn); }
  .unseen, .skipped { --own: var(--soft); } .note { --own: var(--note); }
  .own { fill: var(--own); } .rail { stroke: var(--line); stroke-width: 2; } .cut { stroke-dasharray: 4 5; }
  .pill { fill: var(--card); stroke: var(--own); stroke-width: 1.5; }
"""


class _Page:
    """The drawing so far; `y` is where the next line goes."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.y = _MARGIN

    def text(self, x: float, words: str, kind: str = "", height: int = _LINE) -> None:
        """One line; the place moves below it."""
        self.y += height
        style = f' class="{kind}"' if kind else ""
        self.parts.append(f'<text x="{x:g}" y="{self.y - 5}"{style}>{escape(words)}</text>')

    def wrapped(self, x: float, words: str, kind: str = "", character: float = _CHARACTER, height: int = _LINE) -> None:
        """As many lines as it takes."""
        room = int((_WIDTH - _MARGIN - x) / character)
        for line in textwrap.wrap(words, room, break_long_words=True, break_on_hyphens=False) or [""]:
            self.text(x, line, kind, height)


def svg(report: Report) -> str:
    """The picture, for a file or a page."""
    page = _Page()
    state = "ok" if report.works else "broken"
    _mark(page, _MARGIN + 18, page.y + 14, state, 14)
    page.parts.append(f'<g class="{state}">')
    page.wrapped(_TEXT, report.verdict, "verdict own", 10.6, 24)
    page.parts.append("</g>")
    page.wrapped(_TEXT, report.question, "soft")
    page.y += 22
    centers = []
    for number, hop in enumerate(report.hops, 1):
        centers.append((page.y + 12, hop))
        _hop(page, number, hop)
    rails = [
        f'<path class="rail{" cut" if hop.broken else ""}" d="M{_RAIL} {y + 12}V{below - 12}"/>'
        for (y, hop), (below, _) in itertools.pairwise(centers)
    ]
    if report.endpoints and centers:
        _endpoints(page, report, centers[-1][0])
    for each in report.unseen:
        page.wrapped(_TEXT, f"not seen: {each}", "soft")
    height = page.y + _MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" aria-labelledby="title">\n<title id="title">{escape(report.verdict)}</title>\n'
        f"<style>{_STYLE}</style>\n"
        f'<rect width="{_WIDTH}" height="{height}" fill="var(--back)"/>'
    )
    return "\n".join([head, *rails, *page.parts, "</svg>"])


def _mark(page: _Page, x: float, y: float, state: str, radius: int) -> None:
    page.parts.append(
        f'<g class="{state}"><circle class="own" cx="{x:g}" cy="{y:g}" r="{radius}"/>'
        f'<text class="mark" x="{x:g}" y="{y + 5:g}">{_MARKS[state]}</text></g>'
    )


def _hop(page: _Page, number: int, hop: Hop) -> None:
    _mark(page, _RAIL, page.y + 12, hop.state, 11)
    page.y += 3
    page.text(_TEXT, f"{number}  {hop.name}", "title")
    if hop.state != "ok":
        name = len(f"{number}  {hop.name}") * 8.4 + 12
        told = f'<text class="own" x="{_TEXT + name:g}" y="{page.y - 5}">{_WORDS[hop.state]}</text>'
        page.parts.append(f'<g class="{hop.state}">{told}</g>')
    for finding in hop.findings:
        _finding(page, finding)
    room = int((_WIDTH - _MARGIN - _TEXT) / _CODE)
    for line in hop.lines[:_MOST]:
        page.text(_TEXT, line if len(line) <= room else line[: room - 1] + "…", "code", _SMALL)
    if len(hop.lines) > _MOST:
        page.text(_TEXT, f"and {len(hop.lines) - _MOST} more", "soft", _SMALL)
    page.y += 16


def _finding(page: _Page, finding: Finding) -> None:
    page.parts.append(f'<g class="{finding.severity}">')
    page.wrapped(_TEXT, f"{finding.id}  {finding.text}", "own")
    page.parts.append("</g>")
    if finding.remedy:
        page.wrapped(_TEXT, f"→ {finding.remedy}")


def _endpoints(page: _Page, report: Report, above: float) -> None:
    """Where a connection may end, as branches of the rail."""
    state = "ok" if report.works else "partly"
    shown = report.endpoints[:12]
    for endpoint in shown:
        y = page.y + 14
        width = len(endpoint) * _CODE + 24
        page.parts.append(
            f'<g class="{state}"><path class="rail" fill="none" d="M{_RAIL} {above + 12}V{y - 10}q0 10 10 10H{_TEXT}"/>'
            f'<rect class="pill" x="{_TEXT}" y="{y - 12}" width="{width:g}" height="24" rx="12"/>'
            f'<text class="code" x="{_TEXT + 12}" y="{y + 4}">{escape(endpoint)}</text></g>'
        )
        page.y += 32
    if len(report.endpoints) > len(shown):
        page.text(_TEXT, f"and {len(report.endpoints) - len(shown)} more", "soft")
    page.y += 8
