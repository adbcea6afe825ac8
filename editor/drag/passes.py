"""Passes of the UNet that several rooms can share: what an iteration asks of the network, and how it is answered.

An iteration is a generator: it yields what it needs of the network, a `ForwardPass` or the `BackwardPass` of its loss,
and is sent the outcome. The caller may answer at once (`alone`), or answer the requests of several iterations
together (`answer`). Rows do not mix: each gets what it would get alone, but for rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from livedrag.editor.fitting.lora import FitGradients, FitRequest, Lora
from livedrag.editor.fitting.row_loras import row_loras, trained_loras
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.models.features import BeyondFeatures

Bucket = tuple[object, ...]
"""What requests must have in common to be answered together."""


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """Asks for features, and noise, of a latent; the answer is an `Outcome`.

    Args:
        model: of the session.
        latent: ``(1, 4, H/8, W/8)``.
        timestep: 0 to 999.
        prompt: text embedding, ``(1, L, D)``.
        lora: that the UNet has in this pass.
        beyond: what runs after the features, of which the noise is computed.
        gradient: whether the outcome has a graph that leads to the latent.
        alpha: the latent's cumulative alpha, if that is not the timestep's own.
    """

    model: Diffusion
    latent: Tensor
    timestep: int
    prompt: Tensor
    lora: Lora
    beyond: BeyondFeatures
    gradient: bool
    alpha: float | None = None

    @property
    def bucket(self) -> Bucket:
        """Requests of one bucket can be answered together."""
        return ("forward", id(self.model), *self.latent.shape, *self.prompt.shape)


@dataclass(frozen=True)
class Outcome:
    """Of a forward pass.

    Args:
        features: output of the penultimate up block, ``(1, C, h, w)``.
        noise: predicted, ``(1, 4, H/8, W/8)``, if more than the features was needed.
    """

    features: Tensor
    noise: Tensor | None


@dataclass(frozen=True, eq=False)
class BackwardPass:
    """Asks for the gradient of a loss; the answer is a `Gradient`.

    Args:
        model: of the session.
        loss: scalar with a graph to the latent.
        latent: leaf, ``(1, 4, H/8, W/8)``.
    """

    model: Diffusion
    loss: Tensor
    latent: Tensor

    @property
    def bucket(self) -> Bucket:
        """Requests of one bucket can be answered together."""
        return ("backward", id(self.model), *self.latent.shape)


@dataclass(frozen=True)
class Gradient:
    """Of a loss with respect to the latent.

    Args:
        value: the gradient, ``(1, 4, H/8, W/8)``.
        loss: the loss.
        largest: absolute number in the gradient; not finite if any is not.
    """

    value: Tensor
    loss: float
    largest: float


Request = ForwardPass | BackwardPass | FitRequest
Answer = Outcome | Gradient | FitGradients | Exception | None
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


def backward(request: BackwardPass) -> Generator[Request, Answer, Gradient]:
    """Ask for the gradient of a loss and wait for it."""
    gradient = yield request
    assert isinstance(gradient, Gradient)
    return gradient


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
        # Forward passes first, so that all losses are there when one is asked for its gradient.
        bucket = min(asked.values(), key=lambda request: isinstance(request, BackwardPass)).bucket
        group = [name for name, request in asked.items() if request.bucket == bucket]
        for name, answered in zip(group, answer({name: asked.pop(name) for name in group}), strict=True):
            if (request := resume[name](answered)) is not None:
                asked[name] = request


def answer(requests: Sequence[Request]) -> Sequence[Outcome | Gradient | FitGradients]:
    """The answers to requests of one bucket, in their order; one alone runs with its LoRA merged into the weights.

    Raises:
        whatever the network raises, such as `torch.OutOfMemoryError`: no request is answered then.
    """
    forwards = [request for request in requests if isinstance(request, ForwardPass)]
    if len(forwards) == 1:
        return [_pass_alone(forwards[0])]
    if forwards:
        return _pass_together(forwards)
    fits = [request for request in requests if isinstance(request, FitRequest)]
    if len(fits) == 1:
        return [fits[0].lora.gradients(fits[0])]
    if fits:
        return _fit_together(fits)
    return _gradients([request for request in requests if isinstance(request, BackwardPass)])


def _pass_alone(request: ForwardPass) -> Outcome:
    model, latent, prompt, alpha = request.model, request.latent, request.prompt, request.alpha
    with torch.set_grad_enabled(request.gradient), request.lora.active():
        if request.beyond == "nothing":
            return Outcome(model.predict_features(latent, request.timestep, prompt), None)
        noise_gradient = request.beyond == "gradient"
        prediction = model.predict(latent, request.timestep, prompt, noise_gradient=noise_gradient, alpha=alpha)
    return Outcome(prediction.features, prediction.noise)


def _pass_together(requests: Sequence[ForwardPass]) -> list[Outcome]:
    """One pass for the rows of several rooms, each with its own latent, timestep, prompt and LoRA."""
    model = requests[0].model
    beyond: list[BeyondFeatures] = [each.beyond if each.gradient else _without_graph(each.beyond) for each in requests]
    further = [row for row, needed in enumerate(beyond) if needed != "nothing"]
    with torch.set_grad_enabled(any(each.gradient for each in requests)):
        # A row that needs no gradient gets a leaf without one; nothing else leads from one row to another.
        latents = torch.cat([each.latent if each.gradient else each.latent.detach() for each in requests])
        timesteps = torch.tensor([each.timestep for each in requests], device=latents.device)
        prompts = torch.cat([each.prompt for each in requests])
        with model.using_adapter(row_loras(model, [each.lora for each in requests], further)):
            features, output = model.predict_rows(latents, timesteps, prompts, beyond)
        outputs = dict(zip(further, [] if output is None else output.split(1), strict=True))
        return [
            _outcome(request, row_features, outputs.get(row))
            for row, (request, row_features) in enumerate(zip(requests, features.split(1), strict=True))
        ]


def _without_graph(beyond: BeyondFeatures) -> BeyondFeatures:
    return "no gradient" if beyond == "gradient" else beyond


def _outcome(request: ForwardPass, features: Tensor, output: Tensor | None) -> Outcome:
    noise: Tensor | None = None
    if output is not None:
        alpha = request.alpha or request.model.alphas_cumprod[request.timestep]
        noise = request.model.to_noise(output, request.latent, alpha)
        if request.beyond != "gradient" or not request.gradient:
            noise = noise.detach()
    return Outcome(features if request.gradient else features.detach(), noise)


def _gradients(requests: Sequence[BackwardPass]) -> list[Gradient]:
    """One backward pass of all losses: each depends on its own latent alone."""
    model = requests[0].model
    losses = [request.loss * model.loss_scale for request in requests]
    gradients = torch.autograd.grad(losses, [request.latent for request in requests])
    values = [gradient / model.loss_scale for gradient in gradients]
    measured = [
        number
        for request, value in zip(requests, values, strict=True)
        for number in (request.loss.detach(), value.abs().max())
    ]
    numbers: list[float] = torch.stack(measured).tolist()  # the one time that the device is waited for
    return [
        Gradient(value, loss, largest) for value, loss, largest in zip(values, numbers[::2], numbers[1::2], strict=True)
    ]


def _fit_together(requests: Sequence[FitRequest]) -> list[FitGradients]:
    """One pass, forward and backward, for rows of several LoRAs that are fitted."""
    model, loras = requests[0].model, [request.lora for request in requests]
    counts = [len(request.noisy) for request in requests]
    prompts = torch.cat([request.prompt.expand(count, -1, -1) for request, count in zip(requests, counts, strict=True)])
    noisy, timesteps = (torch.cat(each) for each in zip(*((r.noisy, r.timesteps) for r in requests), strict=True))
    model.disable_adapter()  # leaving PEFT's layers makes their weights require no grad
    with contextlib.ExitStack() as stack:
        for lora in loras:
            stack.enter_context(lora.requiring_grad())
        with model.using_adapter(trained_loras(model, loras, counts)):
            output = model.run_unet(noisy, timesteps, prompts)
        losses = [request.loss(part) for request, part in zip(requests, output.split(counts), strict=True)]
        parameters = [parameter for lora in loras for parameter in lora.parameters()]
        gradients = iter(torch.autograd.grad([loss * model.loss_scale for loss in losses], parameters))
    return [
        FitGradients(loss.detach(), [next(gradients) for _ in lora.parameters()])
        for lora, loss in zip(loras, losses, strict=True)
    ]
