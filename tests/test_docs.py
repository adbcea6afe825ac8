"""The documentation agrees with the code: settings, metrics, modules, links and the tests behind promises."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from livedrag.server.settings import Settings
from tests.conftest import ROOT

RUNNING = (ROOT / "docs" / "running.md").read_text()
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
BUILT = {"tests/output", "docs/api", "dist/"}
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def rows(text: str) -> Iterator[list[str]]:
    """The cells, without backticks, of every row of a Markdown table that begins with one `name`."""
    for line in text.splitlines():
        if re.match(r"\| `\w+` \|", line):
            yield [cell.strip(" `") for cell in line.strip("|").split("|")]


def written(value: object) -> str:
    """A setting's value as an environment variable has it."""
    match value:
        case bool():
            return str(value).lower()
        case tuple():
            return ",".join(value)
        case float():
            return f"{value:g}"
        case Path():
            home, shown = Path.home(), value
            return f"~/{shown.relative_to(home)}" if shown.is_relative_to(home) else str(shown)
        case _:
            return str(value)


def test_every_setting_is_described_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    settings = Settings(static_dir=Path("static"))  # elsewhere in a clone than in a wheel
    described = {name: default for name, default, *_ in rows(RUNNING) if name.isupper()}
    assert described == {
        field.name.upper(): written(getattr(settings, field.name)) for field in dataclasses.fields(Settings)
    }


def test_every_metric_is_described_and_no_other() -> None:
    described = {name for name, *_ in rows(RUNNING) if name.startswith("livedrag_")}
    sources = "".join(path.read_text() for path in (ROOT / "server").rglob("*.py"))
    assert described == set(re.findall(r'"(livedrag_\w+)"', sources))


def test_the_tests_that_show_a_promise_are_there() -> None:
    readme = (ROOT / "README.md").read_text()
    promises = readme[readme.index("## What it promises") : readme.index("## In a container")]
    named = re.findall(r"(long )?`(tests/[a-z0-9_/]+\.py)`", promises)
    assert len(named) > 10
    for long, path in named:
        assert ("@pytest.mark.long" in (ROOT / path).read_text()) == bool(long), path


def documents() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "editor" / "weights" / "README.md"]


@pytest.mark.parametrize("page", documents(), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("name", ["architecture.md", "glossary.md", "development.md"])
def test_only_files_that_exist_are_named(name: str) -> None:
    """`rooms/registry.py` may stand for `server/rooms/registry.py`, and so on."""
    text = FENCE.sub("", (ROOT / "docs" / name).read_text())
    for path in set(re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", text)) - BUILT:
        places = [ROOT / folder / path for folder in ("", "server", "editor", "frontend", "frontend/src", "tests")]
        assert any(place.exists() for place in places), path


def test_the_architecture_names_only_classes_and_methods_that_exist() -> None:
    text = FENCE.sub("", (ROOT / "docs" / "architecture.md").read_text())
    sources = "".join(path.read_text() for folder in ("server", "editor") for path in (ROOT / folder).rglob("*.py"))
    for owner, method in re.findall(r"`([A-Z]\w*[a-z]\w*)(?:\.(\w+))?`", text):
        assert re.search(rf"^class {owner}\b", sources, re.MULTILINE), owner
        assert not method or re.search(rf"def {method}\(", sources), f"{owner}.{method}"


def test_each_format_of_a_model_names_the_tests_that_show_it() -> None:
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    table = text.partition("## What opens")[2].partition("\n## ")[0]
    formats = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")][2:]
    assert len(formats) >= 18
    for kind, opens, tests in formats:
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", tests)
        assert named, f"{kind.strip()}: no test"
        for file, test in named:
            source = (ROOT / "tests" / "editor" / file).read_text(encoding="utf-8")
            assert re.search(rf"^def {test}\(", source, re.MULTILINE), f"{kind.strip()}: there is no {file}::{test}"
        assert opens.strip() not in ("", "no"), f"{kind.strip()}: neither how it opens, nor why it does not"
