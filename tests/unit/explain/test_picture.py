"""The picture of a report: well-formed, whole, in both of a reader's color schemes."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from fairlead.explain.picture import svg
from fairlead.explain.report import Report
from tests.unit.explain.test_path import RULES_BEHIND
from tests.unit.explain.world import evidence, explain, node_kernel

_SVG = "{http://www.w3.org/2000/svg}"
REPORTS = {
    "healthy": explain(evidence()),
    "broken": explain(evidence(kernels={"n1": node_kernel(1, RULES_BEHIND), "n2": node_kernel(2)})),
    "no such Service": explain(evidence(), "svc/<&'\">"),
}


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_the_whole_report_is_in_the_picture(report: Report) -> None:
    """Verdict, question, hops and findings with their remedies, in this order, nothing of them cut."""
    root = ElementTree.fromstring(svg(report))
    said = " ".join(" ".join(text.text or "" for text in root.iter(f"{_SVG}text")).split())
    place = 0
    words = [report.verdict, report.question]
    for hop in report.hops:
        words.append(hop.name)
        for finding in hop.findings:
            words += [finding.id, finding.text, finding.remedy]
    for each in words:
        place = said.index(" ".join(each.split()), place)
    assert all(endpoint in said for endpoint in report.endpoints)


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_nothing_is_drawn_outside(report: Report) -> None:
    """Every text begins within the picture, and it has a title for those who do not see it."""
    root = ElementTree.fromstring(svg(report))
    height = float(root.attrib["height"])
    assert all(0 < float(text.attrib["y"]) < height for text in root.iter(f"{_SVG}text"))
    assert root.findtext(f"{_SVG}title") == report.verdict
    assert "prefers-color-scheme: dark" in (root.findtext(f"{_SVG}style") or "")
