"""`MANIFESTS=DIR python -m tests.manifests`: applies every manifest below a directory; says what was refused, and what
those on workloads, Services and configuration do in a cluster.

Made for a copy of the Kubernetes documentation's examples (content/en/examples of the website's repository), which is
not kept here. First an API server is started, without controllers or nodes; each file is applied with kubectl in a
namespace of its own (namespaces it names are made first), applied again, and deleted. Then a cluster of three nodes is,
and the files below BEHAVES are watched in it (`behaviour`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from fairlead.registry import RegistryOptions
from tests.cluster.conftest import Cluster as Running
from tests.conformance.conftest import Cluster
from tests.manifests.behaviour import Watcher, namespace_for, objects_of

DEADLINE = 120.0
BEHAVES = ("application/", "configmap/", "controllers/", "debug/counter", "pods/", "secret/", "service/")
AT_ONCE = 6


class Result(NamedTuple):
    """What became of a file: `applied`, `no kind` or `refused`, and kubectl's words."""

    file: str
    outcome: str
    why: str


class Applier:
    """Applies files, each in a namespace of its own."""

    def __init__(self, cluster: Cluster, top: Path) -> None:
        self._cluster, self._top = cluster, top
        self._kubectl = shutil.which("kubectl") or "kubectl"
        self._made: set[str] = set()

    def apply(self, file: Path) -> Result:
        """Apply one file."""
        name = str(file.relative_to(self._top))
        namespace = namespace_for("m", name)
        named = namespaces_of(file)
        for wanted in (namespace, *named):
            self._make(wanted)
        where = [] if named else ["-n", namespace]
        done = self._run(*where, "apply", "-f", str(file))
        if done.returncode:
            return Result(name, "no kind" if _only_unknown_kinds(done.stderr) else "refused", _words(done.stderr))
        again = self._run(*where, "apply", "-f", str(file))
        self._run(*where, "delete", "-f", str(file), "--wait=false", "--ignore-not-found")
        if again.returncode:
            return Result(name, "refused", f"when applied again: {_words(again.stderr)}")
        return Result(name, "applied", _words(done.stderr))

    def _make(self, namespace: str) -> None:
        if namespace not in self._made:
            self._made.add(namespace)
            for words in (("create", "ns", namespace), ("-n", namespace, "create", "sa", "default")):
                self._run(*words)

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "KUBECONFIG": str(self._cluster.kubeconfig)}
        command = [self._kubectl, *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False)


def namespaces_of(file: Path) -> set[str]:
    """The namespaces that the objects in a file name, but those the file makes itself."""
    found: set[str] = set()
    made: set[str] = set()
    for obj in objects_of(file):
        metadata = obj["metadata"]
        if obj["kind"] == "Namespace":
            made.add(str(metadata.get("name")))
        elif metadata.get("namespace"):
            found.add(str(metadata["namespace"]))
    return found - made


def _only_unknown_kinds(said: str) -> bool:
    lines = [line for line in said.splitlines() if line and not line.startswith(("Warning:", "ensure CRDs"))]
    return bool(lines) and all("no matches for kind" in line for line in lines)


def _words(said: str) -> str:
    return " / ".join(line.strip() for line in said.splitlines() if line.strip() and "ensure CRDs" not in line)


def main() -> int:
    """Apply and watch all; exit code 1 when one was refused for another reason than its kind, or did not behave."""
    given = os.environ.get("MANIFESTS", "")
    top = Path(given)
    if not given or not top.is_dir():
        print(
            "MANIFESTS names no directory: MANIFESTS=…/content/en/examples python -m tests.manifests", file=sys.stderr
        )
        return 2
    files = sorted(f for f in top.rglob("*") if f.suffix in (".yaml", ".yml", ".json"))
    refused = apply_all(top, files)
    return 1 if watch_all(top, files) + refused else 0


def apply_all(top: Path, files: list[Path]) -> int:
    """Apply all; how many were refused for another reason than their kind."""
    with tempfile.TemporaryDirectory(prefix="fairlead-manifests-") as folder:
        both = RegistryOptions(service_cidrs=("10.96.0.0/16", "fd00:10:96::/112"), ip_families=("IPv4", "IPv6"))
        cluster = Cluster(Path(folder), both)
        cluster.start()
        try:
            applier = Applier(cluster, top)
            return tell(applier.apply(file) for file in files)["refused"]
        finally:
            cluster.stop()


def watch_all(top: Path, files: list[Path]) -> int:
    """See what they do, a few at a time; how many did something else than they should."""
    wanted = [f for f in files if f.suffix != ".json" and str(f.relative_to(top)).startswith(BEHAVES)]
    if not wanted:
        return 0
    with tempfile.TemporaryDirectory(prefix="fairlead-manifests-") as folder:
        cluster = Running(Path(folder), nodes=3)
        try:
            cluster.up("--ip-family", "dual")
            watcher = Watcher(cluster, top)
            watcher.prepare(wanted, Path(folder, "images"))
            with ThreadPoolExecutor(AT_ONCE) as several:
                return tell(several.map(watcher.watch, wanted))["differs"]
        finally:
            cluster.down()


def tell(results: Iterable[tuple[str, str, str]]) -> Counter[str]:
    """A line for each file as it is known, and how many there were of each outcome."""
    counts: Counter[str] = Counter()
    for file, outcome, why in results:
        print(f"{outcome}\t{file}\t{why[:600]}", flush=True)
        counts[outcome] += 1
    print(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())), file=sys.stderr)
    return counts


if __name__ == "__main__":
    sys.exit(main())
