"""The Chromium of the browser tests: the one on ``PATH``, else Playwright's.

``python -m tests.chromium`` installs one where there is none.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

log = logging.getLogger(__name__)


def find() -> Path | None:
    """The executable to start, or None where there is none."""
    from playwright.sync_api import sync_playwright

    # Debian's package puts it into /usr/bin, which a test's bare PATH may lack.
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/bin"])
    for name in NAMES:
        if found := shutil.which(name, path=places):
            return Path(found)
    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
    return own if own.exists() else None


def install() -> None:
    """Install Debian's Chromium where root may, else Playwright's build of it, which needs no rights."""
    if os.geteuid() == 0 and (apt := shutil.which("apt-get")):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run([apt, "update", "-q"], env=environment, check=False)
        command = [apt, "install", "-qy", "--no-install-recommends", "chromium"]
        if subprocess.run(command, env=environment, check=False).returncode == 0:
            return
        log.warning("apt-get found no chromium to install; trying Playwright's build")
    subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if find() is None:
        log.info("no Chromium here yet: installing one")
        install()
    found = find()
    if found is None:
        raise SystemExit(f"no Chromium, and none could be installed: put one of {', '.join(NAMES)} on PATH")
    log.info("browser tests use %s", found)
