"""20,000 damaged archives: each is refused by name, or is still the room."""

from __future__ import annotations

from pathlib import Path

import pytest

from livedrag.server.storage import Store
from tests.server.storage.test_archive import exported, fuzz_imports, make


@pytest.mark.long
def test_damaged_zips_are_refused_whatever_was_changed_in_them(tmp_path: Path) -> None:
    with Store(tmp_path / "here") as here:
        make(here)
        whole = exported(here).getvalue()
    with Store(tmp_path / "there") as there:
        fuzz_imports(there, whole, 20_000)
