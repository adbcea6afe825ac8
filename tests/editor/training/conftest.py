"""Pictures that the tests of training share."""

from __future__ import annotations

import numpy as np
import pytest

from livedrag.editor.training.pictures import Collection, Emoji


@pytest.fixture(scope="module")
def shapes() -> Collection:
    """Four discs with stripes: enough detail to be found again."""
    rows, columns = np.mgrid[:256, :256]
    pictures = []
    for index in range(4):
        solid = np.hypot(rows - 128, columns - 128) < 90 + 5 * index
        waves = 127 * (1 + np.sin(columns / (7 + index) + rows / 31) * np.cos(rows / (9 + index)))
        colours = [np.roll(waves, 40 * channel, axis=0) for channel in range(3)]
        pictures.append(np.stack([*colours, solid * 255]).astype(np.uint8))
    emojis = [Emoji(str(index), f"striped disc {index}", 1.0, False) for index in range(4)]
    return Collection(emojis, np.stack(pictures))
