"""Uploads that cost more than they weigh: many large pictures at once, and damaged ones of every kind."""

from __future__ import annotations

import io
import json
import random
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from PIL import Image

from livedrag.server.client import RequestFailed, create_room
from tests.conftest import find_free_port
from tests.server.images.test_uploads import damage
from tests.traffic import serving_traffic

MIB = 2**20
PEAK = 700 * MIB
"""Resident memory of the web process, whatever is uploaded at once."""
REMAINING = 350 * MIB
"""What of it may stay afterwards."""
LAST_UPLOAD = 60.0
"""Seconds in which uploads end that are still being decoded for clients that have given up."""


def large(format: str, mode: str, color: object) -> bytes:
    """A picture of 25 megapixels in a small file."""
    buffer = io.BytesIO()
    Image.new(mode, (5000, 5000), color).save(buffer, format)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.long
@pytest.mark.parametrize(
    ("format", "mode", "color"),
    [("PNG", "RGB", "teal"), ("PNG", "RGBA", (0, 128, 128, 128)), ("WEBP", "RGBA", (0, 128, 128, 128))],
)
def test_a_hundred_large_uploads_at_once_take_bounded_memory(
    tmp_path: Path, format: str, mode: str, color: object
) -> None:
    port, data, peak = find_free_port(), large(format, mode, color), 0
    address, outcomes = f"http://127.0.0.1:{port}", []

    with serving_traffic(tmp_path / "data", port) as process:
        memory = psutil.Process(process.pid)
        done = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.05):
                peak = max(peak, memory.memory_info().rss)

        def upload(_: int) -> str:
            try:
                create_room(address, data)
            except RequestFailed as error:
                return f"{error.status} {error.reason}"
            except TimeoutError:  # on a slow machine; the server must not go on for those who have left
                return "left"
            return "created"

        watcher = threading.Thread(target=watch)
        watcher.start()
        with ThreadPoolExecutor(100) as people:
            outcomes = list(people.map(upload, range(100)))
        done.set()
        watcher.join()
        until = time.monotonic() + LAST_UPLOAD
        while (remaining := memory.memory_info().rss) >= REMAINING and time.monotonic() < until:
            time.sleep(0.5)
        assert json.loads(urllib.request.urlopen(f"{address}/healthz").read())["status"] == "ok"
    assert peak < PEAK, peak
    assert remaining < REMAINING, (peak, remaining)
    assert set(outcomes) <= {"created", "503 busy", "left"}
    assert outcomes.count("created") > 2


@pytest.mark.long
def test_twenty_thousand_damaged_files_are_refused_by_name() -> None:
    damage(20_000, seed=random.randrange(2**32))
