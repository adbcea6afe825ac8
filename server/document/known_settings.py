"""The settings that every model has, for use without a model, such as when importing a room.

Generated from the editor's settings by ``python -m tests.server.document.test_known_settings``: do not edit.
"""

from __future__ import annotations

from livedrag.server.document.protocol import ModelInfo

KNOWN_SETTINGS = ModelInfo(
    name="",
    kind="",
    settings={
        "lora_rank": 16,
        "lora_lr": 0.0005,
        "lora_steps": 80,
        "lora_batch": 4,
        "lora_targets": "to_q to_k to_v to_out",
        "lora_copies": 0,
        "ddim_steps": 50,
        "inversion_strength": 0.7,
        "warp_share": 0.0,
        "latent_lr": 0.01,
        "supervision_radius": 1,
        "tracking_radius": 3,
        "mask_weight": 0.1,
        "max_iterations": 80,
        "arrival_distance": 2.0,
        "reference_control": False,
        "preset": "",
        "seed": 0,
        "preview_every": 4,
        "preview_side": 256,
    },
    presets=["official", "paper"],
    live=(
        "arrival_distance",
        "latent_lr",
        "mask_weight",
        "max_iterations",
        "preview_side",
        "supervision_radius",
        "tracking_radius",
        "warp_share",
    ),
    ranges={
        "lora_rank": (1.0, 256.0),
        "lora_lr": (1e-07, 1.0),
        "lora_steps": (0.0, 10000.0),
        "lora_batch": (1.0, 64.0),
        "lora_copies": (0.0, 64.0),
        "ddim_steps": (2.0, 999.0),
        "inversion_strength": (0.01, 1.0),
        "warp_share": (0.0, 1.0),
        "latent_lr": (1e-06, 10.0),
        "supervision_radius": (0.0, 32.0),
        "tracking_radius": (1.0, 64.0),
        "mask_weight": (0.0, 1000000.0),
        "max_iterations": (1.0, 10000.0),
        "arrival_distance": (0.5, 256.0),
        "seed": (0.0, 2147483647.0),
        "preview_every": (1.0, 10000.0),
        "preview_side": (32.0, 1024.0),
    },
    words={"lora_targets": ("to_q", "to_k", "to_v", "to_out")},
)
