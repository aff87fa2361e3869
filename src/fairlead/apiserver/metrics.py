"""What the API server counts, under upstream's names, for `/metrics`.

Beside the server. Invariant: counting a request costs a dictionary update or two; the Prometheus library is imported
only when someone asks. Sources: upstream's `apiserver/pkg/endpoints/metrics` and `apiserver/pkg/server/filters`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, Final

from fairlead.apiserver.request import RequestInfo

BUCKETS: Final = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60,
)  # fmt: skip
_VERBS: Final = {
    "get": "GET",
    "list": "LIST",
    "watch": "WATCH",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
    "deletecollection": "DELETECOLLECTION",
}
_CONNECTIONS: Final = frozenset({"exec", "attach", "portforward", "proxy", "log"})
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_ABOUT: Final = ("verb", "group", "version", "resource", "subresource", "scope", "component")

About = tuple[str, ...]


def about(info: RequestInfo | None) -> About:
    """The labels of a request, in the order of `_ABOUT`. What names no served resource is one and the same."""
    if info is None or info.resource is None:
        return (
            "GET" if info is not None and info.verb in ("get", "list") else "other",
            "",
            "",
            "",
            "",
            "",
            "apiserver",
        )
    verb = "CONNECT" if info.subresource in _CONNECTIONS else _VERBS.get(info.verb, "other")
    scope = "resource" if info.name else "namespace" if info.namespace else "cluster"
    return (verb, info.group, info.version, info.plural, info.subresource, scope, "apiserver")


class Metrics:
    """The counts of one server. `gauges` gives what is counted elsewhere, when asked: name → (help, value)."""

    def __init__(self, gauges: Callable[[], dict[str, tuple[str, float]]]) -> None:
        self._gauges = gauges
        self._requests: Counter[tuple[About, int]] = Counter()
        self._seconds: dict[About, list[float]] = {}  # a count for each bucket, one for more, and the sum
        self._running: Counter[str] = Counter()

    def begun(self, method: str) -> str:
        """A request begins; hand what this returns to `ended`."""
        kind = "readOnly" if method in ("GET", "HEAD", "OPTIONS") else "mutating"
        self._running[kind] += 1
        return kind

    def ended(self, kind: str, info: RequestInfo | None, code: int, seconds: float) -> None:
        """A request ended with that HTTP status after so many seconds."""
        self._running[kind] -= 1
        labels = about(info)
        self._requests[labels, code] += 1
        if labels[0] in ("WATCH", "CONNECT"):
            return  # as long as their clients wish: no measure of the server
        known = self._seconds.get(labels)
        if known is None:
            known = self._seconds[labels] = [0] * (len(BUCKETS) + 2)
        known[bisect_left(BUCKETS, seconds)] += 1
        known[-1] += seconds

    def render(self) -> bytes:
        """The exposition, as text."""
        import prometheus_client

        registry = prometheus_client.CollectorRegistry()
        registry.register(_Counts(self))
        prometheus_client.ProcessCollector(registry=registry)
        prometheus_client.PlatformCollector(registry=registry)
        return prometheus_client.generate_latest(registry)

    def collect(self) -> Iterator[Any]:
        """The counts as the library's metric families."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        requests = CounterMetricFamily(
            "apiserver_request", "Requests by verb, resource and HTTP code.", labels=(*_ABOUT, "code")
        )
        for (labels, code), count in self._requests.items():
            requests.add_metric([*labels, str(code)], count)
        yield requests
        durations = HistogramMetricFamily(
            "apiserver_request_duration_seconds",
            "How long requests took, but for watches and connections.",
            labels=_ABOUT,
        )
        bounds = [*(str(float(bound)) for bound in BUCKETS), "+Inf"]
        for labels, counts in self._seconds.items():
            cumulative = accumulate(counts[:-1])
            durations.add_metric(list(labels), list(zip(bounds, cumulative, strict=True)), counts[-1])
        yield durations
        running = GaugeMetricFamily(
            "apiserver_current_inflight_requests", "Requests under way.", labels=["request_kind"]
        )
        for kind in ("mutating", "readOnly"):
            running.add_metric([kind], self._running[kind])
        yield running
        for name, (text, value) in self._gauges().items():
            yield GaugeMetricFamily(name, text, value=value)


class _Counts:
    """A collector, as the library wants it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Any]:
        """All families."""
        return self._metrics.collect()
