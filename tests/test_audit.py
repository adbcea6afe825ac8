"""What `make check` says of known vulnerabilities."""

from __future__ import annotations

from tests.audit import report

SOUND = {"name": "a", "version": "1", "vulns": []}
SKIPPED = {"name": "b", "version": "1", "skip_reason": "not found"}
HOLED = {"name": "c", "version": "1", "vulns": [{"id": "CVE-2025-62727", "fix_versions": ["2"]}]}


def test_nothing_audited_is_said_and_no_failure() -> None:
    assert report([]) == report([SKIPPED]) == ("NOT audited: pip-audit does not reach its database here", 0)


def test_what_was_audited_is_counted() -> None:
    assert report([SOUND, SKIPPED]) == ("1 of 2 packages audited, 0 known vulnerabilities", 0)


def test_a_known_vulnerability_fails() -> None:
    text, code = report([SOUND, HOLED])
    assert code == 1
    assert "c 1: CVE-2025-62727, fixed in 2" in text
