"""Two API servers on one etcd, and two sets of controllers, started by the command line: they work as one.

The processes are real and so is etcd; some are killed in the middle.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fairlead.api.errors import StatusError
from fairlead.api.kinds import CONFIGMAPS, DEPLOYMENTS, LEASES, PODS, SERVICES
from fairlead.client import Client, Watched, follow
from tests.contract.etcd_server import EtcdServer, free_port

DEADLINE = 60.0
pytestmark = pytest.mark.xdist_group("two-control-planes")


class Planes:
    """etcd, two API servers with one folder of certificates, and what else is started."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.etcd = folder, EtcdServer(folder)
        self.ports = (free_port(), free_port())
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.clients: list[Client] = []

    def start(self, name: str, *words: str) -> None:
        """Run a command of ours; its output goes to a file."""
        with (self.folder / f"{name}.log").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "fairlead", *words], stdout=output, stderr=output, start_new_session=True
            )

    def start_server(self, number: int) -> None:
        """One of the two API servers, with few addresses and few node ports."""
        words = ["apiserver", "--store", self.etcd.url, "--listen", f"127.0.0.1:{self.ports[number]}"]
        words += ["--cert-dir", str(self.folder / "pki"), "--service-cluster-ip-range", "10.96.0.0/26"]
        self.start(f"server-{number}", *words, "--service-node-port-range", "30000-30019")

    def start_controllers(self, number: int) -> None:
        """One of the two sets of controllers, each at its own API server."""
        words = ["controllers", "--kubeconfig", str(self.kubeconfig("controllers", number))]
        words += ["--service-cluster-ip-range", "10.96.0.0/26", "--leader-elect-lease-duration", "4s"]
        words += ["--leader-elect-renew-deadline", "3s", "--leader-elect-retry-period", "1s"]
        self.start(f"controllers-{number}", *words)

    def kubeconfig(self, user: str, number: int) -> Path:
        """A user's way to one of the servers."""
        return self.folder / "pki" / f"{user}-127.0.0.1-{self.ports[number]}.conf"

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """End a process; its exit code."""
        process = self.processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
        return process.wait(DEADLINE)

    async def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait until the (asynchronous) condition gives something true; that."""
        last: Exception | None = None
        try:
            async with asyncio.timeout(DEADLINE):
                while True:
                    try:
                        if found := await condition():
                            return found
                    except StatusError as error:
                        last = error
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{what}: not within {DEADLINE} s ({last})\n{self.logs()}") from None

    def logs(self) -> str:
        """What the processes said."""
        return "\n".join(f"== {f.name}\n{f.read_text()[-2000:]}" for f in sorted(self.folder.glob("*.log")))


@pytest.fixture
async def planes(tmp_path: Path) -> AsyncIterator[Planes]:
    """Both servers, begun at the same moment on an empty etcd and an empty folder, and an admin's client at each."""
    made = Planes(tmp_path)
    try:
        made.etcd.start()
        for number in (0, 1):
            made.start_server(number)
        for number in (0, 1):
            file = made.kubeconfig("admin", number)

            async def there(file: Path = file) -> bool:
                return file.exists()  # noqa: ASYNC240

            await made.until(there, f"{file} is there")
            client = Client.from_kubeconfig(file)
            made.clients.append(client)
            await made.until(lambda client=client: client.get_raw("/api/v1/namespaces/default"), "it serves")
        yield made
    finally:
        for client in made.clients:
            await client.close()
        for name in list(made.processes):
            made.kill(name)
        made.etcd.kill()


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": data,
    }


def service(name: str) -> dict[str, Any]:
    spec = {"type": "NodePort", "ports": [{"port": 80}]}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


async def test_they_are_one(planes: Planes) -> None:
    """What one was told the other has at once; a watch at either sees each of both's writes once, in one order;
    increments from both sides are never lost; and nothing of it changes when one is killed and comes back."""
    one, two = planes.clients
    seen: list[list[str]] = [[], []]

    async def look(number: int) -> None:
        version = mark
        while True:
            with contextlib.suppress(StatusError):
                async for batch in planes.clients[number].watch(CONFIGMAPS, "default", resource_version=version):
                    for kind, obj in batch:
                        version = obj["metadata"]["resourceVersion"]
                        if kind != "BOOKMARK":
                            seen[number].append(version)
            await asyncio.sleep(0.1)

    mark = (await one.create(CONFIGMAPS, config_map("mark")))["metadata"]["resourceVersion"]
    looking = [asyncio.create_task(look(number)) for number in (0, 1)]

    async def both_saw(version: str) -> bool:
        return all(version in found for found in seen)

    await one.create(CONFIGMAPS, config_map("count", n="0"))
    assert (await two.get(CONFIGMAPS, "count", "default"))["data"] == {"n": "0"}

    async def count(client: Client, times: int) -> None:
        for _ in range(times):
            while True:
                there = await client.get(CONFIGMAPS, "count", "default")
                there["data"]["n"] = str(int(there["data"]["n"]) + 1)
                try:
                    await client.update(CONFIGMAPS, there)
                    break
                except StatusError as error:
                    assert error.reason == "Conflict", error

    await asyncio.gather(*(count(client, 10) for client in planes.clients for _ in range(3)))
    assert (await one.get(CONFIGMAPS, "count", "default"))["data"] == {"n": "60"}
    planes.kill("server-0")
    await two.create(CONFIGMAPS, config_map("while-away"))
    planes.start_server(0)
    await planes.until(lambda: one.get(CONFIGMAPS, "while-away", "default"), "the server is back")
    last = (await one.create(CONFIGMAPS, config_map("last")))["metadata"]["resourceVersion"]
    await planes.until(lambda: both_saw(last), "both watches saw the last write")
    for task in looking:
        task.cancel()
    await asyncio.gather(*looking, return_exceptions=True)
    assert seen[0] == seen[1]
    assert len(seen[0]) == 63  # one made, 60 changes, two made
    assert sorted(map(int, set(seen[0]))) == list(map(int, seen[0]))


async def test_nothing_is_given_twice(planes: Planes) -> None:
    """Both give addresses and node ports out of the same small ranges, under a race, until nothing is left; what is
    given back can be had again at the other."""

    async def take(client: Client, prefix: str) -> list[str]:
        made = []
        for number in range(8):
            try:
                await client.create(SERVICES, service(f"{prefix}-{number}"))
                made.append(f"{prefix}-{number}")
            except StatusError as error:
                assert "range is full" in error.message, error
        return made

    for turn in range(3):
        names = [(client, f"t{turn}-{i}-{j}") for i, client in enumerate(planes.clients) for j in range(4)]
        made = [name for found in await asyncio.gather(*(take(c, name) for c, name in names)) for name in found]
        services = (await planes.clients[turn % 2].list(SERVICES, "default"))["items"]
        mine = [s for s in services if s["metadata"]["name"] in made]
        assert len(mine) == 20 == len(made)
        for path in (lambda s: s["spec"]["clusterIP"], lambda s: s["spec"]["ports"][0]["nodePort"]):
            assert max(Counter(path(s) for s in services if s["spec"]["type"] == "NodePort").values()) == 1
        other = planes.clients[(turn + 1) % 2]
        await asyncio.gather(*(other.delete(SERVICES, name, "default") for name in made))


async def test_one_set_of_controllers_leads(planes: Planes) -> None:
    """One works; killed without a word, the other takes over; told to stop, it gives the Lease up at once."""
    planes.start_controllers(0)
    client = planes.clients[1]

    async def leader(*, but: str = "") -> str:
        lease = await client.get(LEASES, "fairlead-controllers", "kube-system")
        holder = str(lease["spec"].get("holderIdentity") or "")
        return "" if holder == but else holder

    async def pods(app: str, count: int) -> bool:
        found = await client.list(PODS, "default", label_selector=f"app={app}")
        return len(found["items"]) == count

    def deployment(name: str) -> dict[str, Any]:
        labels = {"app": name}
        spec = {"containers": [{"name": "main", "image": "x"}]}
        template = {"metadata": {"labels": labels}, "spec": spec}
        spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
        metadata = {"name": name, "namespace": "default"}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}

    first = await planes.until(leader, "the first leads")
    planes.start_controllers(1)
    await client.create(DEPLOYMENTS, deployment("a"))
    await planes.until(lambda: pods("a", 2), "its pods are made")
    planes.kill("controllers-0")
    second = await planes.until(lambda: leader(but=first), "the second leads")
    await client.create(DEPLOYMENTS, deployment("b"))
    await planes.until(lambda: pods("b", 2), "its pods are made")
    assert await pods("a", 2)
    planes.start_controllers(0)
    assert planes.kill("controllers-1", signal.SIGTERM) == 0, planes.logs()
    await planes.until(lambda: leader(but=second), "the third leads")
    await client.create(DEPLOYMENTS, deployment("c"))
    await planes.until(lambda: pods("c", 2), "its pods are made")


async def test_etcd_goes_away_and_comes_back(planes: Planes) -> None:
    """Meanwhile reads of what is known are answered and writes fail in words; afterwards both go on, watches too."""
    one, two = planes.clients
    await one.create(CONFIGMAPS, config_map("before"))
    seen: list[str] = []

    async def look() -> None:
        async for batch in follow(two, Watched(CONFIGMAPS, namespace="default")):
            seen.extend(event.object["metadata"]["name"] for event in batch.events)

    looking = asyncio.create_task(look())

    async def saw(name: str) -> bool:
        return name in seen

    await planes.until(lambda: saw("before"), "the watch sees it")
    planes.etcd.kill()
    path = "/api/v1/namespaces/default/configmaps/before?resourceVersion=0"
    assert b'"before"' in await one.get_raw(path)
    with pytest.raises(StatusError) as caught:
        await one.create(CONFIGMAPS, config_map("during"))
    assert caught.value.code >= 500
    assert "etcd" in caught.value.message
    planes.etcd.start()

    async def made() -> Any:
        try:
            return await one.create(CONFIGMAPS, config_map("after"))
        except StatusError as error:
            if error.reason == "AlreadyExists":
                return True
            raise

    await planes.until(made, "writes go on")
    await planes.until(lambda: saw("after"), "the watch at the other goes on")
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)


@pytest.mark.parametrize("name", ["server-0", "server-1"])
async def test_told_to_stop_it_ends_well(planes: Planes, name: str) -> None:
    """SIGTERM: exit code 0, and the other serves on."""
    assert planes.kill(name, signal.SIGTERM) == 0, planes.logs()
    assert await planes.clients[1 if name == "server-0" else 0].get_raw("/readyz") == b"ok"
