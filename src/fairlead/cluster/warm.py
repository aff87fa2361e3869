"""What the cluster's processes need in memory, loaded once in the parent they are all forked from.

Invariant: after `up`, no process of the cluster imports anything of weight again, and the pages stay shared: the
collector never touches what was loaded here.
"""

from __future__ import annotations

import gc


def up() -> None:
    """Import, then freeze."""
    from fairlead.linux import truststore

    with truststore.unread():
        import fairlead.api.defaults
        import fairlead.api.validation
        import fairlead.client
        import fairlead.cluster.controlplane
        import fairlead.cluster.nodeagent
        import fairlead.cluster.publisher
        import fairlead.dns.processes
        import fairlead.ingress.serve  # noqa: F401
    from fairlead.api import checkers
    from fairlead.api.kinds import RESOURCES
    from fairlead.api.schema import schema_of

    checkers.warm([schema_of(resource) for resource in RESOURCES])
    gc.collect()
    gc.freeze()


def node() -> None:
    """As `up`, with what a node needs."""
    from fairlead.linux import truststore

    with truststore.unread():
        import fairlead.cluster.nodeagent
        import fairlead.dns.processes  # noqa: F401
    gc.collect()
    gc.freeze()
