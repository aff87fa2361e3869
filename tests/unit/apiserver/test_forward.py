"""Port-forward over SPDY without a network: pairs of streams joined to legs, and what does not pair."""

from __future__ import annotations

import asyncio

import pytest

from fairlead.api import errors
from fairlead.apiserver.spdy import forward, frames


class Carrier:
    """The client's end: what it sends, and the frames it gets."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue()
        self.writer, self.reader = frames.FrameWriter(), frames.FrameReader()
        self.got: list[frames.Frame] = []
        self.closed = False

    def send(self, *sent: frames.Frame) -> None:
        self.incoming.put_nowait(b"".join(self.writer.encode(frame) for frame in sent))

    async def read(self) -> bytes:
        return await self.incoming.get()

    async def write(self, data: bytes) -> None:
        self.got += self.reader.feed(data)

    async def close(self) -> None:
        self.closed = True

    def payload(self, stream: int) -> bytes:
        return b"".join(f.payload for f in self.got if isinstance(f, frames.Data) and f.stream == stream)

    def ended(self, stream: int) -> bool:
        return any(isinstance(f, frames.Data) and f.stream == stream and f.fin for f in self.got)

    def reset(self, stream: int) -> bool:
        return any(isinstance(f, frames.Reset) and f.stream == stream for f in self.got)


class Leg:
    """A pod's port that gives back what it got once the client ends."""

    def __init__(self, port: int) -> None:
        self.port, self.got, self.closed = port, b"", False
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()

    async def send(self, data: bytes) -> None:
        self.got += data

    async def end(self) -> None:
        self.answers.put_nowait(b"<" + self.got + b">")
        self.answers.put_nowait(b"")

    async def receive(self) -> bytes:
        return await self.answers.get()

    async def close(self) -> None:
        self.closed = True


def pair(request: str, port: str, error: int, data: int) -> tuple[frames.Frame, frames.Frame]:
    """The two streams of a connection."""
    headers = {"port": port, "requestid": request}
    return (
        frames.SynStream(error, {**headers, "streamtype": "error"}),
        frames.SynStream(data, {**headers, "streamtype": "data"}),
    )


@pytest.fixture
async def world():
    """(carrier, legs opened); port 9 refuses."""
    carrier, legs = Carrier(), []

    async def open_leg(port: int) -> Leg:
        if port == 9:
            raise errors.internal("nobody listens")
        legs.append(Leg(port))
        return legs[-1]

    running = asyncio.create_task(forward.Forwarding(carrier, open_leg).run())
    yield carrier, legs
    carrier.incoming.put_nowait(b"")
    await asyncio.wait_for(running, 5)
    assert carrier.closed
    assert all(leg.closed for leg in legs)


async def until(condition) -> None:
    """Wait for a condition, at most five seconds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # any condition, not an event of ours
            await asyncio.sleep(0)


async def test_pairs_are_connections_of_their_own(world):
    """Two at once: bytes stay apart; each end is told; the error stream ends without a word."""
    carrier, legs = world
    carrier.send(*pair("a", "80", 1, 3), *pair("b", "81", 5, 7))
    carrier.send(frames.Data(3, b"one"), frames.Data(7, b"two"), frames.Data(3, b"!"))
    await until(lambda: len(legs) == 2)
    carrier.send(frames.Data(3, b"", True))
    await until(lambda: carrier.ended(1))
    assert (carrier.payload(3), carrier.payload(1), carrier.ended(3)) == (b"<one!>", b"", True)
    assert not carrier.ended(7)
    carrier.send(frames.Data(7, b"", True))
    await until(lambda: carrier.ended(5))
    assert carrier.payload(7) == b"<two>"


async def test_a_refused_port_is_said_on_its_own_error_stream(world):
    """And the other connections go on."""
    carrier, legs = world
    carrier.send(*pair("a", "9", 1, 3), *pair("b", "80", 5, 7))
    await until(lambda: carrier.ended(1))
    assert (carrier.payload(1), carrier.ended(3)) == (b"nobody listens", True)
    await until(lambda: len(legs) == 1)
    assert not carrier.ended(7)


async def test_a_reset_ends_the_connection(world):
    """kubectl resets the data stream when its local client is gone: the leg is closed, the error stream ended."""
    carrier, legs = world
    carrier.send(*pair("a", "80", 1, 3))
    await until(lambda: len(legs) == 1)
    carrier.send(frames.Reset(3, frames.CANCEL))
    await until(lambda: carrier.ended(1) and legs[0].closed)


@pytest.mark.parametrize(
    "headers",
    [
        {"streamtype": "data", "requestid": "x"},
        {"streamtype": "data", "port": "0", "requestid": "x"},
        {"streamtype": "data", "port": "http", "requestid": "x"},
        {"streamtype": "music", "port": "80", "requestid": "x"},
        {"streamtype": "error", "port": "80", "requestid": "a"},
        {"streamtype": "data", "port": "81", "requestid": "a"},
    ],
)
async def test_streams_that_do_not_pair_are_refused(world, headers):
    """No port, no such role, a role taken, another port than its pair's."""
    carrier, _ = world
    carrier.send(pair("a", "80", 1, 3)[0], frames.SynStream(5, headers))
    await until(lambda: carrier.reset(5))


async def test_half_a_pair_is_given_up(world, monkeypatch):
    """The second stream must come in time."""
    monkeypatch.setattr(forward, "PAIR_SECONDS", 0.05)
    carrier, legs = world
    carrier.send(pair("a", "80", 1, 3)[0])
    await until(lambda: carrier.ended(1))
    assert legs == []
