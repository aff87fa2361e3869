"""The kubelet's pure parts, for any input."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fairlead.kubelet.backoff import LONGEST, RestartBackoff
from fairlead.kubelet.crilog import LogFile, parse, parse_time, render_time
from fairlead.kubelet.expansion import expand
from fairlead.kubelet.resolvconf import ResolvConf
from fairlead.kubelet.resolvconf import parse as parse_resolv
from fairlead.kubelet.resolvconf import render as render_resolv
from fairlead.kubelet.volumes import File, write

WORDS = st.from_regex(r"[a-z0-9.:-]{1,20}", fullmatch=True).filter(lambda w: not w.endswith("."))
ALPHABET = st.text("$()AB x", max_size=30)


@given(st.integers(0, 4 * 10**18))
def test_log_times_round_trip(nanoseconds: int) -> None:
    """To the nanosecond."""
    assert parse_time(render_time(nanoseconds)) == nanoseconds


@given(st.lists(st.binary(max_size=40_000), max_size=8))
def test_a_log_holds_what_was_written(chunks: list[bytes]) -> None:
    """However it was cut: the entries' texts are the bytes, with a newline at the end."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "0.log")
        log = LogFile(str(path), 10**9, 5)
        for chunk in chunks:
            log.feed(b"stdout", chunk)
        log.close()
        text = b"".join(parse(line).text for line in path.read_bytes().split(b"\n")[:-1])
    whole = b"".join(chunks)
    assert text == (whole if not whole or whole.endswith(b"\n") else whole + b"\n")


@given(ALPHABET, st.dictionaries(st.sampled_from(["A", "B", "AB", ""]), ALPHABET))
def test_expansion_against_a_plain_scanner(text: str, known: dict[str, str]) -> None:
    """The same as reading character by character, as upstream does."""
    out, i = "", 0
    while i < len(text):
        if text[i] != "$" or i + 1 == len(text):
            out, i = out + text[i], i + 1
        elif text[i + 1] == "$":
            out, i = out + "$", i + 2
        elif text[i + 1] == "(" and (end := text.find(")", i + 2)) >= 0:
            name = text[i + 2 : end]
            out, i = out + known.get(name, f"$({name})"), end + 1
        else:
            out, i = out + text[i : i + 2], i + 2
    assert expand(text, known) == out


@given(
    st.builds(
        ResolvConf,
        st.lists(WORDS).map(tuple),
        st.lists(WORDS, max_size=5).map(tuple),
        st.lists(WORDS, max_size=5).map(tuple),
    )
)
def test_resolv_conf_round_trips(conf: ResolvConf) -> None:
    """parse(render(x)) == x."""
    assert parse_resolv(render_resolv(conf)) == conf


@given(st.lists(st.floats(0, 2000), min_size=1, max_size=20))
def test_waits_are_bounded_and_never_negative(runs: list[float]) -> None:
    """Whatever the containers do, no wait passes five minutes."""
    backoff, now = RestartBackoff(), 0.0
    for run in runs:
        now += run
        wait = backoff.remaining(ended=now, now=now)
        assert 0 <= wait <= LONGEST
        backoff.restarted(ended=now, now=now + wait)
        now += wait


@given(
    st.lists(st.dictionaries(st.sampled_from(["a", "b", "d/x", "d/y"]), st.binary(max_size=5)), min_size=1, max_size=4)
)
def test_a_volume_shows_the_last_content(states: list[dict[str, bytes]]) -> None:
    """Any sequence of updates ends in the last one."""
    with tempfile.TemporaryDirectory() as directory:
        volume = Path(directory, "v")
        for state in states:
            write(volume, {path: File(data, 0o644) for path, data in state.items()})
        for path in ("a", "b", "d/x", "d/y"):
            assert (volume / path).exists() == (path in states[-1])
            if path in states[-1]:
                assert (volume / path).read_bytes() == states[-1][path]
