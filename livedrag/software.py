"""The name and version under which livedrag signs what it makes."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def software() -> str:
    """Such as ``livedrag 0.2.0``."""
    try:
        return f"livedrag {version('livedrag')}"
    except PackageNotFoundError:
        return "livedrag 0+source"
