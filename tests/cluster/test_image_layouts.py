"""Images as people build them, in a running cluster, with everything kubectl does to a pod.

The layouts are those of official images: one static binary and nothing else; an interpreter on a Debian with its
libraries, in several layers; a busybox with links, as Alpine has; a user that is not root.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import sysconfig
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from tests import imagemaker as make
from tests.cluster.conftest import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-images")]
Object = dict[str, Any]

APP = b"""
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("asked for", self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"from python\\n")
    def log_message(self, *_): pass
print("listening as", __import__("os").getuid())
http.server.HTTPServer(("", 8080), Answer).serve_forever()
"""
_UNUSED = re.compile(r"test|idlelib|lib2to3|tkinter|ensurepip|site-packages|__pycache__|turtledemo|config-3.*")
PAGE: list[make.Entry] = [("www", None, 0o755), ("www/index.html", b"from busybox\n", 0o644)]


def files(paths: list[Path]) -> bytes:
    """A layer with these files of the machine at their own places."""
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w", dereference=True) as archive:
        for path in dict.fromkeys(paths):
            archive.add(path, str(path).lstrip("/"), filter=_used)
    return out.getvalue()


def _used(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if any(map(_UNUSED.fullmatch, Path(entry.name).parts)) else entry


def libraries(*programs: Path) -> list[Path]:
    """What the programs are linked with."""
    found = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=True).stdout
    return [Path(path) for path in re.findall(r"(?:=> |\s)(/\S+) \(0x", found)]


def interpreter() -> tuple[bytes, bytes, bytes]:
    """A Debian's base, an interpreter, an application: three layers, as `FROM python` has more of."""
    python = Path(sys.executable).resolve()
    standard = Path(sysconfig.get_paths()["stdlib"])
    programs = [Path("/usr/bin/dash"), Path("/usr/bin/cat"), Path("/usr/bin/tar"), Path("/usr/bin/env")]
    loaded = list((standard / "lib-dynload").glob("*.so"))
    base = make.layer(
        ("bin", "usr/bin", 0o777), ("usr", None, 0o755), ("usr/bin", None, 0o755), ("usr/bin/sh", "dash", 0o777),
        ("etc", None, 0o755), ("etc/passwd", make.PASSWD.encode(), 0o644), ("etc/group", make.GROUP.encode(), 0o644),
        ("tmp", None, 0o1777),
    )  # fmt: skip
    runtime = files([*programs, python, *libraries(*programs, python, *loaded), standard])
    return base, runtime, make.layer(("app", None, 0o755), ("app/app.py", APP, 0o644))


def images() -> dict[str, tuple[list[bytes], Object]]:
    """By name: the layers and the configuration."""
    busybox = make.BUSYBOX.read_bytes()
    base, runtime, app = interpreter()
    python = Path(sys.executable).resolve()
    serve = ["httpd", "-f", "-v", "-p", "8080", "-h", "/www"]
    return {
        "static": (
            [make.layer(("httpd", busybox, 0o755), *PAGE)],
            {"Entrypoint": ["/httpd"], "Cmd": serve[1:], "User": "65532:65532"},
        ),
        "python": (
            [base, runtime, app],
            {
                "Cmd": [str(python), "app.py"],
                "WorkingDir": "/app",
                "Env": [f"PATH={python.parent}:/usr/bin", "PYTHONUNBUFFERED=1", f"PYTHONHOME={sys.base_prefix}"],
            },
        ),
        "alpine": ([make.busybox(), make.layer(*PAGE)], {"Cmd": ["sh", "-c", " ".join(serve)], "Env": ["PATH=/bin"]}),
        "non-root": ([make.busybox(), make.layer(*PAGE)], {"Cmd": serve, "User": "web", "Env": ["PATH=/bin"]}),
    }


NAMES = ("static", "python", "alpine", "non-root")
WITH_SHELL = ("python", "alpine", "non-root")


@pytest.fixture(scope="module")
def running(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with a pod of each image that serves on 8080."""
    directory = tmp_path_factory.mktemp("images")
    items = []
    for name, (layers, config) in images().items():
        made = make.layout(directory / name, f"layouts/{name}:1", layers, config)
        cluster.fairlead("image", "load", str(made))
        path = "/" if name == "python" else "/index.html"
        probe = {"httpGet": {"port": 8080, "path": path}, "periodSeconds": 1, "timeoutSeconds": 10}
        container = {"name": "main", "image": f"layouts/{name}:1", "readinessProbe": probe}
        spec: Object = {"containers": [container], "terminationGracePeriodSeconds": 1}
        if name == "non-root":
            profile = {"type": "RuntimeDefault"}
            spec["securityContext"] = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": profile}
        items.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    cluster.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    cluster.kubectl("wait", "--for=condition=Ready", "pod", *NAMES, "--timeout=90s")
    yield cluster


@contextlib.contextmanager
def forwarded(cluster: Cluster, pod: str) -> Iterator[str]:
    """A URL that kubectl port-forward leads to the pod."""
    command = ["kubectl", "port-forward", f"pod/{pod}", ":8080"]
    process = subprocess.Popen(command, env=cluster.environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = re.search(r":(\d+) ->", process.stdout.readline())
        assert port is not None
        yield f"http://127.0.0.1:{port[1]}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("name", NAMES)
def test_it_serves_and_is_read(running: Cluster, name: str) -> None:
    """By port-forward; and what it writes is in its log."""
    with forwarded(running, name) as url:
        path = "/" if name == "python" else "/index.html"
        with urllib.request.urlopen(url + path, timeout=30) as answer:
            assert answer.read() == (b"from python\n" if name == "python" else b"from busybox\n")
    wanted = "asked for /" if name == "python" else "response:200"
    running.wait_for(lambda: wanted in running.kubectl("logs", name), "its log")


@pytest.mark.parametrize(("name", "user"), [("python", 0), ("alpine", 0), ("non-root", 1000)])
def test_exec(running: Cluster, name: str, user: int) -> None:
    """As the container's user, with its filter, in its directory."""
    status = running.kubectl("exec", name, "--", "cat", "/proc/self/status")
    assert f"Uid:\t{user}\t" in status
    assert f"Seccomp:\t{2 if name == 'non-root' else 0}" in status
    assert running.kubectl("exec", name, "--", "sh", "-c", "pwd").strip() == ("/app" if name == "python" else "/")
    assert running.kubectl("exec", name, "--", "sh", "-c", "exit 3", check=False) == ""


def test_exec_where_there_is_no_shell(running: Cluster) -> None:
    """The static image has one program: another is not found, in the runtime's words."""
    with pytest.raises(AssertionError, match=r'exec: \\?"sh\\?": executable file not found in \$PATH'):
        running.kubectl("exec", "static", "--", "sh")


@pytest.mark.parametrize("name", WITH_SHELL)
def test_cp(running: Cluster, name: str, tmp_path: Path) -> None:
    """There and back, the same bytes."""
    (tmp_path / "there").write_bytes(bytes(range(256)) * 100)
    running.kubectl("cp", str(tmp_path / "there"), f"{name}:/tmp/x")
    running.kubectl("cp", f"{name}:/tmp/x", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == (tmp_path / "there").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_attach(running: Cluster, name: str) -> None:
    """What the program writes from now on is seen."""
    command = ["kubectl", "attach", name]
    process = subprocess.Popen(
        command, env=running.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        with forwarded(running, name) as url:
            deadline = time.monotonic() + 60
            seen = ""
            while "response:200" not in seen and "asked for" not in seen:
                assert time.monotonic() < deadline, seen
                path = "/" if name == "python" else "/index.html"
                urllib.request.urlopen(url + path, timeout=30).close()
                seen += process.stdout.readline()
    finally:
        process.terminate()
        process.wait(30)
