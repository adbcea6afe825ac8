"""Numbers that the editor and the server share; neither may import the other."""

from __future__ import annotations

MAX_PIXELS = 25_000_000
"""Of a picture or a mask, unless a server sets another limit."""
MIN_SIDE = 16
"""Of a picture that can be edited, in pixels."""
MAX_ASPECT = 8
"""The longer side of a picture that can be edited, divided by the shorter one."""
MASK_THRESHOLD = 128
"""A mask's grey from which on a pixel may change: half of the range."""
GUIDANCE = 3.0
"""How closely a generated picture follows its prompt, unless set otherwise. Stable Diffusion works best with 7.5."""
MAX_GUIDANCE = 50.0
MAX_SEED = 2**31 - 1
"""Of a random generator: what JavaScript and JSON carry without loss, and all of torch's generators take."""
