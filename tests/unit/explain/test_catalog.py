"""Findings are stable and documented."""

from __future__ import annotations

import re
from pathlib import Path

from fairlead.explain.catalog import CATALOG

ROOT = Path(__file__).parents[3]


def test_every_finding_has_a_page() -> None:
    """docs/findings/FLnnn.md with cause and remedy, for each and for no other."""
    pages = {page.stem: page.read_text() for page in (ROOT / "docs" / "findings").glob("FL*.md")}
    assert pages.keys() == CATALOG.keys()
    for name, text in pages.items():
        assert text.startswith(f"# {name}: {CATALOG[name].title}\n"), name
        assert "**Cause.**" in text
        assert "**Remedy.**" in text


def test_every_finding_is_found_somewhere() -> None:
    """No identifier without code that finds it, none found that is not in the catalog."""
    sources = [*(ROOT / "src/fairlead/explain").glob("*.py"), *(ROOT / "src/fairlead/survey").glob("*.py")]
    used = {m for s in sources if s.name != "catalog.py" for m in re.findall(r'"(FL\d{3})"', s.read_text())}
    assert used == CATALOG.keys()
