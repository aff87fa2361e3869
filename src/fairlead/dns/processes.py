"""`fairlead dns`: the two processes and what binds them.

The parent answers (`answering`); the child follows the API (`follow`) and feeds it through a pipe. Both begin as one
process that has imported what both need, so that memory is shared; each imports the rest by itself, at the same time.
Invariant: they live and die together. If either ends unasked the other ends with a code that is not zero, so that the
pod starts again; SIGTERM ends both with zero, after what is under way is answered.
"""

from __future__ import annotations

import asyncio as _asyncio  # noqa: F401 - imported here so that both processes share it
import gc
import logging
import os
import signal
import socket
import sys
import traceback

from fairlead.dns import pipe as _pipe  # noqa: F401 - likewise
from fairlead.dns.options import DNSOptions


def serve(options: DNSOptions) -> None:
    """Serve until SIGTERM or SIGINT, then return; in a process of its own, whose signals it takes. Raises SystemExit(1)
    if it cannot start or the follower ended, after saying why."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
    ours, theirs = socket.socketpair()
    for pipe in (ours, theirs):
        pipe.setblocking(False)
    gc.collect()
    gc.freeze()
    child = os.fork()
    if child == 0:
        ours.close()
        os._exit(_follower(options, theirs))
    theirs.close()
    from fairlead.dns import answering

    try:
        code = answering.main(options, ours)
    finally:
        os.kill(child, signal.SIGKILL)  # it has no state to lose; not waited for yet, so the id is still its own
        os.waitpid(child, 0)
    if code:
        raise SystemExit(code)


def _follower(options: DNSOptions, pipe: socket.socket) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both; the parent ends the child
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        from fairlead.dns import follow

        return follow.main(options, pipe)
    except BaseException:  # nothing may run the parent's exit handlers
        traceback.print_exc()
        return 1
