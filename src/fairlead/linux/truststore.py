"""The machine's certificate store, left unread.

aiohttp reads all of it when it is imported, for a default that nothing here uses: a kubeconfig brings its own trust.
That costs 40 ms and 2 MB in every process that starts.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def unread() -> Iterator[None]:
    """Import aiohttp inside of this. Outside of it, everything is as it was."""
    names = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
