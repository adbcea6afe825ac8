"""What the pages of browsers have in common that are driven in other ways than Chromium's."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any


class BrowserPage(ABC):
    """A page in a browser."""

    @abstractmethod
    def evaluate(self, expression: str) -> Any:
        """The value of JavaScript, as far as JSON can hold it."""

    def wait_for(self, expression: str, seconds: float = 90.0) -> Any:
        """Wait until JavaScript gives something truthy, and return it."""
        deadline = time.monotonic() + seconds
        while not (found := self.evaluate(expression)):
            assert time.monotonic() < deadline, expression
            time.sleep(0.1)
        return found
