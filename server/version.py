"""The version of livedrag that is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed


def version() -> str:
    """Such as ``0.2.0``; ``0+source`` where the package is not installed."""
    try:
        return installed("livedrag")
    except PackageNotFoundError:
        return "0+source"
