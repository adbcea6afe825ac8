"""LoRA files as people have them: of kohya's scripts, of diffusers from 0.17 on, of PEFT. diffusers converts the names.

Whatever the file, a layer's update is ``up @ down``; its scale, alpha / rank, is multiplied into ``up``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
from diffusers.utils.state_dict_utils import (
    StateDictType,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from livedrag.editor.errors import ModelError
from livedrag.editor.models.files import DOWNLOAD_AGAIN
from livedrag.editor.models.headers import Header
from livedrag.editor.models.kinds import NAMES, TEXT_WIDTHS, Architecture
from livedrag.editor.models.references import find_lora

NETWORKS = ("text_encoder_2", "text_encoder", "unet")
"""Networks that a LoRA may change, as diffusers names them."""
_KOHYA = ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_")
_SIDES = (".lora_{}.weight", ".lora.{}.weight", ".lora_linear_layer.{}.weight", "_lora.{}.weight")
_DOWN = (*(side.format("down") for side in _SIDES), ".lora_A.weight")
_UP = (*(side.format("up") for side in _SIDES), ".lora_B.weight")
_WEIGHT = re.compile(r"^(?P<layer>.+)\.lora_(?P<side>[AB])(\.default)?\.weight$")


@dataclass(frozen=True)
class Update:
    """What a LoRA adds to the weights of a layer: ``up @ down``.

    Args:
        down: ``(r, I)`` of a linear layer, ``(r, I, k, k)`` of a convolution.
        up: ``(O, r)`` or ``(O, r, 1, 1)``.
    """

    down: Tensor
    up: Tensor


@dataclass(frozen=True)
class LoraFile:
    """A LoRA.

    Args:
        path: of its file.
        layers: by network, then by the layer's name there.
    """

    path: Path
    layers: Mapping[str, Mapping[str, Update]]


def read_lora(path: Path, unet_config: Any) -> LoraFile:
    """Read a LoRA.

    Args:
        path: of the file, or of a folder with a ``pytorch_lora_weights.safetensors``.
        unet_config: of the model's UNet, which says how its blocks are numbered.

    Raises:
        ModelError: there is none, it is damaged, or not a plain LoRA.
    """
    header, kind = find_lora(path)
    file = header.path
    model = _architecture(unet_config)
    if kind.architecture and model and kind.architecture != model:
        raise ModelError(f"{file} is a LoRA for {NAMES[kind.architecture]}, but the model is {NAMES[model]}")
    try:
        named = _with_network_names(_scaled(load_file(file)), unet_config)
        layers = {network: _updates(_as_peft(named, network), file, header, network) for network in NETWORKS}
    except (SafetensorError, OSError, KeyError, ValueError, IndexError) as error:
        raise ModelError(f"{file} is a LoRA for another model, or damaged ({_first_line(error)})") from error
    if left := [name for name in named if not name.startswith(tuple(f"{network}." for network in NETWORKS))]:
        raise ModelError(f"{file} has tensors of an unknown network, such as {left[0]!r}: it is of another model")
    return LoraFile(file, {network: found for network, found in layers.items() if found})


def _architecture(unet_config: Any) -> Architecture:
    """What a UNet's configuration is of; empty if it is of no published model."""
    if unet_config.addition_embed_type == "text_time":
        return "xl"
    return TEXT_WIDTHS.get(unet_config.cross_attention_dim, "")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _scaled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without alphas: each layer's alpha / rank is multiplied into its ``up``."""
    alphas = {name.removesuffix(".alpha"): float(tensor) for name, tensor in tensors.items() if name.endswith(".alpha")}
    ranks = {_layer_of(name, _DOWN): len(tensor) for name, tensor in tensors.items() if name.endswith(_DOWN)}

    def scale(name: str, tensor: Tensor) -> Tensor:
        layer = _layer_of(name, _UP)
        return tensor * (alphas[layer] / ranks[layer]) if layer != name and layer in alphas else tensor

    return {name: scale(name, tensor) for name, tensor in tensors.items() if not name.endswith(".alpha")}


def _layer_of(name: str, endings: tuple[str, ...]) -> str:
    return next((name.removesuffix(ending) for ending in endings if name.endswith(ending)), name)


def _with_network_names(tensors: dict[str, Tensor], unet_config: Any) -> dict[str, Tensor]:
    """Names that begin with the network's, as diffusers has them."""
    if all(name.startswith(_KOHYA) for name in tensors):
        converted, _ = StableDiffusionXLLoraLoaderMixin.lora_state_dict(dict(tensors), unet_config=unet_config)
        return dict(converted)
    prefixes = tuple(f"{network}." for network in NETWORKS)
    plain = {name.removeprefix("base_model.model."): tensor for name, tensor in tensors.items()}
    if not any(name.startswith(prefixes) for name in plain):  # of `UNet2DConditionModel.save_attn_procs`
        return {f"unet.{name}": tensor for name, tensor in plain.items()}
    return plain


def _as_peft(tensors: Mapping[str, Tensor], network: str) -> dict[str, Tensor]:
    """The tensors of a network, named by its layers and ``lora_A``, ``lora_B``."""
    own = {
        name.removeprefix(f"{network}."): tensor for name, tensor in tensors.items() if name.startswith(f"{network}.")
    }
    if network == "unet":
        return dict(convert_unet_state_dict_to_peft(own))
    old = any(f".to_{part}_lora." in name for name in own for part in ("q", "k", "v", "out"))
    kind = StateDictType.DIFFUSERS_OLD if old else StateDictType.DIFFUSERS
    return dict(convert_state_dict_to_peft(own, original_type=kind))


def _updates(tensors: Mapping[str, Tensor], file: Path, header: Header, network: str) -> dict[str, Update]:
    sides: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _WEIGHT.match(name)
        if match is None:
            raise ModelError(f"{file} has a tensor that is not of a plain LoRA, {name!r}: use a plain one")
        sides.setdefault(match["layer"], {})[match["side"]] = tensor
    if half := next((layer for layer, pair in sides.items() if len(pair) < 2), None):
        raise ModelError(f"{file} has only one half of the layer {half!r}: {DOWNLOAD_AGAIN}")
    scales = _peft_scales(header, network)
    return {
        layer: Update(pair["A"], pair["B"] * scales(layer, len(pair["A"]))) for layer, pair in sorted(sides.items())
    }


def _peft_scales(header: Header, network: str) -> Any:
    """The scale of a layer of this rank, as PEFT's configuration in the file's metadata says; 1 without one."""
    try:
        written = json.loads(header.metadata.get("lora_adapter_metadata", "{}"))
    except ValueError:
        written = {}
    alpha, pattern = written.get(f"{network}.lora_alpha"), written.get(f"{network}.alpha_pattern") or {}
    root = bool(written.get(f"{network}.use_rslora"))

    def scale(layer: str, rank: int) -> float:
        chosen = next((value for name, value in pattern.items() if re.search(rf"(^|\.){name}$", layer)), alpha)
        return 1.0 if chosen is None else float(chosen) / (math.sqrt(rank) if root else rank)

    return scale
