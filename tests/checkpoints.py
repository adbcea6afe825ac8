"""Pipelines as single files in the original layout, with the tensors' names in Stability's and CompVis' own code.

The names are those of ``ldm`` and ``sgm``: ``input_blocks``, ``middle_block``, ``output_blocks``,
``first_stage_model``, ``cond_stage_model``, ``conditioner``. diffusers converts one way only; this is the other.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Tensors = dict[str, Tensor]
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def write_checkpoint(
    folder: Path,
    path: Path,
    *,
    dtype: torch.dtype | None = None,
    vae: bool = True,
    changes: dict[str, Tensor | None] | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a diffusers folder's pipeline as one file.

    Args:
        folder: of the pipeline, 1.x, 2.x or XL.
        path: of the file.
        dtype: of all tensors, by default as they are.
        vae: whether the autoencoder is in it.
        changes: tensors to add or replace, by name; None removes one.
        metadata: of the file.
    """
    tensors = original_unet(folder)
    if vae:
        tensors |= {f"first_stage_model.{name}": tensor for name, tensor in original_vae(folder).items()}
    if (folder / "text_encoder_2").is_dir():
        tensors |= _clip(folder / "text_encoder", "conditioner.embedders.0.transformer.")
        tensors |= _open_clip(folder / "text_encoder_2", "conditioner.embedders.1.model.")
    elif _config(folder / "text_encoder")["hidden_act"] == "gelu":
        tensors |= _open_clip(folder / "text_encoder", "cond_stage_model.model.")
    else:
        tensors |= _clip(folder / "text_encoder", "cond_stage_model.transformer.")
    # Of the training code, which every published file has as well.
    tensors |= {"betas": torch.zeros(1000), "alphas_cumprod": torch.zeros(1000)}
    for name, tensor in (changes or {}).items():
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    if dtype is not None:
        tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt", **(metadata or {})}
    )
    return path


def original_unet(folder: Path) -> Tensors:
    """The UNet's tensors under ``model.diffusion_model``."""
    tensors = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    return {f"model.diffusion_model.{original_unet_name(name, folder)}": each for name, each in tensors.items()}


def original_unet_name(name: str, folder: Path) -> str:
    """The name of one of the UNet's tensors in the original layout."""
    words, config = name.split("."), _config(folder / "unet")
    per_block = config["layers_per_block"] + 1
    fixed = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    for new, old in fixed.items():
        if name.startswith(f"{new}."):
            return old + name[len(new) :]
    if words[0] == "mid_block":
        place = {"resnets.0": 0, "attentions.0": 1, "resnets.1": 2}[".".join(words[1:3])]
        return f"middle_block.{place}.{_inside(words[1], words[3:])}"
    block, what, index = int(words[1]), words[2], int(words[3])
    if words[0] == "down_blocks":
        if what == "downsamplers":
            return f"input_blocks.{per_block * (block + 1)}.0.op.{words[-1]}"
        place = per_block * block + index + 1
        return f"input_blocks.{place}.{int(what == 'attentions')}.{_inside(what, words[4:])}"
    if what == "upsamplers":
        attention = config["up_block_types"][block].startswith("CrossAttn")
        return f"output_blocks.{per_block * (block + 1) - 1}.{1 + attention}.conv.{words[-1]}"
    return f"output_blocks.{per_block * block + index}.{int(what == 'attentions')}.{_inside(what, words[4:])}"


def _inside(what: str, words: list[str]) -> str:
    return _renamed(".".join(words), RESNET) if what == "resnets" else ".".join(words)


def original_vae(folder: Path) -> Tensors:
    """The autoencoder's tensors, without the ``first_stage_model`` before their names."""
    last = len(_config(folder / "vae")["block_out_channels"]) - 1
    found = {}
    for name, tensor in load_file(folder / "vae" / "diffusion_pytorch_model.safetensors").items():
        words = name.split(".")
        rest = ".".join(words[3:]).replace("conv_shortcut", "nin_shortcut")
        if "attentions" in words:
            inner = _renamed(".".join(words[4:]), VAE_ATTENTION)
            is_matrix = inner.endswith("weight") and tensor.ndim == 2
            found[f"{words[0]}.mid.attn_1.{inner}"] = tensor[..., None, None] if is_matrix else tensor
        elif words[1:2] == ["mid_block"]:
            found[f"{words[0]}.mid.block_{int(words[3]) + 1}.{rest.partition('.')[2]}"] = tensor
        elif words[1:2] in (["down_blocks"], ["up_blocks"]):
            level = int(words[2]) if words[1] == "down_blocks" else last - int(words[2])
            side = "down" if words[1] == "down_blocks" else "up"
            if words[3] == "resnets":
                inner = ".".join(words[5:]).replace("conv_shortcut", "nin_shortcut")
                found[f"{words[0]}.{side}.{level}.block.{words[4]}.{inner}"] = tensor
            else:
                found[f"{words[0]}.{side}.{level}.{side}sample.conv.{words[-1]}"] = tensor
        else:
            found[name.replace("conv_norm_out", "norm_out")] = tensor
    return found


def _clip(folder: Path, prefix: str) -> Tensors:
    """As CLIP's own implementation in transformers named them when these files were published."""
    tensors = load_file(folder / "model.safetensors")
    named = {f"{prefix}text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in tensors.items()}
    return {**named, f"{prefix}text_model.embeddings.position_ids": torch.arange(77)[None]}


def _open_clip(folder: Path, prefix: str) -> Tensors:
    """As OpenCLIP names them; queries, keys and values are one matrix."""
    tensors = {name.removeprefix("text_model."): each for name, each in load_file(folder / "model.safetensors").items()}
    width = tensors["embeddings.position_embedding.weight"].shape[1]
    found = {
        "token_embedding.weight": tensors["embeddings.token_embedding.weight"],
        "positional_embedding": tensors["embeddings.position_embedding.weight"],
        "ln_final.weight": tensors["final_layer_norm.weight"],
        "ln_final.bias": tensors["final_layer_norm.bias"],
        "logit_scale": torch.tensor(4.6),
        "text_projection": tensors["text_projection.weight"].T
        if "text_projection.weight" in tensors
        else torch.eye(width),
    }
    layers = max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layers.")) + 1
    for layer in range(layers):
        before, after = f"encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            parts = [tensors[f"{before}self_attn.{letter}_proj.{kind}"] for letter in "qkv"]
            found[f"{after}attn.in_proj_{kind}"] = torch.cat(parts)
            for new, old in OPEN_CLIP_LAYER.items():
                found[f"{after}{old}.{kind}"] = tensors[f"{before}{new}.{kind}"]
    return {prefix + name: tensor for name, tensor in found.items()}


def _renamed(name: str, names: dict[str, str]) -> str:
    for new, old in names.items():
        if name.startswith(f"{new}."):
            return old + name[len(new) :]
    return name


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config
