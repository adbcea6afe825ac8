"""What is chosen for a device, and how its memory is counted: as far as it shows without one."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from livedrag.editor import Diffusion, ModelError
from livedrag.editor.models import diffusion
from livedrag.editor.models.devices import best_dtype, fetch, free_bytes, moved_together, pick_device, send_all
from livedrag.editor.models.trees import leaves

ROOT = Path(__file__).resolve().parent.parent.parent.parent
CPU, MPS, CUDA = (torch.device(name) for name in ("cpu", "mps", "cuda:0"))


@pytest.mark.parametrize("wide_range", [False, True])
def test_precision_by_device(wide_range: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apple's GPUs get float32: float16 gives black pictures there in some versions, and float64 does not exist."""
    assert best_dtype(CPU, wide_range=wide_range) == torch.float32
    assert best_dtype(MPS, wide_range=wide_range) == torch.float32
    for capability, dtype in (((8, 0), torch.bfloat16), ((7, 5), torch.float16)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, capability=capability: capability)
        assert best_dtype(CUDA, wide_range=wide_range) == (dtype if wide_range else torch.float16)


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"), [(True, True, "cuda:0"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_best_device_there_is(cuda: bool, mps: bool, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "empty", lambda *_, device: device)
    assert str(pick_device(None)) == chosen


def test_a_device_that_is_not_there_is_refused() -> None:
    if torch.backends.mps.is_available():
        pytest.skip("it is there")
    with pytest.raises(ModelError, match=r"the device 'mps' can't be used .*: try 'cpu'"):
        pick_device("mps")


def test_float64_on_apples_gpus_is_refused(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusion, "pick_device", lambda _: MPS)
    with pytest.raises(ModelError, match=r"can't compute in float64: use torch\.float32"):
        Diffusion.load(str(tiny_folder), device="mps", dtype=torch.float64)


def test_free_memory_by_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch holds without using it counts as free."""
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 10)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 4)
    assert free_bytes(MPS) == 6
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 11)
    assert free_bytes(MPS) == 0
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (5, 24))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 9)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 7)
    assert free_bytes(CUDA) == 7


def test_nothing_that_apples_gpus_lack_is_used_on_a_device() -> None:
    """``grid_sample`` with borders has no gradient there before torch 2.13: `sampling.bilinear` chooses."""
    on_cpu = {"editor/drag/detail.py", "editor/fitting/augmentation.py", "editor/sampling.py"}
    users = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "editor").rglob("*.py")
        if "grid_sample(" in path.read_text() and "training" not in path.parts
    }
    assert users == on_cpu


def test_small_tensors_are_moved_together() -> None:
    """Each keeps its shape and type; those that are there already stay what they are."""
    there = torch.zeros(2, 2)
    tree: Any = [
        torch.tensor(0.5),
        (torch.arange(6).reshape(2, 3), there),
        torch.ones(0, 3),
        torch.tensor([True, False]),
    ]
    flat: list[torch.Tensor] = []

    def move(tensor: torch.Tensor) -> torch.Tensor:
        flat.append(tensor)
        return tensor.clone()

    moved = moved_together(tree, lambda tensor: tensor is not there, move)
    assert [tensor.shape for tensor in flat] == [(1,), (6,), (2,)]
    assert moved[1][1] is there
    for one, other in zip(leaves(moved), leaves(tree), strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert torch.equal(one, other)


@pytest.mark.gpu
def test_they_are_sent_without_waiting() -> None:
    tree = [torch.tensor(0.5), [torch.arange(6).reshape(2, 3), torch.tensor([True, False])]]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            sent = send_all(tree, torch.device("cuda:0"))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert not [warning for warning in seen if "called a synchronizing" in str(warning.message)]
    for one, other in zip(leaves(sent), leaves(tree), strict=True):
        assert torch.equal(one.cpu(), other)


def test_what_is_fetched_from_a_cpu_is_there() -> None:
    assert torch.equal(fetch(torch.arange(5))(), torch.arange(5))


@pytest.mark.gpu
def test_what_is_fetched_does_not_wait_for_what_is_launched_later() -> None:
    fetched = fetch(torch.arange(5, device="cuda:0"))
    torch.cuda._sleep(2**31)  # about a second
    assert torch.equal(fetched(), torch.arange(5))
    assert not torch.cuda.current_stream().query()
    torch.cuda.synchronize()
