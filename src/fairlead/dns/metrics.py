"""Counters and histograms, and their text for Prometheus, with CoreDNS's names.

Stands beside everything. Invariant: counting costs a look-up and an addition; all text is made when it is asked for.
Source: the Prometheus text format 0.0.4.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable

Labels = tuple[tuple[str, str], ...]

DURATIONS = (
    0.00025,
    0.0005,
    0.001,
    0.002,
    0.004,
    0.008,
    0.016,
    0.032,
    0.064,
    0.128,
    0.256,
    0.512,
    1.024,
    2.048,
    4.096,
    8.192,
)
SIZES = (0.0, 100.0, 200.0, 300.0, 400.0, 511.0, 1023.0, 2047.0, 4095.0, 8291.0, 16e3, 32e3, 48e3, 64e3)


class Histogram:
    """Counts of values by upper bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times


class Metrics:
    """All of one process. `collectors` are called before the text is made, to bring gauges and counters that others
    keep up to date."""

    def __init__(self) -> None:
        self._help: dict[str, tuple[str, str]] = {}
        self._values: dict[str, dict[Labels, float]] = {}
        self._histograms: dict[str, dict[Labels, Histogram]] = {}
        self.collectors: list[Callable[[], None]] = []

    def describe(self, name: str, kind: str, text: str) -> None:
        """Say what a metric is: counter, gauge or histogram."""
        self._help[name] = kind, text

    def add(self, name: str, labels: Labels = (), amount: float = 1) -> None:
        """Count."""
        values = self._values.setdefault(name, {})
        values[labels] = values.get(labels, 0) + amount

    def set(self, name: str, labels: Labels, value: float) -> None:
        """Say what a gauge is at, or a counter that another keeps."""
        self._values.setdefault(name, {})[labels] = value

    def get(self, name: str, labels: Labels = ()) -> float:
        """What a counter or gauge is at; 0 if it never was."""
        return self._values.get(name, {}).get(labels, 0)

    def histogram(self, name: str, labels: Labels, bounds: tuple[float, ...]) -> Histogram:
        """The histogram of these labels; made if there is none."""
        found = self._histograms.setdefault(name, {})
        if labels not in found:
            found[labels] = Histogram(bounds)
        return found[labels]

    def text(self) -> str:
        """All of them."""
        for collect in self.collectors:
            collect()
        lines: list[str] = []
        for name in sorted({*self._values, *self._histograms}):
            kind, text = self._help.get(name, ("histogram" if name in self._histograms else "counter", name))
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            lines += [
                f"{name}{_labels(labels)} {_number(value)}" for labels, value in self._values.get(name, {}).items()
            ]
            for labels, found in self._histograms.get(name, {}).items():
                lines += _histogram(name, labels, found)
        return "\n".join(lines) + "\n"


def _histogram(name: str, labels: Labels, found: Histogram) -> Iterable[str]:
    so_far = 0
    for bound, count in zip((*found.bounds, float("inf")), found.counts, strict=True):
        so_far += count
        yield f"{name}_bucket{_labels((*labels, ('le', _number(bound))))} {so_far}"
    yield f"{name}_sum{_labels(labels)} {_number(found.total)}"
    yield f"{name}_count{_labels(labels)} {so_far}"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
