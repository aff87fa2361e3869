"""The proxy's own two HTTP servers: its health (:10256) and its metrics (:10249).

Stands around a `Proxy`. Invariant: the proxy works also if a port cannot be had; that is said once.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import NamedTuple

from fairlead.proxy.health import HEALTHZ_PORT, METRICS_PORT, Handler, Listener, healthz
from fairlead.proxy.metrics import ProxyMetrics
from fairlead.proxy.run import Proxy

log = logging.getLogger("fairlead.proxy")


class Bind(NamedTuple):
    """An address ("" for all) and port; port None: don't serve, 0: any free one."""

    address: str
    port: int | None


_HEALTH, _METRICS = Bind("", HEALTHZ_PORT), Bind("127.0.0.1", METRICS_PORT)


class ProxyServers:
    """`start` after the proxy was made, `stop` at the end. `mode` is what /proxyMode says."""

    def __init__(
        self,
        proxy: Proxy,
        mode: str,
        health: Bind = _HEALTH,
        metrics: Bind = _METRICS,
        must_bind: bool = False,
    ) -> None:
        accelerated = (lambda: float(proxy.acceleration == "socket")) if proxy.options.accelerate else None
        self.metrics = ProxyMetrics(mode, lambda: proxy.table, proxy.backend.tally, accelerated)
        proxy.on_sync = proxy.on_sync or self.metrics.synced
        proxy.on_failure = proxy.on_failure or self.metrics.failed

        def updated() -> datetime | None:
            return datetime.fromtimestamp(proxy.synced_at, UTC) if proxy.synced_at is not None else None

        asked: Handler = healthz(proxy.healthy, proxy.eligible, updated, self.metrics.asked, proxy.families)
        self._must_bind = must_bind
        self._servers = (("health", health, Listener(asked)), ("metrics", metrics, Listener(self.metrics.handler())))

    @property
    def ports(self) -> tuple[int, int]:
        """Where health and metrics are served; 0: they are not."""
        return self._servers[0][2].port, self._servers[1][2].port

    async def start(self) -> None:
        """Listen. With `must_bind` raises OSError if an address cannot be had."""
        for what, bind, listener in self._servers:
            if bind.port is None:
                continue
            try:
                await listener.open(bind.address, bind.port)
            except OSError as error:
                if self._must_bind:
                    raise
                log.error("the proxy's %s cannot be served at %s:%d: %s", what, bind.address, bind.port, error)

    async def stop(self) -> None:
        """Stop listening."""
        for _, _, listener in self._servers:
            await listener.close()
