"""What one node can say of itself: its kernel, its pods' namespaces, and what is answered when asked from within them.

Runs where the namespaces are: in the node's agent, or in a command of root on the machine of a local cluster. Stands on
`sight` and `asking`; everything is synchronous, for a thread of its own. Invariant: it only reads, but for `request`;
of a pod's environment only what is said of Services leaves it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from fairlead.explain.evidence import Attempt, DNSAnswer, NodeKernel, PodKernel
from fairlead.kubelet.resolvconf import parse
from fairlead.linux.namespaces import entered
from fairlead.linux.nft.kernel import NftSocket, Tape
from fairlead.proxy.nftables.layout import DIALECTS
from fairlead.survey import asking, sight
from fairlead.survey.tracing import traced
from fairlead.survey.traffic import Count, TrafficCounter

T = TypeVar("T")
_GONE = (Attempt("gone"), 0)  # the pod is


class Request(NamedTuple):
    """One real request; see `asking.connect`."""

    address: str
    port: int
    protocol: str
    url_path: str = ""
    host: str = ""


class NodeSide:
    """One node. `pods` is the folder the kubelet keeps a folder of each pod in; `namespace` is the node's network
    namespace, None if this process is in it; `mode` is the proxy's."""

    def __init__(self, pods: Path, namespace: Path | None = None, mode: str = "") -> None:
        self._pods, self._namespace, self._mode = pods, namespace, mode
        self._counter = TrafficCounter()

    def _inside(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self._namespace is None else entered(self._namespace)

    def node(
        self, targets: Iterable[str], destinations: Iterable[str], tapes: dict[str, Tape] | None = None
    ) -> NodeKernel:
        """The kernel: routes to `targets`, tracked connections to `destinations`. `tapes` gathers what the kernel said
        of the proxy's nftables, for another place to read."""
        try:
            with self._inside():
                tables = {}
                with NftSocket() as nft:
                    for family, dialect in DIALECTS.items():
                        tape = tapes.setdefault(family, []) if tapes is not None else None
                        tables[str(family)] = nft.read(dialect.table, tape)
                listing, links = sight.ruleset(), sight.links()
                return NodeKernel(
                    mode=self._mode,
                    tables=tables,
                    iptables=sight.iptables(listing),
                    ipvs=sight.ipvs(),
                    ruleset=listing,
                    links=links,
                    tunnels=sight.tunnels(links),
                    routes=sight.routes(targets),
                    sysctls=sight.sysctls(),
                    flows=sight.flows(("TCP", "UDP"), destinations),
                    conntrack=sight.conntrack_room(),
                )
        except (OSError, ValueError) as error:
            return NodeKernel(problem=f"its namespace can't be read: {_words(error)}")

    def pods(self, wanted: Mapping[str, bool], toward: Iterable[str]) -> dict[str, PodKernel]:
        """Pods' namespaces, by uid. `wanted` says of each whether it is on the node's network; `toward`: the addresses
        to which routes are asked for."""
        known = sight.processes_by_namespace()
        addresses = tuple(toward)
        return {uid: self._pod(uid, shared, addresses, known) for uid, shared in wanted.items()}

    def _pod(self, uid: str, shared: bool, toward: tuple[str, ...], known: dict[str, list[int]]) -> PodKernel:
        conf: str | None = None
        with contextlib.suppress(OSError):
            conf = (self._pods / uid / "etc" / "resolv.conf").read_text()
        try:
            pid = self._pid(uid)
            own = known.get(sight.namespace_of(pid), [])
        except (OSError, ValueError):
            return PodKernel(present=False, resolv_conf=conf)
        if shared:
            return PodKernel(listeners=sight.listeners(pid, own), resolv_conf=conf)
        try:
            with entered(f"/proc/{pid}/ns/net"):
                found, answers, rules = sight.links(), sight.routes(toward), sight.ruleset()
            return PodKernel(
                links=found,
                routes=answers,
                listeners=sight.listeners(pid, own),
                udp_ports=sight.udp_ports(pid),
                ruleset=rules,
                resolv_conf=conf,
                environment=sight.environment(own),
            )
        except OSError as error:
            return PodKernel(resolv_conf=conf, problem=f"its namespace can't be read: {_words(error)}")

    def _pid(self, uid: str) -> int:
        """The process that holds a pod's namespaces. Raises OSError or ValueError if it is gone."""
        if "/" in uid or not uid or uid.startswith("."):
            raise ValueError(f"{uid!r} is no pod's uid")
        return int((self._pods / uid / "shim.pid").read_text())

    def in_pod(self, uid: str, work: Callable[[], T]) -> T | None:
        """Do short, synchronous work in a pod's network namespace; None if it is gone."""
        try:
            with entered(f"/proc/{self._pid(uid)}/ns/net"):
                return work()
        except (OSError, ValueError):
            return None

    def names(self, uid: str, names: Iterable[str], family: str) -> tuple[DNSAnswer, ...]:
        """What the pod's own name servers say of the names, in turn."""
        try:
            conf = parse((self._pods / uid / "etc" / "resolv.conf").read_text())
        except OSError:
            return ()
        ask = partial(asking.look_up, tuple(names), conf.nameservers or ("127.0.0.1",), family)
        return self.in_pod(uid, ask) or ()

    def request(self, uid: str, request: Request, trace: bool = False) -> tuple[Attempt, int] | None:
        """A real request from a pod, or with an empty uid from the node; what came of it, and its source port. `trace`:
        followed through this node's rules."""
        send = partial(asking.connect, *request)

        def work() -> tuple[Attempt, int]:
            return (self.in_pod(uid, send) or _GONE) if uid else send()

        with self._inside():
            done = traced(request.address, request.port, request.protocol, work) if trace else work()
        return None if done == _GONE else done

    def tracked(self, request: Request, source_port: int) -> str:
        """Where this node's connection tracking says that a request went; empty if it does not know."""
        try:
            with self._inside():
                return asking.tracked_endpoint(request.protocol, request.address, request.port, source_port)
        except OSError:
            return ""

    def traffic(self) -> tuple[Count, ...]:
        """Connections that this node translated; see `TrafficCounter`. Raises OSError."""
        with self._inside():
            return self._counter.look()


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
