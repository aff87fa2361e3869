"""What pods use: rates of two looks, and what proc(5) says."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from fairlead.kubelet.metering import Key, Look, Rate, baseline, rates
from fairlead.linux import usage
from fairlead.linux.usage import Usage

SECOND = 1_000_000_000


def test_a_rate_is_of_the_time_between_two_looks() -> None:
    """Of what began meanwhile since its beginning; of what is too new, or was not seen though it was there: none."""
    old, new, newest, hidden = Key("a", "old"), Key("a", "new"), Key("a", "newest"), Key("b", "hidden")
    before = Look(100 * SECOND, {old: Usage(5 * SECOND, 1)}, {old: 0})
    used = {old: Usage(10 * SECOND, 7), new: Usage(SECOND, 8), newest: Usage(1, 9), hidden: Usage(50 * SECOND, 9)}
    now = Look(110 * SECOND, used, {old: 0, new: 108 * SECOND, newest: int(109.9 * SECOND), hidden: 0})
    assert rates(before, now) == {
        old: Rate(SECOND // 2, 7, 10 * SECOND),
        new: Rate(SECOND // 2, 8, 2 * SECOND),
    }


def test_a_process_that_ended_takes_no_time_back() -> None:
    """A rate is never below nothing."""
    key = Key("a", "x")
    found = rates(Look(0, {key: Usage(9, 0)}, {key: 0}), Look(10 * SECOND, {key: Usage(4, 0)}, {key: 0}))
    assert found[key].nano_cores == 0


def test_which_look_is_compared_with() -> None:
    """The latest that is long enough ago, else the oldest that is usable."""
    looks = [Look(at * SECOND, {}, {}) for at in (10, 40, 52, 58)]
    assert baseline(looks, 60 * SECOND) == looks[1]
    assert baseline(looks[2:], 60 * SECOND) == looks[2]
    assert baseline(looks[3:], int(58.5 * SECOND)) is None
    assert baseline(looks[:1], 80 * SECOND) is None


def test_proc_as_the_kernel_writes_it() -> None:
    """A name may hold spaces and parentheses."""
    tick = SECOND // os.sysconf("SC_CLK_TCK")
    assert usage.parse_stat("7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 3 4 5 6 20 0 1 0 0 0 0") == 18 * tick
    assert usage.parse_statm("900 300 100 1 0 200 0") == 200 * os.sysconf("SC_PAGE_SIZE")


def test_a_process_and_what_it_started() -> None:
    """Its family is counted, alive; what is gone counts as nothing."""
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as started:
        deadline = time.monotonic() + 15
        while len(family := usage.family(started.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert family[0] == started.pid
        assert len(family) == 2
        assert usage.of(family).memory > usage.of(family[:1]).memory > 0
        assert started.stdin is not None
        started.stdin.close()
    assert usage.of(family) == Usage()
    assert usage.own().cpu > 0
