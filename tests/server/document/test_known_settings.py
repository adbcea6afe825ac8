"""The table of settings for use without a model equals what the editor and the worker say.

`python -m tests.server.document.test_known_settings` writes it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from livedrag.server.device.worker.room_settings import describe
from livedrag.server.document import known_settings
from livedrag.server.document.known_settings import KNOWN_SETTINGS

HEADER = '''"""The settings that every model has, for use without a model, such as when importing a room.

Generated from the editor's settings by ``python -m tests.server.document.test_known_settings``: do not edit.
"""

from __future__ import annotations

from livedrag.server.document.protocol import ModelInfo

KNOWN_SETTINGS = '''


def test_the_table_equals_the_editors_settings() -> None:
    assert describe("", "", {}) == KNOWN_SETTINGS, "run `python -m tests.server.document.test_known_settings`"


if __name__ == "__main__":
    path = Path(known_settings.__file__)
    path.write_text(HEADER + repr(describe("", "", {})) + "\n", encoding="utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", path], check=True)
