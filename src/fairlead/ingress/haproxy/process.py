"""HAProxy as a child: started, told what changes, reloaded when its shape changes, started again when it dies.

The thin shell around `config` and `diff`. Invariants: what runs always passed `haproxy -c`; a configuration that did
not leaves the one before in place; a reload hands the listening sockets over and lets every connection end by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from fairlead.ingress.haproxy.config import Configuration, Settings, render_list
from fairlead.ingress.haproxy.diff import Command, steps

log = logging.getLogger("fairlead.ingress")

PROGRAM = "FAIRLEAD_HAPROXY"
"""Environment variable that names the program; otherwise it is looked for on the PATH, beside
Python, and where Debian puts it."""

_START = 30.0  # s until a new process must answer
_FIRST_RETRY, _LAST_RETRY = 0.1, 5.0  # s before one that died is started again
_PLACE = re.compile(r"^\[ALERT\] +\(\d+\) : (config : )?(parsing \[[^]]*\] : )?")  # which says nothing to an author
_LONGEST = 500  # characters of what HAProxy said that are passed on
_VERSION = re.compile(r"New version created: (\d+)")
_FINE = re.compile(
    r"|IP changed from .*|port changed from .*|no need to change .*|New version created: \d+"
    r"|New empty certificate store '.*'!|Transaction (created|updated) for certificate .*"
    r"|(Committing|Inserting certificate|Deleting|Certificate|Entry).*|\.+|Success!",
    re.DOTALL,
)


class DataPlaneError(Exception):
    """HAProxy is missing, or refuses what it was given."""


class Refused(DataPlaneError):
    """`haproxy -c` did not pass it."""


class Applied(msgspec.Struct, frozen=True):
    """What an application did: nothing, commands to the running process, or a reload (or first start)."""

    how: Literal["nothing", "commands", "reload"]
    commands: int = 0
    seconds: float = 0.0


def find_program() -> str:
    """Where HAProxy is. Raises DataPlaneError that says how to get it."""
    named = os.environ.get(PROGRAM)
    places = os.pathsep.join((os.environ.get("PATH", ""), str(Path(sys.executable).parent), "/usr/sbin"))
    found = shutil.which(named or "haproxy", path=places)
    if found is None:
        what = f"{PROGRAM}={named} is no program" if named else "HAProxy is not on the PATH"
        raise DataPlaneError(f"{what}; install it (Debian: apt-get install haproxy) or set {PROGRAM}")
    return found


class Haproxy:
    """`apply` each configuration; `stop` at the end. Everything it writes is below the settings' directory."""

    def __init__(self, settings: Settings, program: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self.settings, self._program, self._clock = settings, program, clock
        self._directory = Path(settings.directory)
        self._current: Configuration | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._generation = 0
        self._stopping = False

    @property
    def current(self) -> Configuration | None:
        """The configuration that runs."""
        return self._current

    async def apply(self, wanted: Configuration) -> Applied:
        """Make the running HAProxy that. Raises DataPlaneError, which is Refused if it is the configuration's fault;
        then the one before still runs."""
        async with self._lock:
            began = self._clock()
            current = self._current
            if current == wanted:
                return Applied("nothing")
            commands = steps(current, wanted) if current is not None else None
            if commands is not None:
                try:
                    await self._tell(commands)
                except (DataPlaneError, OSError) as error:
                    log.warning("HAProxy could not be told of a change (%s); reloading it instead", error)
                else:
                    self._current = wanted
                    return Applied("commands", len(commands), self._clock() - began)
            await self._reload(wanted)
            self._current = wanted
            return Applied("reload", 0, self._clock() - began)

    async def refusal(self, wanted: Configuration) -> str:
        """Why HAProxy would not take that; empty if it would."""
        home = self._directory / "trial"
        await asyncio.to_thread(_write, home, wanted)
        try:
            await self._check(home / "haproxy.cfg")
        except Refused as refused:
            return str(refused)
        finally:
            await asyncio.to_thread(shutil.rmtree, home, True)
        return ""

    async def stop(self) -> None:
        """Take no new connection, let those there are end (for as long as the settings say), and end."""
        self._stopping = True
        if self._keeper is not None:
            self._keeper.cancel()
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGUSR1)
            try:
                async with asyncio.timeout(self.settings.stop_ms / 1000):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    async def ask(self, command: str, payload: str = "") -> str:
        """The running worker's answer to a command."""
        return await _ask(self._directory / "worker.sock", command, payload)

    # -- commands ------------------------------------------------------------------------------------------------------

    async def _tell(self, commands: list[Command]) -> None:
        version = ""
        for command in commands:
            text = command.text.replace("@@", f"@{version}")
            answer = (await self.ask(text, command.payload)).strip()
            prepared = _VERSION.search(answer)
            version = prepared.group(1) if prepared else version
            if not all(_FINE.fullmatch(line.strip()) for line in answer.splitlines()):
                raise DataPlaneError(f"{text}: {' '.join(answer.split())}")

    # -- starting and reloading ----------------------------------------------------------------------------------------

    async def _reload(self, wanted: Configuration) -> None:
        self._generation += 1
        home = self._directory / f"generation-{self._generation}"
        await asyncio.to_thread(_write, home, wanted)
        try:
            await self._check(home / "haproxy.cfg")
        except DataPlaneError:
            await asyncio.to_thread(shutil.rmtree, home, True)
            raise
        main = self._directory / "haproxy.cfg"
        before = await self._worker() if self._process is not None else 0
        with contextlib.suppress(FileNotFoundError):
            (self._directory / "next.cfg").unlink()
        (self._directory / "next.cfg").symlink_to(home / "haproxy.cfg")
        (self._directory / "next.cfg").rename(main)
        if self._process is None or self._process.returncode is not None:
            await self._start()
        else:
            await _ask(self._directory / "master.sock", "reload", "")
        await self._until_new_worker(before)
        for old in self._directory.glob("generation-*"):
            if old != home:
                await asyncio.to_thread(shutil.rmtree, old, True)

    async def _check(self, file: Path) -> None:
        checking = await asyncio.create_subprocess_exec(
            *(self._program, "-c", "-f", str(file)),  # with -q it says nothing of what is wrong, either
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stdin=asyncio.subprocess.DEVNULL,
        )
        _, said = await checking.communicate()
        if checking.returncode:
            text = said.decode(errors="replace")
            alerts = [_PLACE.sub("", line) for line in text.splitlines() if "ALERT" in line]
            raise Refused((alerts[0] if alerts else text)[:_LONGEST] or f"exit code {checking.returncode}")

    async def _start(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        for name in ("worker.sock", "master.sock"):
            (self._directory / name).unlink(missing_ok=True)
        arguments = ["-W", "-S", f"{self._directory}/master.sock,mode,600", "-f", f"{self._directory}/haproxy.cfg"]
        self._process = await asyncio.create_subprocess_exec(
            self._program, *arguments, stdin=asyncio.subprocess.DEVNULL
        )
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name="haproxy")

    async def _until_new_worker(self, before: int) -> None:
        deadline = self._clock() + _START
        while self._clock() < deadline:
            if self._process is not None and self._process.returncode is not None:
                raise DataPlaneError(f"HAProxy ended at once with exit code {self._process.returncode} (see its log)")
            worker = await self._worker()
            if worker not in (0, before):
                return
            await asyncio.sleep(0.002)
        raise DataPlaneError(f"HAProxy did not take the new configuration within {_START:.0f} s (see its log)")

    async def _worker(self) -> int:
        """The worker's process id; 0 if none answers."""
        try:
            answer = await self.ask("show info")
        except OSError:
            return 0
        found = re.search(r"^Pid: (\d+)", answer, re.MULTILINE)
        return int(found.group(1)) if found else 0

    async def _keep(self) -> None:
        """Start it again when it dies."""
        delay = _FIRST_RETRY
        while True:
            process = self._process
            assert process is not None
            began = self._clock()
            code = await process.wait()
            if self._stopping or process is not self._process:
                continue
            log.error("HAProxy ended with exit code %s; starting it again", code)
            delay = _FIRST_RETRY if self._clock() - began > 10 * _LAST_RETRY else min(delay * 2, _LAST_RETRY)
            await asyncio.sleep(delay)
            async with self._lock:
                current = self._current
                if current is None:
                    return
                try:
                    await self._reload(current)
                except DataPlaneError as error:
                    log.error("%s", error)


def _write(home: Path, configuration: Configuration) -> None:
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True, mode=0o700)
    for name, pem in (*configuration.certificates.items(), *configuration.authorities.items()):
        (home / name).write_text(pem)
    for name, entries in configuration.maps.items():
        (home / name).write_text(entries.render())
    for name, listed in configuration.lists.items():
        (home / name).write_text(render_list(listed))
    (home / "haproxy.cfg").write_text(f"global\n    default-path origin {home}\n\n{configuration.main}")


async def _ask(path: Path, command: str, payload: str) -> str:
    """Send a command, wait for the whole answer. Raises OSError."""
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 24)
    try:
        writer.write(f"{command} <<\n{payload}\n\n".encode() if payload else f"{command}\n".encode())
        async with asyncio.timeout(10):
            return (await reader.read()).decode(errors="replace")
    except TimeoutError:
        raise OSError(f"no answer to {command.split(maxsplit=1)[0]}") from None
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
