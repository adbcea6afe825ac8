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

from livedrag.editor.errors import NumericalError
from livedrag.editor.models.diffusion import Adapter, Diffusion

ITSELF = 0.3
"""Where the picture has warped copies, the share of rows that are the picture itself."""


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

    Where nothing is fitted, plain layers take the place of PEFT's, with the LoRA added into their weights: two thin
    products less for every layer, a sixth of a small model's iteration. They are the slot's own; the model's weights
    are only read.
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
        wrapped = set(self._layers)
        self._places = {
            child: (parent, name)
            for parent in self._unet.modules()
            for name, child in parent.named_children()
            if child in wrapped
        }
        self._added: list[nn.Linear] = []
        self._holds: tuple[Lora, int] | None = None
        self._enabled = self._in_place = True
        self.disable()

    def enable(self) -> None:
        """PEFT's layers take part, with whatever weights they have."""
        self._put_back()
        if not self._enabled:
            for layer in self._layers:
                layer.enable_adapters(True)
                layer.set_adapter(self._name, inference_mode=True)
            self._enabled = True

    def disable(self) -> None:
        """The UNet is the base model."""
        self._put_back()
        if self._enabled:
            for layer in self._layers:
                layer.enable_adapters(False)
            self._enabled = False

    def add(self, lora: Lora) -> None:
        """Plain layers take the place of PEFT's, with this LoRA in their weights."""
        if not self._added:
            self._added = [_like(layer.get_base_layer()) for layer in self._layers]
        if self._holds != (lora, lora.version):
            self._write(lora)
            self._holds = (lora, lora.version)
        if self._in_place:
            for layer, plain in zip(self._layers, self._added, strict=True):
                parent, name = self._places[layer]
                setattr(parent, name, plain)
            self._in_place = False

    @torch.no_grad()
    def _write(self, lora: Lora) -> None:
        for layer, plain, down, up in zip(self._layers, self._added, lora.down, lora.up, strict=True):
            base = layer.get_base_layer().weight
            plain.weight.copy_(torch.addmm(base.to(down.dtype), up, down))

    def _put_back(self) -> None:
        if not self._in_place:
            for layer, (parent, name) in self._places.items():
                setattr(parent, name, layer)
            self._in_place = True

    def forget(self, lora: Lora) -> None:
        """No longer hold what belongs to a LoRA that goes."""
        if self._holds is not None and self._holds[0] is lora:
            self._holds = None

    def remove(self) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Adapter .* was active")  # another one becomes active: none is enabled
            self._unet.delete_adapters(self._name)


_slots: WeakKeyDictionary[Diffusion, dict[tuple[int, tuple[str, ...]], _Slot]] = WeakKeyDictionary()


class Lora:
    """One picture's LoRA on a shared UNet, which takes part only inside `active`, `beside` and `training`.

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
        self.down = [nn.Parameter(_initial(part, generator).to(place, dtype), False) for part in self._slot.down]
        self.up = [
            nn.Parameter(torch.zeros(part.weight.shape, dtype=dtype, device=place), False) for part in self._slot.up
        ]
        self.version = 0
        """Grows whenever the weights change."""
        self._finished = _Added(self)
        self.optimizer = torch.optim.AdamW(self.parameters(), lr=learning_rate)

    def parameters(self) -> list[nn.Parameter]:
        """Its weights: those of all layers that map down, then those that map up."""
        return [*self.down, *self.up]

    def active(self) -> contextlib.AbstractContextManager[None]:
        """Within this block the UNet has this LoRA, added into the weights of its attention."""
        return self._model.wearing(self._finished)

    def beside(self) -> contextlib.AbstractContextManager[None]:
        """Within this block the UNet has this LoRA as PEFT has it, beside the weights: the same, only slower."""
        return self._model.wearing(self)

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """`beside`, and its weights require grad."""
        with self.beside():
            for parameter in self.parameters():
                parameter.requires_grad_(True)
            try:
                yield
            finally:
                for parameter in self.parameters():
                    parameter.requires_grad_(False)

    def put_on(self, before: Adapter | None) -> None:
        """Called by the model: take the place of the adapter that was on ``before``, if any; to be fitted."""
        self._replace(before)
        self._slot.enable()
        for part, weight in zip((*self._slot.down, *self._slot.up), self.parameters(), strict=True):
            part.weight = weight

    def put_on_finished(self, before: Adapter | None) -> None:
        """As `put_on`, where nothing is fitted."""
        self._replace(before)
        self._slot.add(self)

    def _replace(self, before: Adapter | None) -> None:
        """Take ``before`` off, unless it is in the same slot."""
        lora = before._lora if isinstance(before, _Added) else before
        if before is not None and not (isinstance(lora, Lora) and lora._slot is self._slot):
            before.take_off()

    def take_off(self) -> None:
        """Called by the model: the UNet is the base model again."""
        self._slot.disable()

    def fit_step(
        self, model: Diffusion, latents: Tensor, prompt: Tensor, batch: int, generator: torch.Generator
    ) -> float:
        """One step of fitting: predict the noise added to the picture's latent at random timesteps; returns the loss.

        The encoder does not run here. Where the latent is not square, each row of the batch is a random square crop of
        it. Where there are warped copies, rows are the picture itself with the chance `ITSELF`, else one of them.

        Args:
            latents: the picture's clean latent and those of its warped copies, if any, ``(N, 4, H/8, W/8)``.
            prompt: text embedding, ``(1, L, D)``.
            batch: rows a step.
            generator: CPU generator, so that the same seed draws the same on every device.

        Raises:
            NumericalError: the loss is not finite; the weights are as before the step.
        """
        side = min(latents.shape[-2:])
        crops = torch.cat([_random_crop(_random_row(latents, generator), side, generator) for _ in range(batch)])
        timesteps = torch.randint(model.train_timesteps, (batch,), generator=generator)
        noise = torch.randn(crops.shape, generator=generator, dtype=latents.dtype).to(latents.device)
        alphas = torch.tensor(model.alphas_cumprod, dtype=latents.dtype)[timesteps, None, None, None].to(latents.device)
        noisy = alphas.sqrt() * crops + (1 - alphas).sqrt() * noise
        wanted = noise if model.prediction_type == "epsilon" else alphas.sqrt() * noise - (1 - alphas).sqrt() * crops
        with self.training():
            loss = nn.functional.mse_loss(model.run_unet(noisy, timesteps.to(latents.device), prompt), wanted)
            gradients = torch.autograd.grad(loss * model.loss_scale, self.parameters())
        measured: list[float] = torch.stack([loss.detach(), nn.utils.get_total_norm(gradients)]).tolist()
        value, norm = measured
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise NumericalError(f"fitting the picture diverged (loss {value}, gradient {norm}): try a smaller lora_lr")
        for parameter, gradient in zip(self.parameters(), gradients, strict=True):
            parameter.grad = gradient / model.loss_scale
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.version += 1
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
        self.version += 1

    def remove(self) -> None:
        """Take it off the UNet for good."""
        self._model.wear(None)
        self._slot.forget(self)
        self._slot.users -= 1
        if self._slot.users == 0:
            del _slots[self._model][self._key]
            self._slot.remove()


class _Added:
    """A LoRA as it takes part where nothing is fitted: added into the weights of layers of their own."""

    def __init__(self, lora: Lora) -> None:
        self._lora = lora

    def put_on(self, before: Adapter | None) -> None:
        self._lora.put_on_finished(before)

    def take_off(self) -> None:
        self._lora.take_off()


def _like(layer: nn.Linear) -> nn.Linear:
    """A layer with the same bias and weights of its own."""
    plain = nn.Linear(
        layer.in_features, layer.out_features, bias=False, device=layer.weight.device, dtype=layer.weight.dtype
    )
    plain.bias = layer.bias
    return plain.requires_grad_(False).eval()


def _initial(part: nn.Linear, generator: torch.Generator) -> Tensor:
    """PEFT's own initial weights, from a generator of ours."""
    return nn.init.kaiming_uniform_(torch.empty(part.weight.shape), a=math.sqrt(5), generator=generator)


def _random_row(latents: Tensor, generator: torch.Generator) -> Tensor:
    """The picture's latent or that of a warped copy, ``(1, 4, H/8, W/8)``."""
    copies = len(latents) - 1
    if copies == 0 or float(torch.rand((), generator=generator)) < ITSELF:
        return latents[:1]
    row = 1 + int(torch.randint(copies, (1,), generator=generator))
    return latents[row : row + 1]


def _random_crop(latent: Tensor, side: int, generator: torch.Generator) -> Tensor:
    top, left = (int(torch.randint(length - side + 1, (1,), generator=generator)) for length in latent.shape[-2:])
    return latent[..., top : top + side, left : left + side]
