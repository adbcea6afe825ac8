from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from livedrag.editor import Diffusion, Drag, DragSession, DragSettings, EditorError, Point
from livedrag.editor.drag.snapshot_format import Snapshot
from tests.conftest import ROOT

SHORT = {
    "lora_steps": 4,
    "lora_batch": 1,
    "lora_copies": 3,
    "ddim_steps": 6,
    "max_iterations": 6,
    "reference_control": True,
}


def picture() -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((150, 100))


def begin(model: Diffusion) -> DragSession:
    session = DragSession(model, picture(), prompt="a cat", settings=DragSettings.resolve(None, {}, SHORT), seed=3)
    session.add_drag("a", Drag(Point(30, 40), Point(90, 60)))
    session.set_mask(np.pad(np.ones((100, 100), dtype=bool), ((0, 0), (0, 50))))
    return session


def whole(session: DragSession) -> Iterator[object]:
    """A run to its end; however much of it is done already, what is left comes."""
    yield from session.prepare()
    if session.iteration < 6:
        yield from session.drag(2)
    yield from session.render()


def end_of(session: DragSession) -> tuple[torch.Tensor, bytes, object]:
    for _ in whole(session):
        pass
    ended = (session.latent, session.result().tobytes(), session.drags)
    session.close()
    return ended


@pytest.fixture(scope="module")
def uninterrupted(tiny: Diffusion) -> tuple[torch.Tensor, bytes, object]:
    return end_of(begin(tiny))


@pytest.mark.parametrize("steps", [0, 2, 4, 6, 8, 9, 13])
def test_the_run_after_a_restore_is_the_run_without_it(
    tiny: Diffusion, uninterrupted: tuple[torch.Tensor, bytes, object], steps: int
) -> None:
    """Bit for bit: in the middle of fitting (2), of inverting (6), before and while dragging (8, 9, 13)."""
    session = begin(tiny)
    run = whole(session)  # still held, so that the session is in the middle of it
    list(itertools.islice(run, steps))
    taken = session.snapshot()
    session.close()
    latent, result, drags = end_of(DragSession.restore(tiny, picture(), taken))
    assert torch.equal(latent, uninterrupted[0])
    assert result == uninterrupted[1]
    assert drags == uninterrupted[2]


@pytest.mark.parametrize("steps", [(2, 7, 11, 15), pytest.param((*range(14), 15, 20), marks=pytest.mark.long)], ids=len)
def test_in_another_process_too(
    tiny: Diffusion,
    tiny_folder: Path,
    uninterrupted: tuple[torch.Tensor, bytes, object],
    tmp_path: Path,
    steps: tuple[int, ...],
) -> None:
    """From everywhere in the run: fitting (0 to 4), inverting (5 to 8), dragging (9 to 13), rendering (15 and 20).

    At 14 the last iteration's points have not been tracked yet, and `whole` would not track them either.
    """
    session = begin(tiny)
    run = whole(session)
    for done in range(21):
        if done in steps:
            (tmp_path / f"{done}.snapshot").write_bytes(session.snapshot())
        next(run)
    session.close()
    code = (
        "import sys; from pathlib import Path; import torch\n"
        "from livedrag.editor import Diffusion, DragSession\n"
        "from tests.editor.drag.test_snapshot import end_of, picture\n"
        "torch.set_num_threads(int(sys.argv[3]))\n"
        "model = Diffusion.load(sys.argv[1], device='cpu')\n"
        "for taken in Path(sys.argv[2]).glob('*.snapshot'):\n"
        "    latent, result, _ = end_of(DragSession.restore(model, picture(), taken.read_bytes()))\n"
        "    taken.with_suffix('.ended').write_bytes(latent.numpy().tobytes() + result)\n"
    )
    arguments = [tiny_folder, tmp_path, torch.get_num_threads()]
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True, cwd=ROOT)
    latent, result, _ = uninterrupted
    ended = {path.stem: path.read_bytes() for path in tmp_path.glob("*.ended")}
    assert len(ended) == len(steps)
    assert [taken for taken, there in ended.items() if there != latent.numpy().tobytes() + result] == []


@pytest.mark.parametrize("name", ["inverted", "generated"])
def test_snapshots_written_by_earlier_versions_restore_bit_for_bit(tiny: Diffusion, name: str) -> None:
    """They were taken in the middle of a run, at commit 29cd65f: every tensor and fact comes back as it was.

    Settings and facts that are newer than the snapshot have their defaults.
    """
    data = (Path(__file__).parent / "snapshots" / f"{name}.safetensors").read_bytes()
    shown = picture() if name == "inverted" else picture().resize((128, 128))
    restored = DragSession.restore(tiny, shown, data)
    before, after = Snapshot.from_bytes(data), Snapshot.from_bytes(restored.snapshot())
    assert before.tensors.keys() == after.tensors.keys()
    assert all(torch.equal(tensor, after.tensors[key]) for key, tensor in before.tensors.items())
    assert after.facts.pop("settings") == DragSettings().changed(before.facts.pop("settings")).as_dict()
    assert (after.facts.pop("agreed"), after.facts.pop("descended")) == (None, 0)
    for facts in (before.facts, after.facts):
        facts["timeline"] = [moment[:4] for moment in facts["timeline"]]
        for handles in (facts["handles"], *(moment[3] for moment in facts["timeline"])):
            handles.update({name: numbers[:15] for name, numbers in handles.items()})
    assert after.facts == before.facts
    assert (restored.iteration, len(restored.timeline), restored.timeline.current) == (4, 7, 6)
    restored.close()


def test_the_timeline_comes_along(tiny: Diffusion) -> None:
    session = begin(tiny)
    for _ in itertools.islice(whole(session), 12):
        pass
    session.seek(2)
    list(itertools.islice(session.drag(), 2))
    restored = DragSession.restore(tiny, picture(), session.snapshot())
    before, after = list(session.timeline), list(restored.timeline)
    assert [(m.index, m.parent, m.iteration) for m in before] == [(m.index, m.parent, m.iteration) for m in after]
    assert all(torch.equal(one.latent, other.latent) for one, other in zip(before, after, strict=True))
    assert [list(m.handles) for m in before] == [list(m.handles) for m in after]
    assert restored.timeline.current == session.timeline.current
    session.close()
    restored.close()


def test_what_is_no_snapshot_of_this_is_refused(tiny: Diffusion) -> None:
    session = begin(tiny)
    taken = session.snapshot()
    session.close()
    cases = [(b"zork", picture()), (taken[:-9], picture()), (b"", picture()), (taken, picture().resize((80, 80)))]
    cases.append((taken, picture().transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
    for data, shown in cases:
        with pytest.raises(EditorError, match="snapshot"):
            DragSession.restore(tiny, shown, data)


def written(session: DragSession) -> dict[str, bytes]:
    return {part.name: part.snapshot.to_bytes() for part in session.shared.snapshot_parts()}


def stamps(session: DragSession) -> dict[str, str]:
    return {part.name: part.stamp for part in session.shared.snapshot_parts()}


@pytest.mark.parametrize("steps", [0, 2, 9, 13])
def test_the_parts_together_are_the_snapshot(
    tiny: Diffusion, uninterrupted: tuple[torch.Tensor, bytes, object], steps: int
) -> None:
    session = begin(tiny)
    run = whole(session)
    list(itertools.islice(run, steps))
    restored = DragSession.restore(tiny, picture(), written(session))
    session.close()
    latent, result, drags = end_of(restored)
    assert torch.equal(latent, uninterrupted[0])
    assert (result, drags) == uninterrupted[1:]


def test_parts_with_the_same_stamp_hold_the_same(tiny: Diffusion) -> None:
    session = begin(tiny)
    run = whole(session)
    taken = []
    for _ in range(20):
        next(run)
        taken.append((stamps(session), written(session)))
    session.close()
    same = 0
    for (stamps_before, before), (stamps_after, after) in itertools.pairwise(taken):
        known = [name for name, stamp in stamps_after.items() if stamp and stamps_before.get(name) == stamp]
        assert all(before[name] == after[name] for name in known)
        same += len(known)
    assert same > 30, "most need not be written again"
    assert stamps_after["state"] == ""


def test_parts_without_the_one_that_changes_are_no_snapshot(tiny: Diffusion) -> None:
    session = begin(tiny)
    parts = written(session)
    session.close()
    del parts["state"]
    with pytest.raises(EditorError, match="'state' is missing"):
        DragSession.restore(tiny, picture(), parts)


def test_templates_that_handles_share_are_kept_once_again_and_again(tiny: Diffusion) -> None:
    session = begin(tiny)
    list(itertools.islice(whole(session), 13))
    sizes = [len(session.snapshot())]
    for _ in range(2):
        restored = DragSession.restore(tiny, picture(), session.snapshot())
        session.close()
        session = restored
        sizes.append(len(session.snapshot()))
    assert sizes[0] < session.shared.nbytes * 1.5
    session.close()
    assert max(sizes) - min(sizes) < 100


def test_a_run_goes_on_with_what_is_left_of_its_budget(tiny: Diffusion) -> None:
    session = begin(tiny)
    list(itertools.islice(whole(session), 8))
    assert [step.iteration for step in session.drag(0, iterations_done=4)] == [1, 2, 2]
    assert [step.iteration for step in session.drag(0)] == [3, 4, 5, 6, 7, 8, 8]
    session.close()
