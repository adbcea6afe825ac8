"""The latent diffusion model: encode and decode pictures, embed prompts, predict noise and features."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from livedrag.editor.errors import ModelError, SettingsError
from livedrag.editor.models.adapters import ActiveAdapter, recordable
from livedrag.editor.models.convolution import use_matrix_products
from livedrag.editor.models.devices import ConstantTensors, best_dtype, free_bytes, pick_device
from livedrag.editor.models.extra_layers import ExtraLayers, LayerHooks, fit_layers
from livedrag.editor.models.features import BeyondFeatures, FeatureReader
from livedrag.editor.models.graphs import CudaRecorder, Graphs
from livedrag.editor.models.latent_colours import fit_latent_colours
from livedrag.editor.models.loading import Autoencoder, Opening, Parts, load_parts
from livedrag.editor.models.lora_files import read_lora
from livedrag.editor.models.low_memory import LowMemory
from livedrag.editor.models.noise_schedule import NoiseSchedule
from livedrag.editor.models.origins import Origin, lora_origins, origins_of
from livedrag.editor.models.pass_memory import PassMemory, measure_pass
from livedrag.editor.models.prompts import PromptEncoder
from livedrag.editor.models.references import find_model, find_tiny
from livedrag.editor.models.sources import ModelSource
from livedrag.editor.settings import Setting


@dataclass(frozen=True)
class Prediction:
    """The outcome of one UNet pass.

    Args:
        noise: predicted noise (epsilon), ``(B, 4, H/8, W/8)``.
        features: output of the penultimate up block, ``(B, C, h, w)``.
    """

    noise: Tensor
    features: Tensor


class Diffusion:
    """A latent diffusion model on one device, shared by all sessions there. Its weights are never written to.

    Args:
        parts: networks, tokenizer and scheduler; moved to the device.
        name: shown to people, such as ``built-in``.
        kind: ``builtin``, ``stable-diffusion`` or ``stable-diffusion-xl``.
        defaults: the settings that suit this model, by name.
        device: of the weights.
        dtype: of the weights.
        zeros_for_no_prompt: guidance leads away from an embedding of zeros, instead of that of an empty text.
        origins: where the weights came from, if it was opened from files: of the model, of another autoencoder, of
            LoRAs.

    Attributes:
        name, kind, defaults, device, dtype, origins: the arguments.
        loss_scale: factor on a loss before it goes back through the network; its gradient is divided by it.
        adapter: of the UNet, such as the LoRA of a picture.
        prompts: the text encoders.
        extra_layers: what the LoRAs of `with_loras` add, by layer.
        latent_dtype: float32, or float64 if the weights are.
        low_memory: decides which passes have to save memory.
        native_side: side in pixels of the square pictures it was trained on.
        stride: sides of the working picture are multiples of this, in pixels.
        latent_stride: pixels per latent cell, along a side.
        schedule: the noise levels that it was trained on.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        name: str,
        kind: str,
        defaults: Mapping[str, Setting],
        device: torch.device,
        dtype: torch.dtype,
        zeros_for_no_prompt: bool = False,
        origins: tuple[Origin, ...] = (),
    ) -> None:
        self.name, self.kind, self.defaults = name, kind, dict(defaults)
        self._base_name = name
        self.origins = origins
        self.device, self.dtype = device, dtype
        self.unet, self.vae, self.text_encoder = parts.unet, parts.vae, parts.text_encoder
        self.tokenizer, self.tiny = parts.tokenizer, parts.tiny
        self.text_encoder_2 = parts.text_encoder_2
        for network in filter(None, (self.unet, self.vae, self.text_encoder, self.text_encoder_2, self.tiny)):
            network.to(device).eval().requires_grad_(False)
        self.prompts = PromptEncoder(parts, device, zeros_for_no_prompt=zeros_for_no_prompt)
        if device.type == "cuda":
            # What stays in float32 is computed in TF32, like what cuDNN computes.
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
            self.unet.to(memory_format=torch.channels_last)
            self.vae.to(memory_format=torch.channels_last)
        elif device.type == "cpu":
            use_matrix_products(self.unet)
        config, alphas = parts.scheduler.config, parts.scheduler.alphas_cumprod
        self.schedule = NoiseSchedule(tuple(alphas.tolist()), config.prediction_type)
        downsamplings = sum(block.downsamplers is not None for block in self.unet.down_blocks)
        self.latent_stride = _stride_of(self.vae)
        self.stride = self.latent_stride * 2**downsamplings
        self.native_side: int = self.unet.config.sample_size * self.latent_stride
        self.latent_dtype = torch.promote_types(dtype, torch.float32)
        self.loss_scale = 1024.0 if dtype == torch.float16 else 1.0  # small gradients vanish in float16
        self.adapter = ActiveAdapter()
        self._reader = FeatureReader(*self.unet.up_blocks[-2:])
        self._hooks = LayerHooks()
        self.extra_layers: ExtraLayers = {}
        self.graphs: Graphs | None = Graphs(CudaRecorder(device)) if device.type == "cuda" else None
        self.low_memory = LowMemory(
            None if device.type in ("cpu", "meta") else partial(_free_beside, self.graphs, device)
        )
        self._eager = False
        self._constants = ConstantTensors(device)

    @classmethod
    def load(
        cls,
        reference: str = "builtin",
        *,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        tiny: str | None = None,
        config: Path | None = None,
        vae: Path | None = None,
    ) -> Diffusion:
        """Open a model from safetensors files.

        Args:
            reference: ``builtin``, a diffusers folder, a ``.safetensors`` checkpoint, or ``owner/name@<commit>`` on the
                Hugging Face Hub; see `livedrag.editor.models.references`.
            device: a torch device such as ``cuda:0``; by default the first CUDA device, else Apple's GPU, else the CPU.
            dtype: of the weights; by default float32, on CUDA float16, or bfloat16 if the model needs its range.
            tiny: folder or Hub id of an ``AutoencoderTiny`` for previews; by default the model's ``tiny`` folder.
            config: folder with the tokenizer and, if they are not the usual ones, the configurations of a checkpoint.
            vae: folder or file of the autoencoder that replaces the model's own.

        Raises:
            ModelError: there is no such model, or it can't be used for dragging.
        """
        source = find_model(reference, config=config, vae=vae)
        tiny_folder = source.tiny if tiny is None else find_tiny(tiny)
        chosen = pick_device(device)
        if chosen.type == "mps" and dtype == torch.float64:
            raise ModelError("Apple's GPUs can't compute in float64: use torch.float32, or device='cpu'")
        dtype = dtype or best_dtype(chosen, wide_range=source.needs_wide_range)
        return cls.from_parts(source, load_parts(source, Opening(dtype), tiny_folder), chosen, dtype)

    @classmethod
    def from_parts(cls, source: ModelSource, parts: Parts, device: torch.device, dtype: torch.dtype) -> Diffusion:
        """A model whose networks have been opened in this dtype, on a device."""
        return cls(
            parts,
            name=source.name,
            kind=source.kind,
            defaults=source.defaults,
            device=device,
            dtype=dtype,
            zeros_for_no_prompt=source.zeros_for_no_prompt,
            origins=origins_of(source),
        )

    def with_loras(self, loras: Sequence[tuple[Path, float]]) -> Diffusion:
        """This model with LoRAs on it. Both share all networks, whose weights are only read.

        Args:
            loras: files, or folders that diffusers wrote, with the weight of each; replace those that are on it.

        Raises:
            ModelError: a file is damaged, not a plain LoRA, or for another model.
        """
        files = [(read_lora(path, self.unet.config), weight) for path, weight in loras]
        networks = {"unet": self.unet, "text_encoder": self.text_encoder, "text_encoder_2": self.text_encoder_2}
        changed = copy.copy(self)
        changed.extra_layers = fit_layers({name: each for name, each in networks.items() if each}, files, self.dtype)
        own = tuple(origin for origin in self.origins if origin.role != "lora")
        named = [(path, file.path, weight) for (path, weight), (file, _) in zip(loras, files, strict=True)]
        changed.origins = (*own, *lora_origins(named))
        changed.name = " + ".join([self._base_name, *(f"{path.stem} {weight:g}" for path, weight in loras)])
        return changed

    @property
    def kind_of_device(self) -> str:
        """The device and the numbers that decide how results are rounded, such as ``cuda float16``."""
        return f"{self.device.type} {str(self.dtype).removeprefix('torch.')}"

    def embed_prompt(self, prompt: str) -> Tensor:
        """Text embedding ``(1, L, D)``; tokens beyond the text encoder's length L are dropped.

        Of Stable Diffusion XL it has one more row, see `livedrag.editor.models.prompts`.

        Raises:
            SettingsError: the prompt is not valid text.
        """
        self._hooks.use(self.extra_layers)
        return self.prompts.embed(prompt)

    def embed_nothing(self) -> Tensor:
        """The embedding that classifier-free guidance leads away from, same shape as of a prompt."""
        self._hooks.use(self.extra_layers)
        return self.prompts.embed_nothing()

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Working picture ``(1, 3, H, W)`` in [-1, 1] to its latent ``(1, 4, H/8, W/8)`` of about unit variance."""
        with self.low_memory.coding(self.vae, *pixels.shape[-2:]):
            encoded = self.vae.encode(pixels.to(self.device, self.vae.dtype))
        latent = encoded.latent if hasattr(encoded, "latent") else encoded.latent_dist.mode()
        scaled: Tensor = latent * self.vae.config.scaling_factor
        return scaled.to(self.latent_dtype)

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """Latent ``(1, 4, H/8, W/8)`` to pixels ``(1, 3, H, W)``, about [-1, 1]."""
        height, width = (side * self.latent_stride for side in latent.shape[-2:])
        with self.low_memory.coding(self.vae, height, width):
            pixels: Tensor = self.vae.decode((latent / self.vae.config.scaling_factor).to(self.vae.dtype)).sample
        return pixels

    @torch.no_grad()
    def decode_tiny(self, latent: Tensor) -> Tensor:
        """As `decode`, by the tiny autoencoder. Raises `SettingsError` if the model has none."""
        if self.tiny is None:
            raise SettingsError("preview quality 'tiny' needs a tiny autoencoder and this model has none: use 'full'")
        pixels: Tensor = self.tiny.decode(latent.to(self.dtype)).sample
        return pixels

    @cached_property
    def latent_colours(self) -> Tensor:
        """The linear map from a latent cell (and a constant 1) to RGB, ``(5, 3)``."""
        return fit_latent_colours(self)

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
            noise_gradient: False ends the graph at the features, so that a backward pass skips the last up block.
            alpha: the latent's cumulative alpha, if that is not the timestep's own, as in inversion.

        Returns:
            Noise and features in the latent's dtype, whatever the network predicts and computes in.
        """
        with self._reader.reading("gradient" if noise_gradient else "no gradient"):
            output = self.run_unet(latent, timestep, prompt)
            noise = self.schedule.to_noise(output, latent, alpha or self.schedule.alphas[timestep])
        return Prediction(noise, self._reader.take(latent.dtype))

    def predict_features(self, latent: Tensor, timestep: int, prompt: Tensor) -> Tensor:
        """The features of `predict` alone, ``(B, C, h, w)``; the last up block does not run."""
        with self._reader.reading("nothing"):
            self.run_unet(latent, timestep, prompt)
        return self._reader.take(latent.dtype)

    def predict_rows(
        self, latents: Tensor, timesteps: Tensor, prompts: Tensor, beyond: Sequence[BeyondFeatures]
    ) -> tuple[Tensor, Tensor | None]:
        """One pass of the UNet for rows that differ in everything; none changes what another one gets.

        Args:
            latents: ``(R, 4, H/8, W/8)``.
            timesteps: whole numbers from 0 to 999, ``(R,)``.
            prompts: text embeddings, ``(R, L, D)``.
            beyond: of each row, what is needed after the features; a row that needs nothing skips the last up block.

        Returns:
            The features of all rows, ``(R, C, h, w)``, and the network's own output, noise or velocity, of the rows
            that need more, ``(n, 4, H/8, W/8)``; None if none does.
        """
        further = further_rows(beyond)
        ends: BeyondFeatures = "gradient" if "gradient" in beyond else "no gradient" if further else "nothing"
        rows = self._constants.of(further) if 0 < len(further) < len(beyond) else None
        output: Tensor | None = None
        with self._reader.reading(ends, rows):
            output = self.run_unet(latents, timesteps, prompts)
        return self._reader.take(latents.dtype), output

    @cached_property
    def pass_memory(self) -> PassMemory:
        """What a pass of the UNet needs beside the weights."""
        return measure_pass(self, self.embed_prompt(""))

    def run_unet(self, latent: Tensor, timestep: int | Tensor, prompt: Tensor) -> Tensor:
        """The network's own output, noise or velocity, in the latent's dtype; arguments as in `predict`."""
        self.adapter.apply_requested()
        self._hooks.use(self.extra_layers)
        adapter = self.adapter.requested
        if self.graphs is None or self._eager or torch.is_grad_enabled() or not recordable(adapter):
            return self._pass(latent, timestep, prompt)
        timestep = timestep if isinstance(timestep, Tensor) else self._constants.of((timestep,))
        beyond, rows = self._reader.beyond, self._reader.rows
        layout, tensors = (None, ()) if adapter is None else (adapter.layout, adapter.tensors)

        def run(given: tuple[Tensor, Tensor, Tensor, list[Tensor]]) -> list[Tensor]:
            latent, timestep, prompt, tensors = given
            if adapter is not None and tensors:
                self.adapter.switch_to(adapter.with_tensors(tensors))
            if beyond is None:
                return [self._pass(latent, timestep, prompt)]
            outputs: list[Tensor] = []
            with self._reader.reading(beyond, rows):
                outputs.append(self._pass(latent, timestep, prompt))
            return [self._reader.take(self.dtype), *outputs]

        outputs = self.graphs.run(
            ("pass", beyond, None if rows is None else id(rows), layout, id(self.extra_layers)),
            run,
            (latent, timestep, prompt, list(tensors)),
        )
        if beyond is not None:
            self._reader.put(outputs[0], beyond)
        return outputs[-1]

    def _pass(self, latent: Tensor, timestep: int | Tensor, prompt: Tensor) -> Tensor:
        words, pooled = self.prompts.split(prompt.expand(len(latent), -1, -1))
        conditions = {} if pooled is None else {"text_embeds": pooled, "time_ids": self._size_of(latent)}
        output: Tensor = self.unet(
            latent.to(self.dtype), timestep, words, added_cond_kwargs=conditions, return_dict=False
        )[0]
        return output.to(latent.dtype)

    @property
    def feature_channels(self) -> int:
        """C of the features."""
        return int(self.unet.up_blocks[-2].resnets[-1].out_channels)

    @contextlib.contextmanager
    def eagerly(self) -> Iterator[None]:
        """Within this block no pass runs from a graph: something looks at it, or changes it, as it goes."""
        before, self._eager = self._eager, True
        try:
            yield
        finally:
            self._eager = before

    def _size_of(self, latent: Tensor) -> Tensor:
        """Stable Diffusion XL's size conditioning, ``(B, 6)``: a picture of the latent's own size, of which nothing was
        cropped."""
        height, width = (side * self.latent_stride for side in latent.shape[-2:])
        return self._constants.of((height, width, 0, 0, height, width), self.dtype).expand(len(latent), -1)


def _free_beside(graphs: Graphs | None, device: torch.device) -> int:
    """Bytes that are free on a GPU for what does not run from graphs."""
    return free_bytes(device) - (0 if graphs is None else graphs.held_bytes)


def further_rows(beyond: Sequence[BeyondFeatures]) -> tuple[int, ...]:
    """The rows of a pass that go on after the features."""
    return tuple(row for row, needed in enumerate(beyond) if needed != "nothing")


def _stride_of(vae: Autoencoder) -> int:
    blocks = vae.config.get("block_out_channels") or vae.config["encoder_block_out_channels"]
    return int(2 ** (len(blocks) - 1))
