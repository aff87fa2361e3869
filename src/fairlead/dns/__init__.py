"""The cluster's DNS: its own names answered from the watch, all others asked of the upstreams.

In: the API's Services, EndpointSlices and Namespaces. Out: answers by the Kubernetes DNS specification. Two processes:
one follows the API, the other only answers. Pure: `names`, `message`, `records`, `zone`, `answer`, `table`.
"""

from fairlead.dns.options import DNSOptions

__all__ = ["DNSOptions", "serve"]


def serve(options: DNSOptions) -> None:
    """Serve until SIGTERM or SIGINT; see `processes.serve`. Raises SystemExit(1) if it cannot, after saying why."""
    from fairlead.dns import processes

    processes.serve(options)
