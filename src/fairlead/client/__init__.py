"""The client side of the Kubernetes API: requests, following what changes, and acting on it.

Stands between the wire and everything that runs in a cluster; works against any Kubernetes API server. Invariant:
importing this package imports nothing of the server's side, and no YAML.
"""

from __future__ import annotations

from fairlead.client.config import ConfigError
from fairlead.client.reflector import Batch, Watched, follow
from fairlead.client.rest import Client, Unreachable, is_conflict, is_gone

__all__ = ["Batch", "Client", "ConfigError", "Unreachable", "Watched", "follow", "is_conflict", "is_gone"]
