"""A node under traffic whose proxy and API server are real processes, to be killed, switched and robbed of their rules.

Both run in the node's namespace of the proxy's lab. Used by the tests (small) and by the bench, which makes a table.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import yaml

from fairlead.linux import namespaces
from fairlead.proxy import sysctls
from tests.contract.client_over_http import CA, SERVING
from tests.kernel.proxy_lab import NODE, POD_A, POD_B, Lab

VIP, OTHER_VIP = "10.96.0.5", "10.96.0.6"
DEADLINE = 60.0
_API_PORT = 6443
SERVICES = "/api/v1/namespaces/default/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
_HERE = Path(__file__).parents[2]


class Counts(NamedTuple):
    """What the clients saw since the last look. `slowest`: the longest time, in seconds, in which no new connection was
    made, though somebody was trying all the time. `errors`: of the connections that failed."""

    made: int = 0
    failed: int = 0
    cut: int = 0
    datagrams: int = 0
    lost: int = 0
    misdelivered: int = 0
    slowest: float = 0.0
    errors: tuple[str, ...] = ()


class Traffic:
    """Clients in pod A that never stop: new connections (several at a time), one connection that stays, one UDP flow.

    Servers say who they are; who answers for a virtual IP without being one of its endpoints has got somebody else's
    packet. `allowed` may be changed while it runs.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.allowed = {VIP: {f"{POD_A}:8080", f"{POD_B}:8080"}, OTHER_VIP: {f"{POD_B}:9090"}}
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(("made", "failed", "cut", "datagrams", "lost", "misdelivered"), 0)
        self._last = time.monotonic()
        self._slowest = 0.0
        self._errors: list[str] = []
        work: list[Callable[[], None]] = []
        for pod, port in ((POD_A, 8080), (POD_B, 8080), (POD_B, 9090)):
            name = f"{pod}:{port}".encode()
            tcp, udp = lab.listen(pod, port), lab.listen(pod, port, socket.SOCK_DGRAM)
            work += [self._bound(self._serve, tcp, name), self._bound(self._serve_datagrams, udp, name)]
        self._made = dict.fromkeys(range(4), 0)  # by connecting client
        work += [self._bound(self._connect, number, vip) for number, vip in enumerate((VIP, VIP, VIP, OTHER_VIP))]
        work += [self._stay, self._datagrams]
        self._threads = [threading.Thread(target=task, daemon=True) for task in work]

    @staticmethod
    def _bound(function: Callable[..., None], *arguments: Any) -> Callable[[], None]:
        return lambda: function(*arguments)

    def start(self) -> None:
        """From now on."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Enough."""
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def look(self) -> Counts:
        """What was seen since the last look."""
        with self._lock:
            slowest = max(self._slowest, time.monotonic() - self._last)
            found = Counts(**self._counts, slowest=slowest, errors=tuple(self._errors))
            self._errors = []
            self._counts = dict.fromkeys(self._counts, 0)
            self._last, self._slowest = time.monotonic(), 0.0
        return found

    def flowing(self) -> None:
        """Wait until everybody gets through (again), and what was tried before has had its end."""
        end = time.monotonic() + DEADLINE
        made, datagrams = dict(self._made), self._counts["datagrams"]
        while any(self._made[n] < made[n] + 3 for n in made) or self._counts["datagrams"] < datagrams + 5:
            assert time.monotonic() < end, f"traffic does not flow: {self._counts}"
            time.sleep(0.01)

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, number in more.items():
                self._counts[name] += number
            if more.get("made"):
                now = time.monotonic()
                self._slowest, self._last = max(self._slowest, now - self._last), now

    def _serve(self, server: socket.socket, name: bytes) -> None:
        server.settimeout(0.2)
        while not self._stop.is_set():
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                threading.Thread(target=self._echo, args=(connection, name), daemon=True).start()

    def _echo(self, connection: socket.socket, name: bytes) -> None:
        with connection, contextlib.suppress(OSError):
            while connection.recv(100):
                connection.sendall(name)

    def _serve_datagrams(self, server: socket.socket, name: bytes) -> None:
        server.settimeout(0.2)
        while not self._stop.is_set():
            with contextlib.suppress(OSError):
                question, client = server.recvfrom(100)
                server.sendto(question + b" " + name, client)

    def _judge(self, vip: str, answer: bytes) -> bool:
        return answer.decode() in self.allowed[vip]

    def _connect(self, number: int, vip: str) -> None:
        with namespaces.entered(namespaces.path(self.lab.pods[POD_A])):
            while not self._stop.is_set():
                allowed = self.allowed[vip]
                try:
                    with socket.create_connection((vip, 80), timeout=3) as client:
                        client.sendall(b"?")
                        answer = client.recv(100).decode()
                except OSError as error:
                    self._errors.append(f"{time.time():.3f} {vip}: {error!r}")
                    self._count(failed=1)
                    time.sleep(0.001)
                    continue
                self._made[number] += 1
                self._count(made=1, misdelivered=answer not in allowed | self.allowed[vip])

    def _stay(self) -> None:
        with namespaces.entered(namespaces.path(self.lab.pods[POD_A])):
            client = None
            while not self._stop.is_set():
                try:
                    if client is None:
                        client = socket.create_connection((VIP, 80), timeout=5)
                    client.sendall(b"?")
                    if not client.recv(100):
                        raise ConnectionResetError
                except OSError:
                    self._count(cut=client is not None)
                    client = None
                time.sleep(0.005)

    def _datagrams(self) -> None:
        number = 0
        with namespaces.entered(namespaces.path(self.lab.pods[POD_A])):
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with client:
            client.settimeout(1)
            client.connect((VIP, 80))
            while not self._stop.is_set():
                number += 1
                try:
                    client.send(b"%d" % number)
                    while True:
                        asked, _, name = client.recv(100).partition(b" ")
                        if int(asked) == number:
                            break
                except OSError:
                    self._count(lost=1)
                    continue
                self._count(datagrams=1, misdelivered=not self._judge(VIP, name))
                time.sleep(0.005)


class Stand:
    """API server and proxy as processes in the lab's node; Services `web` (two endpoints) and `other` (one)."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        for name, data in (("ca", CA.cert_pem), ("crt", SERVING.cert_pem), ("key", SERVING.key_pem)):
            (folder / name).write_bytes(data)
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(_kubeconfig())
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        with lab.at("node"):
            sysctls.ensure(("IPv4",))

    def start_api(self, *ranges: str) -> None:
        """The API server, with what it had. `ranges`: of cluster IPs, if not the small one."""
        where = (str(self.folder), str(_API_PORT), str(self.folder / "store.db"))
        self._start("api", [sys.executable, "-m", "tests.contract.api_process", *where, *ranges])
        self._until(lambda: self.call("GET", "/version") == 200)

    def fill(self) -> None:
        """The Services and their endpoints."""
        assert self.call("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}}) in (201, 409)
        self.service("web", VIP)
        self.service("other", OTHER_VIP)
        self.put_slice("web", 8080, POD_A, POD_B)
        self.put_slice("other", 9090, POD_B)

    def service(self, name: str, vip: str) -> None:
        """A Service with a TCP and a UDP port."""
        made = self.call("POST", SERVICES, service_of(name, vip))
        assert made == 201, f"Service {name}: {made}"

    def put_slice(self, name: str, port: int, *pods: str) -> None:
        """Its first endpoints."""
        assert self.call("POST", SLICES, slice_of(name, port, *pods)) == 201

    def endpoints(self, *pods: str) -> None:
        """Those of `web`."""
        assert self.call("PUT", f"{SLICES}/web-1", slice_of("web", 8080, *pods)) == 200

    def start_proxy(self, mode: str) -> None:
        """`fairlead proxy` in this mode; returns when it has made its rules."""
        self.start_program("proxy", self.fairlead(mode))
        self._until(lambda: self._get(10256, "/healthz")[0] == 200 and self._get(10249, "/proxyMode")[1] == mode)

    @staticmethod
    def fairlead(mode: str) -> list[str]:
        """The command line of `fairlead proxy`, but for where the API is."""
        flags = ["--hostname-override", NODE, "--proxy-mode", mode, "--cluster-cidr", "10.244.0.0/16"]
        return [sys.executable, "-m", "fairlead", "proxy", *flags]

    def start_program(self, name: str, program: list[str]) -> int:
        """Any proxy that takes --kubeconfig; its process's number."""
        return self._start(name, [*program, "--kubeconfig", str(self.kubeconfig)])

    def until_healthy(self) -> None:
        """The proxy says it is."""
        self._until(lambda: self._get(10256, "/healthz")[0] == 200)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End `api` or `proxy`."""
        process = self._processes.pop(name)
        process.send_signal(number)
        process.wait(DEADLINE)

    def synced(self) -> float:
        """When the proxy last applied something (seconds since 1970), by its own metrics."""
        for line in self._get(10249, "/metrics")[1].splitlines():
            if line.startswith("kubeproxy_sync_proxy_rules_last_timestamp_seconds "):
                return float(line.split()[1])
        return 0.0

    def until_synced_after(self, when: float) -> float:
        """Wait until the proxy has applied something after that time; how long after, in seconds."""
        self._until(lambda: self.synced() > when)
        return self.synced() - when

    def run(self, *command: str) -> str:
        """A command in the node."""
        with self.lab.at("node"):
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def call(self, method: str, path: str, body: Any = None) -> int:
        """Ask the API; the status, or 0 where nobody answers."""
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            contextlib.closing(self.connection()) as connection,
        ):
            return ask(connection, method, path, body)
        return 0

    def connection(self) -> http.client.HTTPSConnection:
        """To the API. Raises OSError where nobody answers."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca"))
        with self.lab.at("node"):
            connection = http.client.HTTPSConnection("127.0.0.1", _API_PORT, timeout=10, context=context)
            connection.connect()
        return connection

    def close(self) -> None:
        """End both."""
        for name in list(self._processes):
            self.kill(name)

    def log(self) -> str:
        """What the processes said."""
        return "\n".join(f"== {f.name}\n{f.read_text()[-3000:]}" for f in sorted(self.folder.glob("*.log")))

    def _get(self, port: int, path: str) -> tuple[int, str]:
        with (
            self.lab.at("node"),
            contextlib.suppress(OSError, http.client.HTTPException),
            contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection,
        ):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        return 0, ""

    def _start(self, name: str, command: list[str]) -> int:
        log = (self.folder / f"{name}.log").open("ab")
        environment = {**os.environ, "NODE_NAME": NODE}
        with log, self.lab.at("node"):
            process = subprocess.Popen(command, cwd=_HERE, stdout=log, stderr=log, env=environment)
        self._processes[name] = process
        return process.pid

    def _until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end, f"not in time:\n{self.log()}"
            time.sleep(0.01)


def ask(connection: http.client.HTTPSConnection, method: str, path: str, body: Any = None) -> int:
    """One request; its status."""
    headers = {"Authorization": "Bearer t0ken", "Content-Type": "application/json"}
    connection.request(method, path, orjson.dumps(body) if body is not None else None, headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def _kubeconfig() -> str:
    cluster = {
        "server": f"https://127.0.0.1:{_API_PORT}",
        "certificate-authority-data": base64.b64encode(CA.cert_pem).decode(),
    }
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": "t0ken"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    return yaml.safe_dump(document)


def service_of(name: str, vip: str) -> dict[str, Any]:
    """A Service of the stand."""
    ports = [{"name": p.lower(), "protocol": p, "port": 80, "targetPort": 8080} for p in ("TCP", "UDP")]
    return {"metadata": {"name": name}, "spec": {"clusterIP": vip, "ports": ports}}


def slice_of(service: str, port: int, *pods: str) -> dict[str, Any]:
    """The EndpointSlice of a Service of the stand."""
    ready = {"ready": True, "serving": True, "terminating": False}
    return {
        "metadata": {"name": f"{service}-1", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": p.lower(), "protocol": p, "port": port} for p in ("TCP", "UDP")],
        "endpoints": [{"addresses": [pod], "conditions": ready, "nodeName": NODE} for pod in pods],
    }


class Incident(NamedTuple):
    """Something that happens to a node, what the clients saw of it, and how long it took to be mended (seconds)."""

    name: str
    counts: Counts
    healed: float


def incidents(stand: Stand, traffic: Traffic, mode: str, other: str) -> Iterator[Incident]:
    """Everything that may happen, one after the other, while the proxy is in `mode` and traffic flows."""
    flush = {"nftables": ("nft", "flush", "ruleset"), "iptables": ("iptables", "-t", "nat", "-F")}

    def happening(name: str, event: Callable[[], float]) -> Incident:
        traffic.flowing()
        traffic.look()
        healed = event()
        traffic.flowing()
        return Incident(name, traffic.look(), healed)

    def restart() -> float:
        start = time.monotonic()
        stand.kill("proxy")
        stand.start_proxy(mode)
        return time.monotonic() - start

    def flushed() -> float:
        when = time.time()
        stand.run(*flush[mode])
        return stand.until_synced_after(when)

    def switched(to: str) -> Callable[[], float]:
        def switch() -> float:
            start = time.monotonic()
            stand.kill("proxy", signal.SIGTERM)
            stand.start_proxy(to)
            return time.monotonic() - start

        return switch

    def api_lost() -> float:
        stand.kill("api")
        traffic.flowing()
        stand.start_api()
        when = time.time()
        stand.endpoints(POD_A, POD_B)  # nothing new …
        stand.endpoints(POD_B)  # … and something
        healed = stand.until_synced_after(when)
        traffic.allowed = {**traffic.allowed, VIP: {f"{POD_B}:8080"}}
        return healed

    def away() -> float:
        stand.kill("proxy")
        stand.endpoints(POD_A)
        traffic.allowed = {**traffic.allowed, VIP: {f"{POD_A}:8080", f"{POD_B}:8080"}}
        when = time.time()
        stand.start_proxy(mode)
        traffic.allowed = {**traffic.allowed, VIP: {f"{POD_A}:8080"}}
        return time.time() - when

    yield happening("proxy killed and started again", restart)
    yield happening("rules flushed by a stranger", flushed)
    yield happening(f"mode {mode} → {other}", switched(other))
    yield happening(f"mode {other} → {mode}", switched(mode))
    yield happening("API server gone and back, then an endpoint leaves", api_lost)
    yield happening("an endpoint replaced while no proxy ran", away)


@contextlib.contextmanager
def standing(make: Callable[[str], str], folder: Path) -> Iterator[Stand]:
    """A node of such namespaces, whose processes and sockets are gone afterwards."""
    lab = Lab(make)
    made = Stand(lab, folder)
    try:
        yield made
    finally:
        made.close()
        lab.close()
