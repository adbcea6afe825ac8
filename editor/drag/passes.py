"""Passes of the UNet that several rooms can share: what a step asks of the network, and how it is answered.

A step is a generator: it yields what it needs of the network, such as an `IterationPass`, and is sent the outcome. The
caller may answer at once (`alone`), or answer the requests of several steps together (`answer`). Rows do not mix: each
gets what it would get alone, but for rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, pairwise
from typing import TypeVar

import torch
from torch import Tensor

from livedrag.editor.drag.attention import Seen, controlled_layers, predict_seen
from livedrag.editor.drag.graphed import propose, run_with
from livedrag.editor.drag.rows import Proposal, Row
from livedrag.editor.fitting.fit_rows import answer_fits
from livedrag.editor.fitting.fit_step import FitGradients, FitRequest, Fitted
from livedrag.editor.fitting.lora import Lora
from livedrag.editor.fitting.row_loras import row_loras
from livedrag.editor.models.adapters import Adapter
from livedrag.editor.models.devices import fetch, send
from livedrag.editor.models.diffusion import Diffusion, further_rows
from livedrag.editor.models.features import BeyondFeatures

Bucket = tuple[object, ...]
"""What requests must have in common to be answered together."""


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """Asks for features, and noise, of a latent, without gradients; the answer is an `Outcome`.

    Args:
        model: of the session.
        latent: ``(n, 4, H/8, W/8)``.
        timestep: 0 to 999.
        prompt: text embedding, ``(n, L, D)``.
        lora: that the UNet has in this pass.
        with_noise: whether the noise is needed; without it the last up block does not run.
        alpha: the latent's cumulative alpha, if that is not the timestep's own.
        records: whether what the controlled layers see is needed, for reference-latent control.
        reference: what they saw in such a pass, if this one is controlled by it.
    """

    model: Diffusion
    latent: Tensor
    timestep: int
    prompt: Tensor
    lora: Lora
    with_noise: bool = True
    alpha: float | None = None
    records: bool = False
    reference: Seen | None = None

    @property
    def bucket(self) -> Bucket:
        """Requests of one bucket can be answered together."""
        kind = "recording" if self.records else "forward" if self.reference is None else "controlled"
        return (kind, id(self.model), *self.latent.shape[1:], *self.prompt.shape[1:])


@dataclass(frozen=True)
class Outcome:
    """Of a forward pass.

    Args:
        features: output of the penultimate up block, ``(n, C, h, w)``.
        noise: predicted, ``(n, 4, H/8, W/8)``, if more than the features was needed.
        seen: what the controlled layers saw, if that was needed.
    """

    features: Tensor
    noise: Tensor | None
    seen: Seen | None = None


@dataclass(frozen=True, eq=False)
class IterationPass:
    """Asks for an iteration of the paper; the answer is a `Launched`.

    Args:
        model: of the session.
        lora: that the UNet has in this pass.
        row: all that the iteration depends on.
    """

    model: Diffusion
    lora: Lora
    row: Row

    @property
    def bucket(self) -> Bucket:
        """Requests of one bucket can be answered together."""
        return ("iteration", id(self.model), *self.row.latent.shape, *self.row.prompt.shape)


@dataclass(frozen=True, eq=False)
class Launched:
    """An iteration that a GPU may still be computing.

    Args:
        proposal: on the device.
        wait: waits for the iteration, and for nothing that the device was given later, and gives what it found.
    """

    proposal: Proposal
    wait: Callable[[], Iterated]


@dataclass(frozen=True, eq=False)
class Iterated:
    """What an iteration proposes, and the numbers of it that the caller looks at.

    Args:
        proposal: on the device.
        loss: before the step.
        largest: absolute number in the gradient; not finite if any is not.
        cells: where each handle's content is, whole cells (row, column).
        arrived: whether it is at its target.
    """

    proposal: Proposal
    loss: float
    largest: float
    cells: Sequence[tuple[float, float]]
    arrived: Sequence[bool]


Request = ForwardPass | IterationPass | FitRequest
Answer = Outcome | Launched | FitGradients | Fitted | Exception | None
"""An exception is why a request could not be answered: it is thrown into the generator that made it."""
Answering = Callable[[Mapping[str, Request]], Iterable[Answer]]
"""Answers requests of one bucket, by name, in their order."""
T = TypeVar("T")
R = TypeVar("R")


def forward(request: ForwardPass) -> Generator[Request, Answer, Outcome]:
    """Ask for a forward pass and wait for its outcome."""
    outcome = yield request
    assert isinstance(outcome, Outcome)
    return outcome


def launched(request: IterationPass) -> Generator[Request, Answer, Launched]:
    """Ask for an iteration, without waiting for it."""
    outcome = yield request
    assert isinstance(outcome, Launched)
    return outcome


def alone(steps: Generator[Request | T, Answer, R]) -> Generator[T, None, R]:
    """Run a generator whose requests are answered at once, one by one; yields what else it yields."""
    answered: Answer = None
    with contextlib.closing(steps):
        while True:
            try:
                step = steps.send(answered)
            except StopIteration as end:
                result: R = end.value
                return result
            answered = None
            if isinstance(step, Request):
                (answered,) = answer([step])
            else:
                yield step


def next_step(steps: Generator[Request | T, Answer, None]) -> Generator[Request, Answer, T | None]:
    """The next of a generator's own steps, None after the last; its requests are passed on."""
    answered: Answer = None
    while True:
        try:
            step = steps.send(answered)
        except StopIteration:
            return None
        if not isinstance(step, Request):
            return step
        answered = yield step


def run_together(resume: Mapping[str, Callable[[Answer], Request | None]], answer: Answering) -> None:
    """Run one step of several generators, answering the requests of a bucket together.

    Args:
        resume: by name, sends a generator the answer to its last request, None at first, and returns the next request;
            None when its step is done.
        answer: such as `answer`.
    """
    asked = {name: request for name, go_on in resume.items() if (request := go_on(None)) is not None}
    while asked:
        bucket = next(iter(asked.values())).bucket
        group = [name for name, request in asked.items() if request.bucket == bucket]
        for name, answered in zip(group, answer({name: asked.pop(name) for name in group}), strict=True):
            if (request := resume[name](answered)) is not None:
                asked[name] = request


def answer(requests: Sequence[Request]) -> Sequence[Outcome | Launched | FitGradients | Fitted]:
    """The answers to requests of one bucket, in their order; one alone runs with its LoRA merged into the weights.

    Raises:
        whatever the network raises, such as `torch.OutOfMemoryError`: no request is answered then.
    """
    iterations = [request for request in requests if isinstance(request, IterationPass)]
    if iterations:
        return _iterate(iterations)
    forwards = [request for request in requests if isinstance(request, ForwardPass)]
    if forwards:
        return _pass_forward(forwards)
    return answer_fits([request for request in requests if isinstance(request, FitRequest)])


def _adapter(model: Diffusion, loras: Sequence[Lora], beyond: Sequence[BeyondFeatures]) -> Adapter:
    """Of a pass in which each row has its own LoRA."""
    return loras[0].merged if all(lora is loras[0] for lora in loras) else row_loras(model, loras, further_rows(beyond))


def _iterate(requests: Sequence[IterationPass]) -> list[Launched]:
    """One iteration of several rooms, of which all numbers come to the host in one copy."""
    model, rows = requests[0].model, [request.row for request in requests]
    if model.graphs is not None:
        rows = alike(rows)
    adapter = _adapter(model, [request.lora for request in requests], [row.beyond for row in rows])
    proposals = [
        proposal if request.row.beyond == row.beyond else replace(proposal, noise=None)
        for request, row, proposal in zip(requests, rows, propose(model, adapter, rows), strict=True)
    ]
    each = [_numbers(proposal) for proposal in proposals]
    copied, ends = fetch(torch.cat(each)), list(accumulate(map(len, each), initial=0))
    return [
        Launched(proposal, partial(_iterated, proposal, copied, start, end))
        for proposal, (start, end) in zip(proposals, pairwise(ends), strict=True)
    ]


def alike(rows: Sequence[Row]) -> list[Row]:
    """The rows, those that need only features with noise where any other row without a mask loss needs it.

    Each combination of rows that do and do not has a graph of its own, and rooms show previews at different iterations.
    """
    if all(row.beyond != "no gradient" for row in rows):
        return list(rows)
    return [replace(row, beyond="no gradient") if row.beyond == "nothing" else row for row in rows]


def _numbers(proposal: Proposal) -> Tensor:
    """Loss, largest number of the gradient, and of each handle row, column and whether it has arrived."""
    numbers, points = torch.stack([proposal.loss, proposal.largest]), proposal.points
    if points is None:
        return numbers
    return torch.cat([numbers, torch.cat([points.cells, points.arrived[:, None].to(numbers)], dim=1).flatten()])


def _iterated(proposal: Proposal, copied: Callable[[], Tensor], start: int, end: int) -> Iterated:
    """A proposal with the `_numbers` of it, once they are there: those from ``start`` to ``end``."""
    loss, largest, *handles = copied()[start:end].tolist()
    rows, columns, arrived = handles[0::3], handles[1::3], handles[2::3]
    return Iterated(proposal, loss, largest, list(zip(rows, columns, strict=True)), [*map(bool, arrived)])


@torch.no_grad()
def _pass_forward(requests: Sequence[ForwardPass]) -> list[Outcome]:
    """One pass for the rows of several rooms, each with its own latent, timestep, prompt and LoRA."""
    model, first, counts = requests[0].model, requests[0], [len(each.latent) for each in requests]
    rows = [each for each, count in zip(requests, counts, strict=True) for _ in range(count)]
    beyond: list[BeyondFeatures] = ["no gradient" if each.with_noise else "nothing" for each in rows]
    timesteps = send(torch.tensor([each.timestep for each in rows]), model.device)
    latents, prompts = (torch.cat(each) for each in zip(*((r.latent, r.prompt) for r in requests), strict=True))
    adapter = _adapter(model, [each.lora for each in rows], beyond)
    seen: list[Tensor] = []
    if first.records or first.reference is not None:
        given = (latents, timesteps, prompts, _references(requests))
        features, output, seen = run_with(model, adapter, "control", partial(predict_seen, model), given)
    else:
        with model.adapter.using(adapter):
            features, output = model.predict_rows(latents, timesteps, prompts, beyond)
    further = [count for each, count in zip(requests, counts, strict=True) if each.with_noise]
    outputs = iter([] if output is None else output.split(further))
    return [
        Outcome(own, _noise(request, next(outputs)) if request.with_noise else None, each)
        for request, own, each in zip(requests, features.split(counts), _seen_of_each(model, seen, counts), strict=True)
    ]


def _references(requests: Sequence[ForwardPass]) -> list[Tensor]:
    """What controls each row, in the order of the controlled layers."""
    references = [request.reference for request in requests if request.reference is not None]
    names = controlled_layers(requests[0].model.unet) if references else []
    return [torch.cat([each[name] for each in references]) for name in names]


def _seen_of_each(model: Diffusion, seen: Sequence[Tensor], counts: Sequence[int]) -> list[Seen | None]:
    """What the controlled layers saw of each request's rows; in tensors of their own, as sessions store them."""
    if not seen:
        return [None for _ in counts]
    parts = zip(*(tensor.split(list(counts)) for tensor in seen), strict=True)
    return [dict(zip(controlled_layers(model.unet), map(torch.clone, own), strict=True)) for own in parts]


def _noise(request: ForwardPass, output: Tensor) -> Tensor:
    alpha = request.alpha or request.model.schedule.alphas[request.timestep]
    return request.model.schedule.to_noise(output, request.latent, alpha)
