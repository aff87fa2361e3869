"""The shim: one small process per pod that holds the pod's sandbox and is the parent of its containers.

Forked by the spawner as PID 1 of the pod's own PID namespace, so that whatever kills it ends the whole pod (but for one
with hostPID, whose processes the kubelet looks for then). It holds the pod's network, IPC and UTS namespaces. Here are
its commands; what they start, and how that ends, is shimcontainers'. The kubelet commands it over a socket; when the
kubelet is gone the pod goes on, and the next kubelet connects to `shim.sock` in the pod's directory. Single-threaded:
one loop (shimloop).

Invariant: nothing here decides (no restarts, no grace periods: those are the kubelet's).

Messages, by `op` (all with `id`, echoed in the reply): status, start, signal, exec, attach, connections, stop.
Unasked: `exited` (a container) and `exec_exited`.
"""

# Between a fork and the program, a path is a string and a call is a system call: objects would cost milliseconds.
# ruff: noqa: PTH101, PTH115

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from fairlead.kubelet import channel
from fairlead.kubelet.shimcontainers import Containers, Reply
from fairlead.kubelet.shimloop import Loop
from fairlead.kubelet.standby import Spare
from fairlead.linux import processes
from fairlead.linux.connections import busy_inbound, connections

SOCKET = "shim.sock"


class SandboxPlan(msgspec.Struct, frozen=True):
    """What a pod's containers share. `directory` holds the socket (and is not reachable from containers);
    `own_network`, `own_pids`, `own_ipc` False leave the pod in the spawner's namespace of that kind (hostNetwork,
    hostPID, hostIPC). With `shared_pids` its containers have no PID namespaces of their own: the shim then reaps what
    they leave."""

    directory: str
    name: str
    hostname: str
    own_network: bool = True
    own_pids: bool = True
    own_ipc: bool = True
    shared_pids: bool = False


class Shim:
    """Its commands and who gives them. `run` does not return."""

    def __init__(
        self,
        plan: SandboxPlan,
        first: socket.socket,
        namespace: processes.PidNamespace,
        spare: Spare | None = None,
    ) -> None:
        """`spare`: a child that waits to be the first container."""
        self._loop = Loop()
        self._clients: list[socket.socket] = []
        self._containers = Containers(self._loop, namespace, spare, self._tell_all, shared_pids=plan.shared_pids)
        self._listener = self._listen(plan.directory)
        self._add(first)

    def _listen(self, directory: str) -> socket.socket:
        os.chdir(directory)
        Path(SOCKET).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(SOCKET)  # relative: a Unix address holds 107 bytes
        os.chmod(SOCKET, 0o600)
        listener.listen(8)
        listener.setblocking(False)
        self._loop.watch(listener.fileno(), self._accept)
        return listener

    def run(self) -> NoReturn:
        """Serve until told to stop."""
        self._loop.run()
        os._exit(0)

    # -- clients ------------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._add(self._listener.accept()[0])

    def _add(self, client: socket.socket) -> None:
        client.setblocking(False)
        channel.enlarge(client)
        self._clients.append(client)
        self._loop.watch(client.fileno(), lambda: self._serve(client))

    def _drop(self, client: socket.socket) -> None:
        if client in self._clients:
            self._clients.remove(client)
            self._loop.forget(client.fileno())
            client.close()

    def _tell(self, client: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        try:
            channel.send(client, message, fds)
        except OSError:  # gone, or not reading: it can connect again and ask for the status
            self._drop(client)

    def _tell_all(self, message: dict[str, Any]) -> None:
        for client in list(self._clients):
            self._tell(client, message)

    def _serve(self, client: socket.socket) -> None:
        try:
            received = channel.receive(client)
        except BlockingIOError:
            return
        except OSError:
            received = None
        if received is None:
            self._drop(client)
            return
        message, fds = received
        number = message.get("id")

        def reply(body: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
            self._tell(client, {"id": number, **body}, fds)

        try:
            getattr(self, f"_op_{message['op']}")(message, fds, reply)
        except Exception as error:
            reply({"error": f"{type(error).__name__}: {error}"})
        finally:
            for fd in fds:
                os.close(fd)

    # -- commands -----------------------------------------------------------------------------------------------------

    def _op_status(self, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        containers = [
            {
                "name": name,
                "attempt": attempt,
                "started": process.started,
                "pid": process.machine_pid,
                "exit": process.exit,
            }
            for name, attempt, process in self._containers
        ]
        reply({"containers": containers, "pid": int(os.readlink("/proc/self"))})

    def _op_start(self, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        self._containers.start(message["name"], message["attempt"], message["directory"], reply)

    def _op_signal(self, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        process = self._containers.running(message["name"], message["attempt"])
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process.pidfd, message["signal"])
        reply({})

    def _op_exec(self, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        """Descriptors: stdin, stdout, stderr. With `tty` none, and the reply carries the terminal's."""
        container = self._containers.running(message["name"], message["attempt"])
        if container is None:
            reply({"error": "container is not running", "start_failed": True})
            return
        number = message["id"]

        def ended(code: int) -> None:
            self._tell_all({"event": "exec_exited", "exec": number, "code": code})

        self._containers.exec(container, message["argv"], fds, ended, reply, tty=bool(message.get("tty")))

    def _op_attach(self, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        """Descriptors: where output goes from now on (stdout, stderr). The reply carries the terminal, or the pipe to
        standard input if the container has one and `stdin` is asked."""
        process = self._containers.running(message["name"], message["attempt"])
        if process is None:
            reply({"error": "container is not running"})
            return
        if len(fds) == 2:
            copies = (os.dup(fds[0]), os.dup(fds[1]))
            for fd in copies:
                os.set_blocking(fd, False)
            process.attached.append(copies)
        if process.terminal >= 0:
            reply({"terminal": True}, (process.terminal,))
        elif process.stdin >= 0 and message.get("stdin"):
            reply({"terminal": False}, (process.stdin,))
            if process.plan.stdin_once:
                os.close(process.stdin)
                process.stdin = -1
        else:
            reply({"terminal": False})

    def _op_connections(self, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        """How many connections from outside the pod's processes are at work on."""
        reply({"busy": busy_inbound(connections())})

    def _op_stop(self, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        """Kill everything and end. What ran is written down as killed."""
        self._containers.kill()
        Path(SOCKET).unlink(missing_ok=True)
        reply({})
        self._loop.stop()
