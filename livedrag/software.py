"""The name and version under which livedrag signs what it makes."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed


def version() -> str:
    """Such as ``0.2.0``; ``0+source`` where the package is not installed."""
    try:
        return installed("livedrag")
    except PackageNotFoundError:
        return "0+source"


def software() -> str:
    """Such as ``livedrag 0.2.0``."""
    return f"livedrag {version()}"
