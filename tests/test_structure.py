"""The structure of ``editor`` and ``server``: who may import whom, and what may lie in the repository."""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From the top down: a module may import its own package and the packages above it. Single modules at the top
# of `editor` and `server` count as packages of their own.
EDITOR = [
    ["errors", "output", "progress"],
    ["settings", "points", "sampling"],
    ["edit_request"],
    ["picture", "similarity"],
    ["models"],
    ["fitting"],
    ["generate"],
    ["drag"],
    ["cost", "models_command"],
    ["model_options"],
    ["edit_command"],
    ["jobs", "dragbench"],
    ["cli", "training"],
]
SERVER = [
    ["errors"],
    ["settings", "logs", "version"],
    ["document"],
    ["metrics"],
    ["images", "client"],
    ["device"],
    ["storage"],
    ["access"],
    ["rooms"],
    ["web", "rooms_command", "status_command"],
    ["__main__"],
]
HEAVY = {"torch", "diffusers", "transformers", "peft", "accelerate", "safetensors"}
WEB = {"starlette", "uvicorn", "websockets"}
IO = {*WEB, "socket", "asyncio", "sqlite3", "threading", *HEAVY}
LARGEST_FILE = 3 * 2**20


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


@functools.cache
def imports(path: Path) -> Set[str]:
    """Modules of `livedrag` (``editor.points``) and others (``torch``) that a file imports, type checking aside."""
    found = set[str]()
    for node in runtime_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            # `from livedrag.editor import points` may name a module: count both.
            found.update({node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)})
    return {name.removeprefix("livedrag.") for name in found}


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            continue
        yield child
        yield from runtime_nodes(child)


def tops(modules: Set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def modules(package: str) -> dict[str, Path]:
    """The modules below a folder by their dotted names; a package goes by its own name."""
    paths = (path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py"))
    return {".".join(path.with_suffix("").parts).removesuffix(".__init__"): ROOT / path for path in paths}


def part_of(module: str) -> str:
    """The package below `editor` or `server` that a module lies in; empty for their own ``__init__``."""
    return [*module.split("."), ""][1]


@pytest.mark.parametrize(("package", "order"), [("editor", EDITOR), ("server", SERVER)])
def test_packages_import_only_what_stands_above_them(package: str, order: list[list[str]]) -> None:
    place_of = {name: place for place, names in enumerate(order) for name in names}
    for module, path in modules(package).items():
        part = part_of(module)
        if not part:
            continue  # the public names
        assert part in place_of, f"{module}: give {part!r} a place in the order"
        for name in imports(path):
            if name.startswith(f"{package}.") and (other := part_of(name)) in place_of and other != part:
                assert place_of[other] < place_of[part], f"{module} imports {name}, which stands below it"


@pytest.mark.parametrize(("package", "order"), [("editor", EDITOR), ("server", SERVER)])
def test_the_architecture_has_the_packages_in_this_order(package: str, order: list[list[str]]) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = page[page.index(f"| `{package}/` |") :].partition("\n\n")[0]
    rows = [re.findall(r"`(\w+)`", line.split("|")[1]) for line in table.splitlines()[2:]]
    assert list(map(set, rows)) == list(map(set, order))


@pytest.mark.parametrize("package", ["editor", "server"])
def test_modules_import_each_other_in_one_direction(package: str) -> None:
    files = modules(package)
    graph = {module: sorted(imports(path) & files.keys() - {module, package}) for module, path in files.items()}
    assert tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError with the cycle


def test_every_import_goes_by_the_name_livedrag() -> None:
    bare = re.compile(r"^\s*(from|import\b.*?)\s(editor|server)\b", re.MULTILINE)
    for path in tracked_files():
        if path.suffix == ".py":
            assert not bare.search(path.read_text()), path


def test_editor_knows_no_web_and_no_server() -> None:
    for module, path in modules("editor").items():
        assert not tops(imports(path)) & {*WEB, "server", "asyncio"}, module


def test_only_the_worker_imports_the_editor_and_only_by_name() -> None:
    files = modules("server")
    graph = {module: imports(path) & files.keys() for module, path in files.items()}
    worker = {module for module in files if module.startswith("server.device.worker")} - {
        "server.device.worker_process"
    }
    heavy = {module for module, path in files.items() if tops(imports(path)) & {"editor", *HEAVY}} - {"server.__main__"}
    assert heavy
    assert heavy <= worker
    assert not worker & reached(graph, files.keys() - worker - {"server.__main__"}), "name the worker by string"


def reached(graph: Mapping[str, Set[str]], found: Set[str]) -> Set[str]:
    """These modules and all that they import, through others too."""
    while further := frozenset[str]().union(*(graph[module] for module in found)) - found:
        found = found | further
    return found


def test_what_editor_and_server_share_needs_pillow_and_numpy_alone() -> None:
    own = {path.stem for path in (ROOT / "livedrag").glob("*.py")}
    for path in (ROOT / "livedrag").glob("*.py"):
        assert tops(imports(path)) <= {"PIL", "numpy", "livedrag", *own, *sys.stdlib_module_names}, path


def test_the_document_does_no_io() -> None:
    for module, path in modules("server/document").items():
        assert not tops(imports(path)) & IO, module


@pytest.mark.parametrize("module", ["document.protocol", "document.document", "web.app", "__main__"])
def test_the_serving_process_never_loads_torch(module: str) -> None:
    heavy = {"torch", "diffusers", "transformers", "livedrag.editor"}
    code = f"import sys, livedrag.server.{module}; print(sorted({heavy} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_the_client_needs_neither_torch_nor_starlette() -> None:
    blocked = sorted({*HEAVY, "starlette", "uvicorn", "PIL", "numpy"})
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked})); import livedrag.server.client"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


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
