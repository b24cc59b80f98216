"""A real browser without a window, told what to do over the WebDriver protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def may_be_missing() -> bool:
    """Say whether a browser may be missing here: `.ci/run` installs it, which only root may."""
    return os.geteuid() != 0


class Browser:
    """One tab."""

    def __init__(self, session: str) -> None:
        self._session = session

    def open(self, page: Path) -> None:
        self._post("url", {"url": page.as_uri()})

    def ask(self, script: str) -> Any:
        """Return what a JavaScript function's body returns; the page's own policy does not reach it."""
        return self._post("execute/sync", {"script": script, "args": []})

    def look(self, width: int, scheme: str = "light") -> None:
        """Look at the page as a screen of this width does, in `light` or `dark`."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self._devtools("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._devtools("Emulation.setEmulatedMedia", {"features": features})

    def complaints(self) -> list[str]:
        """Return what the browser wrote to its console."""
        return [entry["message"] for entry in self._post("se/log", {"type": "browser"})]

    def picture(self, height: int) -> bytes:
        """Return the top of the page as a PNG."""
        width = self.ask("return innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self._devtools("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
        return base64.b64decode(shot["data"])

    def _devtools(self, command: str, params: dict[str, Any]) -> Any:
        return self._post("goog/cdp/execute", {"cmd": command, "params": params})

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return _post(f"{self._session}/{path}", body)


def _post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["value"]


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Start a browser with a profile of its own, and end it."""
    assert BROWSER, "there is no `chromium` here: `.ci/run` installs it"
    assert DRIVER, "there is no `chromedriver` here: `.ci/run` installs it"
    with tempfile.TemporaryDirectory(prefix="labsync-browser-") as profile:
        driver = subprocess.Popen(
            [DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True, env={**os.environ, "HOME": profile}
        )
        try:
            assert driver.stdout
            port = next(
                m[1] for line in driver.stdout if (m := re.search(r"successfully on port (\d+)", line))
            )
            options = {"binary": BROWSER, "args": [*FLAGS, f"--user-data-dir={profile}/profile"]}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            root = f"http://127.0.0.1:{port}/session"
            made = _post(root, {"capabilities": {"alwaysMatch": wanted}})
            session = f"{root}/{made['sessionId']}"
            yield Browser(session)
            urllib.request.urlopen(urllib.request.Request(session, method="DELETE"), timeout=60).close()
        finally:
            driver.terminate()
            driver.wait(30)
            assert driver.stdout
            driver.stdout.close()
