"""What a safetensors file is, recognised by the names and shapes of its tensors, as its authors' code writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from livedrag.editor.models.headers import Header

Kind = Literal["checkpoint", "lora", "vae", "tiny autoencoder", "other"]
Architecture = Literal["1.x", "2.x", "xl", ""]

NAMES = {"1.x": "Stable Diffusion 1.x", "2.x": "Stable Diffusion 2.x", "xl": "Stable Diffusion XL"}
WHAT_WORKS = "use Stable Diffusion 1.x, 2.x or XL, or one of their fine-tunes"

UNET, CLIP, OPEN_CLIP = "model.diffusion_model.", "cond_stage_model.transformer.", "cond_stage_model.model."
XL_CLIP, XL_OPEN_CLIP, REFINER_CLIP = (
    "conditioner.embedders.0.transformer.",
    "conditioner.embedders.1.model.",
    "conditioner.embedders.0.model.",
)
VAE_PREFIXES = ("first_stage_model.", "vae.", "")
"""What stands before the names of an autoencoder's tensors: in a checkpoint, in some files of its own, in most."""

_OTHER_MODELS = (
    ("FLUX", ("double_blocks.0.img_attn.", "transformer_blocks.0.attn.add_q_proj", "single_transformer_blocks.0.")),
    ("Stable Diffusion 3", ("joint_blocks.0.",)),
    ("Stable Cascade", ("clip_txt_mapper.", "down_blocks.1.0.channelwise.0.")),
    ("AuraFlow", ("double_layers.0.attn.",)),
    ("Lumina", ("cap_embedder.",)),
    ("Wan", ("head.modulation",)),
    ("HunyuanVideo", ("txt_in.individual_token_refiner.",)),
    ("LTX-Video", ("patchify_proj.",)),
    ("PixArt", ("y_embedder.y_embedding",)),
)
_CROSS_ATTENTION = re.compile(r"attn2[._]to_k[._]")
_LORA = re.compile(r"\.(lora_down|lora_up|lora_A|lora_B|lora\.down|lora\.up|to_\w+_lora\.down|to_\w+_lora\.up)\b")
_LYCORIS = re.compile(r"\.(hada_w1_a|lokr_w1|lokr_w2|oft_diag|oft_blocks|dora_scale|lora_magnitude_vector)\b")
TEXT_WIDTHS: dict[int, Architecture] = {768: "1.x", 1024: "2.x", 2048: "xl"}
"""Width of the text embedding, by which LoRAs are told apart."""


@dataclass(frozen=True)
class FileKind:
    """What a file is.

    Args:
        kind: how it can be used.
        architecture: of the model that it is, or that it is for; empty if the file doesn't say.
        problem: why it can't be used; empty if it can.
        has_vae: whether a checkpoint has an autoencoder inside.
        latent_channels: of an autoencoder, or what a checkpoint's network takes.
    """

    kind: Kind
    architecture: Architecture = ""
    problem: str = ""
    has_vae: bool = False
    latent_channels: int = 0

    @property
    def name(self) -> str:
        """For people, such as ``Stable Diffusion XL checkpoint``."""
        return " ".join(filter(None, (NAMES.get(self.architecture), self.kind if self.kind != "other" else "")))


def classify(header: Header) -> FileKind:
    """What a file is, and whether it can be used."""
    if other := _other_model(header):
        kind: Kind = "lora" if _is_lora(header) else "other"
        return FileKind(kind, problem=f"it is for {other}, which is not supported: {WHAT_WORKS}")
    if _is_lora(header):
        return _lora(header)
    if header.has("control_model.", "controlnet_cond_embedding.", "input_hint_block."):
        return FileKind("other", problem="it is a ControlNet, which livedrag has no use for")
    if header.has(UNET):
        return _checkpoint(header)
    if (channels := latent_channels(header)) is not None:
        return _vae(channels)
    if header.has("encoder.layers.0.", "decoder.layers.0.") or header.shapes.keys() >= {"1.weight", "3.conv.0.weight"}:
        problem = "it is a file: --tiny takes the diffusers folder of an AutoencoderTiny, with its config.json"
        return FileKind("tiny autoencoder", problem=problem)
    if {"emb_params", "clip_l", "clip_g"} & header.shapes.keys():
        return FileKind("other", problem="it is an embedding (textual inversion), which livedrag has no use for")
    if header.has("down_blocks.", "time_embedding."):
        return FileKind(
            "other", problem="it is a UNet alone: open the diffusers folder that it belongs to, or a whole checkpoint"
        )
    return FileKind("other", problem=f"its tensors are of no known kind: {WHAT_WORKS}")


def _other_model(header: Header) -> str | None:
    stripped = {
        name.removeprefix(UNET).removeprefix("diffusion_model.").removeprefix("transformer.") for name in header.shapes
    }
    flat = {name.removeprefix("lora_unet_").replace("_", ".") for name in stripped if name.startswith("lora_unet_")}
    for model, beginnings in _OTHER_MODELS:
        dotted = tuple(beginning.replace("_", ".") for beginning in beginnings)
        if any(name.startswith(beginnings) for name in stripped) or any(name.startswith(dotted) for name in flat):
            return model
    return None


def _checkpoint(header: Header) -> FileKind:
    first = header.shapes.get(f"{UNET}input_blocks.0.0.weight")
    channels = first[1] if first is not None and len(first) == 4 else 0
    architecture = _architecture(header)
    found = FileKind("checkpoint", architecture, has_vae=latent_channels(header) is not None, latent_channels=channels)

    def refuse(problem: str) -> FileKind:
        return FileKind("checkpoint", architecture, problem, found.has_vae, channels)

    if header.has(REFINER_CLIP) and not header.has(XL_OPEN_CLIP):
        return refuse(f"it is Stable Diffusion XL's refiner, which can't make pictures alone: {WHAT_WORKS}")
    if channels == 9:
        return refuse(f"it is an inpainting model (it takes 9 channels, not 4): {WHAT_WORKS}")
    if channels == 8:
        return refuse(f"it is an instruction model (it takes 8 channels, not 4): {WHAT_WORKS}")
    if channels == 5:
        return refuse(f"it is a depth model (it takes 5 channels, not 4): {WHAT_WORKS}")
    if channels != 4:
        return refuse(f"its network takes {channels or 'unknown'} channels, not 4: {WHAT_WORKS}")
    if "edm_mean" in header.shapes:
        return refuse(f"it is Playground 2.5, whose noise schedule is another: {WHAT_WORKS}")
    if not architecture:
        return refuse("it has a UNet but no text encoder: use a whole checkpoint")
    if f"{UNET}label_emb.0.0.weight" in header.shapes and architecture != "xl":
        return refuse(f"it is an image variation or upscaling model: {WHAT_WORKS}")
    return found


def _architecture(header: Header) -> Architecture:
    if header.has(XL_OPEN_CLIP) and header.has(XL_CLIP):
        return "xl"
    if header.has(OPEN_CLIP):
        return "2.x"
    return "1.x" if header.has(CLIP) else ""


def latent_channels(header: Header) -> int | None:
    """Channels of the latents of an ``AutoencoderKL`` in a file, in the original layout or diffusers'; None: it has
    none."""
    shape = header.first(f"{prefix}decoder.conv_in.weight" for prefix in VAE_PREFIXES)
    if shape is None or len(shape) != 4:
        return None
    return shape[1]


def _vae(channels: int) -> FileKind:
    if channels != 4:
        problem = f"its latents have {channels} channels, not 4: it is of another model, such as FLUX; {WHAT_WORKS}"
        return FileKind("vae", problem=problem, latent_channels=channels)
    return FileKind("vae", latent_channels=channels)


def _is_lora(header: Header) -> bool:
    return any(_LORA.search(f".{name}") or _LYCORIS.search(f".{name}") for name in header.shapes)


def _lora(header: Header) -> FileKind:
    other = next((match[1] for name in header.shapes if (match := _LYCORIS.search(f".{name}"))), None)
    if other is not None:
        return FileKind("lora", problem=f"it is a LyCORIS or DoRA file ({other}), not a plain LoRA: use a plain one")
    return FileKind("lora", lora_architecture(header))


def lora_architecture(header: Header) -> Architecture:
    """The model that a LoRA is for, if its tensors tell."""
    if header.has("lora_te1_", "lora_te2_", "text_encoder_2."):
        return "xl"
    for name, shape in header.shapes.items():
        is_down = any(part in name for part in ("lora_down", "lora_A", "lora.down", "_lora.down"))
        if is_down and _CROSS_ATTENTION.search(name.replace("processor.", "")) and len(shape) >= 2:
            return TEXT_WIDTHS.get(shape[1], "")
    return ""
