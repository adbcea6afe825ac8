"""The latent diffusion model: load it, encode and decode pictures, embed prompts, predict noise and features."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from livedrag.editor.errors import ModelError, SettingsError
from livedrag.editor.models.convolution import take_products
from livedrag.editor.models.references import WHAT_WORKS, find_model, find_tiny
from livedrag.editor.settings import Setting

log = logging.getLogger(__name__)

Autoencoder: TypeAlias = "AutoencoderDC | AutoencoderKL"
_AUTOENCODERS: dict[str, Any] = {"AutoencoderDC": AutoencoderDC, "AutoencoderKL": AutoencoderKL}


@dataclass(frozen=True)
class Level:
    """One step of a DDIM schedule.

    Args:
        timestep: where the network is asked.
        alpha: cumulative alpha there.
        alpha_below: cumulative alpha of the next cleaner level.
    """

    timestep: int
    alpha: float
    alpha_below: float


@dataclass(frozen=True)
class Prediction:
    """What one pass of the UNet says.

    Args:
        noise: predicted noise (epsilon), ``(B, 4, H/8, W/8)``.
        features: output of the penultimate up block, ``(B, C, h, w)``.
    """

    noise: Tensor
    features: Tensor


class Adapter(Protocol):
    """Something that changes what the UNet computes while it is on, such as a picture's LoRA."""

    def put_on(self, before: Adapter | None) -> None:
        """Take the place of the adapter that is on, if any."""

    def take_off(self) -> None:
        """Leave the UNet as it was."""


class _FeaturesReached(Exception):
    """Leaves a UNet pass where nothing further is wanted."""


class Diffusion:
    """A latent diffusion model on one device, shared by all sessions there; nothing ever writes to its weights.

    Attributes:
        name: what people call it.
        kind: ``builtin`` or ``stable-diffusion``.
        defaults: the settings that suit this model, by name.
        device, dtype: of the weights.
        loss_scale: what a loss is multiplied by before going back through the network, and its gradient divided by.
        latent_dtype: float32, or float64 where the weights are.
        native_side: side in pixels of the square picture it was trained on.
        stride: sides of the working picture are multiples of this.
        alphas_cumprod: the noise schedule, by timestep.
    """

    def __init__(
        self,
        *,
        name: str,
        kind: str,
        unet: UNet2DConditionModel,
        vae: Autoencoder,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: DDIMScheduler,
        defaults: Mapping[str, Setting],
        device: torch.device,
        dtype: torch.dtype,
        tiny: AutoencoderTiny | None = None,
    ) -> None:
        self.name, self.kind, self.defaults = name, kind, dict(defaults)
        self.device, self.dtype = device, dtype
        for part in filter(None, (unet, vae, text_encoder, tiny)):
            part.to(device).eval().requires_grad_(False)
        if device.type == "cuda":
            unet.to(memory_format=torch.channels_last)
            vae.to(memory_format=torch.channels_last)
        elif device.type == "cpu":
            take_products(unet)
        self.unet, self.vae, self.text_encoder, self.tokenizer, self.tiny = unet, vae, text_encoder, tokenizer, tiny
        self.prediction_type: str = scheduler.config.prediction_type
        self.train_timesteps: int = scheduler.config.num_train_timesteps
        self.alphas_cumprod: list[float] = scheduler.alphas_cumprod.tolist()
        downsamplings = sum(block.downsamplers is not None for block in unet.down_blocks)
        self.latent_stride = _vae_stride(vae)
        self.stride = self.latent_stride * 2**downsamplings
        self.native_side: int = unet.config.sample_size * self.latent_stride
        self.latent_dtype = torch.promote_types(dtype, torch.float32)
        self.loss_scale = 1024.0 if dtype == torch.float16 else 1.0  # small gradients vanish in float16
        self._wanted: Adapter | None = None
        self._worn: Adapter | None = None
        self._features: Tensor | None = None
        self._beyond_features = "gradient"
        unet.up_blocks[-2].register_forward_hook(self._keep_features)

    @classmethod
    def load(
        cls,
        reference: str = "builtin",
        *,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        tiny: str | None = None,
    ) -> Diffusion:
        """Open a model, component by component, from safetensors alone.

        Args:
            reference: ``builtin``, a diffusers folder, or a hub id with a pinned revision; see `models.references`.
            device: a torch device such as ``cuda:0``; by default the first CUDA device, else Apple's GPU, else the CPU.
            dtype: of the weights; by default float32, on CUDA float16, or bfloat16 where the model needs its range.
            tiny: folder or hub id of an `AutoencoderTiny` for previews; by default the model's ``tiny`` folder, if any.

        Raises:
            ModelError: there is no such model, or it is of a kind that cannot be dragged here.
        """
        source = find_model(reference)
        tiny_folder = source.tiny if tiny is None else find_tiny(tiny)
        chosen = pick_device(device)
        dtype = dtype or _best_dtype(chosen, wide_range=source.needs_wide_range)
        weights = {"dtype": dtype, "use_safetensors": True}
        folder = source.folder
        try:
            with _without_progress_bars():
                return cls(
                    name=source.name,
                    kind=source.kind,
                    unet=UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **weights),
                    vae=_AUTOENCODERS[source.autoencoder].from_pretrained(folder, subfolder="vae", **weights),
                    text_encoder=CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", **weights),
                    tokenizer=CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer"),
                    scheduler=DDIMScheduler.from_config(DDIMScheduler.load_config(folder, subfolder="scheduler")),
                    defaults=source.defaults,
                    device=chosen,
                    dtype=dtype,
                    tiny=None if tiny_folder is None else AutoencoderTiny.from_pretrained(tiny_folder, **weights),
                )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(f"the model {reference!r} cannot be opened: {error}; {WHAT_WORKS}") from error

    def levels(self, ddim_steps: int) -> tuple[Level, ...]:
        """The levels of a DDIM schedule, cleanest first, spaced as Stable Diffusion's own ("leading", offset 1)."""
        spacing = self.train_timesteps // ddim_steps
        timesteps = [index * spacing + 1 for index in range(ddim_steps)]
        alphas = [self.alphas_cumprod[timestep] for timestep in timesteps]
        below = [self.alphas_cumprod[0], *alphas[:-1]]
        return tuple(Level(*level) for level in zip(timesteps, alphas, below, strict=True))

    @torch.no_grad()
    def embed_prompt(self, prompt: str) -> Tensor:
        """Text embedding ``(1, L, D)``; words beyond the text encoder's length are left out."""
        length = min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)
        tokens = self.tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        embedding: Tensor = self.text_encoder(tokens.input_ids.to(self.device)).last_hidden_state
        return embedding

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Working picture ``(1, 3, H, W)`` in [-1, 1] to its latent ``(1, 4, H/8, W/8)`` of about unit variance."""
        encoded = self.vae.encode(pixels.to(self.device, self.dtype))
        latent = encoded.latent if hasattr(encoded, "latent") else encoded.latent_dist.mode()
        scaled: Tensor = latent * self.vae.config.scaling_factor
        return scaled.to(self.latent_dtype)

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """Latent ``(1, 4, H/8, W/8)`` to pixels ``(1, 3, H, W)``, about [-1, 1]."""
        pixels: Tensor = self.vae.decode((latent / self.vae.config.scaling_factor).to(self.dtype)).sample
        return pixels

    @torch.no_grad()
    def decode_tiny(self, latent: Tensor) -> Tensor:
        """As `decode`, by the tiny autoencoder. Raises `SettingsError` where the model has none."""
        if self.tiny is None:
            raise SettingsError("preview quality 'tiny' needs a tiny autoencoder and this model has none: 'full' works")
        pixels: Tensor = self.tiny.decode(latent.to(self.dtype)).sample
        return pixels

    @cached_property
    def latent_colours(self) -> Tensor:
        """The linear map from latent (and a one) to colour, ``(5, 3)``.

        Least squares over smooth random pictures and what the encoder makes of them, a pixel of the latent at a time.
        """
        generator = torch.Generator().manual_seed(0)
        coarse = 2 * torch.rand(4, 3, 4, 4, generator=generator, dtype=self.latent_dtype).to(self.device) - 1
        pictures = nn.functional.interpolate(coarse, scale_factor=4 * self.latent_stride, mode="bilinear")
        latents = torch.cat([self.encode(picture[None]) for picture in pictures])
        colours = nn.functional.avg_pool2d(pictures, self.latent_stride).movedim(1, -1).flatten(0, 2)
        known = torch.cat([latents, torch.ones_like(latents[:, :1])], dim=1).movedim(1, -1).flatten(0, 2)
        solution: Tensor = torch.linalg.lstsq(known, colours).solution
        return solution

    def predict(
        self,
        latent: Tensor,
        timestep: int,
        prompt: Tensor,
        *,
        noise_gradient: bool = True,
        alpha: float | None = None,
    ) -> Prediction:
        """One pass of the UNet.

        Args:
            latent: ``(B, 4, H/8, W/8)``.
            timestep: 0 to 999.
            prompt: text embedding, ``(1, L, D)``.
            alpha: the latent's cumulative alpha, where that is not the timestep's own, as in inversion.
            noise_gradient: False ends the graph at the features, so that going back costs no more than they do.

        Returns:
            Noise and features in the latent's dtype, whatever the network predicts and computes in.
        """
        with self._pass("gradient" if noise_gradient else "no gradient"):
            output = self.run_unet(latent, timestep, prompt)
            noise = self._to_noise(output, latent, alpha or self.alphas_cumprod[timestep])
        return Prediction(noise, self._take_features(latent))

    def predict_features(self, latent: Tensor, timestep: int, prompt: Tensor) -> Tensor:
        """The features of `predict` alone, ``(B, C, h, w)``; the last up block does not run."""
        with self._pass("nothing"), contextlib.suppress(_FeaturesReached):
            self.run_unet(latent, timestep, prompt)
        return self._take_features(latent)

    @contextlib.contextmanager
    def wearing(self, adapter: Adapter) -> Iterator[None]:
        """Within this block, and only there, the UNet has the adapter."""
        before, self._wanted = self._wanted, adapter
        self.wear(adapter)
        try:
            yield
        finally:
            self._wanted = before

    def wear(self, adapter: Adapter | None) -> None:
        """Put an adapter on, if it is not; it comes off when a pass wants another or none, as that costs less often."""
        before, self._worn = self._worn, adapter
        if adapter is before:
            return
        if adapter is not None:
            adapter.put_on(before)
        elif before is not None:
            before.take_off()

    def run_unet(self, latent: Tensor, timestep: int | Tensor, prompt: Tensor) -> Tensor:
        """What the network itself says, noise or velocity, in the latent's dtype; arguments as in `predict`."""
        self.wear(self._wanted)
        text = prompt.expand(len(latent), -1, -1)
        output: Tensor = self.unet(latent.to(self.dtype), timestep, text, return_dict=False)[0]
        return output.to(latent.dtype)

    @contextlib.contextmanager
    def _pass(self, beyond_features: str) -> Iterator[None]:
        self._beyond_features = beyond_features
        try:
            with torch.set_grad_enabled(torch.is_grad_enabled()):  # the hook may switch it off: back on here
                yield
        finally:
            self._beyond_features = "gradient"

    def _keep_features(self, _block: nn.Module, _inputs: Any, output: Tensor) -> None:
        self._features = output
        if self._beyond_features == "nothing":
            raise _FeaturesReached
        if self._beyond_features == "no gradient":
            torch.set_grad_enabled(False)

    def _take_features(self, latent: Tensor) -> Tensor:
        features, self._features = self._features, None
        assert features is not None
        return features.to(latent.dtype)

    def _to_noise(self, output: Tensor, latent: Tensor, alpha: float) -> Tensor:
        if self.prediction_type == "epsilon":
            return output
        return math.sqrt(alpha) * output + math.sqrt(1 - alpha) * latent


@contextlib.contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Libraries draw bars even where standard error is a pipe; whoever loads a model shows progress itself."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _vae_stride(vae: Autoencoder) -> int:
    blocks = vae.config.get("block_out_channels") or vae.config["encoder_block_out_channels"]
    return int(2 ** (len(blocks) - 1))


def pick_device(name: str | None) -> torch.device:
    """The device of this name, by default the best there is. Raises `ModelError`."""
    if name is None:
        name = "cuda:0" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"the device {name!r} cannot be used ({reason}): 'cpu' works") from None
    return device


def _best_dtype(device: torch.device, *, wide_range: bool) -> torch.dtype:
    """Steps of 0.01 on latents of 1 to 4 are below bfloat16's spacing there and above float16's."""
    if device.type != "cuda":
        return torch.float32
    capable = torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.bfloat16 if wide_range and capable else torch.float16
