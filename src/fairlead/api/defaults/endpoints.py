"""Defaults of Endpoints and EndpointSlices: a port's protocol, and in slices a port's name."""

from __future__ import annotations

from typing import Any

from fairlead.api.defaults.absent import default, default_text


def default_endpoints(obj: dict[str, Any]) -> None:
    """Protocol TCP."""
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            default_text(port, "protocol", "TCP")


def default_endpointslice(obj: dict[str, Any]) -> None:
    """Protocol TCP, an empty name."""
    for port in obj.get("ports") or ():
        default(port, "name", "")
        default(port, "protocol", "TCP")
