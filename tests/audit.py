"""Known vulnerabilities of the pinned packages, as far as pip-audit reaches its database.

``python -m tests.audit`` exits with 1 if there are any. Where nothing can be looked up it says so, and exits with 0.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from tests.conftest import ROOT

COMMAND = ("-m", "pip_audit", "--requirement", "constraints.txt", "--no-deps", "--disable-pip", "--format", "json")
SECONDS = 120


def report(dependencies: Sequence[dict[str, Any]]) -> tuple[str, int]:
    """What was found, and the exit code."""
    audited = [dependency for dependency in dependencies if "skip_reason" not in dependency]
    found = [
        f"{dependency['name']} {dependency['version']}: {vulnerability['id']}, "
        f"fixed in {', '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for dependency in audited
        for vulnerability in dependency["vulns"]
    ]
    if not audited:
        return "NOT audited: pip-audit does not reach its database here", 0
    summary = f"{len(audited)} of {len(dependencies)} packages audited, {len(found)} known vulnerabilities"
    return "\n".join([*found, summary]), 1 if found else 0


def main() -> int:
    """Audit the packages; returns the exit code."""
    try:
        done = subprocess.run(
            [sys.executable, *COMMAND], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        dependencies = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError):
        dependencies = []
    text, code = report(dependencies)
    sys.stdout.write(f"{text}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
