"""Rolling restarts under load: a server that exits at once on SIGTERM, and clients that count what fails.

Used by the cluster's tests (short) and by `python -m tests.bench rollout` (whole). The load is open-loop: requests are
sent on time whether or not earlier ones were answered, each on a connection of its own, so nothing hides behind a
client's retry or a connection that was there before.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

# Both are small loops over epoll: on a machine of two cores they must not be what is measured.
SERVER = """
import os, select, signal, socket
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
listener = socket.create_server(("0.0.0.0", 8080), backlog=4096)
listener.setblocking(False)
poll = select.epoll()
poll.register(listener, select.EPOLLIN)
clients = {}
while True:
    for fd, _ in poll.poll():
        if fd == listener.fileno():
            try:
                while True:
                    client = listener.accept()[0]
                    clients[client.fileno()] = client
                    poll.register(client, select.EPOLLIN)
            except BlockingIOError:
                continue
        client = clients.pop(fd)
        poll.unregister(fd)
        try:
            if client.recv(65536):
                client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\nConnection: close\\r\\n\\r\\nok\\n")
        except OSError:
            pass
        client.close()
"""

LOAD = """
import errno, json, os, select, socket, time
RATE = float(os.environ["RATE"])
HOST = (socket.gethostbyname(os.environ["HOST"]), 80)
REQUEST = b"GET / HTTP/1.1\\r\\nHost: web\\r\\nConnection: close\\r\\n\\r\\n"
poll, waiting = select.epoll(), {}
done = {"sent": 0, "ok": 0, "failed": {}, "slowest": 0.0}
def end(fd, why):
    client, begun, _ = waiting.pop(fd)
    poll.unregister(fd)
    client.close()
    done["slowest"] = max(done["slowest"], time.monotonic() - begun)
    if why:
        done["failed"][why] = done["failed"].get(why, 0) + 1
    else:
        done["ok"] += 1
def begin():
    client = socket.socket()
    client.setblocking(False)
    waiting[client.fileno()] = [client, time.monotonic(), b""]
    done["sent"] += 1
    code = client.connect_ex(HOST)
    poll.register(client, select.EPOLLOUT)
    if code != errno.EINPROGRESS:
        end(client.fileno(), errno.errorcode[code])
def go_on(fd):
    one = waiting[fd]
    try:
        if one[2] == b"":
            one[0].send(REQUEST)
            one[2] = b"-"
            poll.modify(fd, select.EPOLLIN)
            return
        data = one[0].recv(65536)
    except OSError as error:
        return end(fd, errno.errorcode[error.errno] + (" connecting" if one[2] == b"" else ""))
    one[2] += data
    if not data:
        end(fd, "" if one[2].endswith(b"ok\\n") else "short answer")
start, said = time.monotonic(), 0.0
while True:
    for fd, _ in poll.poll(0.002):
        go_on(fd)
    now = time.monotonic() - start
    while done["sent"] < now * RATE:
        begin()
    if now - said > 0.25:
        said = now
        for fd in [fd for fd, one in waiting.items() if time.monotonic() - one[1] > 5]:
            end(fd, "no answer in 5 s")
        print(json.dumps({**done, "seconds": now, "open": len(waiting)}), flush=True)
"""

NAMESPACE = "rollout"


def manifests(rate: float, replicas: int = 4, annotations: dict[str, str] | None = None) -> str:
    """Namespace, Deployment, Service and the client's pod, as one JSON list for kubectl apply."""
    labels = {"app": "web"}
    server = {
        "name": "web",
        "image": "fairlead/host",
        "command": ["python3", "-ISc", SERVER],
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    client = {
        "name": "load",
        "image": "fairlead/host",
        "command": ["python3", "-ISc", LOAD],
        "env": [{"name": "RATE", "value": str(rate)}, {"name": "HOST", "value": "web.rollout.svc.cluster.local."}],
    }
    template = {"metadata": {"labels": labels, "annotations": annotations or {}}, "spec": {"containers": [server]}}
    items: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": NAMESPACE},
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web", "namespace": NAMESPACE},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "load", "namespace": NAMESPACE},
            "spec": {"containers": [client], "terminationGracePeriodSeconds": 0, "restartPolicy": "Never"},
        },
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def restart(kubectl: Callable[..., str], times: int) -> float:
    """Rolling restarts, each awaited until complete. Returns the seconds they took."""
    begun = time.monotonic()
    for number in range(times):
        patch = {"spec": {"template": {"metadata": {"annotations": {"restarted": f"{number} {time.time()}"}}}}}
        kubectl("-n", NAMESPACE, "patch", "deployment", "web", "-p", json.dumps(patch))
        kubectl("-n", NAMESPACE, "rollout", "status", "deployment/web", "--timeout=120s")
    return time.monotonic() - begun


def outcome(kubectl: Callable[..., str]) -> dict[str, Any]:
    """What the client counted so far."""
    lines = kubectl("-n", NAMESPACE, "logs", "load", "--tail=1").splitlines()
    found: dict[str, Any] = json.loads(lines[-1]) if lines else {"sent": 0, "ok": 0, "failed": {}}
    return found
