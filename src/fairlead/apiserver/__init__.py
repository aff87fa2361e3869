"""The Kubernetes API over HTTPS: routes, content negotiation, watch framing, authentication, discovery, OpenAPI.

In: requests of kubectl and every other client. Out: objects, tables, event streams, and errors as `Status` bodies.
Never: a decision about an object (that is the registry's) or a private way around the registry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairlead.apiserver.config import ServerConfig as ServerConfig
    from fairlead.apiserver.server import APIServer as APIServer

_HOMES = {"APIServer": "fairlead.apiserver.server", "ServerConfig": "fairlead.apiserver.config"}


def __getattr__(name: str) -> Any:
    """Load the server only when it is asked for: making certificates must not cost an HTTP stack."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
