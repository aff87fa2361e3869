"""What the proxy counts, under kube-proxy's names, and the page that shows it (:10249 /metrics, /proxyMode, /healthz).

Stands beside `Proxy`: it is told of every application and failure, and asks nothing of the kernel. Invariant: every
number is of this process; the registry is its own, so that several proxies in one process don't mix.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp import web
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from fairlead.proxy.backend import Tally
from fairlead.proxy.health import Handler
from fairlead.proxy.run import Sync
from fairlead.proxy.table import ServiceTable

disable_created_metrics()  # type: ignore[no-untyped-call]  # kube-proxy has no …_created beside each counter

_SYNC = tuple(0.001 * 2**n for n in range(15))
_PROGRAMMING = (0.025, 0.05, 0.1, 0.25, 0.5, *(float(n) for n in range(1, 10)), 10, 20, 30, 40, 50, 60, 120, 180, 300)


def without_local_endpoints(table: ServiceTable, policy: str) -> int:
    """How many ports of Services drop traffic here because the policy Local (`internal` or `external`) leaves none."""
    found = set()
    for key, entries in table.services.items():
        for entry in entries:
            if entry.verdict == "drop" and (entry.via == "cluster IP") == (policy == "internal"):
                found.add((key, entry.family, entry.port_name))
    return len(found)


def _without_local_endpoints_now(table: Callable[[], ServiceTable], policy: str) -> float:
    return without_local_endpoints(table(), policy)


def _iptables_metrics(tally: Callable[[], Tally], new: dict[str, Any]) -> None:
    total = Gauge("sync_proxy_rules_iptables_total", "Rules there are.", ["table"], **new)
    last = Gauge("sync_proxy_rules_iptables_last", "Rules written last time.", ["table"], **new)
    for table in ("filter", "nat"):
        total.labels(table).set_function(partial(lambda table: tally().rules.get(table, 0), table))
        last.labels(table).set_function(partial(lambda table: tally().written.get(table, 0), table))
    partly = Gauge(
        "sync_proxy_rules_iptables_partial_restore_failures_total", "Changes made by reading the tables anew.", **new
    )
    partly.set_function(lambda: tally().refused)


class ProxyMetrics:
    """`synced` and `failed` are to be called by the proxy; `table` gives its service table, `tally` what
    its backend counts. `accelerated`, where it was
    asked for, says whether sockets are balanced now."""

    def __init__(
        self,
        mode: str,
        table: Callable[[], ServiceTable],
        tally: Callable[[], Tally],
        accelerated: Callable[[], float] | None = None,
    ) -> None:
        self.mode = mode
        self.registry = CollectorRegistry()
        new: dict[str, Any] = {"namespace": "kubeproxy", "registry": self.registry}
        self._sync = Histogram("sync_proxy_rules_duration_seconds", "Seconds of one application.", buckets=_SYNC, **new)
        self._full = Histogram(
            "sync_full_proxy_rules_duration_seconds", "Seconds of one application of all rules.", buckets=_SYNC, **new
        )
        self._partial = Histogram(
            "sync_partial_proxy_rules_duration_seconds", "Seconds of one application of changes.", buckets=_SYNC, **new
        )
        self._programming = Histogram(
            "network_programming_duration_seconds",
            "Seconds from the change of an endpoint to the rules that follow it.",
            buckets=_PROGRAMMING,
            **new,
        )
        self._last = Gauge("sync_proxy_rules_last_timestamp_seconds", "When rules were last applied.", **new)
        self._queued = Gauge("sync_proxy_rules_last_queued_timestamp_seconds", "When a change last came.", **new)
        for what in ("endpoint", "service"):
            Gauge(f"sync_proxy_rules_{what}_changes_pending", f"Changes of {what}s that wait.", **new)
        self._endpoints = Counter("sync_proxy_rules_endpoint_changes", "Changes of endpoints that came.", **new)
        self._services = Counter("sync_proxy_rules_service_changes", "Changes of services that came.", **new)
        no_local = Gauge(
            "sync_proxy_rules_no_local_endpoints_total",
            "Service ports with the policy Local and no endpoint on this node.",
            ["traffic_policy"],
            **new,
        )
        for policy in ("internal", "external"):
            no_local.labels(policy).set_function(partial(_without_local_endpoints_now, table, policy))
        failures = {
            "nftables": "sync_proxy_rules_nftables_sync_failures",
            "iptables": "sync_proxy_rules_iptables_restore_failures",
        }.get(mode)
        self._failures = Counter(failures, "Applications the kernel refused.", **new) if failures else None
        if mode == "iptables":
            _iptables_metrics(tally, new)
        if mode == "nftables":
            kept = Gauge("sync_proxy_rules_nftables_cleanup_failures_total", "Chains the kernel kept at first.", **new)
            kept.set_function(lambda: tally().kept)
        self._deleted = Counter("conntrack_reconciler_deleted_entries", "Stale flows that were deleted.", **new)
        self._flows = Histogram(
            "conntrack_reconciler_sync_duration_seconds", "Seconds of one search for stale flows.", buckets=_SYNC, **new
        )
        if accelerated is not None:
            Gauge(
                "proxy_accelerated",
                "Whether sockets of pods connect to endpoints by themselves (--accelerate socket).",
                namespace="fairlead",
                registry=self.registry,
            ).set_function(accelerated)
        self._asked = {
            name: Counter(f"proxy_{name}", f"Answers of /{name}.", ["code"], **new) for name in ("healthz", "livez")
        }
        ProcessCollector(registry=self.registry)

    def synced(self, sync: Sync) -> None:
        """One application is done."""
        seconds = sync.compile_seconds + sync.diff_seconds + sync.kernel_seconds
        self._sync.observe(seconds)
        (self._full if sync.full else self._partial).observe(seconds)
        for delay in sync.programming_seconds:
            self._programming.observe(delay)
        self._endpoints.inc(sync.endpoint_changes)
        self._services.inc(sync.service_changes)
        self._last.set_to_current_time()
        if not sync.repaired:
            self._queued.set_to_current_time()
        self._deleted.inc(sync.flows)
        self._flows.observe(sync.flow_seconds)

    def failed(self) -> None:
        """The kernel refused an application."""
        if self._failures is not None:
            self._failures.inc()

    def asked(self, what: str, status: int) -> None:
        """/healthz or /livez was answered."""
        self._asked[what].labels(str(status)).inc()

    def handler(self) -> Handler:
        """The page."""

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            match request.path:
                case "/metrics":
                    text = generate_latest(self.registry)
                    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})
                case "/proxyMode":
                    return web.Response(text=self.mode)
                case "/healthz":
                    return web.Response(text="ok")
            return web.Response(status=404, text="404 page not found\n")

        return answer
