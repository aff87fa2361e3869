"""The ways to see a cluster's kernels: what `gather` and `answering` ask, whoever looks.

`cluster.eyes` looks with this machine's own rights at a local cluster; `AgentEyes` asks the agents of the nodes,
through the API server, wherever they are. Invariant: what can't be seen is a `problem` that says why, never an
exception.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from fairlead.api.errors import StatusError
from fairlead.client import Client
from fairlead.explain.evidence import Attempt, DNSAnswer, Facts, NodeKernel, PodKernel, ProcessState
from fairlead.survey.nodeside import Request
from fairlead.survey.server import PREFIX
from fairlead.survey.traffic import Count
from fairlead.survey.wire import NodeDocument, read_node

T = TypeVar("T")
DEADLINE = 5.0
_REST = 10.0  # s in which an agent that did not answer is not asked again: one question asks several times
_MOST = 150  # values in one request's URL


class Eyes(Protocol):
    """What can be asked of a cluster's kernels. `node` empty: the machine that asks, outside of the cluster."""

    @property
    def facts(self) -> Facts:
        """What is known of the cluster as a whole, by now."""

    def processes(self) -> dict[str, ProcessState]:
        """The cluster's own processes by name; empty if they can't be seen."""

    async def node(self, name: str, targets: Iterable[str], destinations: Iterable[str]) -> NodeKernel:
        """A node's kernel."""

    async def pods(self, node: str, wanted: Mapping[str, bool], toward: Iterable[str]) -> dict[str, PodKernel]:
        """Pods' namespaces on one node, by uid; `wanted` says whether each is on the node's network."""

    async def names(self, node: str, uid: str, names: Iterable[str], family: str) -> tuple[DNSAnswer, ...]:
        """What a pod's name servers say."""

    async def request(
        self, node: str, uid: str, request: Request, *, trace: bool = False
    ) -> tuple[Attempt, int] | None:
        """A real request from a pod, or without uid from the node; None if nothing can be sent from there. `trace`:
        followed through that node's rules."""

    async def tracked(self, node: str, request: Request, source_port: int) -> str:
        """Where that node's connection tracking says a request went."""

    async def traffic(self, node: str) -> tuple[tuple[Count, ...], str]:
        """The connections a node translated, and why they can't be seen, if so."""


class NoAgent(Exception):
    """The node's agent can't be asked; the text says why. `silent`: there may be one, and it does not answer."""

    def __init__(self, text: str, silent: bool = False) -> None:
        super().__init__(text)
        self.silent = silent


class AgentEyes:
    """Through the API server's proxy to each node's agent."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._silent: dict[str, tuple[float, str]] = {}  # node → until when it is not asked again, what is said of it
        self.facts = Facts()

    def processes(self) -> dict[str, ProcessState]:
        """See `Eyes`: not seen from here."""
        return {}

    async def node(self, name: str, targets: Iterable[str], destinations: Iterable[str]) -> NodeKernel:
        """See `Eyes`."""
        parts = list(_parts(sorted(set(targets)), _MOST)) or [()]
        try:
            documents = await asyncio.gather(
                *(self._get(name, "node", NodeDocument, target=part, destination=tuple(destinations)) for part in parts)
            )
            kernels = [read_node(document) for document in documents]
        except (NoAgent, ValueError) as error:
            return NodeKernel(problem=str(error), silent=getattr(error, "silent", False))
        self.facts = documents[0].facts
        routes = {target: answer for kernel in kernels for target, answer in kernel.routes.items()}
        return msgspec.structs.replace(kernels[0], routes=routes)

    async def pods(self, node: str, wanted: Mapping[str, bool], toward: Iterable[str]) -> dict[str, PodKernel]:
        """See `Eyes`."""
        found: dict[str, PodKernel] = {}
        some = tuple(sorted(set(toward))[:_MOST])
        for part in _parts(list(wanted.items()), 50):
            uids = tuple(uid for uid, shared in part if not shared)
            shared = tuple(uid for uid, shared in part if shared)
            try:
                found |= await self._get(node, "pods", dict[str, PodKernel], uid=uids, shared=shared, toward=some)
            except NoAgent as error:
                found |= {uid: PodKernel(problem=str(error)) for uid, _ in part}
        return found

    async def names(self, node: str, uid: str, names: Iterable[str], family: str) -> tuple[DNSAnswer, ...]:
        """See `Eyes`."""
        try:
            return await self._get(
                node, f"names/{quote(uid)}", tuple[DNSAnswer, ...], name=tuple(names), family=(family,)
            )
        except NoAgent:
            return ()

    async def request(
        self, node: str, uid: str, request: Request, *, trace: bool = False
    ) -> tuple[Attempt, int] | None:
        """See `Eyes`. Outside is wherever this runs."""
        from fairlead.survey import asking

        if not node:
            return await asyncio.to_thread(asking.connect, *request)
        try:
            answer = await self._client.post_raw(
                f"{self._path(node)}/request?{urlencode({'uid': uid} | ({'trace': 1} if trace else {}))}",
                msgspec.json.encode(request),
            )
            return msgspec.json.decode(answer, type=tuple[Attempt, int] | None)
        except (StatusError, msgspec.MsgspecError):
            return None

    async def tracked(self, node: str, request: Request, source_port: int) -> str:
        """See `Eyes`."""
        try:
            return await self._get(
                node,
                "flow",
                str,
                address=(request.address,),
                port=(str(request.port),),
                protocol=(request.protocol,),
                source=(str(source_port),),
            )
        except NoAgent:
            return ""

    async def traffic(self, node: str) -> tuple[tuple[Count, ...], str]:
        """See `Eyes`."""
        try:
            return await self._get(node, "traffic", tuple[Count, ...]), ""
        except NoAgent as error:
            return (), str(error)

    def _path(self, node: str) -> str:
        return f"/api/v1/nodes/{quote(node)}/proxy{PREFIX}"

    async def _get(self, node: str, what: str, kind: type[T], **query: tuple[str, ...]) -> T:
        path = f"{self._path(node)}/{what}?{urlencode(query, doseq=True)}"
        now = asyncio.get_running_loop().time()
        until, said = self._silent.get(node, (0.0, ""))
        if now < until:
            raise NoAgent(said, True)
        try:
            async with asyncio.timeout(DEADLINE):
                return msgspec.json.decode(await self._client.get_raw(path), type=kind)
        except TimeoutError:
            said = f"the agent of {node} does not answer within {DEADLINE:.0f} s"
            self._silent[node] = (now + DEADLINE + _REST, said)
            raise NoAgent(said, True) from None
        except StatusError as error:
            raise NoAgent(_why(node, error), error.code not in (403, 404, 405, 501)) from None
        except msgspec.MsgspecError as error:
            raise NoAgent(f"what answers for {node} speaks otherwise than this fairlead: {error}") from None


def _parts(values: Sequence[T], size: int) -> Iterator[tuple[T, ...]]:
    for start in range(0, len(values), size):
        yield tuple(values[start : start + size])


def _why(node: str, error: StatusError) -> str:
    if error.code == 403:
        return f"you may not ask the agent of {node}: it takes the right to get nodes/proxy"
    if error.code in (404, 405, 501):
        return f"there is no agent of fairlead on {node}"
    return f"the agent of {node} can't be asked: {error}"
