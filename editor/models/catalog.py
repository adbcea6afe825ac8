"""The models in a folder: of ComfyUI, of A1111's web UI, or any other. Only headers and configurations are read.

ComfyUI has ``checkpoints``, ``diffusers``, ``loras``, ``vae`` and ``vae_approx``, A1111 ``Stable-diffusion``, ``Lora``,
``VAE`` and ``VAE-approx``, both below ``models``; what a file is, its header says, not the folder that it lies in.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from livedrag.editor.errors import ModelError
from livedrag.editor.models.files import WEIGHT_STEMS, find_weights, read_json
from livedrag.editor.models.headers import PICKLES, how_to_convert, read_header
from livedrag.editor.models.kinds import NAMES, classify

FOLDERS = (
    "checkpoints",
    "diffusers",
    "loras",
    "vae",
    "vae_approx",
    "stable-diffusion",
    "lora",
    "vae-approx",
)
"""Names, in small letters, of the folders of ComfyUI and of A1111 that are read."""
_CONFIGURED = {"AutoencoderKL": "vae", "AutoencoderTiny": "tiny autoencoder"}
_PIPELINES = {"StableDiffusionPipeline": "Stable Diffusion 1.x or 2.x", "StableDiffusionXLPipeline": NAMES["xl"]}


@dataclass(frozen=True)
class Entry:
    """A file or diffusers folder.

    Args:
        name: its path below the catalog's folder, with slashes and its ending.
        path: of it.
        kind: ``checkpoint``, ``diffusers folder``, ``lora``, ``vae``, ``tiny autoencoder``, ``pickle`` or ``other``.
        architecture: that it is, or is for, such as ``Stable Diffusion XL``; empty if it doesn't say.
        nbytes: of its weights.
        problem: why it can't be used; empty if it can.
        needs_vae: it is a checkpoint without an autoencoder, and can be used with another one.
    """

    name: str
    path: Path
    kind: str
    architecture: str = ""
    nbytes: int = 0
    problem: str = ""
    needs_vae: bool = False

    @property
    def names(self) -> set[str]:
        """What people may call it: its name, or the end of it, with or without the ending."""
        parts = self.name.split("/")
        ends = {"/".join(parts[start:]) for start in range(len(parts))}
        return ends if self.path.is_dir() else ends | {end.removesuffix(self.path.suffix) for end in ends}


OPENED_AS = {
    "--model": ("checkpoint", "diffusers folder"),
    "--lora": ("lora",),
    "--vae": ("vae",),
    "--tiny": ("tiny autoencoder",),
}
"""The kinds that an option takes."""


def scan(folder: Path) -> list[Entry]:
    """All models in a folder, by name. Raises `ModelError` if there is no such folder."""
    if not folder.is_dir():
        raise ModelError(f"the models folder {str(folder)!r} does not exist: name ComfyUI's or A1111's models folder")
    return sorted((_entry(path, folder) for path in _walk(folder)), key=lambda entry: entry.name.lower())


def find(folder: Path, name: str, option: str) -> Path:
    """The file or diffusers folder that an option's value means.

    Args:
        folder: of the models.
        name: what the user wrote, such as ``dreamshaper_8`` or ``sdxl/juggernaut.safetensors``.
        option: one of `OPENED_AS`.

    Raises:
        ModelError: there is none of this name, or several, or it can't be used.
    """
    entries = scan(folder)
    found = [entry for entry in entries if name in entry.names]
    fitting = [entry for entry in found if entry.kind in OPENED_AS[option]] or found
    if len(fitting) > 1:
        places = " and ".join(repr(entry.name) for entry in fitting)
        raise ModelError(f"{option} {name!r} may be {places}: write more of the path")
    if not fitting:
        candidates = [entry.name for entry in entries if entry.kind in OPENED_AS[option] and not entry.problem]
        raise ModelError(f"there is no {name!r} in {str(folder)!r}{_suggestion(name, candidates)}")
    [entry] = fitting
    if entry.problem:
        raise ModelError(f"{entry.path} can't be used: {entry.problem}")
    return entry.path


def _suggestion(name: str, candidates: Sequence[str]) -> str:
    by_stem = {Path(candidate).stem: candidate for candidate in candidates}
    near = [by_stem[stem] for stem in difflib.get_close_matches(Path(name).stem, by_stem, n=3)] or list(candidates[:3])
    return f": there is {', '.join(map(repr, near))}" if near else ", and nothing else that could be used for it"


def _walk(folder: Path) -> Iterator[Path]:
    """Files with weights, and folders that are models; links are followed, but no folder twice."""
    top = folder / "models" if (folder / "models").is_dir() else folder
    known = [below for below in sorted(top.iterdir()) if below.name.lower() in FOLDERS and below.is_dir()]
    seen: set[str] = set()
    for start in known or [top]:
        for place, folders, files in os.walk(start, followlinks=True):
            real = os.path.realpath(place)
            if real in seen or (place != str(start) and _is_model(Path(place), files)):
                folders.clear()
                if real not in seen:
                    yield Path(place)
                seen.add(real)
                continue
            seen.add(real)
            folders.sort()
            yield from (Path(place, file) for file in files if _has_weights(file))


def _is_model(folder: Path, files: Sequence[str]) -> bool:
    return "model_index.json" in files or ("config.json" in files and _class_name(folder) in _CONFIGURED)


def _has_weights(file: str) -> bool:
    return file.lower().endswith((".safetensors", ".sft", *PICKLES)) and not file.startswith(".")


def _class_name(folder: Path) -> str:
    try:
        return str(read_json(folder / "config.json").get("_class_name"))
    except ModelError:
        return ""


def _entry(path: Path, folder: Path) -> Entry:
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return _folder_entry(name, path)
    try:
        nbytes = path.stat().st_size
        if path.suffix.lower() in PICKLES:
            problem = f"not opened: {how_to_convert(path)}"
            return Entry(name, path, "pickle", nbytes=nbytes, problem=problem)
        kind = classify(read_header(path))
    except (ModelError, OSError) as error:
        return Entry(name, path, "other", problem=_without_path(str(error), path))
    needs_vae = kind.kind == "checkpoint" and not kind.problem and not kind.has_vae
    return Entry(name, path, kind.kind, NAMES.get(kind.architecture, ""), nbytes, kind.problem, needs_vae)


def _folder_entry(name: str, path: Path) -> Entry:
    nbytes = sum(file.stat().st_size for file in path.rglob("*.safetensors") if file.is_file())
    if not (path / "model_index.json").is_file():
        return Entry(name, path, _CONFIGURED[_class_name(path)], nbytes=nbytes, problem=_weights_problem([path]))
    try:
        pipeline = str(read_json(path / "model_index.json").get("_class_name"))
        # Late: it imports the hub's library, which listing files alone does not need.
        from livedrag.editor.models.references import find_model

        parts = find_model(str(path)).parts
        problem = _weights_problem([place for part, place in parts.items() if part in WEIGHT_STEMS])
    except ModelError as error:
        return Entry(name, path, "diffusers folder", nbytes=nbytes, problem=_without_path(str(error), path))
    return Entry(name, path, "diffusers folder", _PIPELINES.get(pipeline, ""), nbytes, problem)


def _weights_problem(folders: Sequence[Path]) -> str:
    """What is wrong with the weights in a model's folders; empty if nothing is."""
    try:
        for folder in folders:
            find_weights(folder, WEIGHT_STEMS.get(folder.name, "diffusion_pytorch_model"))
    except ModelError as error:
        return str(error)
    return ""


def _without_path(message: str, path: Path) -> str:
    return message.removeprefix(f"{path} ").removeprefix(f"{path}: ")
