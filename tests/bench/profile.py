"""Where an iteration's time goes."""

from __future__ import annotations

import torch
from torch.profiler import ProfilerActivity

from livedrag.editor import Diffusion
from tests.bench.clock import Clock
from tests.bench.drag import WITH, WITHOUT, Scene


def profile(model: Diffusion) -> str:
    """The costliest operations of an iteration of ours without previews, without and with a mask."""
    scene = Scene(model, Clock(model.device))
    cuda = model.device.type == "cuda"
    tables = []
    for masked in (False, True):
        scene.ours(1, masked=masked)
        with torch.profiler.profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * cuda]) as profiler:
            scene.ours(1, masked=masked, preview_every=0)
        order = "self_cuda_time_total" if cuda else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=order, row_limit=15, max_name_column_width=40)
        tables.append(f"An iteration {WITH if masked else WITHOUT}\n{table}")
    return "\n".join(tables)
