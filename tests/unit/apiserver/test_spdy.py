"""SPDY/3.1: frames survive the wire however it cuts them, and the session answers what must be answered."""

import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.apiserver.spdy import frames, session

_ids = st.integers(1, 2**31 - 1)
_names = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12)
_headers = st.dictionaries(_names, st.text(max_size=40), max_size=6)
_frames = st.one_of(
    st.builds(frames.SynStream, _ids, _headers, st.booleans(), _ids, st.integers(0, 7)),
    st.builds(frames.SynReply, _ids, _headers, st.booleans()),
    st.builds(frames.MoreHeaders, _ids, _headers, st.booleans()),
    st.builds(frames.Reset, _ids, st.integers(1, 11)),
    st.builds(frames.Settings, st.lists(st.tuples(st.integers(0, 2), st.integers(1, 8), _ids), max_size=4).map(tuple)),
    st.builds(frames.Ping, st.integers(0, 2**32 - 1)),
    st.builds(frames.GoAway, _ids, st.integers(0, 2)),
    st.builds(frames.WindowUpdate, _ids, _ids),
    st.builds(frames.Data, _ids, st.binary(max_size=200), st.booleans()),
)


def _join(parsed: list[frames.Frame]) -> list[frames.Frame]:
    """Data parts of one frame put together again (a part without fin is followed by the rest)."""
    joined: list[frames.Frame] = []
    for frame in parsed:
        last = joined[-1] if joined else None
        data = isinstance(frame, frames.Data) and isinstance(last, frames.Data)
        if data and last.stream == frame.stream and not last.fin:
            joined[-1] = frames.Data(frame.stream, last.payload + frame.payload, frame.fin)
            continue
        joined.append(frame)
    return joined


def test_the_dictionary_is_the_specifications():
    """Its length and its Adler-32, which every SPDY/3 header block carries."""
    assert len(frames.DICTIONARY) == 1423
    assert zlib.adler32(frames.DICTIONARY) == 0xE3C6A7C2


@settings(max_examples=60, deadline=None)
@given(st.lists(_frames, max_size=8), st.integers(0, 2**32))
def test_parse_inverts_encode_however_the_bytes_are_cut(sent, seed):
    """Any frames, cut anywhere, come out as they went in."""
    writer, reader, dice = frames.FrameWriter(), frames.FrameReader(), random.Random(seed)
    wire = b"".join(writer.encode(frame) for frame in sent)
    parsed: list[frames.Frame] = []
    while wire:
        size = dice.randint(1, 40)
        parsed += reader.feed(wire[:size])
        wire = wire[size:]
    assert _join(parsed) == _join(list(sent))


@pytest.mark.parametrize(
    "wire",
    [
        b"GET / HTTP/1.1\r\n\r\n".replace(b"G", b"\xc7"),
        b"\x80\x02\x00\x01\x00\x00\x00\x00",
        b"\x80\x03\x00\x01\x00\xff\xff\xff",
        b"\x80\x03\x00\x03\x00\x00\x00\x04\x00\x00\x00\x01",
        b"\x80\x03\x00\x01\x00\x00\x00\x0c" + b"\x00" * 10 + b"xx",
    ],
    ids=["not SPDY", "version 2", "huge control frame", "short reset", "bad compression"],
)
def test_nonsense_is_a_protocol_error(wire):
    """Never an accident of parsing: ProtocolError, and the session says GOAWAY."""
    with pytest.raises(frames.ProtocolError):
        frames.FrameReader().feed(wire)
    side = session.ServerSession()
    with pytest.raises(frames.ProtocolError):
        side.receive(wire)
    assert frames.FrameReader().feed(side.take_output()) == [frames.GoAway(0, 1)]


def test_a_header_block_that_swells_is_refused():
    """A few compressed bytes can't make the server hold megabytes."""
    writer = frames.FrameWriter()
    bomb = writer.encode(frames.SynStream(1, {"x": "a" * 1_000_000}))
    assert len(bomb) < frames.MAX_CONTROL_FRAME
    with pytest.raises(frames.ProtocolError, match="passes"):
        frames.FrameReader().feed(bomb)


def _session(*sent: frames.Frame) -> tuple[session.ServerSession, frames.FrameWriter, list[session.Event]]:
    side, writer = session.ServerSession(), frames.FrameWriter()
    return side, writer, side.receive(b"".join(writer.encode(f) for f in sent))


def test_streams_open_carry_data_and_end():
    """Open, accept, data both ways, half-close each way."""
    side, writer, events = _session(frames.SynStream(1, {"streamtype": "stdin"}))
    assert events == [session.Opened(1, {"streamtype": "stdin"})]
    side.accept(1)
    side.send(1, b"out")
    side.send(1, b"", fin=True)
    side.send(1, b"late")
    reader = frames.FrameReader()
    assert _join(reader.feed(side.take_output())) == [frames.SynReply(1, {}), frames.Data(1, b"out", True)]
    assert side.receive(writer.encode(frames.Data(1, b"in", True))) == [session.Received(1, b"in", True)]
    side.close()
    assert reader.feed(side.take_output()) == [frames.GoAway(1, 0)]


def test_pings_of_the_client_are_answered_once():
    """An odd id is echoed; an even one is an answer to ours and is not."""
    side, _, _ = _session(frames.Ping(1), frames.Ping(2))
    assert frames.FrameReader().feed(side.take_output()) == [frames.Ping(1)]


def test_bad_stream_ids_are_reset_and_no_event():
    """Even ids, ids that go back, and data for a stream that isn't open."""
    side, _, events = _session(
        frames.SynStream(3, {}), frames.SynStream(2, {}), frames.SynStream(1, {}), frames.Data(9, b"x")
    )
    assert events == [session.Opened(3, {})]
    assert frames.FrameReader().feed(side.take_output()) == [
        frames.Reset(2, frames.PROTOCOL_ERROR),
        frames.Reset(1, frames.PROTOCOL_ERROR),
        frames.Reset(9, frames.INVALID_STREAM),
    ]


def test_consumed_bytes_open_the_window_again():
    """A client that keeps to its window of 64 KiB can send for ever."""
    side, writer, _ = _session(frames.SynStream(1, {}))
    side.receive(writer.encode(frames.Data(1, b"x" * 40_000)))
    assert frames.FrameReader().feed(side.take_output()) == [frames.WindowUpdate(1, 40_000)]
