"""port-forward through every kubectl (SPDY/3.1, and SPDY in a WebSocket) and the official Python client."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
from kubernetes import client, config, stream

from tests.conformance.test_pod_streams import pod  # noqa: F401  (a fixture)

DEADLINE = 20.0


class Answering:
    """A server on loopback. It says `hello`, then, once the client has ended its side, how many bytes came and them."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                end, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(end,), daemon=True).start()

    def _answer(self, end: socket.socket) -> None:
        with end:
            end.sendall(b"hello\n")
            got = b""
            while piece := end.recv(65536):
                got += piece
                if got.endswith(b"\n.\n"):
                    break
            end.sendall(b"%d\n" % len(got) + got)

    def close(self) -> None:
        """No more."""
        self._socket.close()


@pytest.fixture
def answering() -> Iterator[Answering]:
    made = Answering()
    yield made
    made.close()


def ask(port: int, data: bytes) -> bytes:
    """Send it all, end our side, read to the end."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as end:
        end.sendall(data)
        end.shutdown(socket.SHUT_WR)
        got = b""
        while piece := end.recv(65536):
            got += piece
        return got


def forwarded(running: subprocess.Popen[str]) -> int:
    """The local port kubectl says it listens on."""
    line = running.stdout.readline()
    found = re.search(r"127\.0\.0\.1:(\d+) ->", line)
    assert found, (line, running.communicate(timeout=DEADLINE))
    return int(found.group(1))


def test_kubectl_forwards_many_connections_at_once(kubectl, pod, answering):  # noqa: F811
    """Small and large ones, each whole and in order, with either side ending first; nothing stays open."""
    running = kubectl.start("port-forward", f"pod/{pod}", f":{answering.port}")
    try:
        port = forwarded(running)
        assert ask(port, b"x\n.\n") == b"hello\n4\nx\n.\n"
        data = bytes(range(256)) * 4096
        answers: list[bytes] = []
        threads = [threading.Thread(target=lambda: answers.append(ask(port, data))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert answers == [b"hello\n%d\n" % len(data) + data] * 8
        with socket.create_connection(("127.0.0.1", port), DEADLINE) as end:
            assert end.recv(6) == b"hello\n"  # and leave without a word
        assert ask(port, b"again\n.\n") == b"hello\n8\nagain\n.\n"
    finally:
        running.kill()
        running.communicate()
    cluster, deadline = kubectl.cluster, time.monotonic() + DEADLINE
    while (cluster.kubelet.open_forwards or cluster.server.open_streams) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (cluster.kubelet.open_forwards, cluster.server.open_streams) == (0, 0)


def test_kubectl_is_told_when_nothing_listens(kubectl, pod):  # noqa: F811
    """The kubelet's own words reach kubectl's stderr."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = free.getsockname()[1]
    running = kubectl.start("port-forward", pod, f":{nobody}")
    try:
        assert ask(forwarded(running), b"x") == b""
    except ConnectionResetError:
        pass  # how newer kubectls end the local connection
    finally:
        time.sleep(0.1)
        running.terminate()
        _, said = running.communicate(timeout=DEADLINE)
    assert f"failed to connect to localhost:{nobody}" in said


def test_port_forward_is_refused_before_the_upgrade(kubectl, pod, curl):  # noqa: F811
    """No such pod is a Status; without an upgrade it is a 400, with an unknown protocol too."""
    assert 'pods "nope" not found' in kubectl.fails("port-forward", "nope", ":80")
    path = f"/api/v1/namespaces/{kubectl.namespace}/pods/{pod}/portforward"
    assert curl(path)[0] == 400
    upgrade = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    upgrade += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol: what.ever"]
    status, _, body = curl(path, *(word for line in upgrade for word in ("-H", line)))
    assert (status, b"unsupported subprotocols" in body) == (400, True)


def test_the_official_python_client_forwards(kubectl, pod, answering):  # noqa: F811
    """`v4.channel.k8s.io` with ?ports=: bytes both ways; a dead port's error is on its own channel."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = free.getsockname()[1]
    api = client.CoreV1Api(config.new_client_from_config(str(kubectl.cluster.kubeconfig)))
    ports = f"{answering.port},{nobody}"
    forward = stream.portforward(api.connect_get_namespaced_pod_portforward, pod, kubectl.namespace, ports=ports)
    end = forward.socket(answering.port)
    end.settimeout(DEADLINE)
    end.sendall(b"x" * 100_000 + b"\n.\n")
    got = b""
    while len(got) < 100_000 + 3 + len(b"hello\n100003\n"):
        piece = end.recv(65536)
        assert piece, got[-100:]
        got += piece
    assert got == b"hello\n100003\n" + b"x" * 100_000 + b"\n.\n"
    deadline = time.monotonic() + DEADLINE
    while not forward.error(nobody) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "failed to connect" in forward.error(nobody)
