"""`fairlead dns`: its processes and what binds them.

The parent answers (`answering`), a child follows the API (`follow`) and feeds it through a pipe; with `workers`,
further children answer on the same port and are fed alike. All begin as one process that has read the configuration and
imported what they need, so that memory is shared. Invariant: they live and die together. If one ends unasked the others
end with a code that is not zero, so that the pod starts again; SIGTERM ends all with zero, after what is under way is
answered.
"""

from __future__ import annotations

import asyncio as _asyncio  # noqa: F401 - imported here so that all processes share it
import gc
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from fairlead.dns import pipe as _pipe  # noqa: F401 - likewise
from fairlead.dns.options import DNSOptions, Watch

if TYPE_CHECKING:
    from fairlead.dns.config import Config

log = logging.getLogger("fairlead.dns")


def serve(options: DNSOptions) -> None:
    """Serve until SIGTERM or SIGINT, then return; in a process of its own, whose signals it takes. Raises SystemExit(1)
    if it cannot start or one of its processes ended, after saying why."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
    early = _watch_of(options)
    if early is not None and options.workers == 1:  # nothing has to be read first: both begin at once
        pairs = _pairs(1)
        gc.collect()
        gc.freeze()
        _exit(_run(options, None, pairs, _fork_follower(early, pairs)))
        return
    _exit(_run_configured(options))


def _exit(code: int) -> None:
    """End with an exit code that is not zero."""
    if code:
        raise SystemExit(code)


def _watch_of(options: DNSOptions) -> Watch | None:
    """What is followed without a Corefile; None with one, which says it itself."""
    if options.config is not None:
        return None
    return Watch(kubeconfig=options.kubeconfig, pods=options.pods == "verified")


def _configured(options: DNSOptions) -> Config | None:
    """The configuration; None if it is wrong, after saying why."""
    from fairlead.dns import answering
    from fairlead.dns.serving import DNSError

    try:
        config = answering.configuration(options)
    except DNSError as error:
        log.error("%s", error)
        return None
    count = _count(options, config)
    if count > 1 and config.prometheus:
        log.error("prometheus counts in one process: it and more than one worker cannot both be had")
        return None
    return config


def _count(options: DNSOptions, config: Config) -> int:
    return config.workers or (len(os.sched_getaffinity(0)) if config.multisocket else options.workers)


def _run_configured(options: DNSOptions) -> int:
    """Read the configuration, then fork what it needs."""
    config = _configured(options)
    if config is None:
        return 1
    watch = config.watch
    if watch is not None and watch.kubeconfig is None and not watch.endpoint and options.kubeconfig is not None:
        watch = msgspec.structs.replace(watch, kubeconfig=options.kubeconfig)
    count = _count(options, config)
    pairs = _pairs(count) if watch is not None else []
    gc.collect()
    gc.freeze()
    follower = _fork_follower(watch, pairs) if watch is not None else 0
    return _run(options, config, pairs, follower, count)


def _pairs(count: int) -> list[tuple[socket.socket, socket.socket]]:
    """Pipes to as many answering processes: (their end, the follower's)."""
    pairs = [socket.socketpair() for _ in range(count)]
    for pipe in (end for pair in pairs for end in pair):
        pipe.setblocking(False)
    return pairs


def _fork_follower(watch: Watch, pairs: Sequence[tuple[socket.socket, socket.socket]]) -> int:
    follower = _fork(lambda: _follower(watch, [theirs for _, theirs in pairs]), [ours for ours, _ in pairs])
    for _, theirs in pairs:
        theirs.close()
    return follower


def _run(
    options: DNSOptions,
    config: Config | None,
    pairs: Sequence[tuple[socket.socket, socket.socket]],
    follower: int,
    count: int = 1,
) -> int:
    """Answer, in `count` processes, of which this is the first; returns the exit code."""
    children: list[int] = []
    try:
        config = config or _configured(options)
        if config is None:
            return 1
        from fairlead.dns import answering

        nonce = os.urandom(16)
        life, held = os.pipe()  # nobody writes: when it ends, the first process has
        for number in range(1, count):
            others = [ours for at, (ours, _) in enumerate(pairs) if at != number]
            worker = answering.Worker(config, nonce, pairs[number][0] if pairs else None, number, shared=True)
            worker.life = life

            def work(worker: answering.Worker = worker) -> int:
                os.close(held)
                return answering.main(options, worker)

            children.append(_fork(work, others))
        for ours, _ in pairs[1:]:
            ours.close()
        first = answering.Worker(
            config, nonce, pairs[0][0] if pairs else None, 0, shared=options.share_port or count > 1
        )
        first.children = children
        return answering.main(options, first)
    finally:
        if follower:
            os.kill(follower, signal.SIGKILL)  # it has no state to lose; not waited for yet, so the id is still its own
            os.waitpid(follower, 0)
        for child in children:
            os.waitpid(child, 0)


def _fork(work: Callable[[], int], not_its: Sequence[socket.socket]) -> int:
    """Run `work` in a child that ends with what it returns; returns the child's id."""
    child = os.fork()
    if child:
        return child
    for sock in not_its:
        sock.close()
    try:
        code = work()
    except BaseException:  # nothing may run the parent's exit handlers
        traceback.print_exc()
        code = 1
    os._exit(code)


def _follower(watch: Watch, pipes: Sequence[socket.socket]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent ends the child
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    from fairlead.dns import follow

    return follow.main(watch, pipes)
