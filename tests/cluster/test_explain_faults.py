"""The fault laboratory: what is broken for real is named, and what works raises no alarm.

On every change a part of it runs; `make faults` (FAULTS=all) runs all faults and forty pairs, and prints the table.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import statistics
import time
from collections.abc import Iterator

import pytest

from tests.cluster import explain_faults_kernel  # noqa: F401  (adds its faults)
from tests.cluster.conftest import Cluster
from tests.cluster.explain_faults import FAULTS, Fault
from tests.cluster.explain_healthy import SETUPS, Setup
from tests.cluster.explain_lab import Lab, healthy

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-explain")]

ALL = os.environ.get("FAULTS") == "all"
_SHARED = [f for f in FAULTS if f.shared and (ALL or f.quick) and f.expect != {"FL063"}]
# Two strangers would put up the same wall.
_COUPLES = [(a, b) for a, b in itertools.combinations(_SHARED, 2) if not a.expect & b.expect & {"FL052"}]
_PAIRS = random.Random(1).sample(_COUPLES, 40 if ALL else 3)


@pytest.fixture(scope="module")
def lab(cluster: Cluster) -> Iterator[Lab]:
    """One world for all faults."""
    with healthy(cluster) as made:
        yield made


@pytest.fixture(autouse=True)
def _settled(lab: Lab) -> None:
    """Every test begins in the healthy world: what the one before broke may take a probe's period to come back."""
    lab.settle()


@pytest.fixture(scope="module")
def table() -> Iterator[list[tuple[str, str, str, float]]]:
    """What was found, printed at the end."""
    rows: list[tuple[str, str, str, float]] = []
    yield rows
    for name, expected, found, seconds in rows:
        print(f"{name:45} {expected:20} {found:6} {seconds * 1000:6.0f} ms")
    if rows:
        right = sum(found in expected.split() for _, expected, found, _ in rows)
        median = statistics.median(seconds for *_, seconds in rows)
        print(f"first cause right: {right} of {len(rows)}; median {median * 1000:.0f} ms")


@pytest.mark.parametrize("fault", [f for f in FAULTS if ALL or f.quick], ids=lambda f: f.name)
def test_the_first_cause_is_named(lab: Lab, fault: Fault, table: list[tuple[str, str, str, float]]) -> None:
    """The finding that names the fault comes first."""
    with fault.inject(lab):
        start = time.monotonic()
        report = lab.explain(fault.target, fault.origin, **fault.more)
        took = time.monotonic() - start
    found = report.cause.id if report.cause else "none"
    table.append((fault.name, " ".join(sorted(fault.expect)), found, took))
    assert found in fault.expect, report.verdict


@pytest.mark.parametrize("pair", _PAIRS, ids=lambda pair: f"{pair[0].name}+{pair[1].name}")
def test_of_two_faults_one_is_named(
    lab: Lab, pair: tuple[Fault, Fault], table: list[tuple[str, str, str, float]]
) -> None:
    """With two faults at once the first cause is one of the two, and not a third thing."""
    first, second = pair
    with first.inject(lab), second.inject(lab):
        start = time.monotonic()
        report = lab.explain("svc/web")
        took = time.monotonic() - start
    found = report.cause.id if report.cause else "none"
    expected = first.expect | second.expect
    table.append((f"{first.name}+{second.name}", " ".join(sorted(expected)), found, took))
    assert found in expected, report.verdict


@pytest.mark.parametrize("setup", SETUPS, ids=lambda s: s.name)
def test_no_alarm_where_all_is_well(lab: Lab, setup: Setup) -> None:
    """What works is said to work."""
    with setup.prepare(lab):
        report = lab.explain(setup.target, setup.origin, **setup.more)
    assert report.works, report.verdict


def test_the_command_line(lab: Lab) -> None:
    """Verdict first, exit codes 0, 1 and 2, plain text in a pipe, JSON for machines."""
    run = lab.cluster.fairlead
    works = run("explain", "svc/web.lab:80", "--from", "pod/client-1.lab", "--name", lab.cluster.name)
    assert works.stdout.startswith("✓ works: lab/web http 80/tcp → 10.244.")
    assert "\x1b" not in works.stdout
    assert "# handle" in works.stdout
    found = run("explain", "http://web.lab/", "--from", "pod/client-1.lab", "--probe", "-o", "json")
    document = json.loads(found.stdout)
    assert document["works"]
    assert document["hops"][-1]["name"] == "probe"
    broken = run("explain", "svc/wbe.lab", check=False)
    assert broken.returncode == 1
    assert broken.stdout.startswith("✗ broken at hop 2, Service: there is no Service wbe in namespace lab (FL003)")
    refused = run("explain", "web", check=False)
    assert refused.returncode == 2
    assert "svc/web.shop:80" in refused.stderr
