"""Chromium without a screen, driven over its DevTools protocol.

Own, and small: Debian's chromedriver (for selenium) comes with the whole browser, and playwright brings one of its own;
chromium-headless-shell alone speaks DevTools, and aiohttp speaks WebSocket.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

DEADLINE = 60.0
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --remote-debugging-port=0"
)


class Browser:
    """One page. Everything waits at most `DEADLINE` seconds."""

    def __init__(self, width: int = 1280, height: int = 900) -> None:
        program = shutil.which("chromium-headless-shell")
        if program is None:
            raise FileNotFoundError("chromium-headless-shell is not there; tools/setup installs it")
        self._folder = tempfile.mkdtemp(prefix="fl-browser-")
        self._process = subprocess.Popen(
            [
                program,
                *_FLAGS.split(),
                f"--user-data-dir={self._folder}",
                f"--window-size={width},{height}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.said: list[str] = []  # errors the page reported
        self.dropped = False
        self._number = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=5))
        try:
            async with asyncio.timeout(DEADLINE):
                await self._connect()
        except BaseException:
            await self._end()
            raise
        return self

    async def _connect(self) -> None:
        file = Path(self._folder) / "DevToolsActivePort"
        while not (lines := file.read_text().splitlines() if file.exists() else []):
            assert self._process.poll() is None, "the browser ended"
            await asyncio.sleep(0.05)
        pages: list[str] = []
        while not pages:
            async with self._session.get(f"http://127.0.0.1:{lines[0]}/json/list") as answer:
                pages = [each["webSocketDebuggerUrl"] for each in await answer.json() if each["type"] == "page"]
            await asyncio.sleep(0.05)
        self._socket = await self._session.ws_connect(pages[0], max_msg_size=0)
        self._reader = asyncio.create_task(self._read())
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.cancel()
        await self._end()

    async def _end(self) -> None:
        await self._session.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # a browser is several processes
        await asyncio.to_thread(self._process.wait)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _read(self) -> None:
        async for message in self._socket:
            told = message.json()
            if waiter := self._waiting.pop(told.get("id", -1), None):
                waiter.set_result(told)
            elif told.get("method") == "Runtime.exceptionThrown":
                self.said.append(str(told["params"]["exceptionDetails"]))
            elif told.get("method") == "Log.entryAdded" and told["params"]["entry"]["level"] == "error":
                if "ERR_NETWORK_CHANGED" in (said := str(told["params"]["entry"])):
                    self.dropped = True
                else:
                    self.said.append(said)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command. Raises AssertionError with the browser's words."""
        self._number += 1
        number = self._number
        self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        answer = await asyncio.wait_for(self._waiting[number], DEADLINE)
        assert "error" not in answer, answer["error"]
        result: dict[str, Any] = answer["result"]
        return result

    async def open(self, url: str) -> None:
        """Go there; again, if a network link that came or went on this machine made the browser drop what it loaded."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            self.dropped = False
            await self.call("Page.navigate", url=url)
            await self.until("document.readyState === 'complete'")
            if not self.dropped:
                return

    async def value(self, expression: str) -> Any:
        """What an expression of the page's script gives."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Wait until an expression is true; its value."""
        end = time.monotonic() + DEADLINE
        last: object = None
        while time.monotonic() < end:
            with contextlib.suppress(AssertionError):
                last = await self.value(expression)
                if last:
                    return last
            await asyncio.sleep(0.05)
        text = await self.value("document.body.innerText")
        raise AssertionError(f"{expression}: not within {DEADLINE:.0f} s ({last}); {self.said}; the page: {text}")

    async def press(self, *keys: str) -> None:
        """Keys by their names: Tab, Enter, ArrowDown, or a character."""
        codes = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowDown": 40, "ArrowUp": 38, "ArrowRight": 39, "ArrowLeft": 37}
        for key in keys:
            text = "\r" if key == "Enter" else key if len(key) == 1 else ""
            code = codes.get(key, ord(key[0].upper()))
            common = {"key": key, "windowsVirtualKeyCode": code, **({"text": text} if text else {})}
            await self.call("Input.dispatchKeyEvent", type="keyDown", **common)
            await self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    async def resize(self, width: int, height: int, *, mobile: bool = False) -> None:
        """Another window."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile
        )

    async def color_scheme(self, scheme: str) -> None:
        """`light` or `dark`."""
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def screenshot(self, path: Path) -> None:
        """A PNG of the window."""
        picture = await self.call("Page.captureScreenshot", format="png")
        await asyncio.to_thread(path.write_bytes, base64.b64decode(picture["data"]))
