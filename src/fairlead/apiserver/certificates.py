"""New certificate files are taken into use while the server runs.

Beside the server. Invariant: connections that are open stay as they are; files that can't be used are said once, and
what was loaded before stays.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl

from fairlead.apiserver.config import ServerConfig

log = logging.getLogger("fairlead.apiserver")

_State = tuple[tuple[int, int, int], ...]


async def keep_loaded(context: ssl.SSLContext, config: ServerConfig) -> None:
    """Look at the files every `config.reload_seconds` and load them again when they changed. Until cancelled.

    An authority that is no longer in the file stays trusted until the server starts again: a context forgets none.
    """
    files = [str(path) for path in (config.cert_file, config.key_file, config.client_ca_file)]
    seen = _state(files)
    while True:
        await asyncio.sleep(config.reload_seconds)
        now = _state(files)
        if now == seen or not now:
            continue
        seen = now
        try:
            # On trial first: a context that took the certificate and then refuses the key is good for nothing.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files[0], files[1])
            context.load_cert_chain(files[0], files[1])
            context.load_verify_locations(files[2])
        except (OSError, ssl.SSLError) as error:
            log.warning("%s and its key can't be used (%s): the certificate in use stays", files[0], error)
        else:
            log.info("loaded the certificate %s again", files[0])


def _state(files: list[str]) -> _State:
    """What changes when a file does; empty while one is missing."""
    try:
        return tuple((s.st_ino, s.st_mtime_ns, s.st_size) for s in map(os.stat, files))
    except OSError:
        return ()
