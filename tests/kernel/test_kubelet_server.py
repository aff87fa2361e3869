"""The kubelet's server over real TLS: logs, exec with and without a terminal, attach."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from fairlead.apiserver.pki import create_authority, issue
from tests.kernel.kubelet_lab import NODE_IP, Lab, phase_is, running

pytestmark = pytest.mark.kernel
PORT = 10250


@pytest.fixture
def lab(lab: Lab, tmp_path: Path) -> Lab:
    authority = create_authority("test")
    server = issue(authority, "system:node:n1", ips=[NODE_IP], server=True)
    client = issue(authority, "apiserver", ["system:masters"], client=True)
    node = issue(authority, "system:node:n1", ["system:nodes"], client=True)
    for name, data in {
        "ca.crt": authority.cert_pem,
        "server.crt": server.cert_pem,
        "server.key": server.key_pem,
        "client.crt": client.cert_pem,
        "client.key": client.key_pem,
        "node.crt": node.cert_pem,
        "node.key": node.key_pem,
    }.items():
        (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    lab.options_extra = {
        "server_cert_file": tmp_path / "server.crt",
        "server_key_file": tmp_path / "server.key",
        "client_ca_file": tmp_path / "ca.crt",
    }
    lab.files = tmp_path  # type: ignore[attr-defined]
    return lab


@asynccontextmanager
async def session(lab: Lab, certificate: str = "client") -> AsyncIterator[aiohttp.ClientSession]:
    files: Path = lab.files  # type: ignore[attr-defined]
    context = ssl.create_default_context(cafile=str(files / "ca.crt"))
    if certificate:
        context.load_cert_chain(files / f"{certificate}.crt", files / f"{certificate}.key")
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(f"https://{NODE_IP}:{PORT}", connector=connector) as made:
        yield made


class Streams:
    """What came back over a socket, by channel."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.out: dict[int, bytes] = {}

    async def until_end(self) -> dict[str, Any]:
        """The final Status."""
        async with asyncio.timeout(15):
            async for message in self.socket:
                channel = message.data[0]
                self.out[channel] = self.out.get(channel, b"") + message.data[1:]
        status: dict[str, Any] = orjson.loads(self.out[3])
        return status

    async def until_seen(self, text: bytes, channel: int = 1) -> None:
        """Wait for text on a channel."""
        async with asyncio.timeout(15):
            while text not in self.out.get(channel, b""):
                message = await self.socket.receive()
                assert message.type == aiohttp.WSMsgType.BINARY, message
                self.out[message.data[0]] = self.out.get(message.data[0], b"") + message.data[1:]


@asynccontextmanager
async def stream(lab: Lab, path: str, **query: Any) -> AsyncIterator[Streams]:
    params = [(k, v) for k, vs in query.items() for v in (vs if isinstance(vs, list) else [vs])]
    async with (
        session(lab) as client,
        client.ws_connect(path, params=params, protocols=["v5.channel.k8s.io"], max_msg_size=0) as socket,
    ):
        assert socket.protocol == "v5.channel.k8s.io"
        yield Streams(socket)


async def test_logs_as_kubectl_asks_for_them(lab: Lab) -> None:
    """tail, since, timestamps, limitBytes, previous, follow to the end; both streams; long lines are whole."""
    await lab.start()
    script = (
        "for i in 1 2 3; do echo line $i; done; echo err >&2; "
        "head -c 40000 /dev/zero | tr '\\0' x; echo; sleep 0.3; echo last"
    )
    lab.pod("talk", "sh", "-c", script, spec={"restartPolicy": "Never"})
    await lab.wait("talk", running)
    base = "/containerLogs/default/talk/main"
    async with session(lab) as client:
        async with client.get(base, params={"follow": "true"}) as response:
            text = await response.text()
        assert text.startswith("line 1\nline 2\nline 3\n")
        assert text.endswith("last\n")
        assert "err\n" in text
        # the two streams are two pipes: what came by one may stand between two parts of a long line of the other
        assert "x" * 40000 + "\n" in text.replace("err\n", "", 1)
        await lab.wait("talk", phase_is("Succeeded"))
        for params, expected in (
            ({"tailLines": "1"}, "last\n"),
            ({"tailLines": "0"}, ""),
            ({"limitBytes": "9"}, "line 1\nli"),
            ({"sinceSeconds": "3600", "tailLines": "1"}, "last\n"),
            ({"sinceTime": "2099-01-01T00:00:00Z"}, ""),
        ):
            async with client.get(base, params=params) as response:
                assert await response.text() == expected, params
        async with client.get(base, params={"timestamps": "true", "tailLines": "1"}) as response:
            stamp, _, rest = (await response.text()).partition(" ")
        assert rest == "last\n"
        assert stamp.endswith("Z")
        async with client.get(base, params={"previous": "true"}) as response:
            assert response.status == 400
            assert await response.text() == 'previous terminated container "main" in pod "talk" not found'
        async with client.get("/containerLogs/default/nobody/main") as response:
            assert response.status == 404
    await lab.stop()


def _awaited(coroutine: Any) -> set[str]:
    """The names of the coroutines that one waits in, from the outermost on."""
    names = set()
    while coroutine is not None:
        names.add(getattr(coroutine, "__name__", ""))
        coroutine = getattr(coroutine, "cr_await", None)
    return names


async def test_whoever_follows_a_log_may_leave(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a client that goes while lines come nor one that goes in silence leaves a request behind, or an error."""
    await lab.start()
    lab.pod("busy", "sh", "-c", "while true; do echo line; sleep 0.05; done")
    lab.pod("quiet", "sh", "-c", "echo line; sleep 1000")
    for name in ("busy", "quiet"):
        await lab.wait(name, running)
        async with session(lab) as client:
            params = {"follow": "true"}
            async with client.get(f"/containerLogs/default/{name}/main", params=params) as response:
                assert await response.content.readline() == b"line\n"

    def followed() -> bool:
        return any("_logs" in _awaited(task.get_coro()) for task in asyncio.all_tasks())

    await lab.until(lambda: not followed())
    assert not [record for record in caplog.records if record.exc_info]
    await lab.stop()


async def test_without_a_certificate_nothing_is_had(lab: Lab) -> None:
    """The TLS handshake fails; a certificate of another organization is refused."""
    await lab.start()
    async with session(lab, certificate="node") as client, client.get("/healthz") as response:
        assert response.status == 403
    async with session(lab, certificate="") as client:
        with pytest.raises((aiohttp.ClientError, OSError)):
            async with client.get("/healthz") as response:
                await response.text()
    async with session(lab) as client, client.get("/healthz") as response:
        assert await response.text() == "ok"
    await lab.stop()


async def test_exec_joins_streams_and_tells_the_exit_code(lab: Lab) -> None:
    """stdin reaches it, stdin's end too, stdout and stderr come apart, the code is in the Status."""
    await lab.start()
    lab.pod("box", "sleep", "1000", container={"env": [{"name": "COLOR", "value": "blue"}]})
    await lab.wait("box", running)
    path = "/exec/default/box/main"
    script = "read a; echo got $a $COLOR; cat; echo bad >&2; hostname; exit 7"
    async with stream(lab, path, command=["sh", "-c", script], input="1", output="1", error="1") as s:
        await s.socket.send_bytes(b"\x00one\n")
        await s.until_seen(b"got one blue\n")
        await s.socket.send_bytes(b"\x00rest")
        await s.socket.send_bytes(b"\xff\x00")
        status = await s.until_end()
    assert s.out[1] == b"got one blue\nrestbox\n"
    assert s.out[2] == b"bad\n"
    assert status["reason"] == "NonZeroExitCode"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]
    async with stream(lab, path, command=["true"], output="1") as s:
        assert await s.until_end() == {"metadata": {}, "status": "Success"}
    async with stream(lab, path, command=["no-such"], output="1") as s:
        status = await s.until_end()
    assert 'exec: "no-such": executable file not found in $PATH' in status["message"]
    big = "import sys; sys.stdout.buffer.write(b'z' * 3_000_000)"
    async with stream(lab, path, command=["python3", "-c", big], output="1") as s:
        await s.until_end()
    assert len(s.out[1]) == 3_000_000
    await lab.stop()


async def test_exec_with_a_terminal(lab: Lab) -> None:
    """A real terminal: its size follows, what is typed is echoed, ^C interrupts."""
    await lab.start()
    lab.pod("box", "sleep", "1000")
    await lab.wait("box", running)
    async with session(lab) as client, client.get("/pods") as response:
        assert [pod["metadata"]["name"] for pod in (await response.json())["items"]] == ["box"]
    async with stream(lab, "/exec/default/box/main", command=["sh"], input="1", output="1", tty="1") as s:
        await s.socket.send_bytes(b"\x04" + orjson.dumps({"Width": 101, "Height": 41}))
        await s.socket.send_bytes(b"\x00stty size; tty; echo $TERM\n")
        await s.until_seen(b"41 101")
        await s.until_seen(b"/dev/pts/0")
        await s.until_seen(b"xterm\r\n")
        await s.socket.send_bytes(b"\x00sleep 100\n")
        await s.until_seen(b"sleep 100")
        await asyncio.sleep(0.2)
        await s.socket.send_bytes(b"\x00\x03exit 5\n")
        status = await s.until_end()
    assert status["details"]["causes"][0]["message"] == "5"
    await lab.stop()


async def test_attach_sees_what_the_container_says_from_now_on(lab: Lab) -> None:
    """Output as it comes; stdin when the container has one; the end when it ends."""
    await lab.start()
    lab.pod(
        "chat",
        "sh",
        "-c",
        "while read line; do echo heard $line; done",
        container={"stdin": True, "stdinOnce": True},
        spec={"restartPolicy": "Never"},
    )
    await lab.wait("chat", running)
    async with stream(lab, "/attach/default/chat/main", input="1", output="1", error="1") as s:
        await s.socket.send_bytes(b"\x00hello\n")
        await s.until_seen(b"heard hello\n")
        await s.socket.send_bytes(b"\xff\x00")
        assert (await s.until_end())["status"] == "Success"
    pod = await lab.wait("chat", phase_is("Succeeded"))
    assert lab.log(pod) == "heard hello\n"
    await lab.stop()


async def test_attach_to_a_terminal(lab: Lab) -> None:
    """A container with tty: true has a terminal of its own, which attach joins."""
    await lab.start()
    lab.pod(
        "term",
        "sh",
        "-c",
        "tty; read line; echo heard $line",
        container={"stdin": True, "tty": True},
        spec={"restartPolicy": "Never"},
    )
    pod = await lab.wait("term", running)
    await lab.until(lambda: "/dev/pts/0" in lab.log(pod))
    async with stream(lab, "/attach/default/term/main", input="1", output="1", tty="1") as s:
        await s.socket.send_bytes(b"\x00hello\n")
        assert (await s.until_end())["status"] == "Success"
    assert b"heard hello\r\n" in s.out[1]
    await lab.wait("term", phase_is("Succeeded"))
    await lab.stop()
