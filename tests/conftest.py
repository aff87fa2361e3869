"""What holds for all tests: property tests have no deadline, as claims about speed belong to `make bench`."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "fairlead", parent=settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fairlead")
