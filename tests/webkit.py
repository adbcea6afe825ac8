"""WebKitGTK over WebDriver: ``apt-get install webkit2gtk-driver xvfb``. Without a headless mode, it needs Xvfb."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.browser_page import BrowserPage
from tests.conftest import find_free_port

START_SECONDS = 60.0
ANSWER_SECONDS = 120.0
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key of an element's id in WebDriver's answers."""
BROWSERS = ("/usr/lib/*/webkit2gtk-4.1/MiniBrowser", "/usr/libexec/webkit2gtk-4.1/MiniBrowser")


def find() -> Path | None:
    """The browser, or None where it, its driver or Xvfb is missing."""
    if shutil.which("WebKitWebDriver") is None or shutil.which("Xvfb") is None:
        return None
    found = [path for pattern in BROWSERS for path in Path("/").glob(pattern.lstrip("/"))]
    return next(iter(found), None)


@contextmanager
def webkit(browser: Path, folder: Path) -> Iterator[WebKitPage]:
    """A page in a browser of its own, which draws in software; ``folder`` becomes its home."""
    folder.mkdir()
    port = find_free_port()
    with subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "1400x1000x24"], stdout=subprocess.PIPE
    ) as screen:
        assert screen.stdout is not None
        try:
            environment = {
                **os.environ,
                "HOME": str(folder),
                "DISPLAY": f":{screen.stdout.readline().decode().strip()}",
                "GDK_BACKEND": "x11",
                "LIBGL_ALWAYS_SOFTWARE": "1",
                "WEBKIT_DISABLE_DMABUF_RENDERER": "1",
            }
            with subprocess.Popen(["WebKitWebDriver", f"--port={port}"], env=environment) as driver:
                try:
                    page = WebKitPage(f"http://127.0.0.1:{port}", browser)
                    yield page
                    page.close()
                finally:
                    driver.terminate()
        finally:
            screen.terminate()


class WebKitPage(BrowserPage):
    """The one page of a WebKitGTK, to be used like `tests.firefox.FirefoxPage`; its console cannot be read."""

    def __init__(self, driver: str, browser: Path) -> None:
        options = {"binary": str(browser), "args": ["--automation"]}
        wanted = {"capabilities": {"alwaysMatch": {"webkitgtk:browserOptions": options}}}
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                session = _ask("POST", f"{driver}/session", wanted)
                break
            except urllib.error.URLError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        self._address = f"{driver}/session/{session['sessionId']}"
        self.complaints: list[str] = []

    def close(self) -> None:
        """End the browser."""
        _ask("DELETE", self._address)

    def _post(self, path: str, **body: Any) -> Any:
        return _ask("POST", f"{self._address}/{path}", body)

    @property
    def url(self) -> str:
        """The page's address, with its fragment."""
        return str(self.evaluate("location.href"))

    def resize(self, width: int, height: int) -> None:
        """The size of the window, in CSS pixels."""
        self._post("window/rect", width=width, height=height)

    def goto(self, url: str) -> None:
        """Open an address and wait until it has loaded."""
        self._post("url", url=url)

    def reload(self) -> None:
        """Load the page again."""
        self._post("refresh")

    def evaluate(self, expression: str) -> Any:
        """The value of JavaScript, as far as JSON can hold it."""
        script = f"return (async () => JSON.stringify(await ({expression}) ?? null))()"
        return json.loads(self._post("execute/sync", script=script, args=[]))

    def choose_file(self, selector: str, file: Path) -> None:
        """Choose a file in an input."""
        element = self._post("element", using="css selector", value=selector)[ELEMENT]
        self._post(f"element/{element}/value", text=str(file))

    def pull(self, *places: tuple[float, float]) -> None:
        """Press the mouse at the first place, in CSS pixels of the window, and release it at the last."""
        move = [{"type": "pointerMove", "x": round(x), "y": round(y), "duration": 50} for x, y in places]
        actions = [move[0], {"type": "pointerDown", "button": 0}, *move[1:], {"type": "pointerUp", "button": 0}]
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions}
        self._post("actions", actions=[mouse])

    def press(self, key: str) -> None:
        """Press and release a key."""
        actions = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        self._post("actions", actions=[{"type": "key", "id": "keys", "actions": actions}])

    def wheel(self, place: tuple[float, float], dy: int) -> None:
        """Turn the wheel at a place."""
        turn = {"type": "scroll", "x": round(place[0]), "y": round(place[1]), "deltaX": 0, "deltaY": dy, "duration": 0}
        self._post("actions", actions=[{"type": "wheel", "id": "w", "actions": [turn]}])


def _ask(method: str, url: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            return json.loads(answer.read())["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{method} {url}: {error.read().decode(errors='replace')}") from error
