"""A pass of fitting as a function of tensors: for one LoRA, or for several that share the pass of the UNet.

The last pass of a step takes the step, too. Nothing in it waits for the device, so that it can run from a CUDA graph;
loss and gradient are read afterwards, at once for all LoRAs, and whether they are finite decides if a step counts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from livedrag.editor.fitting.adamw import AdamW, adamw_step
from livedrag.editor.fitting.fit_step import FitGradients, FitRequest, Fitted, FitUpdate
from livedrag.editor.fitting.lora_adapters import UnmergedLora
from livedrag.editor.fitting.lora_layers import LoraCopy, LoraLayers
from livedrag.editor.fitting.row_loras import trained_loras
from livedrag.editor.models.devices import send
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.models.low_memory import must_save_memory, saving_memory


@dataclass(frozen=True, eq=False)
class FitRow:
    """All that a LoRA's part in a pass of fitting depends on, but for the network.

    Args:
        noisy, timesteps, prompt, wanted, before: see `FitRequest`.
        share: of these rows in the step's mean squared error, a scalar.
        down, up: weights of the LoRA.
        adam: of the step, if this is its last pass.
    """

    noisy: Tensor
    timesteps: Tensor
    prompt: Tensor
    wanted: Tensor
    share: Tensor
    down: list[Tensor]
    up: list[Tensor]
    before: FitGradients | None
    adam: AdamW | None


def answer_fits(requests: Sequence[FitRequest]) -> list[FitGradients | Fitted]:
    """The answers to requests of one bucket, in their order, from one pass; from a CUDA graph if the model has one."""
    fitted = _run(requests[0].model, [request.lora.layers for request in requests], [*map(_row_of, requests)])
    updates = [each for each in fitted if isinstance(each, FitUpdate)]
    if not updates:
        return [each for each in fitted if isinstance(each, FitGradients)]
    # The one time that the device is waited for.
    numbers = iter(torch.stack([number for each in updates for number in (each.loss, each.norm)]).tolist())
    return [Fitted(next(numbers), next(numbers), each) if isinstance(each, FitUpdate) else each for each in fitted]


def _run(model: Diffusion, layers: Sequence[LoraLayers], rows: list[FitRow]) -> list[FitGradients | FitUpdate]:
    noisy = torch.cat([row.noisy for row in rows])
    kind = ("fitting", *layers, id(model.extra_layers))
    recorded = model.graphs is not None and model.graphs.holds(kind, rows)  # which has the memory that it needs
    if model.graphs is None or (not recorded and must_save_memory(model, noisy)):
        with saving_memory(model, noisy):
            return fit(model, layers, rows)
    model.adapter.switch_to(None)  # so that LoRAs are merged anew when they are used next
    return model.graphs.run(kind, partial(fit, model, layers), rows)


def fit(model: Diffusion, layers: Sequence[LoraLayers], rows: list[FitRow]) -> list[FitGradients | FitUpdate]:
    """Gradients of LoRAs for some rows each, and steps of those whose last pass it is; none changes what another gets.

    Args:
        model: that they are fitted to.
        layers: of each LoRA's rank and targets.
        rows: and weights, of each.
    """
    loras = [LoraCopy(each, row.down, row.up) for each, row in zip(layers, rows, strict=True)]
    counts = [len(row.noisy) for row in rows]
    prompts = torch.cat([row.prompt.expand(count, -1, -1) for row, count in zip(rows, counts, strict=True)])
    noisy, timesteps = (torch.cat(each) for each in zip(*((row.noisy, row.timesteps) for row in rows), strict=True))
    parameters = [parameter for lora in loras for parameter in lora.parameters()]
    with torch.enable_grad(), _requiring_grad(parameters), model.eagerly():
        alone = len(loras) == 1
        adapter = UnmergedLora(layers[0], loras[0]) if alone else trained_loras(model, loras, counts)
        with model.adapter.using(adapter):
            outputs = model.run_unet(noisy, timesteps, prompts).split(counts)
        losses = [
            nn.functional.mse_loss(output, row.wanted) * row.share for output, row in zip(outputs, rows, strict=True)
        ]
        gradients = iter(torch.autograd.grad([loss * model.loss_scale for loss in losses], parameters))
    return [
        _finish(model, row, loss.detach(), [next(gradients) for _ in lora.parameters()])
        for row, loss, lora in zip(rows, losses, loras, strict=True)
    ]


def _row_of(request: FitRequest) -> FitRow:
    lora, model, count = request.lora, request.model, len(request.noisy)
    numbers = torch.tensor([count / request.batch, *lora.next_step], dtype=model.latent_dtype)
    share, length, correction, decay = send(numbers, model.device)
    return FitRow(
        noisy=request.noisy,
        timesteps=request.timesteps,
        prompt=request.prompt,
        wanted=request.wanted,
        share=share,
        down=[weight.detach() for weight in lora.down],
        up=[weight.detach() for weight in lora.up],
        before=request.before,
        adam=AdamW(lora.moments, length, correction, decay) if request.ends else None,
    )


@torch.no_grad()
def _finish(model: Diffusion, row: FitRow, loss: Tensor, gradients: list[Tensor]) -> FitGradients | FitUpdate:
    """Add what the step's earlier passes gave; after the last one, take the step."""
    if row.before is not None:
        loss, gradients = row.before.loss + loss, [a + b for a, b in zip(row.before.values, gradients, strict=True)]
    if row.adam is None:
        return FitGradients(loss, gradients)
    norm = nn.utils.get_total_norm(gradients)
    unscaled = [gradient / model.loss_scale for gradient in gradients]
    weights, moments = adamw_step([*row.down, *row.up], unscaled, row.adam)
    return FitUpdate(loss, norm, weights, moments)


@contextlib.contextmanager
def _requiring_grad(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Within this block these weights require grad."""
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)
