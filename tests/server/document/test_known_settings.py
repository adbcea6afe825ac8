"""The table of settings for use without a model equals what the editor and the worker say.

`python -m tests.server.document.test_known_settings` writes it.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

from livedrag.editor.settings import LIVE_SETTINGS, PRESETS, DragSettings
from livedrag.server.device.job import OWN_LIVE, OWN_RANGES, OWN_SETTINGS
from livedrag.server.document import known_settings
from livedrag.server.document.known_settings import KNOWN_SETTINGS
from livedrag.server.document.protocol import ModelInfo

HEADER = '''"""The settings that every model has, for use without a model, such as when importing a room.

Generated from the editor's settings by ``python -m tests.server.document.test_known_settings``: do not edit.
"""

from __future__ import annotations

from livedrag.server.document.protocol import ModelInfo

KNOWN_SETTINGS = '''


def from_the_editor() -> ModelInfo:
    fields = dataclasses.fields(DragSettings)
    ranges = {f.name: (float(f.metadata["low"]), float(f.metadata["high"])) for f in fields if "low" in f.metadata}
    return ModelInfo(
        name="",
        kind="",
        settings={**DragSettings().as_dict(), **OWN_SETTINGS},
        presets=list(PRESETS),
        live=tuple(sorted({*LIVE_SETTINGS, *OWN_LIVE})),
        ranges={**ranges, **{name: (float(low), float(high)) for name, (low, high) in OWN_RANGES.items()}},
        words={f.name: f.metadata["words"] for f in fields if "words" in f.metadata},
    )


def test_the_table_equals_the_editors_settings() -> None:
    assert from_the_editor() == KNOWN_SETTINGS, "run `python -m tests.server.document.test_known_settings`"


if __name__ == "__main__":
    path = Path(known_settings.__file__)
    path.write_text(HEADER + repr(from_the_editor()) + "\n", encoding="utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", path], check=True)
