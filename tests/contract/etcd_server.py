"""A real etcd server of the test's own, on loopback, in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.ports import free_port

ETCD = shutil.which("etcd", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")


class EtcdServer:
    """Start it, take it away, bring it back. `tls`: paths of its CA, certificate and key; clients must show one too."""

    def __init__(self, folder: Path, tls: tuple[Path, Path, Path] | None = None) -> None:
        self.folder, self.tls = folder, tls
        self.port, self._peer_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """As `--store` takes it."""
        return f"etcd://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start on what is in the folder; returns once it listens."""
        assert ETCD is not None, "etcd is missing: apt-get install etcd-server"
        scheme = "https" if self.tls else "http"
        arguments = [
            ETCD,
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={scheme}://127.0.0.1:{self.port}",
            f"--advertise-client-urls={scheme}://127.0.0.1:{self.port}",
            f"--listen-peer-urls=http://127.0.0.1:{self._peer_port}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{self._peer_port}",
            f"--initial-cluster=default=http://127.0.0.1:{self._peer_port}",
            "--heartbeat-interval=10",
            "--election-timeout=100",
            "--log-level=error",
        ]
        if self.tls:
            ca, cert, key = self.tls
            arguments += [f"--trusted-ca-file={ca}", f"--cert-file={cert}", f"--key-file={key}", "--client-cert-auth"]
        with (self.folder / "etcd.log").open("ab") as output:
            self._process = subprocess.Popen(arguments, stdout=output, stderr=output, start_new_session=True)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self._process.poll() is None, (self.folder / "etcd.log").read_text()
            time.sleep(0.01)
        raise AssertionError("etcd does not listen")

    def kill(self) -> None:
        """kill -9, if it runs."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def forget(self) -> None:
        """Lose all data, as a wrong restore does."""
        shutil.rmtree(self.folder / "etcd", ignore_errors=True)
