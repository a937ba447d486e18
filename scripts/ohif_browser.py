"""A headless Chromium that a script steers: opens a page, looks into it, clicks, takes a picture.

In: an address. Out: what JavaScript in the page gives, PNG files. Speaks the DevTools protocol by two pipes, so that no
port is open and no driver is needed. Starts with an empty profile and shares nothing with a browser that is in use.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import subprocess
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = Path("/usr/bin/chromium")
_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--hide-scrollbars",
    # WebGL without a graphics card: without it the viewer shows no image.
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)
_LINES = 200
_OUT_OF_THE_WAY = 20


class Browser:
    """One page of `size` (width, height) pixels; `console` has the last lines that it wrote."""

    def __init__(self, folder: Path, size: tuple[int, int]) -> None:
        self.console: deque[str] = deque(maxlen=_LINES)
        requests, self._out = os.pipe()
        self._in, answers = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, _OUT_OF_THE_WAY) for end in (requests, answers)]
        redirected = f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}'  # Chromium reads from 3 and writes to 4
        window = (f"--user-data-dir={folder / 'profile'}", f"--window-size={size[0]},{size[1]}")
        command = ["/bin/bash", "-c", redirected, "bash", str(CHROMIUM), *_FLAGS, *window]
        environment = os.environ | {"HOME": str(folder)}
        with (folder / "chromium.log").open("wb") as log:
            self._process = subprocess.Popen(command, pass_fds=ends, stdout=log, stderr=log, env=environment)
        for end in (requests, answers, *ends):
            os.close(end)
        self._left = b""
        self._asked = 0
        self._session = ""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Runtime.enable")
        self._call("Page.enable")
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **metrics)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._out)  # which ends it
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)

    def open(self, address: str) -> None:
        """Go there; returns before all is loaded."""
        self._call("Page.navigate", url=address)

    def ask(self, script: str) -> Any:
        """What an expression of JavaScript in the page gives."""
        found = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait_for(self, script: str, timeout_s: float = 60.0) -> Any:
        """Ask until the answer is true. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while not (answer := self.ask(script)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not so in the page after {timeout_s:.0f} s: {script}")
            time.sleep(0.2)
        return answer

    def click(self, x: float, y: float, times: int = 1) -> None:
        """Click at a place of the page, in pixels from its top left corner."""
        at: dict[str, Any] = {"x": x, "y": y, "button": "left"}
        self._call("Input.dispatchMouseEvent", type="mouseMoved", **at)
        for count in range(1, times + 1):
            self._call("Input.dispatchMouseEvent", type="mousePressed", clickCount=count, **at)
            self._call("Input.dispatchMouseEvent", type="mouseReleased", clickCount=count, **at)

    def scroll(self, x: float, y: float, steps: int) -> None:
        """Turn the wheel at a place of the page, down by so many notches."""
        for _ in range(steps):
            self._call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=100)
            time.sleep(0.1)

    def shoot(self, path: Path) -> None:
        """The page as it is now, as PNG."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._asked += 1
        message: dict[str, Any] = {"id": self._asked, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._asked:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                found: dict[str, Any] = answer["result"]
                return found
            if answer.get("method") == "Runtime.consoleAPICalled":
                parts = answer["params"]["args"]
                self.console.append(" ".join(str(one.get("value", one.get("description", ""))) for one in parts))

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            more = os.read(self._in, 1 << 16)
            if not more:
                raise RuntimeError("Chromium ended; see chromium.log")
            self._left += more
        one, self._left = self._left.split(b"\0", 1)
        found: dict[str, Any] = json.loads(one)
        return found
