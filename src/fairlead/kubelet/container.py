"""From a forked child to the container's program.

Runs in children of a pod's shim: `run` as the first process of a new container (PID 1, unless it shares its PIDs),
`run_exec` beside a running one. In: a ContainerPlan (written by the kubelet) and open descriptors 0, 1, 2. Out: the
program in our place, or a line on the report pipe that says why not. Invariant: neither function ever returns to the
shim's code; no descriptor but 0, 1, 2 reaches the program.
"""

# Between a fork and the program, a path is a string and a call is a system call: objects would cost milliseconds.
# ruff: noqa: PTH113, PTH115, PTH116, PTH118, PTH123

from __future__ import annotations

import errno
import fcntl
import gc
import logging
import os
import random
import socket
import stat
import struct
import sys
import termios
from typing import Any, NoReturn

import msgspec

from fairlead.kubelet import rootfs
from fairlead.kubelet.ocispec import OCIPlan
from fairlead.linux import libc, podcgroups, processes, seccomp
from fairlead.linux.podcgroups import Limits

START_ERROR_EXIT_CODE = 128
"""What the status of a container that could not be started says (containerd's choice)."""

DEFAULT_CAPABILITIES: tuple[str, ...] = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
)
"""containerd's default but for MKNOD: a device node would open the machine's disks."""


class ContainerPlan(msgspec.Struct, frozen=True):
    """Everything a container is, decided before it starts. `env` is complete and in order."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    root: rootfs.RootPlan
    log: str
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    capabilities: tuple[str, ...] = DEFAULT_CAPABILITIES
    no_new_privileges: bool = False
    seccomp: dict[str, Any] | None = None
    """The filter of its system calls, in the OCI runtime's format."""
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    log_max_bytes: int = 10 * 1024 * 1024
    log_max_files: int = 5
    limits: Limits = Limits()
    pod_limits: Limits = Limits()
    """Of all containers of the pod together."""
    group: str = ""
    """The name of its control group, if there is something to limit."""
    oci: OCIPlan | None = None
    """Of a container of an image; None: of the machine's own files."""
    shares_pids: bool = False
    """It has no PID namespace of its own but its shim's: the pod's, or the machine's."""
    target: str = ""
    """The container whose PID namespace it is in, "" for none."""


_DECODER = msgspec.json.Decoder(ContainerPlan)  # made here: in a fresh fork it would cost a millisecond


def read_plan(directory: str) -> ContainerPlan:
    """The plan of the attempt whose directory this is."""
    with open(os.path.join(directory, "plan.json"), "rb") as file:
        return _DECODER.decode(file.read())


class StartFailure(Exception):
    """The program could not be started: the message has the shape that people and tools know from runc."""


def look_up(program: str, path: str, cwd: str) -> str:
    """The file that `program` means, as runc finds it. Raises StartFailure in its words."""
    if "/" in program:
        full = program if program.startswith("/") else os.path.join(cwd, program)
        try:
            mode = os.stat(full).st_mode
        except OSError as error:
            text = os.strerror(error.errno or 0).lower()
            raise StartFailure(f'exec: "{program}": stat {program}: {text}') from error
        if stat.S_ISDIR(mode) or not os.access(full, os.X_OK):
            what = "is a directory" if stat.S_ISDIR(mode) else "permission denied"
            raise StartFailure(f'exec: "{program}": {what}')
        return full
    for directory in path.split(":"):
        full = os.path.join(directory or ".", program)
        if os.path.isfile(full) and os.access(full, os.X_OK):
            return full
    raise StartFailure(f'exec: "{program}": executable file not found in $PATH')


def run(plan: ContainerPlan, report: int, keep: frozenset[int]) -> NoReturn:
    """Become the container. `report`, a socket, gets the line `pid <machine's pid>`, with a terminal the line `tty` and
    its descriptor, then the failure or nothing; it is closed when the program runs. A fairlead command runs in this
    process, with the descriptors `keep` left open, instead of a fresh interpreter."""
    try:
        os.write(report, b"pid %s\n" % os.readlink("/proc/self").encode())
        os.setsid()
        if plan.group:
            podcgroups.join(plan.group, plan.limits, plan.pod_limits)
        rootfs.build(plan.root)
        if plan.tty:
            _own_terminal(report)
        _become_user(plan)
        _enter_directory(plan.cwd)
        program = look_up(plan.argv[0], dict(plan.env).get("PATH", ""), plan.cwd)
        processes.reset_own_signals()
        if is_own_command(plan.argv):
            _run_warm(plan, report, keep)
        os.execve(program, plan.argv, dict(plan.env))
    except StartFailure as failure:
        _fail(report, str(failure))
    except OSError as error:
        _fail(report, _render_os_error(plan.argv[0], error))
    except BaseException as error:
        _fail(report, f"{type(error).__name__}: {error}")


def run_exec(plan: ContainerPlan, argv: list[str], pidfd: int, report: int, *, tty: bool) -> NoReturn:
    """Become `argv` in the mount namespace of the container behind `pidfd` (its PID namespace was entered by the
    fork), as the container's user and with its environment."""
    try:
        os.setsid()
        if plan.group:
            podcgroups.follow(plan.group)
        libc.setns(pidfd, libc.CLONE_NEWNS)
        if tty:
            _own_terminal(report)
        _become_user(plan)
        _enter_directory(plan.cwd)
        environment = dict(plan.env)
        if tty:
            environment.setdefault("TERM", "xterm")
        program = look_up(argv[0], environment.get("PATH", ""), plan.cwd)
        processes.reset_own_signals()
        os.execve(program, argv, environment)
    except StartFailure as failure:
        _fail(report, str(failure))
    except OSError as error:
        _fail(report, _render_os_error(argv[0], error))
    except BaseException as error:
        _fail(report, f"{type(error).__name__}: {error}")


def is_own_command(argv: tuple[str, ...]) -> bool:
    """Whether `argv` is a fairlead command that a warmed process can run without a fresh interpreter."""
    return argv[:3] == (sys.executable, "-m", "fairlead") and "fairlead.cli" in sys.modules


def _fail(report: int, message: str) -> NoReturn:
    os.write(report, " ".join(message.split()).encode(errors="replace")[:4000])
    os._exit(START_ERROR_EXIT_CODE)


def _render_os_error(program: str, error: OSError) -> str:
    text = (error.strerror or str(error)).lower()
    if error.filename is None or error.filename == program:
        return f'exec: "{program}": {text}'
    where = error.filename if isinstance(error.filename, str) else repr(error.filename)
    return f'error mounting or opening "{where}": {text}'


def _own_terminal(report: int) -> None:
    """Make a terminal of the container's own /dev/pts ours, and hand its other side to the shim."""
    master, slave = os.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with socket.socket(fileno=os.dup(report)) as end:
        socket.send_fds(end, [b"tty\n"], [master])
    os.close(master)
    for fd in (0, 1, 2):
        os.dup2(slave, fd)
    os.close(slave)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _become_user(plan: ContainerPlan) -> None:
    """Give up what the plan does not leave: rights, calls, the user. A filter without no_new_privs is the privileged's
    to set, so it comes first then."""
    if plan.seccomp is not None and not plan.no_new_privileges:
        seccomp.limit_own_calls(plan.seccomp)
    processes.limit_own_capabilities(plan.capabilities)
    if plan.no_new_privileges:
        processes.forbid_own_new_privileges()
    if (plan.uid, plan.gid, set(plan.groups)) != (os.getuid(), os.getgid(), set(os.getgroups())):
        try:
            processes.become(plan.uid, plan.gid, plan.groups)
        except PermissionError as error:
            raise StartFailure(
                f"unable to set user {plan.uid}:{plan.gid}: fairlead has no right to that user here (runAsUser)"
            ) from error
    if plan.seccomp is not None and plan.no_new_privileges:
        seccomp.limit_own_calls(plan.seccomp)


def _enter_directory(cwd: str) -> None:
    try:
        os.chdir(cwd)
    except OSError as error:
        text = os.strerror(error.errno or errno.ENOENT).lower()
        raise StartFailure(f'chdir to cwd ("{cwd}") failed: {text}') from error


def _run_warm(plan: ContainerPlan, report: int, keep: frozenset[int]) -> NoReturn:
    from importlib import import_module

    processes.set_own_name("fairlead")
    os.environ.clear()
    os.environ.update(plan.env)
    processes.close_own_descriptors({0, 1, 2, report, *keep})
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115
    logging.root.handlers.clear()
    random.seed()
    sys.argv = ["fairlead", *plan.argv[3:]]
    gc.enable()
    os.close(report)
    code: Any = 1
    try:
        import_module("fairlead.cli").main()
        code = 0
    except SystemExit as leave:
        code = leave.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    if code is None:
        code = 0
    elif not isinstance(code, int):
        print(code, file=sys.stderr)  # noqa: T201 -- what the interpreter does with sys.exit("text")
        code = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(code & 0xFF)
