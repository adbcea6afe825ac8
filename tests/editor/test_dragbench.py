"""``livedrag dragbench`` on a small data set made of known warps, whose right numbers are known."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from livedrag.editor.dragbench import measures
from livedrag.editor.dragbench.command import main
from livedrag.editor.dragbench.datasets import find_samples, read_sample
from livedrag.editor.dragbench.pickled import read_pickle
from livedrag.editor.errors import EditorError, PictureError
from livedrag.editor.points import Drag, Point

SIZE = 160
DRAG = Drag(Point(60, 70), Point(90, 80))
LENGTH = (30**2 + 10**2) ** 0.5
QUICK = ["--set", "lora_steps=1", "--set", "ddim_steps=4", "--set", "max_iterations=2", "--set", "lora_rank=2"]


def texture(seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (SIZE, SIZE, 3), np.uint8)
    return Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2))


def moved(picture: Image.Image, drag: Drag) -> Image.Image:
    """A square of 61 pixels around the handle is at the target instead."""
    x, y = round(drag.handle.x), round(drag.handle.y)
    patch = picture.crop((x - 30, y - 30, x + 31, y + 31))
    changed = picture.copy()
    changed.paste(texture(9).crop((0, 0, 61, 61)), (x - 30, y - 30))
    changed.paste(patch, (round(drag.target.x) - 30, round(drag.target.y) - 30))
    return changed


def a_mask() -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[20:140, 20:140] = 1
    return mask


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A sample in each layout."""
    first, second = tmp_path / "data" / "animals" / "cat", tmp_path / "data" / "dog"
    for folder in (first, second):
        folder.mkdir(parents=True)
    texture().save(first / "original_image.png")
    metadata = {"prompt": "a cat", "mask": a_mask(), "points": [[60, 70], [90, 80]]}
    (first / "meta_data.pkl").write_bytes(pickle.dumps(metadata))
    texture(1).save(second / "original.jpg", quality=95)
    Image.fromarray(a_mask() * 255).save(second / "mask.png")
    (second / "points.json").write_text(json.dumps({"points": [[60, 70], [90, 80]]}))
    return tmp_path / "data"


def test_both_layouts(dataset: Path) -> None:
    places = find_samples(dataset)
    assert [(place.name, place.layout) for place in places] == [("animals/cat", "dragbench"), ("dog", "drag100")]
    for place, prompt in zip(places, ("a cat", ""), strict=True):
        sample = read_sample(place)
        assert (sample.drags, sample.prompt) == ((DRAG,), prompt)
        assert sample.mask is not None
        assert (sample.mask == (a_mask() > 0)).all()


def test_the_distance_of_known_edits() -> None:
    picture = texture()
    for edited, wanted in (
        (picture, LENGTH),
        (moved(picture, DRAG), 0),
        (moved(picture, Drag(DRAG.handle, Point(80, 80))), 10),
        (moved(picture, Drag(DRAG.handle, Point(90, 65))), 15),
    ):
        likeness = measures.by_correlation(picture, edited)
        assert measures.mean_distance([DRAG], likeness) == pytest.approx(wanted, abs=0.01)
    outside = moved(picture, Drag(DRAG.handle, Point(120, 40)))
    likeness = measures.by_correlation(picture, outside)
    assert measures.mean_distance([DRAG], likeness) == pytest.approx(50, abs=0.01)
    inside = np.zeros((SIZE, SIZE), bool)
    inside[60:100, 40:100] = True
    assert measures.mean_distance([DRAG], likeness, inside) < 50


def test_large_pictures_are_measured_in_their_own_pixels() -> None:
    large = texture().resize((4 * SIZE, 4 * SIZE), Image.Resampling.BICUBIC)
    drag = Drag(Point(240, 280), Point(360, 320))
    likeness = measures.by_correlation(large, large)
    assert measures.mean_distance([drag], likeness) == pytest.approx((120**2 + 40**2) ** 0.5, abs=2)


def test_similarity_and_difference() -> None:
    picture = texture()
    assert measures.similarity(picture, picture) == pytest.approx(1)
    assert measures.similarity(picture, texture(3)) < 0.3
    assert measures.difference(Image.new("RGB", (9, 9)), Image.new("RGB", (9, 9), (3, 3, 3))) == 3
    assert measures.perceptual_distance(picture, picture) in (None, pytest.approx(0))


def test_dift_finds_what_has_moved_a_cell(model: Any) -> None:
    picture = texture().resize((256, 256))
    shifted = Image.fromarray(np.roll(np.asarray(picture), (32, 32), (0, 1)))
    likeness = measures.by_dift(model, "", picture, shifted)
    drag = Drag(Point(100, 100), Point(132, 132))
    assert likeness(drag.handle).shape == (256, 256)
    assert measures.mean_distance([drag], measures.by_dift(model, "", picture, picture)) == pytest.approx(
        32 * 2**0.5, abs=12
    )


def test_a_whole_run_and_that_it_resumes(
    dataset: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["dragbench", str(dataset), "-o", str(out), "--model", str(tiny_folder), "--method", "default", *QUICK]
    assert main(arguments) == 0
    assert "| no-edit | 2 | 31.623 | 31.623 | 1.000 |" in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert report["measure"] == "correlation of pixels"
    assert list(report["methods"]) == ["no-edit", "instant-warp", "default"]
    rows = report["methods"]
    assert rows["instant-warp"]["mean_distance"] < rows["no-edit"]["mean_distance"] / 2
    assert rows["no-edit"]["drag_back"] == 0
    assert rows["instant-warp"]["drag_back"] > 0
    assert rows["default"]["seconds"] > 0
    for method in rows:
        with Image.open(out / method / "animals" / "cat" / "dragged_image.png") as picture:
            assert picture.size == (SIZE, SIZE)
        assert json.loads((out / method / "dog" / "new_points.json").read_text())["points"] == [[60, 70], [90, 80]]
    written = (out / "default" / "dog" / "output_image.png").stat().st_mtime_ns
    again = (out / "report.md").read_text()
    (out / "default" / "animals" / "cat" / "numbers.json").unlink()
    assert main([*arguments, "--limit", "2"]) == 0
    assert (out / "default" / "dog" / "output_image.png").stat().st_mtime_ns == written, "not made again"
    assert (out / "report.md").read_text().splitlines()[2] == again.splitlines()[2]
    assert len(json.loads((out / "report.json").read_text())["samples"]["default"]) == 2


def test_a_bad_sample_stops_no_other(
    dataset: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (dataset / "animals" / "cat" / "meta_data.pkl").write_bytes(b"nothing")
    arguments = ["dragbench", str(dataset), "-o", str(tmp_path / "out"), "--model", str(tiny_folder), *QUICK]
    assert main(arguments) == 1
    shown = capsys.readouterr()
    assert "animals/cat: " in shown.err
    assert "1 samples failed, such as 'animals/cat'" in shown.out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nowhere"], "there is no folder 'nowhere'"),
        ([".github"], "has no samples"),
        (["DATA", "--method", "evil"], "unknown preset 'evil'"),
        (["DATA", "--limit", "0"], "--limit is 0"),
        (["DATA", "--set", "evil=1"], "unknown setting 'evil'"),
    ],
)
def test_what_cannot_work(
    dataset: Path, arguments: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(dataset) if each == "DATA" else each for each in arguments]
    assert main(["dragbench", *given, "-o", str(tmp_path / "out")]) == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_arrays(tmp_path: Path, protocol: int) -> None:
    value = {
        "mask": a_mask(),
        "points": [[1, 2.5], np.float64(3), np.int32(4)],
        "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"),
        "prompt": "a cat",
        "none": (None, True),
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value, protocol))
    read = read_pickle(tmp_path / "a.pkl")
    assert (read["mask"] == a_mask()).all()
    assert read["points"] == [[1, 2.5], 3.0, 4]
    assert (read["turned"] == value["turned"]).all()
    assert read["big"].tolist() == [0, 1, 2]
    assert (read["prompt"], read["none"]) == ("a cat", [None, True])


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch evil",)


UNSAFE: dict[str, bytes] = {
    "it names posix.system": pickle.dumps({"mask": Evil()}),
    "it names builtins.eval": b"cbuiltins\neval\n(S'1'\ntR.",
    "it names numpy.core.multiarray.fromfile": b"cnumpy.core.multiarray\nfromfile\n(S'x'\ntR.",
    "'str' object is not callable": b"cnumpy\nndarray\n((I100000000000\nttR.",
    "an array of 'O'": pickle.dumps(np.array([{}, Evil], dtype=object)).replace(b"__main__", b"__main__"),
    "damaged": pickle.dumps({"mask": a_mask()})[:-9],
    "a set": pickle.dumps({1, 2}),
}


@pytest.mark.parametrize("what", UNSAFE)
def test_pickles_that_are_not_opened(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pkl").write_bytes(UNSAFE[what])
    with pytest.raises(
        PictureError, match=r"a.pkl is not opened: it must be a pickle of arrays, lists and texts alone"
    ):
        read_pickle(tmp_path / "a.pkl")
    assert os.listdir(tmp_path) == ["a.pkl"]


def test_samples_that_do_not_fit(dataset: Path) -> None:
    cat, _ = find_samples(dataset)
    file = cat.folder / "meta_data.pkl"
    for changes, problem in (
        ({"mask": np.ones((5, 5))}, "has the shape"),
        ({"points": [[60, 70]]}, "they must be pairs"),
        ({"points": [[60, 70], [999, 5]]}, "outside the picture"),
        ({"points": "x"}, "not pairs of numbers"),
    ):
        metadata = {"prompt": "", "mask": a_mask(), "points": [[60, 70], [90, 80]], **changes}
        file.write_bytes(pickle.dumps(metadata))
        with pytest.raises(EditorError, match=problem):
            read_sample(cat)
    file.write_bytes(pickle.dumps([1]))
    with pytest.raises(PictureError, match="must have 'points' and 'mask'"):
        read_sample(cat)
    (cat.folder / "original_image.png").unlink()
    with pytest.raises(PictureError, match=r"has no original_image.png"):
        read_sample(cat)
