"""Logs, exec and attach, through every kubectl: SPDY/3.1 for the older ones, WebSocket for the newer."""

from __future__ import annotations

import os
import pty
import subprocess
import termios
import time

import pytest

DEADLINE = 20.0


@pytest.fixture
def pod(kubectl):
    """A pod with two containers, bound to a node whose kubelet is the fake one."""
    cluster, namespace = kubectl.cluster, kubectl.namespace
    node = f"n-{namespace}"
    kubectl.apply(
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}},
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web-0", "namespace": namespace},
            "spec": {
                "nodeName": node,
                "containers": [{"name": "main", "image": "x"}, {"name": "waiting", "image": "x"}],
            },
        },
    )
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": cluster.kubelet.port}},
    }
    cluster.patch_status("nodes", "", node, status)
    cluster.patch_status("pods", namespace, "web-0", {"phase": "Running"})
    return "web-0"


def test_logs_come_as_written(kubectl, pod):
    """All lines, the last ones, and following to the end."""
    assert kubectl("logs", pod, "-c", "main") == "one\ntwo\nthree\nfour\n"
    assert kubectl("logs", pod, "-c", "main", "--tail=2") == "three\nfour\n"
    assert kubectl("logs", pod, "-c", "main", "--tail=1", "-f") == "four\nlater 0\nlater 1\nlater 2\n"


def test_logs_say_what_is_wrong(kubectl, pod):
    """No such pod, no such container, one that has not started."""
    assert 'pods "nope" not found' in kubectl.fails("logs", "nope")
    assert "container nope is not valid for pod web-0" in kubectl.fails("logs", pod, "-c", "nope")
    assert "waiting to start" in kubectl.fails("logs", pod, "-c", "waiting")


def test_exec_carries_output_errors_and_the_exit_code(kubectl, pod):
    """stdout and stderr each to their own, and the command's own exit code."""
    done = kubectl.run("exec", pod, "-c", "main", "--", "sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert done.stdout == "out\n"
    assert done.stderr.splitlines()[0] == "err"
    assert "exit code 7" in done.stderr
    assert kubectl("exec", pod, "-c", "main", "--", "echo", "a b", "c") == "a b c\n"


def test_exec_carries_stdin_to_its_end(kubectl, pod):
    """What is piped in comes back whole, and its end is seen."""
    text = "".join(f"line {i}\n" for i in range(20_000))
    assert kubectl("exec", "-i", pod, "-c", "main", "--", "cat", stdin=text) == text
    assert kubectl("exec", "-i", pod, "-c", "main", "--", "wc", "-c", stdin=text).strip() == str(len(text))


def test_exec_carries_much_output(kubectl, pod):
    """Several megabytes, more than any window or buffer."""
    out = kubectl("exec", pod, "-c", "main", "--", "sh", "-c", "yes 0123456789abcdef | head -c 3000000")
    assert len(out) == 3_000_000


def test_attach_joins_the_streams(kubectl, pod):
    """attach is exec without a command (the fake kubelet answers with cat)."""
    assert kubectl("attach", "-i", pod, "-c", "main", stdin="hello\n").startswith("hello\n")


def test_exec_on_a_terminal_tells_its_size(kubectl, pod):
    """-it: raw input, one output, and the terminal's size on its own channel."""
    kubelet = kubectl.cluster.kubelet
    kubelet.sizes.clear()
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (33, 111))
    command = [kubectl.path, "-n", kubectl.namespace, "exec", "-it", pod, "-c", "main", "--", "head", "-n1"]
    running = subprocess.Popen(command, env=kubectl.env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    deadline = time.monotonic() + DEADLINE
    while not kubelet.sizes and time.monotonic() < deadline:
        time.sleep(0.02)
    os.write(ours, b"hello\n")
    assert running.wait(DEADLINE) == 0
    assert b"hello" in os.read(ours, 4096)
    os.close(ours)
    assert kubelet.sizes[0] == {"Width": 111, "Height": 33}
    assert kubelet.queries[-1]["tty"] == ["1"]
    assert "error" not in kubelet.queries[-1]


def test_a_kubelet_that_dies_fails_the_command(kubectl, pod):
    """A command whose end nobody saw has not succeeded."""
    assert "ended before the command did" in kubectl.fails("exec", pod, "-c", "main", "--", "crash")


def test_exec_says_what_is_wrong(kubectl, pod):
    """No such pod, no such container, one that isn't running, a pod on no node, a kubelet that is away."""
    assert 'container "waiting" is not running' in kubectl.fails("exec", pod, "-c", "waiting", "--", "true")
    assert 'pods "nope" not found' in kubectl.fails("exec", "nope", "--", "true")
    assert "container nope is not valid for pod web-0" in kubectl.fails("exec", pod, "-c", "nope", "--", "true")
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "free"},
            "spec": {"containers": [{"name": "main", "image": "x"}]},
        }
    )
    assert "does not have a host assigned" in kubectl.fails("exec", "free", "--", "true")
    away = {"daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}
    kubectl.cluster.patch_status("nodes", "", f"n-{kubectl.namespace}", away)
    assert "connect" in kubectl.fails("exec", pod, "-c", "main", "--", "true")
    assert "connect" in kubectl.fails("logs", pod, "-c", "main")


def test_a_kubectl_that_dies_ends_its_command(kubectl, pod):
    """Killing kubectl ends the kubelet's side, and nothing stays open."""
    cluster = kubectl.cluster
    running = kubectl.start("exec", "-i", pod, "-c", "main", "--", "cat")
    deadline = time.monotonic() + DEADLINE
    while cluster.kubelet.open_execs == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert cluster.kubelet.open_execs == 1
    running.kill()
    running.communicate()
    while (cluster.kubelet.open_execs or cluster.server.open_streams) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (cluster.kubelet.open_execs, cluster.server.open_streams) == (0, 0)
