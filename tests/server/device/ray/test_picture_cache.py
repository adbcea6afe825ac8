"""Uploaded pictures on a worker's machine."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from livedrag.server.device.ray.picture_cache import PictureCache


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_picture_is_found_by_its_digest_until_it_is_damaged(tmp_path: Path) -> None:
    cache = PictureCache(tmp_path)
    assert cache.find(digest(b"one")) is None
    path = cache.add(digest(b"one"), b"one")
    assert cache.find(digest(b"one")) == path
    path.write_bytes(b"two")
    assert cache.find(digest(b"one")) is None, "it is asked for again"


def test_pictures_unused_for_longest_make_room(tmp_path: Path) -> None:
    cache = PictureCache(tmp_path, max_bytes=25)
    pictures = [bytes([number]) * 10 for number in range(3)]
    for age, data in enumerate(pictures[:2]):
        os.utime(cache.add(digest(data), data), (age, age))
    assert cache.find(digest(pictures[0])) is not None  # which makes it the one that was used last
    cache.add(digest(pictures[2]), pictures[2])
    assert [cache.find(digest(data)) is not None for data in pictures] == [True, False, True]


def test_a_name_that_is_no_digest_stays_in_the_folder(tmp_path: Path) -> None:
    assert PictureCache(tmp_path).path("../../etc/passwd").parent == tmp_path


def test_only_this_user_reads_the_machine_s_cache(tmp_path: Path, monkeypatch: object) -> None:
    cache = PictureCache.of_this_machine()
    assert cache.path("0" * 64).parent.stat().st_mode & 0o077 == 0
