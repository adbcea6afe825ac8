"""The house of ``editor`` and ``server``: who may import whom, and what may lie in the repository."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Each module may import what stands on a lower floor. `__init__` is the door and belongs to no floor.
EDITOR = [
    {"errors"},
    {"points", "sampling", "references", "convolution", "copies"},
    {"picture"},
    {"model", "warp"},
    {"settings", "lora", "ddim", "attention", "motion", "tracking", "preview"},
    {"handles", "generate", "rendering"},
    {"timeline", "snapshot", "glide"},
    {"session"},
    {"cli"},
]
SERVER = [
    {"protocol", "settings", "logs"},
    {"history", "mask", "engine", "limits", "scheduler"},
    {"room", "checkpoints"},
    {"store", "uploads", "metrics", "film", "replica", "engine_local", "engine_ray"},
    {"guests", "exchange", "jobs", "archive", "client", "protocol_page", "drawings"},
    {"connection", "sessions"},
    {"hall", "runs"},
    {"doors"},
    {"hub", "worker", "guard"},
    {"app", "cli"},
    {"__main__"},
]
ON_THE_DEVICE = {"worker.py", "runs.py", "sessions.py", "jobs.py"}
HEAVY = {"torch", "diffusers", "transformers", "peft", "accelerate", "safetensors"}
WEB = {"starlette", "uvicorn", "websockets", "server", "asyncio"}
LARGEST_FILE = 3 * 2**20


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).exists()]


def imports(path: Path) -> set[str]:
    """Every module that the file imports anywhere, in full (``editor.points``), unless it does so for types only."""
    package = path.relative_to(ROOT).parent.parts
    found = set[str]()
    for node in runtime_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            module = origin if node.level else node.module or ""
            # `from editor import points` may name a module: count both.
            found.update({module, *(f"{module}.{alias.name}" for alias in node.names)})
    return found


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            continue
        yield child
        yield from runtime_nodes(child)


def tops(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize(("package", "floors"), [("editor", EDITOR), ("server", SERVER)])
def test_modules_import_only_what_lies_below_them(package: str, floors: list[set[str]]) -> None:
    floor_of = {name: floor for floor, names in enumerate(floors) for name in names}
    names = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    assert names <= floor_of.keys(), f"give {sorted(names - floor_of.keys())} a floor"
    for name in names:
        found = imports(ROOT / package / f"{name}.py")
        for below in names - {name}:
            if f"{package}.{below}" in found:
                assert floor_of[below] < floor_of[name], f"{package}/{name}.py imports {below}"


def test_editor_knows_no_web() -> None:
    for path in (ROOT / "editor").rglob("*.py"):
        assert not tops(imports(path)) & WEB, path.name


def test_only_the_worker_imports_the_editor_and_only_by_name() -> None:
    for path in (ROOT / "server").rglob("*.py"):
        found = imports(path)
        if path.name not in {*ON_THE_DEVICE, "__main__.py"}:
            assert not tops(found) & {"editor", *HEAVY}, path.name
            named = {f"server.{Path(name).stem}" for name in ON_THE_DEVICE}
            assert not named & found, f"{path.name} must name the worker by string"


def test_room_and_protocol_do_no_io() -> None:
    for name in ("room", "protocol", "history", "replica"):
        path = ROOT / "server" / f"{name}.py"
        assert not tops(imports(path)) & {"starlette", "uvicorn", "websockets", "socket", "asyncio", "sqlite3", *HEAVY}


@pytest.mark.parametrize("module", ["server.protocol", "server.room", "server.app", "server.__main__"])
def test_the_serving_process_never_loads_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'diffusers', 'transformers', 'editor'}} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    # Written in pieces, so that this file itself passes.
    hosts = [
        "pythonhosted" + ".org",
        "pypi" + ".org",
        "registry." + "npmjs",
        "registry." + "yarnpkg",
        "download." + "pytorch",
    ]
    folders = ["/wo" + "rk/", "/ro" + "ot/", "/home" + "/", "/opt" + "/"]
    unwanted = re.compile("|".join(map(re.escape, hosts + folders)).encode())
    for path in tracked_files():
        if path.suffix != ".safetensors":
            found = unwanted.search(path.read_bytes())
            assert not found, f"{path.relative_to(ROOT)} names {found[0].decode()}"


def test_only_weights_are_large() -> None:
    for path in tracked_files():
        if path.suffix != ".safetensors":
            assert path.stat().st_size <= LARGEST_FILE, path.relative_to(ROOT)


def test_nothing_built_is_tracked() -> None:
    for path in tracked_files():
        assert not {"node_modules", "__pycache__", ".venv"} & set(path.parts), path
        assert not path.is_relative_to(ROOT / "static/app"), path
        assert not path.is_relative_to(ROOT / "static/samples"), path


def test_every_pin_is_exact_and_bare() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), line
