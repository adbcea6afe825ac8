"""Opens models in a process of their own, while the device's thread goes on with its rooms.

Libraries that open models change the whole process while they do so: torch's default dtype, and how modules register
their weights. That would damage the steps of other rooms. The networks come back in a file of ours, which is mapped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from livedrag.editor import Diffusion, EditorError, ModelError
from livedrag.editor.model_options import WantedModel
from livedrag.editor.models.devices import best_dtype, pick_device
from livedrag.editor.models.loading import Opening, load_parts
from livedrag.editor.models.references import find_tiny


def open_apart(wanted: WantedModel, device: str | None, note: Callable[[int, int], None]) -> Diffusion:
    """Open a model, without its LoRAs, on a device.

    Args:
        note: called with the number of networks that are open, and of all.

    Raises:
        ModelError: it can't be used, or there is no space for it.
    """
    source, chosen = wanted.source(), pick_device(device)
    dtype = best_dtype(chosen, wide_range=source.needs_wide_range)
    with tempfile.TemporaryDirectory(prefix="livedrag-model-") as folder:
        file = Path(folder) / "parts"
        request = {
            "reference": wanted.reference,
            "config": _text(wanted.config),
            "vae": _text(wanted.vae),
            "tiny": wanted.tiny,
            "dtype": str(dtype).removeprefix("torch."),
            "file": str(file),
        }
        problem = _run(request, note)
        if problem:
            raise ModelError(problem)
        # Our own file: it was written a moment ago by the process above.
        parts = torch.load(file, map_location="cpu", mmap=True, weights_only=False)
        return Diffusion.from_parts(source, parts, chosen, dtype)


def _run(request: dict[str, Any], note: Callable[[int, int], None]) -> str:
    """Have the process open a model; returns why it could not, or nothing."""
    command = [sys.executable, "-m", "livedrag.server.device.worker.model_opener"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()  # it stays open: the process ends when this one does
        for line in process.stdout:
            answer = json.loads(line)
            if "problem" in answer:
                return str(answer["problem"])
            if "done" in answer:
                return ""
            note(*answer["opened"])
        code = process.wait()
    return f"the model can't be opened: its process ended with exit code {code}, perhaps because memory was full"


def main() -> None:
    """Open the model that the first line of the standard input names, and write its networks to a file."""
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries may print

    def answer(**fields: Any) -> None:
        answers.write(json.dumps(fields) + "\n")
        answers.flush()

    try:
        paths = {name: Path(request[name]) if request[name] else None for name in ("config", "vae")}
        wanted = WantedModel(request["reference"], paths["config"], paths["vae"], (), request["tiny"])
        source = wanted.source()
        opening = Opening(getattr(torch, request["dtype"]), lambda opened, every: answer(opened=[opened, every]))
        parts = load_parts(source, opening, source.tiny if wanted.tiny is None else find_tiny(wanted.tiny))
        torch.save(parts, request["file"])
    except EditorError as error:
        answer(problem=str(error))
    except (OSError, RuntimeError, MemoryError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        answer(problem=f"the model can't be opened: {lines[0]}")
    else:
        answer(done=True)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def _text(path: Path | None) -> str:
    return "" if path is None else str(path)


if __name__ == "__main__":
    main()
