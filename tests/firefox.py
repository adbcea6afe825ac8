"""Firefox over WebDriver BiDi, which it speaks by itself: no driver is needed, only ``firefox-esr`` or ``firefox``."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.browser_page import BrowserPage

NAMES = ("firefox-esr", "firefox")
START_SECONDS = 120.0
ANSWER_SECONDS = 120.0
LISTENING = re.compile(r"WebDriver BiDi listening on (ws://\S+)")


def find() -> Path | None:
    """The executable, or None where there is none."""
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/bin"])
    found = [shutil.which(name, path=places) for name in NAMES]
    return next((Path(path) for path in found if path), None)


@contextmanager
def firefox(executable: Path, profile: Path) -> Iterator[FirefoxPage]:
    """A page in a headless Firefox that draws in software, with a profile of its own."""
    profile.mkdir()
    log = profile.parent / "firefox.log"
    command: list[str | Path] = [
        executable,
        "--headless",
        "--no-remote",
        "--remote-debugging-port",
        "0",
        "--profile",
        profile,
    ]
    environment = {**os.environ, "HOME": str(profile), "MOZ_WEBRENDER": "1", "LIBGL_ALWAYS_SOFTWARE": "1"}
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process:
        try:
            with connect(f"{_address(log, process)}/session", max_size=None) as socket:
                yield FirefoxPage(socket)
        finally:
            process.terminate()


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if found := LISTENING.search(log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.1)
    raise AssertionError(f"Firefox did not start:\n{log.read_text(errors='replace')}")


class FirefoxPage(BrowserPage):
    """The one page of a Firefox. ``complaints`` are errors and warnings of its console."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.complaints: list[str] = []
        self.version: str = self._ask("session.new", capabilities={})["capabilities"]["browserVersion"]
        self._context = self._ask("browsingContext.getTree")["contexts"][0]["context"]
        self._ask("session.subscribe", events=["log.entryAdded"])

    def _ask(self, method: str, **params: Any) -> Any:
        id = next(self._ids)
        self._socket.send(json.dumps({"id": id, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv(timeout=ANSWER_SECONDS))
            if answer.get("method") == "log.entryAdded" and answer["params"]["level"] in ("error", "warn"):
                self.complaints.append(answer["params"]["text"])
            if answer.get("id") == id:
                assert answer["type"] == "success", answer
                return answer["result"]

    @property
    def url(self) -> str:
        """The page's address, with its fragment."""
        return str(self.evaluate("location.href"))

    def resize(self, width: int, height: int) -> None:
        """The size of the window's content, in CSS pixels."""
        self._ask("browsingContext.setViewport", context=self._context, viewport={"width": width, "height": height})

    def goto(self, url: str) -> None:
        """Open an address and wait until it has loaded."""
        self._ask("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def reload(self) -> None:
        """Load the page again."""
        self._ask("browsingContext.reload", context=self._context, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """The value of JavaScript, as far as JSON can hold it."""
        answer = self._ask(
            "script.evaluate",
            expression=f"(async () => JSON.stringify(await ({expression}) ?? null))()",
            target={"context": self._context},
            awaitPromise=True,
        )
        assert answer["type"] == "success", answer
        return json.loads(answer["result"]["value"])

    def choose_file(self, selector: str, file: Path) -> None:
        """Choose a file in an input."""
        found = self._ask(
            "browsingContext.locateNodes", context=self._context, locator={"type": "css", "value": selector}
        )
        element = {"sharedId": found["nodes"][0]["sharedId"]}
        self._ask("input.setFiles", context=self._context, element=element, files=[str(file)])

    def pull(self, *places: tuple[float, float]) -> None:
        """Press the mouse at the first place, in CSS pixels of the window, and release it at the last."""
        move = [{"type": "pointerMove", "x": round(x), "y": round(y)} for x, y in places]
        actions = [move[0], {"type": "pointerDown", "button": 0}, *move[1:], {"type": "pointerUp", "button": 0}]
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions}
        self._ask("input.performActions", context=self._context, actions=[mouse])

    def press(self, key: str) -> None:
        """Press and release a key."""
        actions = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        self._ask(
            "input.performActions", context=self._context, actions=[{"type": "key", "id": "keys", "actions": actions}]
        )

    def wheel(self, place: tuple[float, float], dy: int) -> None:
        """Turn the wheel at a place."""
        turn = {"type": "scroll", "x": round(place[0]), "y": round(place[1]), "deltaX": 0, "deltaY": dy}
        self._ask(
            "input.performActions", context=self._context, actions=[{"type": "wheel", "id": "w", "actions": [turn]}]
        )
