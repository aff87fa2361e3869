"""Up, down, status: a cluster's life as a whole.

Stands at the end of the package and is what the command line calls. Invariant: `up` either leaves a cluster that runs,
or what was there before; `down` leaves nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from fairlead.cluster import config as configuration
from fairlead.cluster import kubeconfig, lan, ports, preflight
from fairlead.cluster.config import ClusterConfig
from fairlead.cluster.credentials import Credentials
from fairlead.cluster.errors import ClusterError, NotReady
from fairlead.cluster.layout import PUBLISHER, RUNTIME_ROOT, Layout, clusters
from fairlead.cluster.supervisor import STANDBY, SUPERVISOR, Supervisor, holder, redirect, running
from fairlead.linux import cgroups, libc, namespaces

Report = Callable[[str], None]
CHANGEABLE = frozenset({"load_balancer_pool", "publish", "localhost_node_ports", "host_routes", "signing_duration"})
"""What a stopped cluster may be started with another value of: nothing it keeps depends on it."""


class Started(msgspec.Struct, frozen=True):
    """What `up` made: the description with everything chosen, and the kubeconfig that got the context."""

    config: ClusterConfig
    kubeconfig: Path
    resumed: bool


def up(wanted: ClusterConfig, given: frozenset[str], wait: float, report: Report) -> Started:
    """Start the cluster `wanted.name`: a new one, or one that was stopped, with the state it had.

    `given` names the fields the user set: of a stopped cluster, they must agree with its description. `wait`: seconds
    to wait until the nodes and the DNS are ready; 0 returns as soon as the API server answers. Raises ClusterError.
    """
    configuration.check(wanted)
    preflight.check()
    layout = Layout.of(wanted.name)
    with machine_lock():
        _refuse_strangers(layout)
        if holder(layout.lock(SUPERVISOR)):
            raise ClusterError(
                f"a cluster named {wanted.name!r} is already running",
                f"use it (kubectl --context {wanted.context}), choose another --name, "
                f"or remove it: fairlead down --name {wanted.name}",
            )
        resumed = layout.config.exists()
        if resumed:
            config = _agree(configuration.load(layout.config), wanted, given)
        else:
            _refuse_leftovers(layout)
            others = [configuration.load(Layout.of(name).config).lan for name in clusters() if _described(name)]
            config = msgspec.structs.replace(wanted, lan=wanted.lan or lan.free_network(others))
            configuration.check(config)
        lan.refuse_taken(config)
        preflight.check_mode(config.proxy_mode)
        try:
            config, host_socket = _listen(config, "api_port" in given)
            published = ports.bind(config)
            _prepare(layout, config, report)
            _daemonize(layout, config, host_socket, published, report)
            host_socket.close()
            ports.close(published)
            file = _wait_and_publish(layout, config, wait, report)
        except NotReady:
            raise
        except BaseException:
            if resumed:
                stop(layout)
            else:
                remove(layout)
            raise
    return Started(config, file, resumed)


def down(name: str) -> bool:
    """Remove the cluster and everything of it. False if there was nothing. Raises ClusterError."""
    configuration.check_name(name)
    _require_root("down")
    layout = Layout.of(name)
    if not (layout.state.exists() or layout.runtime.exists() or lan.own_namespaces(layout)):
        return False
    with machine_lock():
        _refuse_strangers(layout)
        remove(layout)
    kubeconfig.remove(f"fairlead-{name}")
    return True


def remove(layout: Layout) -> None:
    """End every process, then take away namespaces, links, tables, mounts and files."""
    stop(layout)
    unmount_below(layout.state, layout.runtime)
    shutil.rmtree(layout.runtime, ignore_errors=True)
    shutil.rmtree(layout.state, ignore_errors=True)
    with contextlib.suppress(OSError):  # other clusters are there
        layout.state.parent.rmdir()


def stop(layout: Layout) -> None:
    """End every process and take the network away; the state stays."""
    end(layout)
    lan.remove(layout)


def end(layout: Layout) -> None:
    """End every process."""
    from fairlead.kubelet.removal import clear

    cgroups.kill(layout.name)
    _kill_by_files(layout)
    for node in (layout.runtime / "nodes").glob("*"):
        clear(layout.node_state(node.name), node)


def _agree(kept: ClusterConfig, wanted: ClusterConfig, given: frozenset[str]) -> ClusterConfig:
    """The kept description, with as many nodes as now wanted and what may change; any other difference is refused by
    name."""
    for field in sorted(given - {"name", "api_port"}):
        before, now = getattr(kept, field), getattr(wanted, field)
        if (field == "nodes" and now >= before) or field in CHANGEABLE:
            continue
        if before != now:
            raise ClusterError(
                f"the stopped cluster {kept.name!r} has {field.replace('_', '-')} {before}, not {now}",
                f"leave the flag out, or start anew after: fairlead down --name {kept.name}",
            )
    changed = {field: getattr(wanted, field) for field in given & {"nodes", *CHANGEABLE}}
    return msgspec.structs.replace(kept, api_port=wanted.api_port or kept.api_port, **changed)


def _refuse_strangers(layout: Layout) -> None:
    """A running cluster of our name may have its state elsewhere: then it is not ours to touch."""
    try:
        owner = layout.owner.read_text()
    except FileNotFoundError:
        return
    if owner != str(layout.state):
        raise ClusterError(
            f"the name {layout.name!r} is in use by a cluster that keeps its state in {owner}",
            f"choose another --name, or set FAIRLEAD_STATE={Path(owner).parent}",
        )


def _refuse_leftovers(layout: Layout) -> None:
    """A namespace with our name and no state is what is left of a cluster whose files were deleted by hand."""
    if namespaces.exists(layout.lan_namespace):
        raise ClusterError(
            f"the name {layout.name!r} is in use: the network namespace {layout.lan_namespace} exists",
            f"choose another --name, or remove what is left of it: fairlead down --name {layout.name}",
        )


def _described(name: str) -> bool:
    return Layout.of(name).config.exists()


def _listen(config: ClusterConfig, insisted: bool) -> tuple[ClusterConfig, socket.socket]:
    """The API server's socket on the machine: on its loopback, unless asked for elsewhere. It outlives restarts of the
    API server, so that no client is ever refused. The kept port is used again if it is free."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.api_address, config.api_port))
    except OSError as error:
        if insisted or error.errno != errno.EADDRINUSE:
            listener.close()
            if error.errno == errno.EADDRNOTAVAIL:
                what = f"--api-server-address {config.api_address} is no address of this machine"
                raise ClusterError(what, "use one that `ip address` shows, or 0.0.0.0 for all") from error
            raise ClusterError(
                f"port {config.api_port} of {config.api_address} is in use",
                "choose another --api-server-port, or leave it out",
            ) from error
        listener.bind((config.api_address, 0))
    listener.listen(1024)
    return msgspec.structs.replace(config, api_port=listener.getsockname()[1]), listener


def _prepare(layout: Layout, config: ClusterConfig, report: Report) -> None:
    report("network")
    layout.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    layout.runtime.mkdir(parents=True, exist_ok=True, mode=0o700)
    layout.owner.write_text(str(layout.state))
    configuration.save(config, layout.config)
    lan.ensure(layout, config)
    report("certificates")
    Credentials(layout, config).ensure()


def _daemonize(
    layout: Layout, config: ClusterConfig, host_socket: socket.socket, published: ports.Bound, report: Report
) -> None:
    """Fork the supervisor, warmed: with everything imported that the cluster's processes need."""
    from fairlead.cluster import warm

    report("program")
    warm.up()
    from fairlead.cluster import controlplane, nodeagent, publisher

    report("processes")

    def control_plane() -> None:
        ports.close(published)  # the publisher's alone
        controlplane.run(layout, config, host_socket)

    def node_main(node: str) -> Callable[[], None]:
        def run() -> None:
            ports.close(published)
            host_socket.close()  # the API server's alone
            nodeagent.run(layout, config, node)

        return run

    def publish() -> None:
        host_socket.close()
        publisher.run(layout, config, published)

    tasks: list[tuple[str, Callable[[], None]]] = [("control-plane", control_plane)]
    tasks += [(f"node-{node}", node_main(node)) for node in config.node_names]
    if config.publishes:
        tasks.append((PUBLISHER, publish))
    daemonize(layout, tasks)


def daemonize(layout: Layout, tasks: list[tuple[str, Callable[[], None]]]) -> None:
    """Fork a supervisor of these tasks (name, main), which outlives us, into the layout's control group."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    status = 1
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir("/")
        os.umask(0o022)
        cgroups.join(layout.name)
        redirect(layout.logs / "supervisor.log")
        Supervisor(layout, tasks).run()
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def _wait_and_publish(layout: Layout, config: ClusterConfig, wait: float, report: Report) -> Path:
    from fairlead.cluster import readiness

    document = Credentials(layout, config).user_document("admin")
    file = kubeconfig.merge(document)
    try:
        asyncio.run(readiness.wait(layout, config, wait, report))
    except NotReady:
        raise
    except BaseException:
        kubeconfig.remove(config.context)
        raise
    return file


@contextlib.contextmanager
def machine_lock() -> Iterator[None]:
    """One `up` or `down` at a time on this machine: they choose networks and ports. The last one out takes the lock's
    file along."""
    file = RUNTIME_ROOT / "lock"
    while True:
        RUNTIME_ROOT.mkdir(parents=True, exist_ok=True, mode=0o755)
        try:
            fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # the directory was removed between the two calls
            continue
        fcntl.lockf(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            break
        os.close(fd)  # it was removed while we waited for it
    try:
        yield
    finally:
        if [entry.name for entry in RUNTIME_ROOT.iterdir()] == [file.name]:
            file.unlink()
            RUNTIME_ROOT.rmdir()
        os.close(fd)


def _require_root(command: str) -> None:
    if os.geteuid() != 0:
        raise ClusterError(f"fairlead {command} needs root", f"run: sudo fairlead {command}")


def _kill_by_files(layout: Layout) -> None:
    """What no control group held: the supervisors first, so that nothing comes back, then whoever has a file of the
    cluster open. A pod's first process may have none before a container is there: it works in the pod's directory."""
    roots = (f"{layout.state}/", f"{layout.runtime}/")
    deadline = time.monotonic() + 10
    while True:
        victims = [pid for name, pid in running(layout).items() if name in (SUPERVISOR, STANDBY)]
        victims += [pid for pid in _holders(roots) if pid != os.getpid()]
        if not victims:
            return
        if time.monotonic() > deadline:
            raise ClusterError(
                f"processes {victims} of cluster {layout.name!r} do not die", "see ps -p for their state"
            )
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _holders(roots: tuple[str, ...]) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            links = list((process / "fd").iterdir())
            if (process / "comm").read_text().strip() == "fl-pod":
                links.append(process / "cwd")
            if any(str(link.readlink()).startswith(roots) for link in links):
                found.append(int(process.name))
    return found


def unmount_below(*roots: Path) -> None:
    """Nothing is mounted below these directories any more."""
    targets = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for target in sorted(targets, reverse=True):
        if any(Path(target).is_relative_to(root) for root in roots):
            with contextlib.suppress(OSError):
                libc.umount(target)
