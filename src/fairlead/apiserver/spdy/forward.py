"""Port-forward over SPDY: pairs of streams, each pair one connection to a port of the pod.

Between a carrier and legs. The client opens an `error` and a `data` stream with the same `requestID` header and the
same `port`. Invariants: a pair's bytes keep their order; one connection's failure ends that pair alone, and is said on
its error stream; when this ends, every leg is closed.
"""

from __future__ import annotations

import asyncio

from fairlead.api import errors
from fairlead.apiserver.legs import Leg, OpenLeg
from fairlead.apiserver.request import port_number
from fairlead.apiserver.spdy import carriers, frames, session

PAIR_SECONDS = 30.0  # how long the second stream of a pair may take (upstream's limit)
MAX_STREAMS = 1024
_WAITING = 512 * 1024  # bytes from the client, all pairs together, not yet sent on


class _Pair:
    """One connection under way; a stream is 0 until the client opened it."""

    def __init__(self, port: str) -> None:
        self.port = port
        self.data = self.error = 0
        self.complete = asyncio.Event()
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue()  # None: the client sends no more
        self.task: asyncio.Task[None] | None = None


class Forwarding:
    """One client's connection. `run` carries it to its end."""

    def __init__(self, carrier: carriers.Carrier, open_leg: OpenLeg) -> None:
        self._carrier, self._open_leg = carrier, open_leg
        self._session = session.ServerSession(MAX_STREAMS)
        self._pairs: dict[str, _Pair] = {}
        self._streams: dict[int, tuple[str, _Pair]] = {}
        self._waiting = 0
        self._room = asyncio.Event()
        self._room.set()
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        """Until the client is gone."""
        try:
            while data := await self._carrier.read():
                for event in self._session.receive(data):
                    self._take(event)
                await self._flush()
                await self._room.wait()
        except (ConnectionError, frames.ProtocolError):
            pass
        finally:
            tasks = [pair.task for pair in self._pairs.values() if pair.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            try:
                self._session.close()
                await self._flush()
            except ConnectionError:
                pass
            await self._carrier.close()

    # ---- from the client
    def _take(self, event: session.Event) -> None:
        match event:
            case session.Opened(stream, headers):
                self._open(stream, headers)
            case session.Received(stream, payload, fin):
                kind, pair = self._streams.get(stream, ("", None))
                if pair is not None and kind == "data":
                    if payload:
                        self._waiting += len(payload)
                        pair.queue.put_nowait(payload)
                        if self._waiting > _WAITING:
                            self._room.clear()
                    if fin:
                        pair.queue.put_nowait(None)
            case session.Ended(stream):
                kind, pair = self._streams.get(stream, ("", None))
                if pair is not None and kind == "data" and pair.task is not None:
                    pair.task.cancel()

    def _open(self, stream: int, headers: frames.Headers) -> None:
        kind, port = headers.get("streamtype", ""), headers.get("port", "")
        request = headers.get("requestid", "")
        pair = self._pairs.get(request)
        wrong = kind not in ("data", "error") or port_number(port) is None
        if wrong or (pair is not None and (pair.port != port or getattr(pair, kind))):
            self._session.refuse(stream)
            return
        if pair is None:
            pair = self._pairs[request] = _Pair(port)
            pair.task = asyncio.create_task(self._carry(request, pair), name=f"port-forward {port}")
        self._session.accept(stream)
        setattr(pair, kind, stream)
        self._streams[stream] = (kind, pair)
        if pair.data and pair.error:
            pair.complete.set()

    # ---- one connection
    async def _carry(self, request: str, pair: _Pair) -> None:
        leg: Leg | None = None
        said = b""
        try:
            async with asyncio.timeout(PAIR_SECONDS):
                await pair.complete.wait()
            leg = await self._open_leg(int(pair.port))
            upward = asyncio.create_task(self._upward(pair, leg))
            try:
                while piece := await leg.receive():
                    await self._send(pair.data, piece)
            finally:
                upward.cancel()
                await asyncio.gather(upward, return_exceptions=True)
        except errors.StatusError as failure:
            said = failure.message.encode()
        except (ConnectionError, TimeoutError):
            pass  # the connection broke: the client sees its end
        finally:
            self._forget(request, pair)
            try:
                # Shielded from a second cancellation by being short: what the client must see is the two ends.
                await self._send(pair.data, b"", fin=True)
                await self._send(pair.error, said, fin=True)
            except ConnectionError:
                pass
            if leg is not None:
                await leg.close()

    async def _upward(self, pair: _Pair, leg: Leg) -> None:
        while True:
            piece = await pair.queue.get()
            if piece is None:
                await leg.end()
                return
            self._consumed(len(piece))
            await leg.send(piece)

    def _consumed(self, count: int) -> None:
        self._waiting -= count
        if self._waiting <= _WAITING // 2:
            self._room.set()

    def _forget(self, request: str, pair: _Pair) -> None:
        """Also what it never sent on."""
        self._pairs.pop(request, None)
        for stream in (pair.data, pair.error):
            self._streams.pop(stream, None)
        while not pair.queue.empty():
            self._consumed(len(pair.queue.get_nowait() or b""))

    async def _send(self, stream: int, payload: bytes, *, fin: bool = False) -> None:
        if stream:
            self._session.send(stream, payload, fin=fin)
            await self._flush()

    async def _flush(self) -> None:
        async with self._writing:
            output = self._session.take_output()
            if output:
                await self._carrier.write(output)
