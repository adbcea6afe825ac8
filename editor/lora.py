"""The picture's LoRA: a low-rank change to the UNet's attention that makes the model know this one picture (Hu et al.,
2106.09685)."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from editor.errors import NumericalError
from editor.model import Adapter, Diffusion


@dataclass(frozen=True)
class FitStep:
    """After a step of fitting. ``step`` of ``steps``; ``loss`` is the mean squared error of the predicted noise."""

    step: int
    steps: int
    loss: float


class _Slot:
    """Where LoRAs of one rank and set of targets go on a UNet, one at a time.

    PEFT puts the layers in once. Switching its adapters on and off walks through all of them, which costs a tenth of a
    small model's iteration, so pictures take turns by exchanging the weights, which costs next to nothing.
    """

    def __init__(self, model: Diffusion, rank: int, targets: tuple[str, ...]) -> None:
        self._unet = model.unet
        self._name = f"rank {rank} {' '.join(targets)}".replace(".", "_")
        self.users = 0
        config = LoraConfig(
            r=rank, lora_alpha=rank, target_modules=["to_out.0" if name == "to_out" else name for name in targets]
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are meant
            self._unet.add_adapter(config, self._name)
        self._layers = [
            module
            for module in self._unet.modules()
            if isinstance(module, BaseTunerLayer) and self._name in module.lora_A
        ]
        self.down = [layer.lora_A[self._name] for layer in self._layers]
        self.up = [layer.lora_B[self._name] for layer in self._layers]
        self.disable()

    def enable(self) -> None:
        for layer in self._layers:
            layer.enable_adapters(True)
            layer.set_adapter(self._name, inference_mode=True)

    def disable(self) -> None:
        for layer in self._layers:
            layer.enable_adapters(False)

    def remove(self) -> None:
        self._unet.delete_adapters(self._name)


_slots: WeakKeyDictionary[Diffusion, dict[tuple[int, tuple[str, ...]], _Slot]] = WeakKeyDictionary()


class Lora:
    """One picture's LoRA on a shared UNet: weights of its own, which take part only inside `active`.

    Args:
        model: the model it belongs to.
        rank: of the update; its scale is 1 (alpha = rank), as in the authors' code.
        targets: names of the attention projections that get it, such as ``to_q``.
        learning_rate: of AdamW.
        generator: CPU generator of the initial weights.
    """

    def __init__(
        self, model: Diffusion, *, rank: int, targets: tuple[str, ...], learning_rate: float, generator: torch.Generator
    ) -> None:
        model.wear(None)
        self._model = model
        self._key = (rank, targets)
        slots = _slots.setdefault(model, {})
        if self._key not in slots:
            slots[self._key] = _Slot(model, rank, targets)
        self._slot = slots[self._key]
        self._slot.users += 1
        place, dtype = model.device, model.latent_dtype  # full precision, also where the network has less
        self._down = [nn.Parameter(_initial(part, generator).to(place, dtype), False) for part in self._slot.down]
        self._up = [
            nn.Parameter(torch.zeros(part.weight.shape, dtype=dtype, device=place), False) for part in self._slot.up
        ]
        self.optimizer = torch.optim.AdamW(self.parameters(), lr=learning_rate)

    def parameters(self) -> list[nn.Parameter]:
        """Its weights: those of all layers that map down, then those that map up."""
        return [*self._down, *self._up]

    @contextlib.contextmanager
    def active(self, *, training: bool = False) -> Iterator[None]:
        """Within this block the UNet has this LoRA; its weights require grad only when ``training``."""
        parameters = self.parameters()
        with self._model.wearing(self):
            for parameter in parameters if training else ():
                parameter.requires_grad_(True)
            try:
                yield
            finally:
                for parameter in parameters if training else ():
                    parameter.requires_grad_(False)

    def put_on(self, before: Adapter | None) -> None:
        """Called by the model: take the place of the adapter that was on ``before``, if any."""
        if not (isinstance(before, Lora) and before._slot is self._slot):
            if before is not None:
                before.take_off()
            self._slot.enable()
        for part, weight in zip((*self._slot.down, *self._slot.up), self.parameters(), strict=True):
            part.weight = weight

    def take_off(self) -> None:
        """Called by the model: the UNet is the base model again."""
        self._slot.disable()

    def fit_step(
        self, model: Diffusion, latent: Tensor, prompt: Tensor, batch: int, generator: torch.Generator
    ) -> float:
        """One step of fitting: predict the noise added to the picture's latent at random timesteps; returns the loss.

        The encoder does not run here. Where the latent is not square, each row of the batch is a random square crop of
        it.

        Args:
            latent: the picture's clean latent, ``(1, 4, H/8, W/8)``.
            prompt: text embedding, ``(1, L, D)``.
            batch: rows a step.
            generator: CPU generator, so that the same seed draws the same on every device.

        Raises:
            NumericalError: the loss is not finite; the weights are as before the step.
        """
        side = min(latent.shape[-2:])
        crops = torch.cat([_random_crop(latent, side, generator) for _ in range(batch)])
        timesteps = torch.randint(model.train_timesteps, (batch,), generator=generator)
        noise = torch.randn(crops.shape, generator=generator, dtype=latent.dtype).to(latent.device)
        alphas = torch.tensor(model.alphas_cumprod, dtype=latent.dtype)[timesteps, None, None, None].to(latent.device)
        noisy = alphas.sqrt() * crops + (1 - alphas).sqrt() * noise
        wanted = noise if model.prediction_type == "epsilon" else alphas.sqrt() * noise - (1 - alphas).sqrt() * crops
        with self.active(training=True):
            loss = nn.functional.mse_loss(model.run_unet(noisy, timesteps.to(latent.device), prompt), wanted)
            gradients = torch.autograd.grad(loss * model.loss_scale, self.parameters())
        measured: list[float] = torch.stack([loss.detach(), nn.utils.get_total_norm(gradients)]).tolist()
        value, norm = measured
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise NumericalError(f"fitting the picture diverged (loss {value}, gradient {norm}): try a smaller lora_lr")
        for parameter, gradient in zip(self.parameters(), gradients, strict=True):
            parameter.grad = gradient / model.loss_scale
        self.optimizer.step()
        self.optimizer.zero_grad()
        return value

    def state(self) -> dict[str, Tensor]:
        """Weights and AdamW's moments by name, to `load_state` into another one of the same shape."""
        parameters = self.parameters()
        weights = {f"{index}.weight": parameter for index, parameter in enumerate(parameters)}
        moments = {
            f"{index}.{name}": value
            for index, parameter in enumerate(parameters)
            for name, value in self.optimizer.state.get(parameter, {}).items()
        }
        return {**weights, **moments}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` was taken of, bit for bit."""
        parameters = self.parameters()
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            index, _, kind = name.partition(".")
            if kind == "weight":
                parameters[int(index)].data.copy_(value)
            else:
                moments.setdefault(int(index), {})[kind] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})

    def remove(self) -> None:
        """Take it off the UNet for good."""
        self._model.wear(None)
        self._slot.users -= 1
        if self._slot.users == 0:
            del _slots[self._model][self._key]
            self._slot.remove()


def _initial(part: nn.Linear, generator: torch.Generator) -> Tensor:
    """PEFT's own initial weights, from a generator of ours."""
    return nn.init.kaiming_uniform_(torch.empty(part.weight.shape), a=math.sqrt(5), generator=generator)


def _random_crop(latent: Tensor, side: int, generator: torch.Generator) -> Tensor:
    top, left = (int(torch.randint(length - side + 1, (1,), generator=generator)) for length in latent.shape[-2:])
    return latent[..., top : top + side, left : left + side]
