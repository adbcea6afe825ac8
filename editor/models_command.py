"""``livedrag models list``: the models in a folder, without opening them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from livedrag.editor.errors import EditorError, ModelError
from livedrag.editor.models.catalog import Entry, scan

ENVIRONMENT = "LIVEDRAG_MODELS"
"""Environment variable with the folder, if ``--models`` is not given."""
NEEDS_VAE = "has no autoencoder (VAE) inside: use it with --vae"


def main(arguments: Sequence[str]) -> int:
    """Run ``livedrag models list``.

    Args:
        arguments: of the command line, without the program's name.

    Returns:
        Exit status: 0 for success, 2 for bad input, explained on standard error.
    """
    options = _parser().parse_args(arguments)
    try:
        entries = scan(_folder(options.models))
    except (EditorError, OSError) as error:
        sys.stderr.write(f"livedrag models: {error}\n")
        return 2
    sys.stdout.write(json.dumps([_as_json(entry) for entry in entries]) + "\n" if options.json else _table(entries))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="livedrag", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True).add_parser("models").add_subparsers(required=True)
    listing = commands.add_parser(
        "list", description="List the models in a folder: what they are, and why some can't be used."
    )
    listing.add_argument(
        "--models",
        type=Path,
        metavar="DIR",
        help=f"ComfyUI's or A1111's models folder, or any other (default: {ENVIRONMENT} in the environment)",
    )
    listing.add_argument("--json", action="store_true", help="print a JSON list")
    return parser


def _folder(given: Path | None) -> Path:
    folder = given or models_folder()
    if folder is None:
        raise ModelError(f"name the folder of your models with --models DIR, or with {ENVIRONMENT} in the environment")
    return folder.expanduser()


def models_folder() -> Path | None:
    """The folder of the user's models, as the environment names it."""
    return Path(os.environ[ENVIRONMENT]).expanduser() if os.environ.get(ENVIRONMENT) else None


def _as_json(entry: Entry) -> dict[str, object]:
    return {
        "name": entry.name,
        "path": str(entry.path),
        "kind": entry.kind,
        "architecture": entry.architecture,
        "bytes": entry.nbytes,
        "usable": not entry.problem,
        "problem": entry.problem,
        "needs_vae": entry.needs_vae,
    }


def _table(entries: Sequence[Entry]) -> str:
    if not entries:
        return "no models found\n"
    rows = [(entry.name, f"{entry.architecture} {entry.kind}".strip(), _size(entry.nbytes)) for entry in entries]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = []
    for entry, (name, kind, size) in zip(entries, rows, strict=True):
        line = f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {size:>{widths[2]}}"
        lines.append(f"{line}  {entry.problem or (NEEDS_VAE if entry.needs_vae else '')}".rstrip())
    return "\n".join(lines) + "\n"


def _size(nbytes: int) -> str:
    if nbytes >= 10**9:
        return f"{nbytes / 10**9:.1f} GB"
    return f"{nbytes / 10**6:.0f} MB" if nbytes >= 10**6 else f"{nbytes / 10**3:.0f} kB"
