"""`fairlead dashboard` on a real cluster and in a real browser: explain on a click, pods that are lost, traffic."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairlead.api.kinds import PODS, SERVICES
from fairlead.survey.nodeside import Request
from tests.cluster.browser import Browser
from tests.cluster.conftest import Cluster
from tests.cluster.explain_lab import Lab, healthy

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-dashboard")]

WEB = "document.querySelector('[data-key=\"lab/web\"]')"


@pytest.fixture(scope="module")
def lab(cluster: Cluster) -> Iterator[Lab]:
    """The healthy world."""
    with healthy(cluster) as made:
        yield made


@pytest.fixture
def dashboard(lab: Lab) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command at work, and the address that it printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fairlead", "dashboard", "--name", lab.cluster.name],
        env=lab.cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("The live page: http://127.0.0.1:"), line + process.stdout.read()
        yield process, line.split()[-1]
    finally:
        process.kill()
        process.wait()


def test_the_page_shows_the_cluster_as_it_is(lab: Lab, dashboard: tuple[subprocess.Popen[str], str]) -> None:
    """A click explains from a pod of the same namespace; connections show as traffic; what breaks shows by itself."""
    lab.run(_look(lab, dashboard[1]))


async def _look(lab: Lab, url: str) -> None:
    client = await lab.client.get(PODS, "client-1", "lab")
    made = await lab.client.get(SERVICES, "web", "lab")
    async with Browser() as browser:
        await browser.open(url)
        await browser.until(f"{WEB} && {WEB}.classList.contains('ok')")
        assert "2 of 2 endpoints ready" in await browser.value(f"{WEB}.getAttribute('aria-label')")
        await browser.value(f"{WEB}.click()")
        verdict = await browser.until("document.querySelector('#verdict.works')?.textContent")
        assert verdict.startswith("✓ works: lab/web http 80/tcp → 10.244.")
        assert (await browser.value("document.getElementById('from').value")).startswith("pod/client-")
        assert "# handle" in await browser.value("document.getElementById('hops').textContent")
        request = Request(made["spec"]["clusterIP"], 80, "TCP")
        sending = asyncio.create_task(_keep_sending(lab, client["metadata"]["uid"], request))
        await browser.until(f"{WEB}.closest('.lane').querySelectorAll('.edges path.busy').length > 0")
        sending.cancel()
        await lab.client.patch(SERVICES, "web", {"spec": {"selector": {"app": "wbe"}}}, "lab")
        await browser.until(f"{WEB}.classList.contains('bad')")
        await browser.value("document.querySelector('#ask button').click()")
        verdict = await browser.until("document.querySelector('#verdict.broken')?.textContent")
        assert "FL011" in verdict
        await lab.client.patch(SERVICES, "web", {"spec": {"selector": {"app": "web"}}}, "lab")
        await browser.until(f"{WEB}.classList.contains('ok')")
        await browser.until("document.querySelectorAll('#events .event').length > 0")
        assert browser.said == []


async def _keep_sending(lab: Lab, uid: str, request: Request) -> None:
    while True:
        await lab.here.request("n1", uid, request)
        await asyncio.sleep(0.05)


def test_it_ends_when_told_to(dashboard: tuple[subprocess.Popen[str], str]) -> None:
    """Ctrl-C: exit code 0, nothing on the terminal."""
    process, _ = dashboard
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")


def test_up_serves_it_too(tmp_path: Path) -> None:
    """`up --dashboard`: the page once the cluster is ready; Ctrl-C ends it and not the cluster."""
    cluster = Cluster(tmp_path)
    command = [sys.executable, "-m", "fairlead", "up", "--name", cluster.name, "--nodes", "1", "--dashboard"]
    process = subprocess.Popen(command, env=cluster.environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert any(line.startswith("The live page: http://127.0.0.1:") for line in process.stdout)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert cluster.get("nodes")["items"]
    finally:
        process.kill()
        process.wait()
        cluster.down()


def test_a_port_that_is_taken_is_said_so(lab: Lab, dashboard: tuple[subprocess.Popen[str], str]) -> None:
    """One line, and what to do."""
    port = dashboard[1].split(":")[2].split("/")[0]
    done = lab.cluster.fairlead("dashboard", "--name", lab.cluster.name, "--port", port, check=False)
    assert done.returncode == 1
    assert f"can't listen on 127.0.0.1:{port}" in done.stderr and "try --port 0" in done.stderr
