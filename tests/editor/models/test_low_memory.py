"""Passes that save memory: the same gradients, nearly the same pictures, and only where it has to be."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from livedrag.editor import Diffusion
from livedrag.editor.drag.passes import answer
from livedrag.editor.fitting.fit_step import FitGradients, FitRequest
from livedrag.editor.fitting.lora import Lora
from livedrag.editor.models.graphs import Graphs
from livedrag.editor.models.low_memory import USABLE, LowMemory, saving_memory
from livedrag.editor.models.pass_memory import PEAK, TILES, AutoencoderMemory
from livedrag.editor.models.recomputing import recomputing
from tests.editor.models.test_loras import peft
from tests.pipelines import write_pipeline
from tests.recorders import EagerRecorder

PLENTY, NOTHING = 2**40, 0
TARGETS = ("to_q", "to_k", "to_v", "to_out")


@pytest.fixture(scope="module", params=[1, "xl"], ids=["1.x", "xl"])
def exact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Diffusion:
    """A model in float64."""
    folder = write_pipeline(tmp_path_factory.mktemp("exact") / "model", version=request.param)
    return Diffusion.load(str(folder), device="cpu", dtype=torch.float64)


@pytest.fixture
def free(tiny: Diffusion) -> Iterator[Callable[[int], None]]:
    """Says how much memory is free for the tiny model from now on."""
    yield lambda count: setattr(tiny, "low_memory", LowMemory(lambda: count))
    tiny.low_memory = LowMemory(None)


@contextmanager
def with_free(model: Diffusion, count: int) -> Iterator[None]:
    model.low_memory = LowMemory(lambda: count)
    try:
        yield
    finally:
        model.low_memory = LowMemory(None)


def make_lora(model: Diffusion, rank: int = 4) -> Lora:
    generator = torch.Generator().manual_seed(1)
    lora = Lora(model, rank=rank, targets=TARGETS, learning_rate=0.01, generator=generator)
    # At first the up projections are zero, and gradients of the down projections with them.
    lora.load_weights(lora.down, [torch.randn(up.shape, generator=generator, dtype=up.dtype) / 50 for up in lora.up])
    return lora


def requests_of(loras: list[Lora]) -> list[FitRequest]:
    requests = []
    for index, lora in enumerate(loras):
        model = lora.model
        noisy, wanted = torch.randn(
            2, 2, 4, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(index)
        )
        prompt = model.embed_prompt(f"picture {index}")
        requests.append(FitRequest(lora, noisy, torch.tensor([400, 30 + index]), prompt, wanted, 2))
    return requests


@contextmanager
def counting_parts(model: Diffusion) -> Iterator[list[str]]:
    """The runs of a part behind the first layers that have LoRAs."""
    runs: list[str] = []
    part = model.unet.mid_block.resnets[1]
    hook = part.register_forward_pre_hook(lambda *_: runs.append("run"))
    try:
        yield runs
    finally:
        hook.remove()


def gradients(request: FitRequest) -> FitGradients:
    (answered,) = answer([request])
    assert isinstance(answered, FitGradients)
    return answered


def assert_same(one: FitGradients, other: FitGradients) -> None:
    torch.testing.assert_close(one.loss, other.loss, rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(one.values, other.values, strict=True):
        assert mine.abs().max() > 0
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_a_fitting_step_has_the_same_gradients_when_it_saves_memory(exact: Diffusion) -> None:
    lora = make_lora(exact)
    (request,) = requests_of([lora])
    try:
        with counting_parts(exact) as runs:
            usual = gradients(request)
            with with_free(exact, PLENTY):
                assert_same(gradients(request), usual)
            assert len(runs) == 2 + 2, "two latents of two sizes were measured"
            runs.clear()
            with with_free(exact, NOTHING):
                saved = gradients(request)
            assert len(runs) == 2, "once forward, once more for the backward pass"
        assert_same(saved, usual)
    finally:
        lora.remove()


def test_rooms_that_are_fitted_together_have_the_same_gradients_when_they_save_memory(exact: Diffusion) -> None:
    """Each row's own LoRA is added by hooks on layers, which run again in the backward pass."""
    loras = [make_lora(exact), make_lora(exact, rank=2)]
    requests = requests_of(loras)
    try:
        usual = answer(requests)
        with with_free(exact, NOTHING), counting_parts(exact) as runs:
            saved = answer(requests)
        assert len(runs) >= 2
        for one, other in zip(usual, saved, strict=True):
            assert isinstance(one, FitGradients)
            assert isinstance(other, FitGradients)
            assert_same(one, other)
    finally:
        for lora in loras:
            lora.remove()


def test_features_are_read_and_other_loras_take_part_when_memory_is_saved(exact: Diffusion, tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    save_file(peft(exact, tmp_path), file)
    model = exact.with_loras([(file, 1.0)])
    assert model.extra_layers
    latent = torch.randn(1, 4, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def gradient(noise_gradient: bool) -> tuple[torch.Tensor, torch.Tensor]:
        given = latent.clone().requires_grad_()
        found = model.predict(given, 300, model.embed_prompt("a cat"), noise_gradient=noise_gradient)
        loss = found.features.pow(2).sum() + (found.noise.pow(2).sum() if noise_gradient else 0)
        return found.features.detach(), torch.autograd.grad(loss, given)[0]

    for noise_gradient in (True, False):
        usual = gradient(noise_gradient)
        with recomputing(model.unet):
            saved = gradient(noise_gradient)
        for one, other in zip(usual, saved, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_memory_is_saved_only_if_the_usual_pass_needs_more_than_is_free(
    tiny: Diffusion, free: Callable[[int], None]
) -> None:
    noisy = torch.zeros(3, 4, 16, 16)
    needed = PEAK * 3 * tiny.pass_memory.stored.of(16 * 16)
    for share, saves in ((1.01, False), (0.99, True)):
        free(int(share * needed / USABLE))
        with saving_memory(tiny, noisy):
            assert tiny.unet.is_gradient_checkpointing is saves
        assert not tiny.unet.is_gradient_checkpointing
    free(int(1.01 * needed / USABLE))
    with saving_memory(tiny, torch.zeros(4, 4, 16, 16)):
        assert tiny.unet.is_gradient_checkpointing, "a row more"


def test_on_a_cpu_memory_is_never_saved(tiny: Diffusion) -> None:
    assert not tiny.low_memory.can_save
    with saving_memory(tiny, torch.zeros(64, 4, 512, 512)):
        assert not tiny.unet.is_gradient_checkpointing


def test_pictures_are_coded_in_the_largest_tiles_that_fit(tiny: Diffusion, free: Callable[[int], None]) -> None:
    memory = AutoencoderMemory.of(tiny.vae)
    latent = torch.randn(2, 4, 128, 96, generator=torch.Generator().manual_seed(0))
    sides: list[tuple[int, ...]] = []
    hook = tiny.vae.decoder.register_forward_pre_hook(lambda _, given: sides.append(tuple(given[0].shape)))
    try:
        whole = tiny.decode(latent)
        free(int(1.01 * memory.whole(1024, 768) / USABLE))
        assert torch.equal(tiny.decode(latent), whole)
        assert not tiny.low_memory.problems
        assert set(sides) == {tuple(latent.shape)}
        for tile in TILES[1:]:
            sides.clear()
            free(int(1.01 * memory.tiled(1024, 768, tile) / USABLE))
            tiled = tiny.decode(latent)
            assert max(shape[-1] for shape in sides) == tile // 8
            assert all(shape[0] == 1 for shape in sides), "one picture at a time"
            assert tiled.shape == whole.shape
            assert tiny.low_memory.problems, "results say so"
            assert not tiny.vae.use_tiling
            assert not tiny.vae.use_slicing
    finally:
        hook.remove()
    free(PLENTY)
    assert torch.equal(tiny.decode(latent), whole)


def test_tiles_show_the_same_picture(tiny: Diffusion, free: Callable[[int], None]) -> None:
    """Nearly: each tile has its own means and variances."""
    coarse = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    pixels = torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear")
    latent, before = tiny.encode(pixels), tiny.vae.tile_sample_min_size
    whole = tiny.decode(latent)
    free(NOTHING)
    tiled_latent = tiny.encode(pixels)
    assert tiled_latent.shape == latent.shape
    assert tiny.decode(latent).shape == whole.shape
    for one, other in ((tiled_latent, latent), (tiny.decode(latent), whole)):
        assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.8
    assert tiny.vae.tile_sample_min_size == before


class PeakMemory(TorchDispatchMode):
    """The most bytes that tensors made within it have had at once."""

    now = peak = 0
    _known: ClassVar[set[int]] = set()  # where what is counted lies

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place in self._known:
            return
        self._known.add(place)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, place, size)

    def _forget(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.now -= size


def test_a_fitting_step_needs_about_what_is_estimated(tiny: Diffusion, free: Callable[[int], None]) -> None:
    lora = make_lora(tiny)
    noisy, prompt = torch.randn(2, 4, 32, 32), tiny.embed_prompt("")
    request = FitRequest(lora, noisy, torch.tensor([400, 500]), prompt, torch.randn_like(noisy), 2)
    passes, peaks = tiny.pass_memory, []
    watch: Any = PeakMemory  # whose base has no types
    try:
        for count in (PLENTY, NOTHING):
            free(count)
            with watch() as memory:
                gradients(request)
            peaks.append(memory.peak)
    finally:
        lora.remove()
    estimates = [PEAK * 2 * each.of(32 * 32) for each in (passes.stored, passes.recomputing)]
    assert peaks[1] < 0.6 * peaks[0]
    assert peaks == pytest.approx(estimates, rel=0.35)


def test_a_recorded_pass_runs_however_little_is_free(tiny: Diffusion, free: Callable[[int], None]) -> None:
    """It has the memory that it needs already; what is not recorded saves some."""
    lora = make_lora(tiny)
    noisy = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    request = FitRequest(lora, noisy, torch.tensor([400, 500]), tiny.embed_prompt(""), torch.zeros_like(noisy), 2)
    runs: list[int] = []
    _ = tiny.pass_memory  # it is measured in passes that are not to be counted
    tiny.graphs = Graphs(EagerRecorder(), eager_runs=0)
    try:
        for count, saves in ((NOTHING, True), (PLENTY, False), (NOTHING, False)):
            free(count)
            with counting_parts(tiny) as parts:
                gradients(request)
            runs.append(len(parts))
            assert len(tiny.graphs) == (0 if saves else 1)
    finally:
        tiny.graphs = None
        lora.remove()
    assert runs[0] == 2, "once more for the backward pass"
    assert runs[2] == 1, "the graph"
