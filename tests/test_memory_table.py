"""README's table of what fits into a GPU's memory agrees with the estimator."""

from __future__ import annotations

from pathlib import Path

from tests.memory_table import CARDS, CASES, table

README = Path(__file__).resolve().parent.parent / "README.md"


def test_the_table_in_the_readme_is_what_is_calculated() -> None:
    calculated = table()
    assert len(calculated) == 2 + len(CASES)
    assert all(row.count("|") == 5 + len(CARDS) for row in calculated)
    assert "\n".join(calculated) in README.read_text(), "python -m tests.memory_table prints it anew"
