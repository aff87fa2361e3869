"""An API server on loopback, a fake kubelet, and every kubectl this machine has.

kubectls: those named in $KUBECTLS (colon-separated), every `kubectl` on PATH, and the versioned ones beside it.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
import yaml

from fairlead.api.kinds import CLUSTERROLEBINDINGS, NAMESPACES, NODES, PODS, SERVICEACCOUNTS, by_plural
from fairlead.apiserver import APIServer, ServerConfig, pki
from fairlead.registry import Registry, RegistryOptions, RequestContext, User
from fairlead.store.sqlite import SQLiteStore
from tests.conformance.fake_kubelet import FakeKubelet
from tests.conformance.manifests import TOKEN

DEADLINE = 30.0
ROBOT_MAY_ALL = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "robot"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "robot"}],
}


def find_kubectls() -> list[str]:
    """Every distinct kubectl to test with."""
    found = [path for path in os.environ.get("KUBECTLS", "").split(":") if path]
    for directory in os.environ.get("PATH", "").split(":"):
        here = Path(directory) / "kubectl"
        if os.access(here, os.X_OK):
            found.append(str(here))
            found += [str(p) for p in sorted(here.resolve().parent.glob("kubectl.[0-9]*")) if os.access(p, os.X_OK)]
    distinct: dict[str, str] = {}
    for path in found:
        distinct.setdefault(str(Path(path).resolve()), path)
    return list(distinct.values())


KUBECTLS = find_kubectls()


class Cluster:
    """An API server with its registry on a loop of its own, in a thread of its own."""

    def __init__(self, directory: Path, options: RegistryOptions | None = None) -> None:
        self.directory, self._options = directory, options
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.ca = pki.create_authority("conformance")
        self._write("ca.crt", self.ca.cert_pem)
        self._pair("server", pki.issue(self.ca, "apiserver", ips=["127.0.0.1"], server=True))
        self._pair("admin", pki.issue(self.ca, "admin", ["system:masters"], client=True))
        self._pair("bob", pki.issue(self.ca, "bob", ["crew"], client=True))
        self._pair("node", pki.issue(self.ca, "system:node:mine", ["system:nodes"], client=True))
        self._pair("kubelet-client", pki.issue(self.ca, "kube-apiserver-kubelet-client", client=True))

    def _write(self, name: str, data: bytes) -> None:
        (self.directory / name).write_bytes(data)

    def _pair(self, name: str, pair: pki.KeyPair) -> None:
        self._write(f"{name}.crt", pair.cert_pem)
        self._write(f"{name}.key", pair.key_pem)

    def run(self, coroutine: Any, timeout: float = DEADLINE) -> Any:
        """Run a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)

    def start(self) -> None:
        """Server, kubelet, kubeconfig."""
        self._thread.start()
        self.run(self._start())
        self._kubeconfig()

    async def _start(self) -> None:
        where = self.directory
        self.store = await SQLiteStore.open(where / "state.db")
        self.registry = Registry(self.store, self._options)
        await self.registry.start()
        self.kubelet = FakeKubelet(where, self.ca)
        await self.kubelet.start()
        self.server = APIServer(
            ServerConfig(
                registry=self.registry,
                cert_file=where / "server.crt",
                key_file=where / "server.key",
                client_ca_file=where / "ca.crt",
                tokens={TOKEN: User("robot", ("robots",))},
                service_account_key=pki.create_signing_key(),
                kubelet_cert_file=where / "kubelet-client.crt",
                kubelet_key_file=where / "kubelet-client.key",
                kubelet_ca_file=where / "ca.crt",
            )
        )
        await self.server.start()
        await self.registry.create(CLUSTERROLEBINDINGS, "", ROBOT_MAY_ALL, RequestContext())

    def make_namespace(self, name: str) -> None:
        """A namespace with its default service account, as the controllers would leave it."""

        async def make() -> None:
            for resource, namespace, kind, called in (
                (NAMESPACES, "", "Namespace", name),
                (SERVICEACCOUNTS, name, "ServiceAccount", "default"),
            ):
                obj = {"apiVersion": "v1", "kind": kind, "metadata": {"name": called}}
                await self.registry.create(resource, namespace, obj, RequestContext())

        self.run(make())

    def make_pod(self, namespace: str, name: str) -> None:
        """A pod with the container `main`, on a node of its own whose kubelet is the fake one."""
        node = f"n-{namespace}"
        container = {"name": "main", "image": "x"}
        for resource, where, obj in (
            (NODES, "", {"metadata": {"name": node}}),
            (PODS, namespace, {"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [container]}}),
        ):
            self.run(self.registry.create(resource, where, obj, RequestContext()))
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.kubelet.port}},
        }
        self.patch_status("nodes", "", node, status)
        self.patch_status("pods", namespace, name, {"phase": "Running"})

    def patch_status(self, plural: str, namespace: str, name: str, status: dict[str, Any]) -> None:
        """Set fields of an object's status, as the component that owns it would."""
        group = "apps" if plural in ("deployments", "replicasets") else ""
        resource = by_plural(group, "v1", plural)
        assert resource is not None

        def change(obj: dict[str, Any]) -> dict[str, Any]:
            obj["status"] = {**(obj.get("status") or {}), **status}
            return obj

        patch = self.registry.patch(resource, namespace, name, change, RequestContext(), subresource="status")
        self.run(patch)

    def stop(self) -> None:
        """Stop everything and the loop."""

        async def stop() -> None:
            await self.server.stop()
            await self.kubelet.stop()
            await self.registry.stop()
            await self.store.close()

        self.run(stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE)

    def _kubeconfig(self) -> None:
        where = self.directory
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin", "namespace": "default"}}],
            "clusters": [
                {
                    "name": "test",
                    "cluster": {"server": self.server.url, "certificate-authority": str(where / "ca.crt")},
                }
            ],
            "users": [
                {
                    "name": "admin",
                    "user": {
                        "client-certificate": str(where / "admin.crt"),
                        "client-key": str(where / "admin.key"),
                    },
                },
                {"name": "nobody", "user": {}},
            ],
        }
        self.kubeconfig = where / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(config))


class Kubectl:
    """One kubectl, in one namespace of its own."""

    def __init__(self, path: str, cluster: Cluster, home: Path, namespace: str) -> None:
        self.path, self.cluster, self.namespace = path, cluster, namespace
        self.env = {"HOME": str(home), "PATH": os.environ.get("PATH", ""), "KUBECONFIG": str(cluster.kubeconfig)}
        self.minor = minor_of(path)

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Begin a command and leave it running."""
        command = [self.path, "-n", self.namespace, *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self.env, stdin=pipe, stdout=pipe, stderr=pipe, text=True, **options)

    def run(self, *words: str, stdin: str = "", code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; `code` is the exit code it must have (None: any but 0)."""
        done = subprocess.run(
            [self.path, "-n", self.namespace, *words],
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        good = done.returncode != 0 if code is None else done.returncode == code
        assert good, f"kubectl {' '.join(words)} → {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def __call__(self, *words: str, stdin: str = "") -> str:
        """Run a command that must succeed; its output."""
        return self.run(*words, stdin=stdin).stdout

    def fails(self, *words: str, stdin: str = "") -> str:
        """Run a command that must fail; what it says."""
        return self.run(*words, stdin=stdin, code=None).stderr

    def apply(self, *objects: dict[str, Any] | str) -> str:
        """Apply manifests."""
        return self("apply", "-f", "-", stdin=documents(*objects))


def documents(*objects: dict[str, Any] | str) -> str:
    """Manifests as one YAML stream."""
    return "\n---\n".join(o if isinstance(o, str) else yaml.safe_dump(o) for o in objects)


_MINORS: dict[str, int] = {}


def minor_of(path: str) -> int:
    """The minor version a kubectl says it is."""
    if path not in _MINORS:
        text = subprocess.run([path, "version", "--client"], capture_output=True, text=True, check=False).stdout
        match = re.search(r"v1\.(\d+)", text)
        _MINORS[path] = int(match.group(1)) if match else 0
    return _MINORS[path]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One API server for all of this session's tests; each test has a namespace of its own."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A home (with kubectl's discovery cache) per kubectl."""
    return {path: tmp_path_factory.mktemp("home") for path in KUBECTLS}


_counter = iter(range(1_000_000))


def _label(path: str) -> str:
    return f"{Path(path).name}-1.{minor_of(path)}"


@pytest.fixture(params=KUBECTLS or [None], ids=_label if KUBECTLS else ["none"])
def kubectl(request: pytest.FixtureRequest, cluster: Cluster, homes: dict[str, Path]) -> Kubectl:
    """Each kubectl there is, in a fresh namespace."""
    if request.param is None:
        pytest.fail("no kubectl found: install one (apt install kubernetes-client), or name some in KUBECTLS=path:path")
    namespace = f"t{next(_counter)}"
    tool = Kubectl(request.param, cluster, homes[request.param], namespace)
    cluster.make_namespace(namespace)
    return tool


@pytest.fixture
def curl(cluster: Cluster) -> Any:
    """Raw requests, as curl makes them: (status, headers, body)."""
    if shutil.which("curl") is None:
        pytest.fail("curl is not installed: apt install curl")

    def run(path: str, *words: str, stdin: bytes = b"", user: str = "admin") -> tuple[int, str, bytes]:
        where = cluster.directory
        identity = ["--cert", str(where / f"{user}.crt"), "--key", str(where / f"{user}.key")] if user else []
        command = ["curl", "-sS", "--max-time", "20", "--cacert", str(where / "ca.crt"), *identity, "-D", "-", *words]
        done = subprocess.run([*command, cluster.server.url + path], input=stdin, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        while head.startswith(b"HTTP/1.1 100"):
            head, _, body = body.partition(b"\r\n\r\n")
        return int(head.split()[1]), head.decode(), body

    return run
